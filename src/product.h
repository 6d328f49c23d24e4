/* Products with packed weights, in register tiles.
 *
 * Packed weights are [tile][k][4][VLEN]: a tile is four vectors of outputs, and for each k it holds
 * their weights side by side, so that the product streams through memory once. With `gated`
 * packing the four vectors are the gates i, f, g, o of the same VLEN hidden units; else they are
 * 4 VLEN outputs in a row. Missing outputs of the last tile have weights of zero.
 *
 * A register tile is 4 vectors x ROWS rows, or two tiles for one row, where one would leave the
 * multiply-add units waiting for each other. Each output is one accumulator that takes k in rising
 * order from what it held before: its bits depend on nothing else that is computed beside it.
 */
#ifndef CYLSTM_PRODUCT_H
#define CYLSTM_PRODUCT_H

#include "kernels.h"
#include "vec.h"

#define TILE (4 * VLEN)

/* 4 x ROWS accumulators and 4 weights: 32 vector registers with AVX-512 and NEON, else 16. */
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define MOST_ROWS 6
#else
#define MOST_ROWS 2
#endif

INLINE const real *tile_weights(const packed_matrix *w, ptrdiff_t tile) {
    return (const real *)w->weights + tile * w->depth * TILE;
}

/* sum[tile][row][4] += x[row][k] w[tile][k][4], over all k; tiles and rows are constants. */
INLINE void accumulate(int tiles, int rows, ptrdiff_t depth, const real *w, const real *x,
                       ptrdiff_t x_row, vec sum[][4]) {
    for (ptrdiff_t k = 0; k < depth; k++) {
        vec x_k[MOST_ROWS];
        for (int r = 0; r < rows; r++) x_k[r] = broadcast(x[r * x_row + k]);
        for (int t = 0; t < tiles; t++)
            for (int q = 0; q < 4; q++) {
                const vec w_k = load(w + (t * depth + k) * TILE + q * VLEN);
                for (int r = 0; r < rows; r++) sum[t * rows + r][q] += w_k * x_k[r];
            }
    }
}

/* Calls BODY(tiles, rows, first tile, first row, ...) to cover tiles [from, to) and n rows, with
 * constant tiles and rows. The tile is the outer loop: its weights stay in the nearest cache. */
#define COVER(from, to, n, BODY, ...)                                                             \
    do {                                                                                          \
        if ((n) == 1) {                                                                           \
            ptrdiff_t tile = (from);                                                              \
            for (; tile + 2 <= (to); tile += 2) BODY(2, 1, tile, 0, __VA_ARGS__);                 \
            if (tile < (to)) BODY(1, 1, tile, 0, __VA_ARGS__);                                    \
        } else {                                                                                  \
            const ptrdiff_t groups = ((n) + MOST_ROWS - 1) / MOST_ROWS;                           \
            for (ptrdiff_t tile = (from); tile < (to); tile++)                                    \
                for (ptrdiff_t g = 0; g < groups; g++) {                                          \
                    const ptrdiff_t row = g * (n) / groups;                                       \
                    switch ((g + 1) * (n) / groups - row) {                                       \
                        EACH_ROW_COUNT(BODY, tile, row, __VA_ARGS__)                              \
                    }                                                                             \
                }                                                                                 \
        }                                                                                         \
    } while (0)

#define ROW_COUNT(rows, BODY, ...) case rows: BODY(1, rows, __VA_ARGS__); break;
#if MOST_ROWS == 6
#define EACH_ROW_COUNT(BODY, ...)                                                                 \
    ROW_COUNT(1, BODY, __VA_ARGS__) ROW_COUNT(2, BODY, __VA_ARGS__)                               \
    ROW_COUNT(3, BODY, __VA_ARGS__) ROW_COUNT(4, BODY, __VA_ARGS__)                               \
    ROW_COUNT(5, BODY, __VA_ARGS__) ROW_COUNT(6, BODY, __VA_ARGS__)
#else
#define EACH_ROW_COUNT(BODY, ...) ROW_COUNT(1, BODY, __VA_ARGS__) ROW_COUNT(2, BODY, __VA_ARGS__)
#endif

/* z = bias + x w, or x w */
INLINE void multiply_tile(int tiles, int rows, ptrdiff_t tile, ptrdiff_t row, const packed_matrix *w,
                          const real *x, ptrdiff_t x_row, real *z, ptrdiff_t z_row) {
    vec sum[MOST_ROWS][4] = {{{0}}};
    z += row * z_row + tile * TILE;
    if (w->bias)
        for (int t = 0; t < tiles; t++)
            for (int r = 0; r < rows; r++)
                for (int q = 0; q < 4; q++)
                    sum[t * rows + r][q] = load((const real *)w->bias + (tile + t) * TILE + q * VLEN);
    accumulate(tiles, rows, w->depth, tile_weights(w, tile), x + row * x_row, x_row, sum);
    for (int t = 0; t < tiles; t++)
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 4; q++)
                store(z + r * z_row + t * TILE + q * VLEN, sum[t * rows + r][q]);
}

static void multiply(const packed_matrix *w, ptrdiff_t n, const void *x, ptrdiff_t x_row, void *z,
                     ptrdiff_t z_row, ptrdiff_t from, ptrdiff_t to) {
    COVER(from, to, n, multiply_tile, w, (const real *)x, x_row, (real *)z, z_row);
}

/* Where output (tile, q, lane) lies among the rows of the matrix; -1 for none. */
INLINE ptrdiff_t packed_row(const packing *p, ptrdiff_t tile, ptrdiff_t q, ptrdiff_t lane) {
    const ptrdiff_t unit = p->gated ? tile * VLEN + lane : tile * TILE + q * VLEN + lane;
    if (unit >= p->outputs) return -1;
    return p->gated ? q * p->outputs + unit : unit;
}

static ptrdiff_t packed_tiles(const packing *p) {
    const ptrdiff_t each = p->gated ? VLEN : TILE;
    return (p->outputs + each - 1) / each;
}

static void pack(const packing *p, const void *matrix, const void *bias, void *weights,
                 void *packed_bias) {
    real *to = weights, *bias_to = packed_bias;
    for (ptrdiff_t tile = 0; tile < packed_tiles(p); tile++)
        for (ptrdiff_t k = -1; k < p->depth; k++) /* the bias goes where k is -1 */
            for (ptrdiff_t q = 0; q < 4; q++)
                for (ptrdiff_t lane = 0; lane < VLEN; lane++) {
                    const ptrdiff_t row = packed_row(p, tile, q, lane);
                    const ptrdiff_t at = row * p->row_step + k * p->k_step;
                    if (k >= 0)
                        *to++ = row < 0 ? 0 : ((const real *)matrix)[at];
                    else if (bias_to)
                        *bias_to++ = row < 0 || !bias ? 0 : ((const real *)bias)[row];
                }
}

#endif
