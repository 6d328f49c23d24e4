/* Fills one table of kernels. Compiled once for each (instruction set, format), with ISA and FORMAT
 * (their names, bare), VECTOR_BYTES, REAL_IS_DOUBLE and, of formats that do not train, FORMAT_<name>
 * defined, and that set's compiler flags.
 */
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "pack.h"
#include "product.h"
#if TRAINS
#include "losses.h"
#include "outer.h"
#include "updates.h"

/* Adds z's sums over n rows, in blocks that stay in the L2 cache while their units are summed, for
 * units [from, to): BODY(k, first row, last, from unit j, over n units, ...). */
#define FOR_EACH_BLOCK(k, n, from, to, BODY, ...)                                                 \
    do {                                                                                          \
        enum { ROWS = 32 };                                                                       \
        const ptrdiff_t rest = ((to) - (from)) % VLEN, whole = (to) - rest;                       \
        for (ptrdiff_t first = 0; first < (n); first += ROWS) {                                   \
            const ptrdiff_t last = (n) - first < ROWS ? (n) : first + ROWS;                       \
            for (ptrdiff_t j = from; j < whole; j += VLEN)                                        \
                BODY(k, first, last, j, VLEN, __VA_ARGS__);                                       \
            if (rest) BODY(k, first, last, whole, rest, __VA_ARGS__);                             \
        }                                                                                         \
    } while (0)

#define DEFINE_SUMS(name, sums)                                                                   \
    static void name(const cell *k, ptrdiff_t n, const step_tape *tape, const void *c_prev,       \
                     ptrdiff_t c_prev_row, const void *z, ptrdiff_t z_row, void *bias,            \
                     void *peephole, ptrdiff_t from, ptrdiff_t to) {                              \
        FOR_EACH_BLOCK(k, n, from, to, sum_vector, sums, z, z_row, bias);                         \
        if (sums == 4 && peephole)                                                                \
            FOR_EACH_BLOCK(k, n, from, to, sum_peepholes, tape, c_prev, c_prev_row, z, z_row,     \
                           peephole);                                                             \
    }
DEFINE_SUMS(sum_of_four, 4)
DEFINE_SUMS(sum_of_one, 1)

#endif

/* The sums of tiles from x's share of them, which lies where z_rows say, perhaps far away: those of
 * the next tiles are asked for. */
INLINE void load_chosen(int tiles, int rows, const packed_step *s, ptrdiff_t tile, ptrdiff_t row,
                        vec sum[][4]) {
    const ptrdiff_t ahead = (s->down ? -tiles : tiles) * TILE;
    for (int r = 0; r < rows; r++) {
        const real *z = (const real *)s->z + s->z_rows[row + r] * s->z_row + tile * TILE;
        for (int t = 0; t < tiles; t++)
            for (int q = 0; q < 4; q++) {
                sum[t * rows + r][q] = load(z + t * TILE + q * VLEN);
                __builtin_prefetch(z + ahead + t * TILE + q * VLEN);
            }
    }
}

/* The sums of a tile, from the bias or from x's share of them. */
INLINE void begin_sums(int tiles, int rows, const packed_matrix *w, const packed_step *s,
                       ptrdiff_t tile, ptrdiff_t row, vec sum[][4]) {
    if (s->z_rows)
        load_chosen(tiles, rows, s, tile, row, sum);
    else if (s->z)
        load_tile(tiles, rows, (const real *)s->z + row * s->z_row + tile * TILE, s->z_row, sum);
    else
        load_bias(tiles, rows, w, tile, sum);
}

/* Asks for the lines of y that the cell will write, which may be far away, while the product runs. (AVX2,
 * Zen 3, T=50 N=256 I=64 H=128: 36.5 -> 32.4 ms of one thread.) */
INLINE void ask_for_y(int tiles, int rows, const packed_step *s, ptrdiff_t tile, ptrdiff_t row) {
    if (!s->y || rows == 1) return;
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tiles; t++)
            __builtin_prefetch((const real *)s->y + s->y_rows[row + r] * s->y_row + (tile + t) * VLEN,
                               1);
}

