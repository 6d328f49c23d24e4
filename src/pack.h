/* Packing of weights. */
#ifndef CYLSTM_PACK_H
#define CYLSTM_PACK_H

#include "product.h"

/* Outputs in a packed tile. */
INLINE ptrdiff_t packed_tile(const packing *p) { return p->narrow ? VLEN : TILE; }

static ptrdiff_t packed_tiles(const packing *p) {
    const ptrdiff_t each = p->gated ? VLEN : packed_tile(p);
    return (p->outputs + each - 1) / each;
}

#if TRAINS

/* Outputs of a tile, as many as `width`, for all k: to[k * to_row + j] = from[j * row_step + k * k_step]
 * for j < n, then zeros. */
static void pack_outputs(const packing *p, ptrdiff_t width, ptrdiff_t n, const real *from, real *to,
                         ptrdiff_t to_row) {
    if (p->k_step == 1) transpose(n, p->depth, from, p->row_step, to, to_row);
    for (ptrdiff_t k = 0; k < p->depth; k++, to += to_row, from += p->k_step)
        for (ptrdiff_t j = p->k_step == 1 ? n : 0; j < width; j += VLEN)
            store_n(to + j, load_n(from + j, lanes_left(n - j, VLEN)), lanes_left(width - j, VLEN));
}

static void pack(const packing *p, const void *matrix, const void *bias, const packed_matrix *to) {
    const ptrdiff_t tile = packed_tile(p), width = p->k_step == 1 ? VLEN : tile;
    for (ptrdiff_t t = 0; t < to->tiles; t++)
        for (ptrdiff_t j = 0; j < tile; j += width) {
            const ptrdiff_t unit = p->gated ? t * VLEN : t * tile + j;
            const ptrdiff_t row = p->gated ? j / VLEN * p->outputs + unit : unit;
            const ptrdiff_t n = lanes_left(p->outputs - unit, width);
            pack_outputs(p, width, n, (const real *)matrix + row * p->row_step,
                         (real *)to->weights + t * to->tile_step + j, to->k_step);
            for (ptrdiff_t i = 0; to->bias && i < width; i += VLEN)
                store((real *)to->bias + t * tile + j + i,
                      bias ? load_n((const real *)bias + row + i, lanes_left(n - i, VLEN)) : (vec){0});
        }
}

#else

/* A row of the matrix is a lane of a vector; padding to whole groups of k's has weights of zero. */
static void pack_row(const packing *p, const weight *row, const packed_matrix *to, weight *lane) {
    for (ptrdiff_t k = 0; k < to->depth; k++)
        lane[k / TOGETHER * to->k_step + k % TOGETHER] = row && k < p->depth ? row[k] : 0;
}

static void pack(const packing *p, const void *matrix, const void *bias, const packed_matrix *to) {
    for (ptrdiff_t j = 0; j < to->tiles * TILE; j++) {
        const ptrdiff_t t = j / TILE, q = j % TILE / VLEN, unit = p->gated ? t * VLEN + j % VLEN : j;
        const ptrdiff_t number = p->gated ? q * p->outputs + unit : unit;
        const weight *row = unit < p->outputs ? (const weight *)matrix + number * p->row_step : NULL;
        pack_row(p, row, to, (weight *)to->weights + t * to->tile_step + j % TILE * TOGETHER);
        if (to->bias) ((real *)to->bias)[j] = row && bias ? ((const real *)bias)[number] : 0;
        pack_scale(p, row, number, to, j);
    }
}

#endif

#endif
