#include "exclusive.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void cylstm_exclusive_begin(void) { pthread_mutex_lock(&lock); }
void cylstm_exclusive_end(void) { pthread_mutex_unlock(&lock); }

/* A child forked while another thread held the lock would wait for ever: fork waits for it. */
void cylstm_exclusive_init(void) {
    pthread_atfork(cylstm_exclusive_begin, cylstm_exclusive_end, cylstm_exclusive_end);
}
