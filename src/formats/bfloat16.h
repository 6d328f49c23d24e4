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

/* sum[tile][row][at + q] += x[row] w[tile][q], for a pair of k's and vectors q in [first, last). */
INLINE void accumulate_pair(int tiles, int rows, int first, int last, int at, const weight *w,
                            ptrdiff_t w_tile, const input *x, ptrdiff_t x_row, vec sum[][4]) {
    for (int turn = 0; turn < TURNS; turn++) {
        /* Of weights and inputs the fewer stay in registers, the others come and go. */
        if (rows > last - first) {
            vec w_k[4];
            for (int q = first; q < last; q++)
                w_k[q] = load_weights(w + q * VLEN * TOGETHER, turn);
            for (int r = 0; r < rows; r++) {
                const vec x_k = broadcast_inputs(x + r * x_row, turn);
                for (int q = first; q < last; q++)
                    sum[r][at + q] = add_products(sum[r][at + q], w_k[q], x_k);
            }
        } else {
            vec x_k[MOST_ROWS];
            for (int r = 0; r < rows; r++) x_k[r] = broadcast_inputs(x + r * x_row, turn);
            for (int t = 0; t < tiles; t++)
                for (int q = first; q < last; q++) {
                    const vec w_k = load_weights(w + t * w_tile + q * VLEN * TOGETHER, turn);
                    for (int r = 0; r < rows; r++) {
                        vec *s = &sum[t * rows + r][at + q];
                        *s = add_products(*s, w_k, x_k[r]);
                    }
                }
        }
    }
}

/* The same for k's [from, to). */
INLINE void accumulate_vectors(int tiles, int rows, int first, int last, int at,
                               const packed_matrix *w, ptrdiff_t k_step, ptrdiff_t tile,
                               const char *ahead, const input *x, ptrdiff_t x_row, ptrdiff_t from,
                               ptrdiff_t to, vec sum[][4]) {
    const weight *weights =
        (const weight *)w->weights + tile * w->tile_step + from / TOGETHER * k_step;
    if (ahead)
        for (ptrdiff_t k = from; k < to; k += TOGETHER, weights += k_step) {
            __builtin_prefetch(ahead + k * (64 / TOGETHER), 0, 2);
            accumulate_pair(tiles, rows, first, last, at, weights, w->tile_step, x + k, x_row, sum);
        }
    else
        for (ptrdiff_t k = from; k < to; k += TOGETHER, weights += k_step)
            accumulate_pair(tiles, rows, first, last, at, weights, w->tile_step, x + k, x_row, sum);
}

INLINE void accumulate_part(int tiles, int rows, int vectors, int at, const packed_matrix *w,
                            ptrdiff_t k_step, ptrdiff_t tile, const char *ahead, const input *x,
                            ptrdiff_t x_row, int part, ptrdiff_t from, ptrdiff_t to, vec sum[][4]) {
    (void)part;
    if (IN_HALVES && tiles * rows > 2) {
        accumulate_vectors(tiles, rows, 0, 2, at, w, k_step, tile, ahead, x, x_row, from, to, sum);
        accumulate_vectors(tiles, rows, 2, vectors, at, w, k_step, tile, NULL, x, x_row, from, to, sum);
    } else {
        accumulate_vectors(tiles, rows, 0, vectors, at, w, k_step, tile, ahead, x, x_row, from, to,
                           sum);
    }
}

INLINE void accumulate(int tiles, int rows, const packed_matrix *w, ptrdiff_t k_step, ptrdiff_t tile,
                       const char *ahead, const input *x, ptrdiff_t x_row, vec sum[][4]) {
    accumulate_part(tiles, rows, 4, 0, w, k_step, tile, ahead, x, x_row, 0, 0, w->depth, sum);
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
