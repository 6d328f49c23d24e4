/* Products with packed weights, in register tiles.
 *
 * Packed weights are [tile][k][4][VLEN]: a tile is four vectors of outputs, and for each k it holds
 * their weights side by side, so that the product streams through memory once. (Those for products by
 * BLAS are [k][tile][4][VLEN].) With `gated`
 * packing the four vectors are the gates i, f, g, o of the same VLEN hidden units; else they are
 * 4 VLEN outputs in a row, or, `narrow`, VLEN: for few outputs, and a depth that is a multiple of 4.
 * Missing outputs of the last tile have weights of zero.
 *
 * A register tile is 4 vectors x ROWS rows, or two tiles for one row, where one would leave the
 * multiply-add units waiting for each other. Each output is one accumulator that takes k in rising
 * order from what it held before: its bits depend on nothing else that is computed beside it.
 */
#ifndef CYLSTM_PRODUCT_H
#define CYLSTM_PRODUCT_H

#include "kernels.h"
#include "transpose.h"
#include "vec.h"

#define TILE (4 * VLEN)

/* 4 x ROWS accumulators: with AVX-512 and NEON there are 32 vector registers, else 16, of which
 * instructions of two operands need more. ONE_TO_n: X for each number of rows. */
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define MOST_ROWS 6
#define EACH_ROW_COUNT ONE_TO_6
#elif VECTOR_BYTES == 32
#define MOST_ROWS 3
#define EACH_ROW_COUNT ONE_TO_3
#else
#define MOST_ROWS 2
#define EACH_ROW_COUNT ONE_TO_2
#endif
#define ONE_TO_2(X, ...) X(1, __VA_ARGS__) X(2, __VA_ARGS__)
#define ONE_TO_3(X, ...) ONE_TO_2(X, __VA_ARGS__) X(3, __VA_ARGS__)
#define ONE_TO_6(X, ...)                                                                          \
    ONE_TO_3(X, __VA_ARGS__) X(4, __VA_ARGS__) X(5, __VA_ARGS__) X(6, __VA_ARGS__)

/* sum[tile][row][4] += x[row] w[tile][4], for one k. */
INLINE void accumulate_one(int tiles, int rows, const real *w, ptrdiff_t w_tile, const real *x,
                           ptrdiff_t x_row, vec sum[][4]) {
    vec x_k[MOST_ROWS];
    for (int r = 0; r < rows; r++) x_k[r] = broadcast(x[r * x_row]);
    for (int t = 0; t < tiles; t++)
        for (int q = 0; q < 4; q++) {
            const vec w_k = load(w + t * w_tile + q * VLEN);
            for (int r = 0; r < rows; r++) sum[t * rows + r][q] += w_k * x_k[r];
        }
}

/* sum[tile][row][4] += x[row][k] w[tile][k][4], for all k; tiles and rows are constants, and with one
 * row w's k_step should be. A line of the weights `ahead`, wanted soon, is asked for at each k; NULL
 * for none. */
INLINE void accumulate(int tiles, int rows, const packed_matrix *w, ptrdiff_t k_step, ptrdiff_t tile,
                       const char *ahead, const real *x, ptrdiff_t x_row, vec sum[][4]) {
    const real *weights = (const real *)w->weights + tile * w->tile_step;
    if (ahead)
        for (ptrdiff_t k = 0; k < w->depth; k++) {
            __builtin_prefetch(ahead + k * 64, 0, 2);
            accumulate_one(tiles, rows, weights + k * k_step, w->tile_step, x + k, x_row, sum);
        }
    else
        for (ptrdiff_t k = 0; k < w->depth; k++)
            accumulate_one(tiles, rows, weights + k * k_step, w->tile_step, x + k, x_row, sum);
}

INLINE void load_tile(int tiles, int rows, const real *z, ptrdiff_t z_row, vec sum[][4]) {
    for (int t = 0; t < tiles; t++)
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 4; q++)
                sum[t * rows + r][q] = load(z + r * z_row + t * TILE + q * VLEN);
}

