#include "team.h"

#include "platform/sleep.h"

#include <fenv.h>
#include <stdlib.h>

/* About 100 us: the Python between two layers, or two steps of training, is shorter. (Zen 5, two threads, a
 * training step of LSTM(1, 32) 0.40 -> 0.36 ms; two processes on two CPUs as before.) */
enum { SPINS = 4000 };

/* Looks at *value for a while; whether it is no longer `old`. */
static int changes_soon(atomic_int *value, int old) {
    for (int spin = 0; spin < SPINS; spin++) {
        if (atomic_load_explicit(value, memory_order_acquire) != old) return 1;
        PAUSE();
    }
    return 0;
}

/* Returns when *value is not `old`, or perhaps before. */
static void sleep_while(atomic_int *value, int old, atomic_int *asleep) {
    atomic_fetch_add(asleep, 1);
    sleep_on(value, old);
    atomic_fetch_sub(asleep, 1);
}

static void wait_while(atomic_int *value, int old, atomic_int *asleep) {
    if (!changes_soon(value, old)) sleep_while(value, old, asleep);
}

/* Sets *value, for those that wait. Who is about to sleep has said so before it looks at the value for
 * the last time. */
static void tell(atomic_int *value, int now, atomic_int *asleep) {
    atomic_store(value, now);
    if (atomic_load(asleep)) wake_all(value);
}

/* Whether something else uses our CPUs too, be it another program or threads that spin after their
 * work, as OpenBLAS's do for a tenth of a second. It is believed for a while, which doubles as long as
 * every look finds it so, and ends with the first that does not. */
enum { LEAST_US = 12000, MOST_US = 100000 };
static atomic_llong disturbed_until;
static atomic_int believed_us;

static int is_disturbed(void) {
    const long long until = atomic_load(&disturbed_until);
    return until && now_us() < until;
}

static void believe(int disturbed) {
    const int before = atomic_load(&believed_us);
    const int us = !disturbed ? 0 : before ? (2 * before < MOST_US ? 2 * before : MOST_US) : LEAST_US;
    if (!before && !us) return;
    atomic_store(&believed_us, us);
    atomic_store(&disturbed_until, us ? now_us() + us : 0);
}

/* That is told by the time that members lose at meetings: more than half of the teams', over a while. */
enum { WHILE_US = 2000 };
static atomic_llong met_us, lost_us;

static void judge_meetings(long long began) {
    const long long now = now_us(), met = atomic_fetch_add(&met_us, now - began) + now - began;
    if (met < WHILE_US) return;
    believe(atomic_exchange(&lost_us, 0) > met / 2);
    atomic_store(&met_us, 0);
}

void cylstm_wait(barrier *b, int size) {
    if (size == 1) return;
    const int round = atomic_load_explicit(&b->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&b->waiting, 1, memory_order_acq_rel) == size - 1) {
        atomic_store_explicit(&b->waiting, 0, memory_order_relaxed);
        tell(&b->round, round + 1, &b->asleep);
        return;
    }
    if (changes_soon(&b->round, round)) return;
    const long long began = now_us();
    while (atomic_load_explicit(&b->round, memory_order_acquire) == round)
        sleep_while(&b->round, round, &b->asleep);
    atomic_fetch_add(&lost_us, now_us() - began);
}

void cylstm_advance(progress *p, int done) { tell(&p->done, done, &p->asleep); }

void cylstm_await(progress *p, int least) {
    for (int done; (done = atomic_load(&p->done)) < least;)
        wait_while(&p->done, done, &p->asleep);
}

/* A thread for others' work. There is no end to it, nor to its memory: a team may find it free. */
typedef struct worker {
    atomic_int state, asleep;
    member_work *work; /* its order */
    void *arg;
    int member, size;
    const fenv_t *rounding;
    struct worker *next;
} worker;

/* free -> taken (by a team) -> ordered -> running -> done -> free, or from ordered back to free
 * where all was done before it began. */
enum { FREE, TAKEN, ORDERED, RUNNING, DONE };

static _Atomic(worker *) workers;
static atomic_int at_work; /* threads of teams */

static int moves(worker *w, int from, int to) {
    return atomic_compare_exchange_strong(&w->state, &from, to);
}

static void set_state(worker *w, int state) { tell(&w->state, state, &w->asleep); }

static thread_result THREAD_CALL run_worker(void *given) {
    worker *w = given;
    for (;;) {
        const int state = atomic_load(&w->state);
        if (state != ORDERED) {
            wait_while(&w->state, state, &w->asleep);
        } else if (moves(w, ORDERED, RUNNING)) {
            fesetenv(w->rounding);
            w->work(w->arg, w->member, w->size);
            set_state(w, DONE);
        }
    }
    return 0;
}

