/* Threads, locks, forks and the clock: of POSIX, or of Windows. */
#ifndef CYLSTM_PLATFORM_THREADS_H
#define CYLSTM_PLATFORM_THREADS_H

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <pthread.h>
#include <signal.h>
#include <time.h>
#endif

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

#if defined(_WIN32)

typedef SRWLOCK lock;
typedef CONDITION_VARIABLE condition;
#define UNLOCKED SRWLOCK_INIT
#define NOBODY_WAITS CONDITION_VARIABLE_INIT
static inline void lock_begin(lock *l) { AcquireSRWLockExclusive(l); }
static inline void lock_end(lock *l) { ReleaseSRWLockExclusive(l); }
static inline void condition_wait(condition *c, lock *l) {
    SleepConditionVariableSRW(c, l, INFINITE, 0);
}
static inline void condition_tell_all(condition *c) { WakeAllConditionVariable(c); }

/* There are no forks. */
static inline void at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void)) {
    (void)before, (void)in_parent, (void)in_child;
}

static inline long long now_us(void) {
    LARGE_INTEGER ticks, each_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&each_second);
    const long long whole = ticks.QuadPart / each_second.QuadPart;
    const long long rest = ticks.QuadPart % each_second.QuadPart;
    return whole * 1000000 + rest * 1000000 / each_second.QuadPart;
}

typedef DWORD thread_result;
#define THREAD_CALL WINAPI

/* Whether it began. Nobody waits for its end. */
static inline int start_thread(thread_result(THREAD_CALL *run)(void *), void *arg) {
    const HANDLE thread = CreateThread(NULL, 0, run, arg, 0, NULL);
    if (thread) CloseHandle(thread);
    return thread != NULL;
}

#else

typedef pthread_mutex_t lock;
typedef pthread_cond_t condition;
#define UNLOCKED PTHREAD_MUTEX_INITIALIZER
#define NOBODY_WAITS PTHREAD_COND_INITIALIZER
static inline void lock_begin(lock *l) { pthread_mutex_lock(l); }
static inline void lock_end(lock *l) { pthread_mutex_unlock(l); }
static inline void condition_wait(condition *c, lock *l) { pthread_cond_wait(c, l); }
static inline void condition_tell_all(condition *c) { pthread_cond_broadcast(c); }

static inline void at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void)) {
    pthread_atfork(before, in_parent, in_child);
}

static inline long long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

typedef void *thread_result;
#define THREAD_CALL

/* Whether it began. Nobody waits for its end, and signals are for the program's own threads. */
static inline int start_thread(thread_result(THREAD_CALL *run)(void *), void *arg) {
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed) pthread_detach(thread);
    return !failed;
}

#endif

#endif
