/* What one core can do at most. Usage: machine SECONDS BYTES...
   Prints the multiply-adds' floating-point operations a second, then, for each size of memory, the
   bytes a second at which a core reads it over and over; one number a line, each the best found
   within SECONDS. Compiled with VECTOR_BYTES and the flags of the instruction set in use. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef float vec __attribute__((vector_size(VECTOR_BYTES)));

enum { LANES = VECTOR_BYTES / sizeof(float), CHAINS = 12, HUGE_PAGE = 2 << 20 };

static volatile float sink; /* results go there, so that they are computed */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Chains of multiply-adds enough to hide the latency of two units. */
static double flops_per_second(double seconds) {
    enum { TIMES = 100000 };
    vec sums[CHAINS] = {{0}}, factor = sink + 0.5f - (vec){0}, term = factor;
    double best = 0;
    for (double end = now() + seconds; now() < end;) {
        double start = now();
        for (int i = 0; i < TIMES; i++)
#pragma GCC unroll 12
            for (int j = 0; j < CHAINS; j++) sums[j] = sums[j] * factor + term;
        double rate = 2.0 * TIMES * CHAINS * LANES / (now() - start);
        if (rate > best) best = rate;
    }
    for (int j = 0; j < CHAINS; j++) sink = sums[j][0];
    return best;
}

static double bytes_per_second(size_t size, double seconds) {
    size_t pass = CHAINS * sizeof(vec), passes = size / pass;
    size_t room = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    vec *data = aligned_alloc(HUGE_PAGE, room), sums[CHAINS] = {{0}};
    if (!data) return 0;
    madvise(data, room, MADV_HUGEPAGE);
    memset(data, 0, room);
    size_t times = 1 + (8 << 20) / size; /* of the whole memory between two looks at the clock */
    double best = 0;
    for (double end = now() + seconds; now() < end;) {
        double start = now();
        for (size_t n = 0; n < times; n++)
            for (size_t i = 0; i < passes; i++)
#pragma GCC unroll 12
                for (int j = 0; j < CHAINS; j++) sums[j] += data[i * CHAINS + j];
        double rate = (double)times * passes * pass / (now() - start);
        if (rate > best) best = rate;
    }
    for (int j = 0; j < CHAINS; j++) sink = sums[j][0];
    free(data);
    return best;
}

int main(int count, char **arguments) {
    if (count < 2) return 1;
    double seconds = atof(arguments[1]);
    printf("%.6g\n", flops_per_second(seconds));
    for (int k = 2; k < count; k++)
        printf("%.6g\n", bytes_per_second(strtoull(arguments[k], NULL, 10), seconds));
    return 0;
}
