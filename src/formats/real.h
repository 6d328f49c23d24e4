/* Weights and rows as reals of the table's dtype: the format that also trains. */
#ifndef CYLSTM_FORMAT_H
#define CYLSTM_FORMAT_H

#include "../transpose.h"

typedef real weight, input;
#define TOGETHER 1
#define TRAINS 1

/* sum[tile][row][at + q] += x[row] w[tile][q], q < vectors, for one k. */
INLINE void accumulate_one(int tiles, int rows, int vectors, int at, const real *w, ptrdiff_t w_tile,
                           const real *x, ptrdiff_t x_row, vec sum[][4]) {
    vec x_k[MOST_ROWS];
    for (int r = 0; r < rows; r++) x_k[r] = broadcast(x[r * x_row]);
    for (int t = 0; t < tiles; t++)
        for (int q = 0; q < vectors; q++) {
            const vec w_k = load(w + t * w_tile + q * VLEN);
            for (int r = 0; r < rows; r++) sum[t * rows + r][at + q] += w_k * x_k[r];
        }
}

INLINE void accumulate_part(int tiles, int rows, int vectors, int at, const packed_matrix *w,
                            ptrdiff_t k_step, ptrdiff_t tile, const char *ahead, const real *x,
                            ptrdiff_t x_row, int part, ptrdiff_t from, ptrdiff_t to, vec sum[][4]) {
    const real *weights = (const real *)w->weights + tile * w->tile_step;
    (void)part;
    if (ahead)
        for (ptrdiff_t k = from; k < to; k++) {
            __builtin_prefetch(ahead + k * 64, 0, 2);
            accumulate_one(tiles, rows, vectors, at, weights + k * k_step, w->tile_step, x + k, x_row,
                           sum);
        }
    else
        for (ptrdiff_t k = from; k < to; k++)
            accumulate_one(tiles, rows, vectors, at, weights + k * k_step, w->tile_step, x + k, x_row,
                           sum);
}

INLINE void accumulate(int tiles, int rows, const packed_matrix *w, ptrdiff_t k_step, ptrdiff_t tile,
                       const char *ahead, const real *x, ptrdiff_t x_row, vec sum[][4]) {
    accumulate_part(tiles, rows, 4, 0, w, k_step, tile, ahead, x, x_row, 0, 0, w->depth, sum);
}

/* z = or += x w for tiles of one vector, in four sums over every fourth k: as many as with four vectors. */
INLINE void multiply_narrow(int tiles, int rows, ptrdiff_t tile, ptrdiff_t row, const char *ahead,
                            const packed_matrix *w, const real *x, ptrdiff_t x_row, real *z,
                            ptrdiff_t z_row, int adds) {
    (void)ahead;
    vec sum[MOST_ROWS][4];
    set_zero(tiles * rows, sum);
    const real *weights = (const real *)w->weights + tile * w->tile_step;
    const real *x_k = x + row * x_row;
    for (ptrdiff_t k = 0; k < w->depth; k += 4, x_k += 4, weights += 4 * w->k_step)
        for (int t = 0; t < tiles; t++)
            for (int q = 0; q < 4; q++) {
                const vec w_k = load(weights + t * w->tile_step + q * w->k_step);
                for (int r = 0; r < rows; r++)
                    sum[t * rows + r][q] += w_k * broadcast(x_k[r * x_row + q]);
            }
    for (int t = 0; t < tiles; t++)
        for (int r = 0; r < rows; r++) {
            const vec *s = sum[t * rows + r];
            real *to = z + (row + r) * z_row + (tile + t) * VLEN;
            const vec total = (s[0] + s[1]) + (s[2] + s[3]);
            store(to, adds ? load(to) + total : total);
        }
}

#endif
