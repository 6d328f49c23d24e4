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
#include "halves.h"

typedef int8_t weight;
#define HEADER (2 * (ptrdiff_t)sizeof(real) / (ptrdiff_t)sizeof(input)) /* the scales of its parts */
#define MOST 127
#define LEAST 0x1p-100f  /* below it a row's numbers are taken for 0: 127 by them could overflow */

/* total[tile][row][q] += x[row] w[tile][q], for TOGETHER k's and vectors q in [first, last). */
INLINE void add_group(int tiles, int rows, int first, int last, const weight *w, ptrdiff_t w_tile,
                      ptrdiff_t half_step, const input *x, ptrdiff_t x_row, bits total[][4]) {
    /* Of weights and inputs the fewer stay in registers, the others come and go. */
    if (rows > last - first) {
        bits w_k[4];
        for (int q = first; q < last; q++) w_k[q] = load_weights(w + vector_at(half_step, q));
        for (int r = 0; r < rows; r++) {
            const bits x_k = broadcast_inputs(x + r * x_row);
            for (int q = first; q < last; q++) total[r][q] = dot(total[r][q], w_k[q], x_k);
        }
    } else {
        bits x_k[MOST_ROWS];
        for (int r = 0; r < rows; r++) x_k[r] = broadcast_inputs(x + r * x_row);
        for (int t = 0; t < tiles; t++)
            for (int q = first; q < last; q++) {
                const bits w_k = load_weights(w + t * w_tile + vector_at(half_step, q));
                for (int r = 0; r < rows; r++)
                    total[t * rows + r][q] = dot(total[t * rows + r][q], w_k, x_k[r]);
            }
    }
}

/* The same for all of these k's. */
INLINE void add_integers(int tiles, int rows, int first, int last, const weight *w, ptrdiff_t w_tile,
                         ptrdiff_t half_step, ptrdiff_t k_step, const char *ahead, const input *x,
                         ptrdiff_t x_row, ptrdiff_t depth, bits total[][4]) {
    if (ahead)
        for (ptrdiff_t k = 0; k < depth; k += TOGETHER, w += k_step) {
            __builtin_prefetch(ahead + k * (64 / TOGETHER), 0, 2);
            add_group(tiles, rows, first, last, w, w_tile, half_step, x + k, x_row, total);
        }
    else
        for (ptrdiff_t k = 0; k < depth; k += TOGETHER, w += k_step)
            add_group(tiles, rows, first, last, w, w_tile, half_step, x + k, x_row, total);
}

/* Part 0 or 1 of the product: k's [from, to). */
INLINE void accumulate_part(int tiles, int rows, int vectors, int at, const packed_matrix *w,
                            ptrdiff_t k_step, ptrdiff_t tile, const char *ahead, const input *row,
                            ptrdiff_t x_row, int part, ptrdiff_t from, ptrdiff_t to, vec sum[][4]) {
    bits total[MOST_ROWS][4];
    const ptrdiff_t output = (part * w->tiles + tile) * TILE + at * VLEN, group = from / TOGETHER;
    const weight *weights = (const weight *)w->weights + tile * w->tile_step + group * k_step;
    const real *scales = (const real *)w->scales + output;
    const real *starts = (const real *)w->starts + output;
    for (int t = 0; t < tiles; t++)
        for (int q = 0; q < vectors; q++)
            for (int r = 0; r < rows; r++)
                total[t * rows + r][q] =
                    OFFSET ? load_bits(starts + t * TILE + q * VLEN) : (bits){0};
    const ptrdiff_t depth = to - from, w_tile = w->tile_step, half = half_step_of(vectors, w);
    if (ahead) ahead += group * 64;
    const input *x = row + HEADER + from;
    if (IN_HALVES && tiles * rows > 2) {
        add_integers(tiles, rows, 0, 2, weights, w_tile, half, k_step, ahead, x, x_row, depth, total);
        add_integers(tiles, rows, 2, vectors, weights, w_tile, half, k_step, NULL, x, x_row, depth,
                     total);
    } else {
        add_integers(tiles, rows, 0, vectors, weights, w_tile, half, k_step, ahead, x, x_row, depth,
                     total);
    }
    for (int t = 0; t < tiles; t++)
        for (int q = 0; q < vectors; q++) {
            const vec scale = load(scales + t * TILE + q * VLEN);
            for (int r = 0; r < rows; r++)
                sum[t * rows + r][at + q] += __builtin_convertvector(total[t * rows + r][q], vec) *
                                             (scale * ((const real *)(row + r * x_row))[part]);
        }
}

INLINE void accumulate(int tiles, int rows, const packed_matrix *w, ptrdiff_t k_step, ptrdiff_t tile,
                       const char *ahead, const input *x, ptrdiff_t x_row, vec sum[][4]) {
    accumulate_part(tiles, rows, 4, 0, w, k_step, tile, ahead, x, x_row, 0, 0, w->first, sum);
    if (w->first < w->depth)
        accumulate_part(tiles, rows, 4, 0, w, k_step, tile, ahead, x, x_row, 1, w->first, w->depth,
                        sum);
}

INLINE ptrdiff_t rows_at_once(const packed_matrix *w, ptrdiff_t n) {
    (void)w, (void)n;
    return MOST_ROWS;
}

/* The larger of magnitudes as their bits, which order NaN above infinity. */
INLINE bits larger(bits most, vec x) {
    const bits magnitude = (bits)x & ~SIGN_BIT;
    return (bits)choose(magnitude > most, (vec)magnitude, (vec)most);
}

static real largest(ptrdiff_t n, const real *x) {
    const ptrdiff_t whole = n - n % VLEN;
    bits most = {0};
    for (ptrdiff_t j = 0; j < whole; j += VLEN) most = larger(most, load(x + j));
    if (whole < n) most = larger(most, load_n(x + whole, n - whole));
    real_bits one = 0;
    for (ptrdiff_t j = 0; j < VLEN; j++) one = most[j] > one ? most[j] : one;
    real magnitude;
    memcpy(&magnitude, &one, sizeof one);
    return magnitude;
}

/* To the nearest integers, half to even, of x times the inverse, which is rounded first on every
 * instruction set; n of them. */
INLINE void put_integers(input *to, vec x, vec inverse, ptrdiff_t n) {
    typedef input inputs __attribute__((vector_size(VECTOR_BYTES / sizeof(real) * sizeof(input))));
    const vec magic = broadcast(0x1.8p23f);
    const bits nearest = (bits)(rounded_product(x, inverse) + magic) - (bits)magic;
    const inputs q = __builtin_convertvector(nearest + OFFSET, inputs);
    memcpy(to, &q, (size_t)n * sizeof(input));
}

static void convert(ptrdiff_t n, const void *from, int part, ptrdiff_t at, void *to) {
    const real *x = from, most = largest(n, x);
    const int fits = most >= LEAST && most <= __FLT_MAX__;
    const ptrdiff_t whole = n - n % VLEN;
    const vec inverse = broadcast(fits ? MOST / most : 0);
    input *inputs = (input *)to + HEADER + at;
    ((real *)to)[part] = fits ? most / MOST : most < LEAST ? 0 : __builtin_nanf("");
    for (ptrdiff_t j = 0; j < whole; j += VLEN) put_integers(inputs + j, load(x + j), inverse, VLEN);
    if (whole < n) put_integers(inputs + whole, load_n(x + whole, n - whole), inverse, n - whole);
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
