#include "exclusive.h"

#include "platform/threads.h"

static lock of_products = UNLOCKED;

void cylstm_exclusive_begin(void) { lock_begin(&of_products); }
void cylstm_exclusive_end(void) { lock_end(&of_products); }

/* A child forked while another thread held the lock would wait for ever: fork waits for it. */
void cylstm_exclusive_init(void) {
    at_fork(cylstm_exclusive_begin, cylstm_exclusive_end, cylstm_exclusive_end);
}
