/* Weights as 8-bit integers with a scale for each output, rows with one for each part.
 *
 * A row of inputs is quantised when it comes, symmetrically, from nothing but itself: its largest
 * magnitude becomes 127. What a step multiplies are two parts, x_t and h_{t-1}, with scales of their
 * own: `first` k's and the rest. The sums of integers are exact; then
 *
 *     sum += total * (scale of the output * scale of the part)
 *
 * A row that holds an infinity or NaN has the scale NaN, and so its outputs are.
 */
#ifndef CYLSTM_FORMAT_H
#define CYLSTM_FORMAT_H

#include "dot.h"

typedef int8_t weight;
#define HEADER (2 * (ptrdiff_t)sizeof(real) / (ptrdiff_t)sizeof(input)) /* the scales of its parts */
#define MOST 127
#define LEAST 0x1p-100f  /* below it a row's numbers are taken for 0: 127 by them could overflow */

/* total[tile][row][4] += x[row] w[tile][4], for all of these k's. */
INLINE void add_integers(int tiles, int rows, const weight *w, ptrdiff_t w_tile, ptrdiff_t k_step,
                         const char *ahead, const input *x, ptrdiff_t x_row, ptrdiff_t depth,
                         bits total[][4]) {
    for (ptrdiff_t k = 0; k < depth; k += TOGETHER, w += k_step) {
        bits x_k[MOST_ROWS];
        if (ahead) __builtin_prefetch(ahead + k * (64 / TOGETHER), 0, 2);
        for (int r = 0; r < rows; r++) x_k[r] = broadcast_inputs(x + r * x_row + k);
        for (int t = 0; t < tiles; t++)
            for (int q = 0; q < 4; q++) {
                const bits w_k = load_weights(w + t * w_tile + q * VLEN * TOGETHER);
                for (int r = 0; r < rows; r++)
                    total[t * rows + r][q] = dot(total[t * rows + r][q], w_k, x_k[r]);
            }
    }
}

/* Part 0 or 1 of the product: k's [from, to). */
INLINE void accumulate_part(int tiles, int rows, const packed_matrix *w, ptrdiff_t k_step,
                            ptrdiff_t tile, const char *ahead, const input *x, ptrdiff_t x_row,
                            int part, ptrdiff_t from, ptrdiff_t to, vec sum[][4]) {
    bits total[MOST_ROWS][4];
    const ptrdiff_t at = (part * w->tiles + tile) * TILE, group = from / TOGETHER;
    const weight *weights = (const weight *)w->weights + tile * w->tile_step + group * k_step;
    const real *scales = (const real *)w->scales + at;
    for (int t = 0; t < tiles; t++)
        for (int q = 0; q < 4; q++)
            for (int r = 0; r < rows; r++)
                total[t * rows + r][q] =
                    OFFSET ? (bits)load((const real *)w->starts + at + t * TILE + q * VLEN) : (bits){0};
    if (ahead)
        add_integers(tiles, rows, weights, w->tile_step, k_step, ahead + group * 64,
                     x + HEADER + from, x_row, to - from, total);
    else
        add_integers(tiles, rows, weights, w->tile_step, k_step, NULL, x + HEADER + from, x_row,
                     to - from, total);
    for (int t = 0; t < tiles; t++)
        for (int q = 0; q < 4; q++) {
            const vec scale = load(scales + t * TILE + q * VLEN);
            for (int r = 0; r < rows; r++)
                sum[t * rows + r][q] += __builtin_convertvector(total[t * rows + r][q], vec) *
                                        (scale * ((const real *)(x + r * x_row))[part]);
        }
}

INLINE void accumulate(int tiles, int rows, const packed_matrix *w, ptrdiff_t k_step, ptrdiff_t tile,
                       const char *ahead, const input *x, ptrdiff_t x_row, vec sum[][4]) {
    accumulate_part(tiles, rows, w, k_step, tile, ahead, x, x_row, 0, 0, w->first, sum);
    if (w->first < w->depth)
        accumulate_part(tiles, rows, w, k_step, tile, ahead, x, x_row, 1, w->first, w->depth, sum);
}

/* The largest magnitude, as its bits, which order NaN above infinity. */
static real_bits largest_bits(ptrdiff_t n, const real *x) {
    bits most = {0};
    real_bits one = 0;
    for (ptrdiff_t j = 0; j < n; j += VLEN) {
        const bits b = (bits)load_n(x + j, lanes_left(n - j, VLEN)) & ~(SIGN_BIT - (bits){0});
        const bits where = b > most;
        most = (b & where) | (most & ~where);
    }
    for (ptrdiff_t j = 0; j < VLEN; j++) one = most[j] > one ? most[j] : one;
    return one;
}

typedef input some_inputs __attribute__((vector_size(VECTOR_BYTES / sizeof(real) * sizeof(input))));

/* To the nearest integer, half to even; the product is rounded first, on every instruction set. */
INLINE bits nearest(vec x, real inverse) {
    const vec magic = broadcast(0x1.8p23f);
    return (bits)(rounded_product(x, broadcast(inverse)) + magic) - (bits)magic;
}

static void convert(ptrdiff_t n, const void *from, int part, ptrdiff_t at, void *to) {
    const real *x = from;
    const real_bits most_bits = largest_bits(n, x);
    real most, inverse = 0;
    memcpy(&most, &most_bits, sizeof most);
    if (most >= LEAST && most <= __FLT_MAX__) inverse = MOST / most;
    ((real *)to)[part] = most < LEAST ? 0 : inverse ? most / MOST : __builtin_nanf("");
    input *inputs = (input *)to + HEADER + at;
    for (ptrdiff_t j = 0; j < n; j += VLEN) {
        const ptrdiff_t lanes = lanes_left(n - j, VLEN);
        const some_inputs q = __builtin_convertvector(
            nearest(load_n(x + j, lanes), inverse) + OFFSET, some_inputs);
        memcpy(inputs + j, &q, (size_t)(lanes == VLEN ? VLEN : lanes) * sizeof(input));
    }
    for (ptrdiff_t j = n; j % TOGETHER; j++) inputs[j] = OFFSET;
}

static void pack_scale(const packing *p, const weight *row, ptrdiff_t number, const packed_matrix *to,
                       ptrdiff_t output) {
    int32_t sum = 0;
    for (ptrdiff_t k = 0; row && k < p->depth; k++) sum += row[k];
    ((real *)to->scales)[output] = row ? ((const real *)p->scales)[number] : 0;
    ((int32_t *)to->starts)[output] = -OFFSET * sum;
}

#endif
