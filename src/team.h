/* Threads that compute together, and the places where they wait for each other.
 *
 * Who waits looks again and again for some microseconds, and then sleeps: other processes want the
 * CPUs too. (OpenMP's threads look for milliseconds, and two processes on two CPUs took up to four
 * times as long as one.)
 */
#ifndef CYLSTM_TEAM_H
#define CYLSTM_TEAM_H

#include <stdatomic.h>

/* Calls work(arg, member, size), member 0 in this thread and each other in one of its own, and returns
 * when all have. The team has at most `most` members, and fewer where the process has so many at work
 * already, or can have no more threads. Members take what there is to do by numbers: those that have
 * not begun when member 0 returns never do. Or they meet, and need CPUs at the same time: where teams
 * had to wait for that, teams that meet have one member for a while. */
typedef void member_work(void *arg, int member, int size);
typedef enum { TAKE, MEET } manner;
void cylstm_run(int most, manner how, member_work *work, void *arg);

/* Where a team's members wait for each other. Zero to begin with. */
typedef struct {
    atomic_int waiting, round, asleep;
} barrier;
void cylstm_wait(barrier *b, int size);

/* How far a thread's work has come, for another that follows it. Zero to begin with. */
typedef struct {
    atomic_int done, asleep;
} progress;
void cylstm_advance(progress *p, int done);
void cylstm_await(progress *p, int least); /* returns when as much is done */

/* Numbers 0, 1, ... for a team's members to take. Zero to begin with. */
typedef struct {
    atomic_int taken;
} counter;
static inline int cylstm_next(counter *c) { return atomic_fetch_add(&c->taken, 1); }

/* To be called once, before: a fork's child has none of its parent's threads. */
void cylstm_watch_forks(void);

#endif
