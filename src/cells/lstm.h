/* The LSTM's equations, forward and backward, for a vector of hidden units of one sequence.
 *
 *     i = a(z_i + p_i c')        f = a(z_f + p_f c')  or 1 - i       g = b(z_g)
 *     c = f c' + i g             o = a(z_o + p_o c)                  h = o d(c)
 *
 * c' is c_{t-1}; a, b, d are the activations of the gates, the candidate and the output, sigmoid,
 * tanh, tanh unless the cell says otherwise; p are the peepholes; every argument of a and b is
 * first clipped.
 */
#ifndef CYLSTM_LSTM_H
#define CYLSTM_LSTM_H

#include "../cell.h"

enum { I, F, G, O };

/* The units of one vector: gates, cell state before and after, output activation of c, output. */
typedef struct {
    vec gate[4], c_prev, c, tanh_c, h;
} units;

INLINE int lstm_is_plain(const cell *k) {
    return k->gates.kind == SIGMOID && k->candidate.kind == TANH && k->output.kind == TANH &&
           !k->coupled && !k->peephole && k->clip == __builtin_inf();
}

/* u->gate holds pre-activations; fills in the gates, in place, and c. */
INLINE void cell_state(const cell *k, int plain, const vec peephole[3], units *u) {
    const int peeps = !plain && k->peephole;
    vec *z = u->gate;
    if (peeps) {
        z[I] += peephole[0] * u->c_prev;
        z[F] += peephole[1] * u->c_prev;
    }
    z[I] = gate_activation(k, &k->gates, plain, z[I]);
    z[F] = !plain && k->coupled ? 1 - z[I] : gate_activation(k, &k->gates, plain, z[F]);
    z[G] = gate_activation(k, &k->candidate, plain, z[G]);
    u->c = z[F] * u->c_prev + rounded_product(z[I], z[G]);
    if (peeps) z[O] += peephole[2] * u->c;
    z[O] = gate_activation(k, &k->gates, plain, z[O]);
}

/* Then tanh_c and h. */
INLINE void cell_result(const cell *k, int plain, units *u) {
    u->tanh_c = plain ? quotient(tanh_fraction(u->c)) : apply(&k->output, u->c);
    u->h = u->gate[O] * u->tanh_c;
}

/* The two for a plain cell of which only c and h are wanted: on fractions, with three divisions in
 * place of five. Of the gates only o's place is filled, with 1 / o. */
INLINE void quick_state(units *u) {
    const vec one_by_i = one_and_exp(u->gate[I]), one_by_f = one_and_exp(u->gate[F]);
    const fraction g = tanh_fraction(u->gate[G]);
    u->c = u->c_prev / one_by_f + g.above / (one_by_i * g.below);
    u->gate[O] = one_and_exp(u->gate[O]);
}

INLINE void quick_result(units *u) {
    const fraction t = tanh_fraction(u->c);
    u->h = t.above / (u->gate[O] * t.below);
}

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

/* From dh and dc (of c_t) to dz[4], by way of the stored u; dc becomes that of c_{t-1}. */
INLINE void cell_gradients(const cell *k, int plain, const vec peephole[3], const units *u, vec dh,
                           vec *dc, vec dz[4]) {
    const int peeps = !plain && k->peephole, coupled = !plain && k->coupled;
    const vec *s = u->gate;
    const vec d_tanh = plain ? 1 - u->tanh_c * u->tanh_c : derivative(&k->output, u->tanh_c);
    dz[O] = dh * u->tanh_c * gate_derivative(k, &k->gates, plain, s[O]);
    vec d = *dc + dh * s[O] * d_tanh;
    if (peeps) d += dz[O] * peephole[2];
    const vec di = d * (coupled ? s[G] - u->c_prev : s[G]);
    dz[I] = di * gate_derivative(k, &k->gates, plain, s[I]);
    dz[F] = coupled ? (vec){0} : d * u->c_prev * gate_derivative(k, &k->gates, plain, s[F]);
    dz[G] = d * s[I] * gate_derivative(k, &k->candidate, plain, s[G]);
    *dc = d * s[F];
    if (peeps) *dc += dz[I] * peephole[0] + dz[F] * peephole[1];
}

