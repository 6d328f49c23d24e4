/* Fills one table of kernels. Compiled once for each (instruction set, format), with ISA and FORMAT
 * (their names, bare), VECTOR_BYTES, REAL_IS_DOUBLE and, of formats that do not train, FORMAT_<name>
 * defined, and that set's compiler flags.
 */
#include "cell.h"
#include "pack.h"
#include "product.h"
#if TRAINS
#include "losses.h"
#include "outer.h"
#include "updates.h"
#endif

/* Loads vector j of [.., H] gates or peepholes that lie H reals apart. */
INLINE void load_each(vec *to, int count, const real *from, ptrdiff_t hidden, ptrdiff_t n) {
    for (int q = 0; q < count; q++) to[q] = load_n(from + q * hidden, n);
}
INLINE void store_each(real *to, int count, const vec *from, ptrdiff_t hidden, ptrdiff_t n) {
    for (int q = 0; q < count; q++) store_n(to + q * hidden, from[q], n);
}
/* Calls BODY(plain, at row, from unit j, over n units) for every row and each vector of units
 * [from, to). */
#define FOR_EACH_VECTOR(k, rows, from, to, BODY, ...)                                             \
    do {                                                                                          \
        const ptrdiff_t rest = ((to) - (from)) % VLEN, whole = (to) - rest;                       \
        const int plain = is_plain(k);                                                            \
        for (ptrdiff_t row = 0; row < (rows); row++) {                                            \
            if (plain)                                                                            \
                for (ptrdiff_t j = from; j < whole; j += VLEN)                                    \
                    BODY(k, 1, row, j, VLEN, __VA_ARGS__);                                        \
            else                                                                                  \
                for (ptrdiff_t j = from; j < whole; j += VLEN)                                    \
                    BODY(k, 0, row, j, VLEN, __VA_ARGS__);                                        \
            if (rest) BODY(k, 0, row, whole, rest, __VA_ARGS__);                                  \
        }                                                                                         \
    } while (0)

INLINE void load_peepholes(const cell *k, int plain, ptrdiff_t j, ptrdiff_t n, vec p[3]) {
    if (!plain && k->peephole) load_each(p, 3, (const real *)k->peephole + j, k->hidden, n);
}

INLINE void keep_state(const step_tape *tape, ptrdiff_t row, ptrdiff_t j, ptrdiff_t hidden,
                       ptrdiff_t n, const units *u) {
    store_each((real *)tape->gates + row * tape->gates_row + j, 4, u->gate, hidden, n);
    store_n((real *)tape->c + row * tape->c_row + j, u->c, n);
}

INLINE void keep_result(const step_tape *tape, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                        const units *u) {
    store_n((real *)tape->tanh_c + row * tape->c_row + j, u->tanh_c, n);
}

#if TRAINS

INLINE void backward_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                            const step_tape *tape, const real *c_prev, ptrdiff_t c_prev_row,
                            const step_gradients *grad) {
    units u;
    vec peephole[3] = {{0}}, dz[4];
    real *grad_c = (real *)grad->c + row * grad->c_row + j;
    vec dc = load_n(grad_c, n), dh = load_n((const real *)grad->h + row * grad->h_row + j, n);
    if (grad->y) dh += load_n((const real *)grad->y + row * grad->y_row + j, n);
    load_peepholes(k, plain, j, n, peephole);
    load_each(u.gate, 4, (real *)tape->gates + row * tape->gates_row + j, k->hidden, n);
    u.c_prev = load_n(c_prev + row * c_prev_row + j, n);
    u.tanh_c = load_n((real *)tape->tanh_c + row * tape->c_row + j, n);
    cell_gradients(k, plain, peephole, &u, dh, &dc, dz);
    store_n(grad_c, dc, n);
    store_each((real *)grad->z + row * grad->z_row + j, 4, dz, k->hidden, n);
}

/* For units [j, j + n) the sums over rows [first, last). */
INLINE void sum_vector(const cell *k, ptrdiff_t first, ptrdiff_t last, ptrdiff_t j, ptrdiff_t n,
                       const step_tape *tape, const real *c_prev, ptrdiff_t c_prev_row,
                       const real *z, ptrdiff_t z_row, real *bias, real *peephole) {
    vec sum[4], p_sum[3] = {{0}}, dz[4];
    load_each(sum, 4, bias + j, k->hidden, n);
    if (k->peephole) load_each(p_sum, 3, peephole + j, k->hidden, n);
    for (ptrdiff_t row = first; row < last; row++) {
        load_each(dz, 4, z + row * z_row + j, k->hidden, n);
        for (int q = 0; q < 4; q++) sum[q] += dz[q];
        if (!k->peephole) continue;
        const vec before = load_n(c_prev + row * c_prev_row + j, n);
        p_sum[0] += dz[I] * before;
        p_sum[1] += dz[F] * before;
        p_sum[2] += dz[O] * load_n((real *)tape->c + row * tape->c_row + j, n);
    }
    store_each(bias + j, 4, sum, k->hidden, n);
    if (k->peephole) store_each(peephole + j, 3, p_sum, k->hidden, n);
}