INLINE void pass_on(int count, const vec sum[][4], finish *then, const cell *k, const packed_step *s,
                    ptrdiff_t tile, int tiles, ptrdiff_t row, int rows) {
    vec sums[MOST_ROWS][4];
    for (int j = 0; j < count; j++)
        for (int q = 0; q < 4; q++) sums[j][q] = sum[j][q];
    then(k, s, tile, tiles, row, rows, sums);
}

/* A tile's product, then the cell. With one row, whose next step waits for it, an LSTM's sums stay in
 * registers. */
INLINE void step_tile(int tiles, int rows, ptrdiff_t tile, ptrdiff_t row, const char *ahead,
                      const packed_matrix *w, const cell *k, finish *then, const packed_step *s) {
    vec sum[MOST_ROWS][4];
    begin_sums(tiles, rows, w, s, tile, row, sum);
    if (s->tape && rows > 1) lstm_ask_for_tape(k, s->tape, tile, tiles, row, rows);
    ask_for_y(tiles, rows, s, tile, row);
    accumulate(tiles, rows, w, packed_k_step(4), tile, ahead, (const input *)s->v + row * s->v_row,
               s->v_row, sum);
    if (rows == 1 && then == lstm_plain)
        lstm_finish(k, 1, 0, s, tile, tiles, row, rows, sum);
    else if (rows == 1 && then == lstm_plain_taped)
        lstm_finish(k, 1, 1, s, tile, tiles, row, rows, sum);
    else
        pass_on(tiles * rows, sum, then, k, s, tile, tiles, row, rows);
}

/* The same of a GRU, which has three vectors a k: x's are of sums 0 to 2, h's of 1 to 3. */
INLINE void gru_tile(int tiles, int rows, ptrdiff_t tile, ptrdiff_t row, const char *ahead,
                     const packed_matrix *w, const cell *k, finish *then, const packed_step *s) {
    const input *v = (const input *)s->v + row * s->v_row;
    const ptrdiff_t k_step = packed_k_step(3), first = s->z ? 0 : w->first;
    vec sum[MOST_ROWS][4];
    begin_sums(tiles, rows, w, s, tile, row, sum);
    if (s->tape && rows > 1) gru_ask_for_tape(k, s->tape, tile, tiles, row, rows);
    ask_for_y(tiles, rows, s, tile, row);
    if (first)
        accumulate_part(tiles, rows, 3, 0, w, k_step, tile, ahead, v, s->v_row, 0, 0, first, sum);
    accumulate_part(tiles, rows, 3, 1, w, k_step, tile, ahead, v, s->v_row, first > 0, first,
                    w->depth, sum);
    if (rows == 1 && then == gru_plain)
        gru_finish(k, 1, 0, s, tile, tiles, row, rows, sum);
    else
        pass_on(tiles * rows, sum, then, k, s, tile, tiles, row, rows);
}

/* The RNN's too: it differs in what is done with the sums. */
static void step_to(finish *then, const cell *k, const packed_matrix *w, ptrdiff_t n,
                    const packed_step *s, ptrdiff_t from, ptrdiff_t to) {
    COVER(from, to, s->down, n, w, step_tile, k, then, s);
}

static void lstm_step(const cell *k, const packed_matrix *w, ptrdiff_t n, const packed_step *s,
                      ptrdiff_t from, ptrdiff_t to) {
    step_to(lstm_end(k, s), k, w, n, s, from, to);
}

static void gru_step(const cell *k, const packed_matrix *w, ptrdiff_t n, const packed_step *s,
                     ptrdiff_t from, ptrdiff_t to) {
    finish *const then = gru_end(k, s);
    COVER(from, to, s->down, n, w, gru_tile, k, then, s);
}

static void rnn_step(const cell *k, const packed_matrix *w, ptrdiff_t n, const packed_step *s,
                     ptrdiff_t from, ptrdiff_t to) {
    step_to(rnn_end(k), k, w, n, s, from, to);
}

#if TRAINS

/* The same products by BLAS. */