INLINE void store_tile(int tiles, int rows, real *z, ptrdiff_t z_row, vec sum[][4]) {
    for (int t = 0; t < tiles; t++)
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 4; q++)
                store(z + r * z_row + t * TILE + q * VLEN, sum[t * rows + r][q]);
}

/* Whether packed weights come from beyond the L2 cache at each step. */
INLINE int is_large(const packed_matrix *w) {
    return w->tiles * w->depth * TILE * (ptrdiff_t)sizeof(real) > 1 << 22;
}

/* Group g's share of the tile that is next in the sweep, a line for each k; NULL where the groups
 * before it have asked for all of it. */
INLINE const char *share_ahead(const packed_matrix *w, ptrdiff_t tile, int down, ptrdiff_t g) {
    if (g >= TILE * (ptrdiff_t)sizeof(real) / 64) return NULL;
    const real *next = (const real *)w->weights + (down ? tile - 1 : tile + 1) * w->tile_step;
    return (const char *)next + g * w->depth * 64;
}

/* Calls BODY(tiles, rows, first tile, first row, ahead, w, ...) to cover tiles [from, to) and n
 * rows, with constant tiles and rows. Sweeping tiles up in one step and down in the next finds the
 * last ones still in the L2 cache. */
#define COVER(from, to, down, n, w, BODY, ...)                                                    \
    do {                                                                                          \
        const ptrdiff_t tiles = (to) - (from), at_once = (n) == 1 ? 2 : 1;                        \
        const ptrdiff_t groups = ((n) + MOST_ROWS - 1) / MOST_ROWS;                               \
        const int large = groups > 1 && is_large(w);                                              \
        const ptrdiff_t sweeps = (tiles + at_once - 1) / at_once;                                 \
        for (ptrdiff_t sweep = 0; sweep < sweeps; sweep++) {                                      \
            const ptrdiff_t tile = (from) + ((down) ? sweeps - 1 - sweep : sweep) * at_once;      \
            if ((n) == 1 && tile + 2 <= (to)) {                                                   \
                BODY(2, 1, tile, 0, NULL, w, __VA_ARGS__);                                        \
                continue;                                                                         \
            }                                                                                     \
            for (ptrdiff_t g = 0; g < groups; g++) {                                              \
                const ptrdiff_t row = g * (n) / groups;                                           \
                const char *ahead = large ? share_ahead(w, tile, down, g) : NULL;                 \
                switch ((g + 1) * (n) / groups - row) {                                           \
                    EACH_ROW_COUNT(ROW_COUNT, BODY, tile, row, ahead, w, __VA_ARGS__)             \
                }                                                                                 \
            }                                                                                     \
        }                                                                                         \
    } while (0)

#define ROW_COUNT(rows, BODY, ...) case rows: BODY(1, rows, __VA_ARGS__); break;

/* Not by memset, nor are sums copied by memcpy: compilers would keep them in memory, not registers. */
INLINE void set_zero(int count, vec sum[][4]) {
    for (int j = 0; j < count; j++)
        for (int q = 0; q < 4; q++) sum[j][q] = (vec){0};
}

INLINE void load_bias(int tiles, int rows, const packed_matrix *w, ptrdiff_t tile, vec sum[][4]) {
    if (w->bias)
        load_tile(tiles, rows, (const real *)w->bias + tile * TILE, 0, sum);
    else
        set_zero(tiles * rows, sum);
}

/* z = bias + x w, or += x w */
INLINE void multiply_tile(int tiles, int rows, ptrdiff_t tile, ptrdiff_t row, const char *ahead,
                          const packed_matrix *w, const real *x, ptrdiff_t x_row, real *z,
                          ptrdiff_t z_row, int adds) {
    vec sum[MOST_ROWS][4];
    if (adds)
        load_tile(tiles, rows, z + row * z_row + tile * TILE, z_row, sum);
    else
        load_bias(tiles, rows, w, tile, sum);
    accumulate(tiles, rows, w, w->k_step, tile, ahead, x + row * x_row, x_row, sum);
    store_tile(tiles, rows, z + row * z_row + tile * TILE, z_row, sum);
}

/* The same for tiles of one vector, in four sums over every fourth k: as many as with four vectors. */
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

