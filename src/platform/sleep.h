/* Sleeping until a number in memory is another: Linux's futex; elsewhere, and with
 * CYLSTM_NO_FUTEX, a few locks and conditions that numbers share by their address.
 */
#ifndef CYLSTM_PLATFORM_SLEEP_H
#define CYLSTM_PLATFORM_SLEEP_H

#include "threads.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__linux__) && !defined(CYLSTM_NO_FUTEX)

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Returns when it was told that *value is no longer `old`, or before. */
static inline void sleep_on(atomic_int *value, int old) {
    syscall(SYS_futex, value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
}

/* Tells all that sleep on it, after it changed. */
static inline void wake_all(atomic_int *value) {
    syscall(SYS_futex, value, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
}

/* In a fork's child, where those that slept are not. */
static inline void forget_sleepers(void) {}

#else

enum { BEDS = 64 };
static struct {
    lock lock;
    condition woken;
    char unshared[128]; /* lines of the cache */
} beds[BEDS];

/* Before the first is used. */
static inline void forget_sleepers(void) {
    for (int j = 0; j < BEDS; j++) beds[j].lock = (lock)UNLOCKED, beds[j].woken = (condition)NOBODY_WAITS;
}

static inline size_t bed_of(const atomic_int *value) { return ((uintptr_t)value >> 6) % BEDS; }

static inline void sleep_on(atomic_int *value, int old) {
    const size_t bed = bed_of(value);
    lock_begin(&beds[bed].lock);
    if (atomic_load(value) == old) condition_wait(&beds[bed].woken, &beds[bed].lock);
    lock_end(&beds[bed].lock);
}

static inline void wake_all(atomic_int *value) {
    const size_t bed = bed_of(value);
    lock_begin(&beds[bed].lock);
    condition_tell_all(&beds[bed].woken);
    lock_end(&beds[bed].lock);
}

#endif

#endif
