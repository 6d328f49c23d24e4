/* Packing of weights. */
#ifndef CYLSTM_PACK_H
#define CYLSTM_PACK_H

#include "product.h"

/* Weights of a k in a packed tile. */
INLINE ptrdiff_t packed_tile(const packing *p) { return p->vectors * VLEN; }

static ptrdiff_t packed_tiles(const packing *p) {
    const ptrdiff_t each = p->gates ? VLEN : packed_tile(p);
    return (p->outputs + each - 1) / each;
}

/* A tile's bias, for all of its sums. */
static void pack_bias(const packing *p, ptrdiff_t t, const real *bias, real *to) {
    for (ptrdiff_t q = 0; q < 4; q++) {
        const ptrdiff_t unit = p->gates ? t * VLEN : t * TILE + q * VLEN;
        const ptrdiff_t at = p->gates ? q * p->outputs + unit : unit;
        const vec b = bias ? load_n(bias + at, lanes_left(p->outputs - unit, VLEN)) : (vec){0};
        store(to + t * TILE + q * VLEN, b);
    }
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
    const ptrdiff_t tile = packed_tile(p), pair = tile < 2 * VLEN ? tile : 2 * VLEN;
    const ptrdiff_t width = p->k_step == 1 ? VLEN : pair, half_step = half_step_of(p->vectors, to);
    for (ptrdiff_t t = 0; t < to->tiles; t++) {
        for (ptrdiff_t j = 0; j < tile; j += width) {
            const int gate = p->gates ? p->gates[j / VLEN] : 0;
            const ptrdiff_t unit = p->gates ? t * VLEN : t * tile + j;
            const ptrdiff_t row = gate > 0 ? gate * p->outputs + unit : unit;
            const ptrdiff_t n = gate < 0 ? 0 : lanes_left(p->outputs - unit, width);
            pack_outputs(p, width, n, (const real *)matrix + row * p->row_step,
                         (real *)to->weights + t * to->tile_step + vector_at(half_step, (int)(j / VLEN)),
                         to->k_step);
        }
        if (to->bias) pack_bias(p, t, bias, (real *)to->bias);
    }
}

#else

/* A row of the matrix is a lane of a vector; padding to whole groups of k's has weights of zero. */
static void pack_row(const packing *p, const weight *row, const packed_matrix *to, weight *lane) {
    for (ptrdiff_t k = 0; k < to->depth; k++)
        lane[k / TOGETHER * to->k_step + k % TOGETHER] = row && k < p->depth ? row[k] : 0;
}

static void pack_vector(const packing *p, ptrdiff_t t, ptrdiff_t q, const weight *matrix,
                        const packed_matrix *to) {
    weight *lanes = (weight *)to->weights + t * to->tile_step +
                    vector_at(half_step_of(p->vectors, to), (int)q);
    for (ptrdiff_t j = 0; j < VLEN; j++) {
        const ptrdiff_t unit = j + (p->gates ? t * VLEN : t * TILE + q * VLEN);
        const ptrdiff_t number = p->gates ? p->gates[q] * p->outputs + unit : unit;
        const weight *row = unit < p->outputs ? matrix + number * p->row_step : NULL;
        pack_row(p, row, to, lanes + j * TOGETHER);
        pack_scale(p, row, number, to, t * TILE + (p->at + q) * VLEN + j);
    }
}

static void pack(const packing *p, const void *matrix, const void *bias, const packed_matrix *to) {
    for (ptrdiff_t t = 0; t < to->tiles; t++) {
        for (ptrdiff_t q = 0; q < p->vectors; q++) pack_vector(p, t, q, matrix, to);
        if (to->bias) pack_bias(p, t, bias, (real *)to->bias);
    }
}

#endif

#endif