INLINE void output_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                          const step_tape *tape, real *h) {
    (void)plain;
    const real *o = (real *)tape->gates + row * tape->gates_row + O * k->hidden + j;
    const real *tanh_c = (real *)tape->tanh_c + row * tape->c_row + j;
    store_n(h + row * k->hidden + j, load_n(o, n) * load_n(tanh_c, n), n);
}

static void cell_backward(const cell *k, ptrdiff_t n, const step_tape *tape, const void *c_prev,
                          ptrdiff_t c_prev_row, const step_gradients *grad, ptrdiff_t from,
                          ptrdiff_t to) {
    FOR_EACH_VECTOR(k, n, from, to, backward_vector, tape, c_prev, c_prev_row, grad);
}

static void sum_gradients(const cell *k, ptrdiff_t n, const step_tape *tape, const void *c_prev,
                          ptrdiff_t c_prev_row, const void *z, ptrdiff_t z_row, void *bias,
                          void *peephole, ptrdiff_t from, ptrdiff_t to) {
    enum { ROWS = 32 }; /* of a block: it stays in the L2 cache while its units are summed */
    const ptrdiff_t rest = (to - from) % VLEN, whole = to - rest;
    for (ptrdiff_t first = 0; first < n; first += ROWS) {
        const ptrdiff_t last = n - first < ROWS ? n : first + ROWS;
        for (ptrdiff_t j = from; j < whole; j += VLEN)
            sum_vector(k, first, last, j, VLEN, tape, c_prev, c_prev_row, z, z_row, bias, peephole);
        if (rest)
            sum_vector(k, first, last, whole, rest, tape, c_prev, c_prev_row, z, z_row, bias,
                       peephole);
    }
}

static void cell_output(const cell *k, ptrdiff_t n, const step_tape *tape, void *h) {
    FOR_EACH_VECTOR(k, n, 0, k->hidden, output_vector, tape, h);
}

#endif

INLINE void finish_state(const cell *k, int plain, int taped, const packed_step *s, ptrdiff_t unit,
                         ptrdiff_t row, ptrdiff_t n, units *u) {
    real *c = (real *)s->c + row * s->c_row + unit;
    vec peephole[3] = {{0}};
    load_peepholes(k, plain, unit, n, peephole);
    u->c_prev = load(c);
    if (plain && !taped)
        quick_state(u);
    else
        cell_state(k, plain, peephole, u);
    store(c, u->c);
    if (taped) keep_state(s->tape, row, unit, k->hidden, n, u);
}

INLINE void finish_result(const cell *k, int plain, int taped, const packed_step *s, ptrdiff_t unit,
                          ptrdiff_t row, ptrdiff_t n, units *u) {
    if (plain && !taped)
        quick_result(u);
    else
        cell_result(k, plain, u);
    store((real *)s->h + row * s->h_row + unit, u->h);
    if (s->y) store_n((real *)s->y + s->y_rows[row] * s->y_row + unit, u->h, n);
    if (taped) keep_result(s->tape, row, unit, n, u);
}

INLINE ptrdiff_t lanes_at(const cell *k, ptrdiff_t unit) {
    return lanes_left(k->hidden - unit, VLEN);
}

/* The cell on the sums of some tiles and rows. It takes all units as far as c, then all to h: from c
 * on the equations are one chain, and few units' fit into the CPU's view at once. */
INLINE void finish_tiles(const cell *k, int plain, int taped, const packed_step *s, ptrdiff_t tile,
                         int tiles, ptrdiff_t row, int rows, const vec sum[][4]) {
    struct { vec c, o; } half[MOST_ROWS];
    for (int t = 0; t < tiles; t++)
        for (int r = 0; r < rows; r++) {
            const ptrdiff_t unit = (tile + t) * VLEN;
            const int j = t * rows + r;
            units u = {.gate = {sum[j][I], sum[j][F], sum[j][G], sum[j][O]}};
            finish_state(k, plain, taped, s, unit, row + r, lanes_at(k, unit), &u);
            half[j].c = u.c, half[j].o = u.gate[O];
        }
    for (int t = 0; t < tiles; t++)
        for (int r = 0; r < rows; r++) {
            const ptrdiff_t unit = (tile + t) * VLEN;
            const int j = t * rows + r;
            units u = {.gate[O] = half[j].o, .c = half[j].c};
            finish_result(k, plain, taped, s, unit, row + r, lanes_at(k, unit), &u);
        }
}

/* As functions of their own, whatever the number of rows: the product has used up the registers, so
 * that the sums go through memory anyway. */
typedef void finish(const cell *k, const packed_step *s, ptrdiff_t tile, int tiles, ptrdiff_t row,
                    int rows, const vec sum[][4]);

#define DEFINE_FINISH(name, plain, taped)                                                         \
    static __attribute__((noinline)) void name(const cell *k, const packed_step *s,               \
                                               ptrdiff_t tile, int tiles, ptrdiff_t row,          \
                                               int rows, const vec sum[][4]) {                    \
        finish_tiles(k, plain, taped, s, tile, tiles, row, rows, sum);                            \
    }
