/* Weights as bfloat16, the upper half of a float32; rows rounded to it once. Sums are of float32.
 *
 * Where no instruction takes pairs of them, weights are widened by a shift or a mask: half the bytes
 * come from memory.
 */
#ifndef CYLSTM_FORMAT_H
#define CYLSTM_FORMAT_H

typedef uint16_t weight;
#define TOGETHER 2
#define HEADER 0

#if defined(__AVX512BF16__)
#include <immintrin.h>
typedef uint16_t input;
#define TURNS 1

INLINE vec broadcast_inputs(const input *x, int turn) {
    int32_t pair;
    (void)turn;
    memcpy(&pair, x, sizeof pair);
    return (vec)(pair - (bits){0});
}
INLINE vec load_weights(const weight *w, int turn) {
    (void)turn;
    return (vec)load_bits(w);
}
INLINE vec add_products(vec sum, vec w, vec x) {
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
}
INLINE void put_inputs(input *to, bits rounded, ptrdiff_t n) {
    typedef input half __attribute__((vector_size(VECTOR_BYTES / 2)));
    const half halves = __builtin_convertvector(rounded >> 16, half);
    memcpy(to, &halves, (size_t)(n == VLEN ? VLEN : n) * sizeof(input));
}
#else
typedef real input;
#define TURNS 2 /* the first of each pair, then the second: both would not find enough registers */

INLINE vec broadcast_inputs(const input *x, int turn) { return broadcast(x[turn]); }
INLINE vec load_weights(const weight *w, int turn) {
    const bits pairs = load_bits(w);
    return (vec)(turn ? pairs & ~0xffff : pairs << 16);
}
INLINE vec add_products(vec sum, vec w, vec x) {
#if IN_HALVES /* GCC would move sums between registers, and one of them to memory */
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));
    return sum;
#else
    return sum + w * x;
#endif
}
INLINE void put_inputs(input *to, bits rounded, ptrdiff_t n) { store_n(to, (vec)rounded, n); }
#endif

#define MOST_SUMS 8

#include "floats.h"

INLINE ptrdiff_t rows_at_once(const packed_matrix *w, ptrdiff_t n) {
    (void)w, (void)n;
    return MOST_ROWS;
}

/* To the nearest, half to even; NaN stays one. The upper halves of the lanes. */
INLINE bits nearest(bits b) {
    const bits quiet = b | 0x400000, rounded = b + 0x7fff + (b >> 16 & 1);
    return (bits)choose((b & ~SIGN_BIT) > 0x7f800000, (vec)quiet, (vec)rounded) & ~0xffff;
}

static void convert(ptrdiff_t n, const void *from, int part, ptrdiff_t at, void *to) {
    (void)part;
    const real *x = from;
    const ptrdiff_t whole = n - n % VLEN;
    input *inputs = (input *)to + at;
    for (ptrdiff_t j = 0; j < whole; j += VLEN)
        put_inputs(inputs + j, nearest((bits)load(x + j)), VLEN);
    if (whole < n)
        put_inputs(inputs + whole, nearest((bits)load_n(x + whole, n - whole)), n - whole);
    for (ptrdiff_t j = n; j % TOGETHER; j++) inputs[j] = 0;
}

static void pack_scale(const packing *p, const weight *row, ptrdiff_t number, const packed_matrix *to,
                       ptrdiff_t output) {
    (void)p, (void)row, (void)number, (void)to, (void)output;
}

#endif
