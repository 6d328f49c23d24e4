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

INLINE bits load_pairs(const weight *w) {
    bits pairs;
    memcpy(&pairs, w, sizeof pairs);
    return pairs;
}

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
INLINE vec add_products(vec sum, bits w, vec x, int turn) {
    (void)turn;
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
}
INLINE void put_input(input *to, uint32_t rounded) { *to = (uint16_t)(rounded >> 16); }
#else
typedef real input;
#define TURNS 2 /* the first of each pair, then the second: both would not find enough registers */

INLINE vec broadcast_inputs(const input *x, int turn) { return broadcast(x[turn]); }
INLINE vec add_products(vec sum, bits w, vec x, int turn) {
    return sum + (vec)(turn ? w & ~0xffff : w << 16) * x;
}
INLINE void put_input(input *to, uint32_t rounded) { memcpy(to, &rounded, sizeof rounded); }
#endif

/* sum[tile][row][4] += x[row] w[tile][4], for a pair of k's. */
INLINE void accumulate_pair(int tiles, int rows, const weight *w, ptrdiff_t w_tile, const input *x,
                            ptrdiff_t x_row, vec sum[][4]) {
    for (int turn = 0; turn < TURNS; turn++) {
        vec x_k[MOST_ROWS];
        for (int r = 0; r < rows; r++) x_k[r] = broadcast_inputs(x + r * x_row, turn);
        for (int t = 0; t < tiles; t++)
            for (int q = 0; q < 4; q++) {
                const bits w_k = load_pairs(w + t * w_tile + q * VLEN * TOGETHER);
                for (int r = 0; r < rows; r++)
                    sum[t * rows + r][q] = add_products(sum[t * rows + r][q], w_k, x_k[r], turn);
            }
    }
}

INLINE void accumulate(int tiles, int rows, const packed_matrix *w, ptrdiff_t k_step, ptrdiff_t tile,
                       const char *ahead, const input *x, ptrdiff_t x_row, vec sum[][4]) {
    const weight *weights = (const weight *)w->weights + tile * w->tile_step;
    if (ahead)
        for (ptrdiff_t k = 0; k < w->depth; k += TOGETHER, weights += k_step) {
            __builtin_prefetch(ahead + k * (64 / TOGETHER), 0, 2);
            accumulate_pair(tiles, rows, weights, w->tile_step, x + k, x_row, sum);
        }
    else
        for (ptrdiff_t k = 0; k < w->depth; k += TOGETHER, weights += k_step)
            accumulate_pair(tiles, rows, weights, w->tile_step, x + k, x_row, sum);
}

/* To the nearest, half to even; NaN stays one. */
static void convert(ptrdiff_t n, const void *from, int part, ptrdiff_t at, void *to) {
    (void)part;
    input *inputs = (input *)to + at;
    for (ptrdiff_t j = 0; j < n; j++) {
        uint32_t b;
        memcpy(&b, (const real *)from + j, sizeof b);
        const uint32_t nearest = (b + 0x7fff + (b >> 16 & 1)) & 0xffff0000;
        put_input(inputs + j, (b & 0x7fffffff) > 0x7f800000 ? (b & 0xffff0000) | 0x400000 : nearest);
    }
    for (ptrdiff_t j = n; j % TOGETHER; j++) put_input(inputs + j, 0);
}

static void pack_scale(const packing *p, const weight *row, ptrdiff_t number, const packed_matrix *to,
                       ptrdiff_t output) {
    (void)p, (void)row, (void)number, (void)to, (void)output;
}

#endif
