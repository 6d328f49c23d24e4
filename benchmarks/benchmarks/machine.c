/* What one core can do at most. Usage: machine SECONDS BYTES...
   Prints the multiply-adds' operations a second, then, for each size of memory, the bytes a second at
   which a core reads it over and over; one number a line, each the best found within SECONDS.
   Compiled with VECTOR_BYTES and the flags of the instruction set in use. The multiply-adds are those
   of float32; with INT8 or BFLOAT16 the fastest whose sums of such numbers are as exact as ours. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined INT8 || defined BFLOAT16
#include <immintrin.h>
#endif

typedef float vec __attribute__((vector_size(VECTOR_BYTES)));

enum { LANES = VECTOR_BYTES / sizeof(float), CHAINS = 12, HUGE_PAGE = 2 << 20 };

static volatile float sink; /* results go there, so that they are computed */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Adds products to sums. PRODUCTS: how many those of one vector are; SUMS: how many chains hide the
   latency of an addition, and leave registers for products that are added by an instruction of their
   own. */
#if defined INT8
typedef long long number __attribute__((vector_size(VECTOR_BYTES)));
#if defined __AVX512VNNI__
enum { PRODUCTS = VECTOR_BYTES, SUMS = CHAINS };
#define ADD(sum, a, b) (number) _mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b)
#elif defined __AVXVNNI__
enum { PRODUCTS = VECTOR_BYTES, SUMS = CHAINS };
#define ADD(sum, a, b) (number) _mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b)
#else /* of numbers that were widened to 16 bits */
enum { PRODUCTS = VECTOR_BYTES / 2, SUMS = 6 };
#if defined __AVX512BW__
#define PAIRS(a, b) _mm512_madd_epi16((__m512i)a, (__m512i)b)
#elif defined __AVX2__
#define PAIRS(a, b) _mm256_madd_epi16((__m256i)a, (__m256i)b)
#else
#define PAIRS(a, b) _mm_madd_epi16((__m128i)a, (__m128i)b)
#endif
typedef int of_sums __attribute__((vector_size(VECTOR_BYTES)));
#define ADD(sum, a, b) (number)((of_sums)sum + (of_sums)PAIRS(a, b))
#endif
#elif defined BFLOAT16 && defined __AVX512BF16__
typedef vec number;
enum { PRODUCTS = VECTOR_BYTES / 2, SUMS = CHAINS };
#define ADD(sum, a, b) (vec) _mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b)
#else
typedef vec number;
enum { PRODUCTS = LANES, SUMS = CHAINS };
#define ADD(sum, a, b) sum * a + b
#endif

static double flops_per_second(double seconds) {
    enum { TIMES = 100000 };
    vec given = sink + 0.5f - (vec){0};
    number sums[SUMS] = {{0}}, factor = (number)given, term = factor;
    double best = 0;
    for (double end = now() + seconds; now() < end;) {
        double start = now();
        for (int i = 0; i < TIMES; i++)
#pragma GCC unroll 12
            for (int j = 0; j < SUMS; j++) {
                sums[j] = ADD(sums[j], factor, term);
                __asm__ volatile("" : "+x"(factor)); /* or its products would be kept */
            }
        double rate = 2.0 * TIMES * SUMS * PRODUCTS / (now() - start);
        if (rate > best) best = rate;
    }
    for (int j = 0; j < SUMS; j++) sink = (float)sums[j][0];
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
