/* Products of floats. The format says how weights and inputs become vectors of reals:
 *
 *     load_weights(w, turn), broadcast_inputs(x, turn), add_products(sum, w, x)
 *
 * for the TOGETHER k's of a lane, in so many TURNS; and MOST_SUMS, which registers hold beside the
 * weights and inputs of one of them.
 */
#ifndef CYLSTM_FLOATS_H
#define CYLSTM_FLOATS_H

#include "halves.h"

/* sum[tile][row][at + q] += x[row] w[tile][q], for TOGETHER k's and vectors q in [first, last). */
INLINE void accumulate_group(int tiles, int rows, int first, int last, int at, const weight *w,
                             ptrdiff_t w_tile, ptrdiff_t half_step, const input *x, ptrdiff_t x_row,
                             vec sum[][4]) {
    for (int turn = 0; turn < TURNS; turn++) {
        /* Of weights and inputs the fewer stay in registers, the others come and go. */
        if (rows > last - first) {
            vec w_k[4];
            for (int q = first; q < last; q++)
                w_k[q] = load_weights(w + vector_at(half_step, q), turn);
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
                    const vec w_k = load_weights(w + t * w_tile + vector_at(half_step, q), turn);
                    for (int r = 0; r < rows; r++) {
                        vec *s = &sum[t * rows + r][at + q];
                        *s = add_products(*s, w_k, x_k[r]);
                    }
                }
        }
    }
}

/* The same for `depth` k's. */
INLINE void accumulate_vectors(int tiles, int rows, int first, int last, int at, const weight *w,
                               ptrdiff_t w_tile, ptrdiff_t half_step, ptrdiff_t k_step,
                               const char *ahead, const input *x, ptrdiff_t x_row, ptrdiff_t depth,
                               vec sum[][4]) {
    if (ahead)
        for (ptrdiff_t k = 0; k < depth; k += TOGETHER, w += k_step) {
            __builtin_prefetch(ahead + k * (64 / TOGETHER), 0, 2);
            accumulate_group(tiles, rows, first, last, at, w, w_tile, half_step, x + k, x_row, sum);
        }
    else
        for (ptrdiff_t k = 0; k < depth; k += TOGETHER, w += k_step)
            accumulate_group(tiles, rows, first, last, at, w, w_tile, half_step, x + k, x_row, sum);
}

INLINE void accumulate_part(int tiles, int rows, int vectors, int at, const packed_matrix *w,
                            ptrdiff_t k_step, ptrdiff_t tile, const char *ahead, const input *x,
                            ptrdiff_t x_row, int part, ptrdiff_t from, ptrdiff_t to, vec sum[][4]) {
    const ptrdiff_t group = from / TOGETHER, half = half_step_of(vectors, w), depth = to - from;
    const weight *weights = (const weight *)w->weights + tile * w->tile_step + group * k_step;
    (void)part;
    x += from;
    if (ahead) ahead += group * 64;
    if (IN_HALVES && tiles * rows * vectors > MOST_SUMS) {
        accumulate_vectors(tiles, rows, 0, 2, at, weights, w->tile_step, half, k_step, ahead, x, x_row,
                           depth, sum);
        accumulate_vectors(tiles, rows, 2, vectors, at, weights, w->tile_step, half, k_step, NULL, x,
                           x_row, depth, sum);
    } else {
        accumulate_vectors(tiles, rows, 0, vectors, at, weights, w->tile_step, half, k_step, ahead, x,
                           x_row, depth, sum);
    }
}

INLINE void accumulate(int tiles, int rows, const packed_matrix *w, ptrdiff_t k_step, ptrdiff_t tile,
                       const char *ahead, const input *x, ptrdiff_t x_row, vec sum[][4]) {
    accumulate_part(tiles, rows, 4, 0, w, k_step, tile, ahead, x, x_row, 0, 0, w->depth, sum);
}

#endif
