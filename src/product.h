/* Products with packed weights, in register tiles.
 *
 * Packed weights are [tile][k][4][VLEN]: a tile is four vectors of outputs, and for each k it holds
 * their weights side by side, so that the product streams through memory once; or, where APART, they
 * are [tile][2][k][2][VLEN]. (Those for products by BLAS are [k][tile][4][VLEN].) The four vectors are the
 * gates of the same VLEN hidden units, of a GRU three; or 4 VLEN outputs in a row, or VLEN: for few
 * outputs, and a depth that is a multiple of 4. A tile has four vectors of sums, whatever its weights
 * have. Missing outputs of the last tile have weights of zero.
 *
 * A register tile is 4 vectors x ROWS rows, or two tiles for one row, where one would leave the
 * multiply-add units waiting for each other. With 16 registers it is of three rows, or of two vectors
 * and six rows: then the tile's halves are taken one after the other, and what comes from a far cache
 * serves twice as many rows. (AVX2, Zen 3, peak 98 GFLOP/s, three rows against six: N=4 H=256 with as
 * wide an input 62 -> 90, N=16 85 -> 93, N=8 H=128 84 -> 93; N=256, inputs of 64, H=128 95 -> 92, since
 * a tile of 24 KiB stays in the L1 cache, and sums of halves go through memory.) Each output is one
 * accumulator that takes k in rising order from what it held before: its bits depend on nothing else
 * that is computed beside it.
 */
#ifndef CYLSTM_PRODUCT_H
#define CYLSTM_PRODUCT_H

#include "kernels.h"
#include "vec.h"

#define TILE (4 * VLEN)

/* 4 x ROWS accumulators: with AVX-512 and NEON there are 32 vector registers, else 16, of which
 * instructions of two operands need more. ONE_TO_n: X for each number of rows. */
#if VECTOR_BYTES == 32
#define IN_HALVES 1
#else
#define IN_HALVES 0
#endif
/* Whether packed halves lie apart, so that each is read in one go. 8-bit integers, which wait for
 * instructions and not for weights, took 2 % longer so. */
#if defined(FORMAT_int8)
#define APART 0
#else
#define APART IN_HALVES
#endif
#if VECTOR_BYTES == 16 && !defined(__aarch64__)
#define MOST_ROWS 2
#define EACH_ROW_COUNT ONE_TO_2
#else
#define MOST_ROWS 6
#define EACH_ROW_COUNT ONE_TO_6
#endif
#define ONE_TO_2(X, ...) X(1, __VA_ARGS__) X(2, __VA_ARGS__)
#define ONE_TO_3(X, ...) ONE_TO_2(X, __VA_ARGS__) X(3, __VA_ARGS__)
#define ONE_TO_6(X, ...)                                                                          \
    ONE_TO_3(X, __VA_ARGS__) X(4, __VA_ARGS__) X(5, __VA_ARGS__) X(6, __VA_ARGS__)

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

/* Not by memset, nor are sums copied by memcpy: compilers would keep them in memory, not registers. */
INLINE void set_zero(int count, vec sum[][4]) {
    for (int j = 0; j < count; j++)
        for (int q = 0; q < 4; q++) sum[j][q] = (vec){0};
}

/* A format of weights and rows gives the types `weight` and `input` of what they are packed and converted
 * to; TOGETHER, how many k's of an output lie side by side: [tile][k / TOGETHER][4][VLEN][TOGETHER];
 *
 *     rows_at_once(w, n)
 *         How many of n rows are best taken at once, at most MOST_ROWS;
 *
 *     accumulate_part(tiles, rows, vectors, at, w, k_step, tile, ahead, x, x_row, part, from, to, sum)
 *         sum[tile][row][at + q] += x[row] w[tile][q], q < vectors, for k's [from, to), which are part 0
 *         or 1; tiles, rows, vectors and at are constants, and with one row so should be w's k_step. A
 *         line of the weights `ahead`, wanted soon, is asked for with each TOGETHER k's; NULL for none.
 *
 *     accumulate(tiles, rows, w, k_step, tile, ahead, x, x_row, sum)
 *         The same for all parts of weights of four vectors.
 */
#if defined(FORMAT_int8)
#include "formats/int8.h"
#elif defined(FORMAT_bfloat16)
#include "formats/bfloat16.h"
#else
#include "formats/real.h"
#endif