static void multiply_by_blas(const packed_matrix *w, ptrdiff_t n, const void *x, ptrdiff_t x_row,
                             void *z, ptrdiff_t z_row, ptrdiff_t from, ptrdiff_t to, int down,
                             int adds) {
    (void)down;
    const ptrdiff_t first = from * TILE, width = (to - from) * TILE;
    const real *bias = w->bias;
    for (ptrdiff_t row = 0; row < n && !adds; row++)
        for (ptrdiff_t j = first; j < first + width; j++)
            ((real *)z)[row * z_row + j] = bias ? bias[j] : 0;
    cylstm_add_product[REAL_IS_DOUBLE](n, width, w->depth, x, x_row, (const real *)w->weights + first,
                                       w->k_step, (real *)z + first, z_row);
}

static void step_by_blas(finish *then, const cell *k, const packed_matrix *w, ptrdiff_t n,
                         const packed_step *s, ptrdiff_t from, ptrdiff_t to) {
    multiply_by_blas(w, n, s->v, s->v_row, s->z, s->z_row, from, to, s->down, 1);
    for (ptrdiff_t row = 0; row < n; row++)
        for (ptrdiff_t tile = from; tile < to; tile++) {
            vec sum[1][4];
            load_tile(1, 1, (const real *)s->z + row * s->z_row + tile * TILE, 0, sum);
            then(k, s, tile, 1, row, 1, sum);
        }
}

#define DEFINE_STEP_BY_BLAS(name, end)                                                            \
    static void name(const cell *k, const packed_matrix *w, ptrdiff_t n, const packed_step *s,    \
                     ptrdiff_t from, ptrdiff_t to) {                                              \
        step_by_blas(end, k, w, n, s, from, to);                                                  \
    }
DEFINE_STEP_BY_BLAS(lstm_step_by_blas, lstm_end(k, s))
DEFINE_STEP_BY_BLAS(gru_step_by_blas, gru_end(k, s))
DEFINE_STEP_BY_BLAS(rnn_step_by_blas, rnn_end(k))

static void add(ptrdiff_t n, const void *x, void *to) {
    for (ptrdiff_t j = 0; j < n; j++) ((real *)to)[j] += ((const real *)x)[j];
}

#endif

static void activate(const activation *a, ptrdiff_t n, const void *x, void *y) {
    for (ptrdiff_t j = 0; j < n; j += VLEN) {
        const ptrdiff_t lanes = n - j < VLEN ? n - j : VLEN;
        store_n((real *)y + j, apply(a, load_n((const real *)x + j, lanes)), lanes);
    }
}

#define TEXT(name) #name
#define QUOTED(name) TEXT(name)
#define JOINED(isa, format) cylstm_##isa##_##format
#define TABLE(isa, format) JOINED(isa, format)

#define COMMON                                                                                    \
    .isa = QUOTED(ISA), .width = (int)VLEN, .halves = APART, .together = TOGETHER,             \
    .weight_size = sizeof(weight), .input_size = sizeof(input), .activate = activate,             \
    .packed_tiles = packed_tiles, .pack = pack

extern const kernels TABLE(ISA, FORMAT)[2];

#if TRAINS
#define TRAINING                                                                                  \
    .group = GROUP, .add = add, .cell_output = cell_output, .pack_columns = pack_columns,         \
    .add_outer = add_outer, .transpose = transpose, .cross_entropy = cross_entropy,               \
    .softmax = softmax, .softmax_gradient = softmax_gradient, .sgd = sgd, .adam = adam,           \
    .rmsprop = rmsprop, .sum_of_squares = sum_of_squares, .scale = scale

#define CELLS(by)                                                                                 \
    .cells = {[LSTM] = {lstm_step##by, lstm_backward, sum_of_four},                               \
              [GRU] = {gru_step##by, gru_backward, sum_of_four},                                  \
              [RNN] = {rnn_step##by, rnn_backward, sum_of_one}}

const kernels TABLE(ISA, FORMAT)[2] = {
    {COMMON, TRAINING, .multiply = multiply, CELLS()},
    {COMMON, TRAINING, .flat = 1, .multiply = multiply_by_blas, CELLS(_by_blas)},
};
#else
const kernels TABLE(ISA, FORMAT)[2] = {
    {COMMON, .header = HEADER, .convert = convert, .multiply = multiply,
     .cells = {[LSTM] = {.step = lstm_step}, [GRU] = {.step = gru_step}, [RNN] = {.step = rnn_step}}},
};
#endif