INLINE void lstm_backward_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                            const step_tape *tape, const real *c_prev, ptrdiff_t c_prev_row,
                            const step_gradients *grad) {
    units u;
    vec peephole[3] = {{0}}, dz[4];
    real *grad_c = (real *)grad->c + row * grad->c_row + j;
    vec dc = load_n(grad_c, n);
    ask_for_row((real *)tape->gates + j, tape->gates_row, row, 4, k->hidden);
    ask_for_row((real *)tape->tanh_c + j, tape->c_row, row, 1, 0);
    ask_for_row(c_prev + j, c_prev_row, row, 1, 0);
    load_peepholes(k, plain, j, n, peephole);
    load_each(u.gate, 4, (real *)tape->gates + row * tape->gates_row + j, k->hidden, n);
    u.c_prev = load_n(c_prev + row * c_prev_row + j, n);
    u.tanh_c = load_n((real *)tape->tanh_c + row * tape->c_row + j, n);
    cell_gradients(k, plain, peephole, &u, output_gradient(grad, row, j, n), &dc, dz);
    store_n(grad_c, dc, n);
    store_each((real *)grad->z + row * grad->z_row + j, 4, dz, k->hidden, n);
}

INLINE void output_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                          const step_tape *tape, real *h) {
    (void)plain;
    const real *o = (real *)tape->gates + row * tape->gates_row + O * k->hidden + j;
    const real *tanh_c = (real *)tape->tanh_c + row * tape->c_row + j;
    store_n(h + row * k->hidden + j, load_n(o, n) * load_n(tanh_c, n), n);
}

static void lstm_backward(const cell *k, ptrdiff_t n, const step_tape *tape, const void *c_prev,
                          ptrdiff_t c_prev_row, const step_gradients *grad, ptrdiff_t from,
                          ptrdiff_t to) {
    FOR_EACH_VECTOR(k, lstm_is_plain(k), n, from, to, lstm_backward_vector, tape, c_prev, c_prev_row,
                    grad);
}

/* The sums over rows [first, last) of the peepholes' gradients, for units [j, j + n). */
INLINE void sum_peepholes(const cell *k, ptrdiff_t first, ptrdiff_t last, ptrdiff_t j, ptrdiff_t n,
                          const step_tape *tape, const real *c_prev, ptrdiff_t c_prev_row,
                          const real *z, ptrdiff_t z_row, real *peephole) {
    vec sum[3], dz[4];
    load_each(sum, 3, peephole + j, k->hidden, n);
    for (ptrdiff_t row = first; row < last; row++) {
        load_each(dz, 4, z + row * z_row + j, k->hidden, n);
        const vec before = load_n(c_prev + row * c_prev_row + j, n);
        sum[0] += dz[I] * before;
        sum[1] += dz[F] * before;
        sum[2] += dz[O] * load_n((real *)tape->c + row * tape->c_row + j, n);
    }
    store_each(peephole + j, 3, sum, k->hidden, n);
}

static void cell_output(const cell *k, ptrdiff_t n, const step_tape *tape, void *h) {
    FOR_EACH_VECTOR(k, 0, n, 0, k->hidden, output_vector, tape, h);
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

/* The cell on the sums of some tiles and rows. It takes all units as far as c, then all to h: from c
 * on the equations are one chain, and few units' fit into the CPU's view at once. */
INLINE void lstm_finish(const cell *k, int plain, int taped, const packed_step *s, ptrdiff_t tile,
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

/* Asks for the lines of the tape that the cell will write, from far away, while the product runs.
 * (With one row they follow each other, and the CPU asks by itself.) */
INLINE void lstm_ask_for_tape(const cell *k, const step_tape *tape, ptrdiff_t tile, int tiles,
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

DEFINE_FINISH(lstm_plain, lstm_finish, 1, 0)
DEFINE_FINISH(lstm_any, lstm_finish, 0, 0)
DEFINE_FINISH(lstm_plain_taped, lstm_finish, 1, 1)
DEFINE_FINISH(lstm_any_taped, lstm_finish, 0, 1)

static finish *lstm_end(const cell *k, const packed_step *s) {
    if (lstm_is_plain(k)) return s->tape ? lstm_plain_taped : lstm_plain;
    return s->tape ? lstm_any_taped : lstm_any;
}

#endif