static void multiply(const packed_matrix *w, ptrdiff_t n, const void *x, ptrdiff_t x_row, void *z,
                     ptrdiff_t z_row, ptrdiff_t from, ptrdiff_t to, int down, int adds) {
    if (w->narrow)
        COVER(from, to, down, n, w, multiply_narrow, (const real *)x, x_row, (real *)z, z_row, adds);
    else
        COVER(from, to, down, n, w, multiply_tile, (const real *)x, x_row, (real *)z, z_row, adds);
}

/* to[group][row][MOST_ROWS] := columns [first, first + m), so that a group's follow each other. */
static void pack_columns(ptrdiff_t n, ptrdiff_t first, ptrdiff_t m, const void *const *from,
                         void *to) {
    const ptrdiff_t whole = m - m % MOST_ROWS, group = n * MOST_ROWS;
    for (ptrdiff_t row = 0; row < n; row++) {
        const real *columns = (const real *)from[row] + first;
        real *packed = (real *)to + row * MOST_ROWS;
        for (ptrdiff_t j = 0; j < whole; j += MOST_ROWS)
            memcpy(packed + j * n, columns + j, MOST_ROWS * sizeof(real));
        memcpy(packed + whole / MOST_ROWS * group, columns + whole,
               (size_t)(m - whole) * sizeof(real));
    }
}

/* tile[row][TILE] := columns [first, first + n) of each row, and zeros. */
static void copy_tile(ptrdiff_t rows, ptrdiff_t first, ptrdiff_t n, const void *const *from,
                      real *tile) {
    for (ptrdiff_t row = 0; row < rows; row++, tile += TILE) {
        const real *columns = (const real *)from[row] + first;
        for (ptrdiff_t j = 0; j < TILE; j += VLEN)
            if (n >= TILE)
                store(tile + j, load(columns + j));
            else
                store(tile + j, load_n(columns + j, lanes_left(n - j, VLEN)));
    }
}

/* c[columns][TILE] = or += a[row][columns] b[row][TILE], summed over the rows. The tile of c that is
 * next is asked for meanwhile. */
INLINE void outer_tile(int columns, ptrdiff_t rows, const real *a, const real *b, real *c,
                       ptrdiff_t c_row, int adds) {
    vec sum[MOST_ROWS][4];
    if (adds)
        load_tile(1, columns, c, c_row, sum);
    else
        set_zero(columns, sum);
    for (ptrdiff_t next = columns; next < 2 * columns; next++)
        for (ptrdiff_t j = 0; j < TILE; j += VLEN) __builtin_prefetch(c + next * c_row + j, 1);
    for (ptrdiff_t row = 0; row < rows; row++)
        accumulate_one(1, columns, b + row * TILE, 0, a + row * MOST_ROWS, 1, sum);
    store_tile(1, columns, c, c_row, sum);
}

#define OUTER_TILE(columns, ...) case columns: outer_tile(columns, __VA_ARGS__); break;

static void add_outer(ptrdiff_t rows, ptrdiff_t m, ptrdiff_t n, const void *a,
                      const void *const *b, ptrdiff_t first, void *c, ptrdiff_t c_row, int adds,
                      void *tile) {
    for (ptrdiff_t j = 0; j < n; j += TILE) {
        copy_tile(rows, first + j, n - j, b, tile);
        for (ptrdiff_t i = 0; i < m; i += MOST_ROWS) {
            const real *group = (const real *)a + i * rows;
            real *to = (real *)c + i * c_row + j;
            switch (m - i < MOST_ROWS ? m - i : MOST_ROWS) {
                EACH_ROW_COUNT(OUTER_TILE, rows, group, tile, to, c_row, adds)
            }
        }
    }
}

/* Outputs in a packed tile. */
INLINE ptrdiff_t packed_tile(const packing *p) { return p->narrow ? VLEN : TILE; }

static ptrdiff_t packed_tiles(const packing *p) {
    const ptrdiff_t each = p->gated ? VLEN : packed_tile(p);
    return (p->outputs + each - 1) / each;
}

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

#endif
