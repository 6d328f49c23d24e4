/* Fills one table of kernels. Compiled once for each (instruction set, dtype), with
 * ISA (its name, bare), VECTOR_BYTES and REAL_IS_DOUBLE defined, and that set's compiler flags.
 */
#include "cell.h"
#include "product.h"

/* Loads vector j of [.., H] gates or peepholes that lie H reals apart. */
INLINE void load_each(vec *to, int count, const real *from, ptrdiff_t hidden, ptrdiff_t n) {
    for (int q = 0; q < count; q++) to[q] = load_n(from + q * hidden, n);
}
INLINE void store_each(real *to, int count, const vec *from, ptrdiff_t hidden, ptrdiff_t n) {
    for (int q = 0; q < count; q++) store_n(to + q * hidden, from[q], n);
}
INLINE void add_to_each(real *to, int count, const vec *from, ptrdiff_t hidden, ptrdiff_t n) {
    for (int q = 0; q < count; q++) store_n(to + q * hidden, load_n(to + q * hidden, n) + from[q], n);
}

/* Calls BODY(plain, at row, from unit j, over n units) for every row and vector of units. */
#define FOR_EACH_VECTOR(k, rows, BODY, ...)                                                       \
    do {                                                                                          \
        const ptrdiff_t whole = (k)->hidden - (k)->hidden % VLEN, rest = (k)->hidden % VLEN;      \
        const int plain = is_plain(k);                                                            \
        for (ptrdiff_t row = 0; row < (rows); row++) {                                            \
            if (plain)                                                                            \
                for (ptrdiff_t j = 0; j < whole; j += VLEN) BODY(k, 1, row, j, VLEN, __VA_ARGS__); \
            else                                                                                  \
                for (ptrdiff_t j = 0; j < whole; j += VLEN) BODY(k, 0, row, j, VLEN, __VA_ARGS__); \
            if (rest) BODY(k, 0, row, whole, rest, __VA_ARGS__);                                  \
        }                                                                                         \
    } while (0)

INLINE void load_peepholes(const cell *k, int plain, ptrdiff_t j, ptrdiff_t n, vec p[3]) {
    if (!plain && k->peephole) load_each(p, 3, (const real *)k->peephole + j, k->hidden, n);
}

INLINE void forward_units(const cell *k, int plain, ptrdiff_t j, ptrdiff_t n, const real *z,
                          real *c, real *h, units *u) {
    vec peephole[3] = {{0}};
    load_peepholes(k, plain, j, n, peephole);
    load_each(u->gate, 4, z, k->hidden, n);
    u->c_prev = load_n(c, n);
    cell_equations(k, plain, peephole, u);
    store_n(c, u->c, n);
    store_n(h, u->h, n);
}

INLINE void run_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                       const real *z, real *c, real *h) {
    units u;
    const ptrdiff_t at = row * k->hidden + j;
    forward_units(k, plain, j, n, z + row * 4 * k->hidden + j, c + at, h + at, &u);
}

INLINE void forward_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                           const step_tape *tape, real *c, real *h) {
    units u;
    const ptrdiff_t at = row * k->hidden + j;
    real *gates = (real *)tape->gates + row * 4 * k->hidden + j;
    forward_units(k, plain, j, n, gates, c + at, h + at, &u);
    store_each(gates, 4, u.gate, k->hidden, n);
    store_n((real *)tape->c + at, u.c, n);
    store_n((real *)tape->tanh_c + at, u.tanh_c, n);
}

INLINE void backward_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                            const step_tape *tape, const real *c_prev, const step_gradients *grad) {
    const ptrdiff_t at = row * k->hidden + j;
    units u;
    vec peephole[3] = {{0}}, dz[4], dc = load_n((real *)grad->c + at, n);
    load_peepholes(k, plain, j, n, peephole);
    load_each(u.gate, 4, (real *)tape->gates + row * 4 * k->hidden + j, k->hidden, n);
    u.c_prev = load_n(c_prev + at, n);
    u.tanh_c = load_n((real *)tape->tanh_c + at, n);
    cell_gradients(k, plain, peephole, &u, load_n((const real *)grad->h + at, n), &dc, dz);
    store_n((real *)grad->c + at, dc, n);
    store_each((real *)grad->z + row * 4 * k->hidden + j, 4, dz, k->hidden, n);
    add_to_each((real *)grad->bias + j, 4, dz, k->hidden, n);
    if (!plain && k->peephole) {
        const vec c = load_n((real *)tape->c + at, n);
        const vec dp[3] = {dz[I] * u.c_prev, dz[F] * u.c_prev, dz[O] * c};
        add_to_each((real *)grad->peephole + j, 3, dp, k->hidden, n);
    }
}

