/* Threads that compute one step together, and what a fork leaves of threads. */
#ifndef CYLSTM_TEAM_H
#define CYLSTM_TEAM_H

#include <stdatomic.h>

/* Where `size` threads wait for each other. Zero to begin with. */
typedef struct {
    atomic_int waiting, round;
} barrier;

void cylstm_wait(barrier *b, int size);

/* Whether this process is a fork's child: OpenMP's threads do not live on in it. */
void cylstm_watch_forks(void); /* once, before */
int cylstm_was_forked(void);

#endif
