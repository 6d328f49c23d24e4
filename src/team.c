#include "team.h"

#include <pthread.h>
#include <sched.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

enum { SPINS = 2000 }; /* about 50 us; then the core is left to whoever needs it */

void cylstm_wait(barrier *b, int size) {
    if (size == 1) return;
    const int round = atomic_load_explicit(&b->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&b->waiting, 1, memory_order_acq_rel) == size - 1) {
        atomic_store_explicit(&b->waiting, 0, memory_order_relaxed);
        atomic_store_explicit(&b->round, round + 1, memory_order_release);
        return;
    }
    for (int spin = 0; atomic_load_explicit(&b->round, memory_order_acquire) == round; spin++)
        if (spin < SPINS)
            PAUSE();
        else
            sched_yield();
}

static atomic_int forked;

static void in_child(void) { atomic_store(&forked, 1); }
void cylstm_watch_forks(void) { pthread_atfork(0, 0, in_child); }
int cylstm_was_forked(void) { return atomic_load(&forked); }