INLINE void output_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                          const step_tape *tape, real *h) {
    (void)plain;
    const ptrdiff_t at = row * k->hidden + j;
    const real *o = (real *)tape->gates + (row * 4 + O) * k->hidden + j;
    store_n(h + at, load_n(o, n) * load_n((real *)tape->tanh_c + at, n), n);
}

static void cell_run(const cell *k, ptrdiff_t n, const void *z, void *c, void *h) {
    FOR_EACH_VECTOR(k, n, run_vector, z, c, h);
}

static void cell_forward(const cell *k, ptrdiff_t n, const step_tape *tape, void *c, void *h) {
    FOR_EACH_VECTOR(k, n, forward_vector, tape, c, h);
}

static void cell_backward(const cell *k, ptrdiff_t n, const step_tape *tape, const void *c_prev,
                          const step_gradients *grad) {
    FOR_EACH_VECTOR(k, n, backward_vector, tape, c_prev, grad);
}

static void cell_output(const cell *k, ptrdiff_t n, const step_tape *tape, void *h) {
    FOR_EACH_VECTOR(k, n, output_vector, tape, h);
}

/* A tile's product, then the cell on each row and unit. */
INLINE void step_tile(int tiles, int rows, ptrdiff_t tile, ptrdiff_t row, const char *ahead,
                      const packed_matrix *w, const cell *k, int plain, const packed_step *s) {
    vec sum[MOST_ROWS][4];
    if (s->z)
        load_tile(tiles, rows, (const real *)s->z + row * s->z_row + tile * TILE, s->z_row, sum);
    else
        load_bias(tiles, rows, w, tile, sum);
    accumulate(tiles, rows, w, tile, ahead, (const real *)s->v + row * s->v_row, s->v_row, sum);
    vec gates[MOST_ROWS][4]; /* in memory, so that the cell's code stands here once */
    memcpy(gates, sum, (size_t)(tiles * rows) * sizeof *gates);
    for (int j = 0; j < tiles * rows; j++) {
        const ptrdiff_t unit = (tile + j / rows) * VLEN, at = row + j % rows;
        const ptrdiff_t n = k->hidden - unit < VLEN ? k->hidden - unit : VLEN;
        units u;
        vec peephole[3] = {{0}};
        load_peepholes(k, plain, unit, n, peephole);
        memcpy(u.gate, gates[j], sizeof u.gate);
        u.c_prev = load((real *)s->c + at * s->c_row + unit);
        if (plain)
            plain_cell_output(&u);
        else
            cell_equations(k, 0, peephole, &u);
        store((real *)s->c + at * s->c_row + unit, u.c);
        store((real *)s->h + at * s->h_row + unit, u.h);
        if (s->y) store_n((real *)s->y + s->y_rows[at] * s->y_row + unit, u.h, n);
    }
}

static void step(const cell *k, const packed_matrix *w, ptrdiff_t n, const packed_step *s,
                 ptrdiff_t from, ptrdiff_t to) {
    if (is_plain(k))
        COVER(from, to, s->down, n, w, step_tile, k, 1, s);
    else
        COVER(from, to, s->down, n, w, step_tile, k, 0, s);
}

static void activate(const activation *a, ptrdiff_t n, const void *x, void *y) {
    for (ptrdiff_t j = 0; j < n; j += VLEN) {
        const ptrdiff_t lanes = n - j < VLEN ? n - j : VLEN;
        store_n((real *)y + j, apply(a, load_n((const real *)x + j, lanes)), lanes);
    }
}

#define TEXT(name) #name
#define QUOTED(name) TEXT(name)
#define JOINED(isa, dtype) cylstm_##isa##_##dtype
#define TABLE(isa, dtype) JOINED(isa, dtype)

extern const kernels TABLE(ISA, DTYPE);
const kernels TABLE(ISA, DTYPE) = {
    .isa = QUOTED(ISA),
    .width = (int)VLEN,
    .activate = activate,
    .cell_run = cell_run,
    .cell_forward = cell_forward,
    .cell_backward = cell_backward,
    .cell_output = cell_output,
    .packed_tiles = packed_tiles,
    .pack = pack,
    .multiply = multiply,
    .step = step,
};