/* Whether packed weights come from beyond the L2 cache at each step. */
INLINE int is_large(const packed_matrix *w) {
    return w->tiles * w->depth * w->vectors * VLEN * (ptrdiff_t)sizeof(weight) > 1 << 22;
}

/* Group g's share of the tile that is next in the sweep, a line for each TOGETHER k's; NULL where the
 * groups before it have asked for all of it. */
INLINE const char *share_ahead(const packed_matrix *w, ptrdiff_t tile, int down, ptrdiff_t g) {
    if (g >= w->vectors * VLEN * TOGETHER * (ptrdiff_t)sizeof(weight) / 64) return NULL;
    const weight *next = (const weight *)w->weights + (down ? tile - 1 : tile + 1) * w->tile_step;
    return (const char *)next + g * (w->depth / TOGETHER) * 64;
}

/* Calls BODY(tiles, rows, first tile, first row, ahead, w, ...) to cover tiles [from, to) and n
 * rows, with constant tiles and rows. Sweeping tiles up in one step and down in the next finds the
 * last ones still in the L2 cache. */
#define COVER(from, to, down, n, w, BODY, ...)                                                    \
    do {                                                                                          \
        const ptrdiff_t tiles = (to) - (from), at_once = (n) == 1 ? 2 : 1;                        \
        const ptrdiff_t most = rows_at_once(w, n), groups = ((n) + most - 1) / most;              \
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

INLINE void load_bias(int tiles, int rows, const packed_matrix *w, ptrdiff_t tile, vec sum[][4]) {
    if (w->bias)
        load_tile(tiles, rows, (const real *)w->bias + tile * TILE, 0, sum);
    else
        set_zero(tiles * rows, sum);
}

/* Of sums that will be written, perhaps far away, the lines: they come while the sums are made. (Zen 3,
 * 700 rows of 10,000 outputs, depth 128: 26.6 -> 24.4 ms.) */
INLINE void ask_for_tile(int tiles, int rows, real *z, ptrdiff_t z_row) {
    for (int r = 0; r < rows; r++)
        for (ptrdiff_t j = 0; j < tiles * TILE; j += 64 / (ptrdiff_t)sizeof(real))
            __builtin_prefetch(z + r * z_row + j, 1);
}

/* z = bias + x w, or += x w; of the first `vectors` of a tile's sums. */
INLINE void multiply_vectors(int vectors, int tiles, int rows, ptrdiff_t tile, ptrdiff_t row,
                             const char *ahead, const packed_matrix *w, const input *x,
                             ptrdiff_t x_row, real *z, ptrdiff_t z_row, int adds) {
    vec sum[MOST_ROWS][4];
    real *to = z + row * z_row + tile * TILE;
    if (adds) {
        load_tile(tiles, rows, to, z_row, sum);
    } else {
        load_bias(tiles, rows, w, tile, sum);
        ask_for_tile(tiles, rows, to, z_row);
    }
    accumulate_part(tiles, rows, vectors, 0, w, w->k_step, tile, ahead, x + row * x_row, x_row, 0, 0,
                    w->depth, sum);
    store_tile(tiles, rows, to, z_row, sum);
}

#define MULTIPLY_FOUR(...) multiply_vectors(4, __VA_ARGS__)

/* Of x's weights of a GRU, which are read for many rows at once. */
INLINE void multiply_three(int tiles, int rows, ptrdiff_t tile, ptrdiff_t row, const char *ahead,
                           const packed_matrix *w, const input *x, ptrdiff_t x_row, real *z,
                           ptrdiff_t z_row, int adds) {
    (void)ahead;
    multiply_vectors(3, tiles, rows, tile, row, NULL, w, x, x_row, z, z_row, adds);
}

static void multiply(const packed_matrix *w, ptrdiff_t n, const void *x, ptrdiff_t x_row, void *z,
                     ptrdiff_t z_row, ptrdiff_t from, ptrdiff_t to, int down, int adds) {
#if TRAINS
    if (w->vectors == 1) {
        COVER(from, to, down, n, w, multiply_narrow, (const real *)x, x_row, (real *)z, z_row, adds);
        return;
    }
#endif
    if (w->vectors == 3)
        COVER(from, to, down, n, w, multiply_three, (const input *)x, x_row, (real *)z, z_row, adds);
    else
        COVER(from, to, down, n, w, MULTIPLY_FOUR, (const input *)x, x_row, (real *)z, z_row, adds);
}

#endif