/* A new worker, taken; NULL where there can be none. */
static worker *new_worker(void) {
    worker *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    atomic_store(&w->state, TAKEN);
    if (!start_thread(run_worker, w)) {
        free(w);
        return NULL;
    }
    w->next = atomic_load(&workers);
    while (!atomic_compare_exchange_weak(&workers, &w->next, w)) continue;
    return w;
}

static worker *take_worker(void) {
    for (worker *w = atomic_load(&workers); w; w = w->next)
        if (moves(w, FREE, TAKEN)) return w;
    return new_worker();
}

/* Takes up to `count` workers, while fewer than `most` threads are at work. */
static int take_workers(int count, int most, worker **taken) {
    int n = 0;
    for (; n < count; n++) {
        taken[n] = atomic_fetch_add(&at_work, 1) < most ? take_worker() : NULL;
        if (taken[n]) continue;
        atomic_fetch_sub(&at_work, 1);
        break;
    }
    return n;
}

static void await_worker(worker *w) {
    if (moves(w, ORDERED, FREE)) return;
    for (int state; (state = atomic_load(&w->state)) != DONE;)
        wait_while(&w->state, state, &w->asleep);
    atomic_store(&w->state, FREE);
}

enum { MOST_MEMBERS = 256 };

/* Whoever has not begun when member 0 returns never does. Returns how many members there were. */
static int run_team(int most, member_work *work, void *arg) {
    worker *team[MOST_MEMBERS];
    fenv_t rounding;
    if (most > MOST_MEMBERS) most = MOST_MEMBERS;
    fegetenv(&rounding);
    atomic_fetch_add(&at_work, 1);
    const int others = take_workers(most - 1, most, team);
    for (int j = 0; j < others; j++) {
        worker *w = team[j];
        w->work = work, w->arg = arg, w->rounding = &rounding;
        w->member = j + 1, w->size = others + 1;
        set_state(w, ORDERED);
    }
    work(arg, 0, others + 1);
    for (int j = 0; j < others; j++) await_worker(team[j]);
    atomic_fetch_sub(&at_work, others + 1);
    return others + 1;
}

void cylstm_meet(int most, member_work *work, void *arg) {
    const long long began = now_us();
    if (run_team(is_disturbed() ? 1 : most, work, arg) > 1) judge_meetings(began);
}

/* What a member did: how many units, and when it began and ended. */
typedef struct {
    int units;
    long long began, ended;
} record;

typedef struct {
    unit_work *work;
    void *arg;
    int units;
    atomic_int taken;
    record done[MOST_MEMBERS];
} sharing;

static void take_units(void *given, int member, int size) {
    sharing *s = given;
    record *own = &s->done[member];
    (void)size;
    own->began = now_us();
    for (int unit; (unit = atomic_fetch_add(&s->taken, 1)) < s->units; own->units++)
        s->work(s->arg, unit, member);
    own->ended = now_us();
}

/* Or by a member that came late, or took longer for its units than member 0 for its own. */
enum { LATE_US = 1000, JUDGED_US = 500 };

static void judge_shares(const sharing *s, int members) {
    const record *own = &s->done[0];
    const long long each = (own->ended - own->began) / (own->units ? own->units : 1);
    int found = 0;
    if (members == 1 || own->ended - own->began < JUDGED_US) return;
    for (int j = 1; j < members; j++) {
        const record *other = &s->done[j];
        const long long late = (other->units ? other->began : own->ended) - own->began;
        const long long theirs = other->units ? (other->ended - other->began) / other->units : 0;
        found |= late > LATE_US || 2 * theirs > 3 * each;
    }
    believe(found);
}

void cylstm_share(int most, int units, sameness are, unit_work *work, void *arg) {
    sharing s;
    s.work = work, s.arg = arg, s.units = units;
    if (most > MOST_MEMBERS) most = MOST_MEMBERS;
    if (most > units) most = units;
    if (most <= 1) {
        for (int unit = 0; unit < units; unit++) work(arg, unit, 0);
        return;
    }
    atomic_init(&s.taken, 0);
    for (int j = 0; j < most; j++) s.done[j] = (record){0};
    const int members = run_team(most, take_units, &s);
    if (are == ALIKE) judge_shares(&s, members);
}

int cylstm_units(int threads) {
    if (threads == 1 || !is_disturbed()) return threads;
    return threads == 2 ? 3 : 2 * threads;
}

static void in_child(void) {
    atomic_store(&workers, NULL);
    atomic_store(&at_work, 0);
    forget_sleepers();
}

void cylstm_begin(void) {
    forget_sleepers();
    at_fork(NULL, NULL, in_child);
}
