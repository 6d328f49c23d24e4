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
 * already, or can have no more threads. The members meet, and need CPUs at the same time: while
 * something else uses these too, there is one member. */
typedef void member_work(void *arg, int member, int size);
void cylstm_meet(int most, member_work *work, void *arg);

/* Calls work(arg, unit, member) for each of so many units, which the members of such a team take as
 * they come, and returns when all are done. Of units that are all alike, a member that is slower than
 * the others tells that something else uses its CPU too. */
typedef void unit_work(void *arg, int unit, int member);
typedef enum { VARIOUS, ALIKE } sameness;
void cylstm_share(int most, int units, sameness are, unit_work *work, void *arg);

/* Into how many units work is best divided that could be in as many as one likes: as many as there are
 * threads, or more, where something else uses their CPUs too, so that a thread that has a CPU of its own
 * can take more of them. */
int cylstm_units(int threads);

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

/* To be called once, before all others. (A fork's child has none of its parent's threads.) */
void cylstm_begin(void);

#endif