DEFINE_FINISH(finish_plain, 1, 0)
DEFINE_FINISH(finish_any, 0, 0)
DEFINE_FINISH(finish_plain_taped, 1, 1)
DEFINE_FINISH(finish_any_taped, 0, 1)

/* Asks for the lines of the tape that the cell will write, from far away, while the product runs.
 * (With one row they follow each other, and the CPU asks by itself.) */
INLINE void ask_for_tape(const cell *k, const step_tape *tape, ptrdiff_t tile, int tiles,
                         ptrdiff_t row, int rows) {
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tiles; t++) {
            const ptrdiff_t unit = (tile + t) * VLEN, at = (row + r) * tape->c_row + unit;
            const real *gates = (real *)tape->gates + (row + r) * tape->gates_row + unit;
            for (int q = 0; q < 4; q++) __builtin_prefetch(gates + q * k->hidden, 1);
            __builtin_prefetch((real *)tape->c + at, 1);
            __builtin_prefetch((real *)tape->tanh_c + at, 1);
        }
}

/* A tile's product, then the cell. With one row, whose next step waits for it, the sums stay in
 * registers. */
INLINE void step_tile(int tiles, int rows, ptrdiff_t tile, ptrdiff_t row, const char *ahead,
                      const packed_matrix *w, const cell *k, finish *then, const packed_step *s) {
    vec sum[MOST_ROWS][4];
    if (s->z)
        load_tile(tiles, rows, (const real *)s->z + row * s->z_row + tile * TILE, s->z_row, sum);
    else
        load_bias(tiles, rows, w, tile, sum);
    if (s->tape && rows > 1) ask_for_tape(k, s->tape, tile, tiles, row, rows);
    accumulate(tiles, rows, w, TILE * TOGETHER, tile, ahead, (const input *)s->v + row * s->v_row,
               s->v_row, sum);
    if (rows == 1 && then == finish_plain) {
        finish_tiles(k, 1, 0, s, tile, tiles, row, rows, sum);
    } else if (rows == 1 && then == finish_plain_taped) {
        finish_tiles(k, 1, 1, s, tile, tiles, row, rows, sum);
    } else {
        vec gates[MOST_ROWS][4];
        for (int j = 0; j < tiles * rows; j++)
            for (int q = 0; q < 4; q++) gates[j][q] = sum[j][q];
        then(k, s, tile, tiles, row, rows, gates);
    }
}

static finish *finish_of(const cell *k, const packed_step *s) {
    finish *const plain = s->tape ? finish_plain_taped : finish_plain;
    finish *const any = s->tape ? finish_any_taped : finish_any;
    return is_plain(k) ? plain : any;
}

static void step(const cell *k, const packed_matrix *w, ptrdiff_t n, const packed_step *s,
                 ptrdiff_t from, ptrdiff_t to) {
    finish *const then = finish_of(k, s);
    COVER(from, to, s->down, n, w, step_tile, k, then, s);
}

#if TRAINS

/* The same two by BLAS. */

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

static void step_by_blas(const cell *k, const packed_matrix *w, ptrdiff_t n, const packed_step *s,
                         ptrdiff_t from, ptrdiff_t to) {
    finish *const then = finish_of(k, s);
    multiply_by_blas(w, n, s->v, s->v_row, s->z, s->z_row, from, to, s->down, 1);
    for (ptrdiff_t row = 0; row < n; row++)
        for (ptrdiff_t tile = from; tile < to; tile++) {
            vec sum[1][4];
            load_tile(1, 1, (const real *)s->z + row * s->z_row + tile * TILE, 0, sum);
            then(k, s, tile, 1, row, 1, sum);
        }
}

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
    .isa = QUOTED(ISA), .width = (int)VLEN, .group = MOST_ROWS, .together = TOGETHER,             \
    .weight_size = sizeof(weight), .input_size = sizeof(input), .activate = activate,             \
    .packed_tiles = packed_tiles, .pack = pack

extern const kernels TABLE(ISA, FORMAT)[2];

#if TRAINS
#define TRAINING                                                                                  \
    .add = add, .cell_backward = cell_backward, .sum_gradients = sum_gradients,                   \
    .cell_output = cell_output, .pack_columns = pack_columns, .add_outer = add_outer,             \
    .transpose = transpose, .cross_entropy = cross_entropy, .sgd = sgd, .adam = adam,             \
    .rmsprop = rmsprop, .sum_of_squares = sum_of_squares, .scale = scale

const kernels TABLE(ISA, FORMAT)[2] = {
    {COMMON, TRAINING, .multiply = multiply, .step = step},
    {COMMON, TRAINING, .flat = 1, .multiply = multiply_by_blas, .step = step_by_blas},
};
#else
const kernels TABLE(ISA, FORMAT)[2] = {
    {COMMON, .header = HEADER, .convert = convert, .multiply = multiply, .step = step},
};
#endif
