/* What the tests in C share: checks that are counted, and numbers that are the same everywhere. */
#ifndef CYLSTM_CHECK_H
#define CYLSTM_CHECK_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

extern atomic_int checked, failed;

#define CHECK(condition, ...)                                                                     \
    do {                                                                                          \
        atomic_fetch_add(&checked, 1);                                                            \
        if (condition) break;                                                                     \
        atomic_fetch_add(&failed, 1);                                                             \
        printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                    \
        printf(__VA_ARGS__);                                                                      \
        printf("\n");                                                                             \
    } while (0)

/* From -1 to 1. */
static inline double drawn(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(*seed >> 11) / (double)(INT64_C(1) << 52) - 1;
}

void check_kernels(void);
void check_arena(void);
void check_shared_product(void);
void check_teams(int forks);

#endif
