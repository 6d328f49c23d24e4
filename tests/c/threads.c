/* The arena; and teams, from several threads at once. (Windows's names and those of kernels.h do not
 * go together: what needs both is in products.c.) */
#include "arena.h"
#include "check.h"
#include "platform/threads.h"
#include "team.h"

#include <string.h>
#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

enum { CALLERS = 4, ROUNDS = 50, UNITS = 37, MEMBERS = 3, STEPS = 100, CHAINED = 200 };

void check_arena(void) {
    char local[256 + 64];
    arena empty, memory;
    memset(&empty, 0, sizeof empty);
    memory = empty;
    memory.memory = local + (-(uintptr_t)local & 63), memory.size = 256;
    const arena before = memory;
    for (int j = 0; j < 20; j++) {
        const ptrdiff_t size = 1 + 37 * j;
        char *taken = arena_take(&memory, size);
        CHECK(taken != NULL && (uintptr_t)taken % 64 == 0, "block %d", j);
        memset(taken, j, (size_t)size);
        CHECK((taken >= local && taken < local + sizeof local) == (memory.used <= 256), "%d", j);
    }
    const ptrdiff_t peak = memory.peak;
    arena_return(&memory, &before);
    CHECK(memory.used == 0 && memory.blocks == NULL && memory.peak == peak, "used %d",
          (int)memory.used);
    CHECK(arena_take(&memory, (ptrdiff_t)1 << 60) == NULL, "more than there is");
}

/* Teams that share units. */

typedef struct {
    atomic_int done[UNITS];
    int plain[UNITS]; /* each written by one thread, and read after the end */
} shared;

static void do_unit(void *given, int unit, int member) {
    shared *s = given;
    (void)member;
    atomic_fetch_add(&s->done[unit], 1);
    s->plain[unit] = unit * unit;
}

static void share_once(sameness are) {
    shared s;
    for (int j = 0; j < UNITS; j++) atomic_init(&s.done[j], 0), s.plain[j] = -1;
    cylstm_share(MEMBERS, UNITS, are, do_unit, &s);
    for (int j = 0; j < UNITS; j++)
        CHECK(atomic_load(&s.done[j]) == 1 && s.plain[j] == j * j, "unit %d", j);
}

/* Teams that meet: in each step a member reads what all others wrote in the one before. */

typedef struct {
    barrier meeting;
    int written[2][256];
    atomic_int wrong, size;
} met;

static void do_steps(void *given, int member, int size) {
    met *m = given;
    atomic_store(&m->size, size);
    for (int step = 1; step <= STEPS; step++) {
        m->written[step % 2][member] = step;
        cylstm_wait(&m->meeting, size);
        for (int j = 0; j < size; j++)
            if (m->written[step % 2][j] != step) atomic_fetch_add(&m->wrong, 1);
    }
}

static void meet_once(void) {
    met m;
    memset(&m, 0, sizeof m);
    cylstm_meet(MEMBERS, do_steps, &m);
    CHECK(atomic_load(&m.wrong) == 0, "of %d members", atomic_load(&m.size));
}

/* A unit that follows another. */

typedef struct {
    progress first;
    int numbers[CHAINED];
    int sum;
} chain;

static void do_chained(void *given, int unit, int member) {
    chain *c = given;
    (void)member;
    for (int j = 0; j < CHAINED; j++) {
        if (unit == 0) {
            c->numbers[j] = j;
            cylstm_advance(&c->first, j + 1);
        } else {
            cylstm_await(&c->first, j + 1);
            c->sum += c->numbers[j];
        }
    }
}

static void chain_once(void) {
    chain c;
    memset(&c, 0, sizeof c);
    cylstm_share(2, 2, VARIOUS, do_chained, &c);
    CHECK(c.sum == CHAINED * (CHAINED - 1) / 2, "sum %d", c.sum);
}

static void all_once(void) {
    share_once(ALIKE);
    share_once(VARIOUS);
    meet_once();
    chain_once();
    check_shared_product();
}

static atomic_int callers_left;

static thread_result THREAD_CALL run_caller(void *given) {
    (void)given;
    for (int j = 0; j < ROUNDS; j++) all_once();
    atomic_fetch_sub(&callers_left, 1);
    return 0;
}

static void fork_once(void) {
#if !defined(_WIN32)
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        const int before = atomic_load(&failed);
        all_once();
        _exit(atomic_load(&failed) != before);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(status == 0, "the child ended with %d", status);
#endif
}

void check_teams(int forks) {
    cylstm_begin();
    all_once();
    if (forks) fork_once();
    atomic_store(&callers_left, CALLERS);
    for (int j = 0; j < CALLERS; j++)
        if (!start_thread(run_caller, NULL)) atomic_fetch_sub(&callers_left, 1);
    if (forks) fork_once(); /* while they call */
    while (atomic_load(&callers_left)) all_once();
    if (forks) fork_once();
}
