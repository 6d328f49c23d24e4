/* Weights and rows as reals of the table's dtype: the format that also trains. */
#ifndef CYLSTM_FORMAT_H
#define CYLSTM_FORMAT_H

#include "../transpose.h"

typedef real weight, input;
#define TOGETHER 1
#define TRAINS 1

#define TURNS 1
#define MOST_SUMS 12

INLINE vec broadcast_inputs(const real *x, int turn) { return broadcast(x[turn]); }
INLINE vec load_weights(const real *w, int turn) { return load(w + turn); }
INLINE vec add_products(vec sum, vec w, vec x) { return sum + w * x; }

#include "floats.h"

/* Six, in halves, pay where a tile does not stay in the L1 cache for the next rows, or none follow. */
INLINE ptrdiff_t rows_at_once(const packed_matrix *w, ptrdiff_t n) {
    if (!IN_HALVES) return MOST_ROWS;
    if (w->vectors < 4) return w->vectors == 3 ? 4 : 3;
    return n <= MOST_ROWS || w->depth * TILE * (ptrdiff_t)sizeof(real) > 28 << 10 ? MOST_ROWS : 3;
}

/* z = or += x w for tiles of one vector, in four sums over every fourth k: as many as with four vectors. */
INLINE void multiply_narrow(int tiles, int rows, ptrdiff_t tile, ptrdiff_t row, const char *ahead,
                            const packed_matrix *w, const real *x, ptrdiff_t x_row, real *z,
                            ptrdiff_t z_row, int adds) {
    (void)ahead;
    if (IN_HALVES && rows > 3) __builtin_unreachable(); /* by rows_at_once */
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
