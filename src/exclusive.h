/* A lock of the process for the products that must not run two at a time. Safe across fork. */
#ifndef CYLSTM_EXCLUSIVE_H
#define CYLSTM_EXCLUSIVE_H

void cylstm_exclusive_init(void); /* once, before the others */
void cylstm_exclusive_begin(void);
void cylstm_exclusive_end(void);

#endif
