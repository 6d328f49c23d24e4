/* The GRU's equations, forward and backward, for a vector of hidden units of one sequence.
 *
 *     r = a(z_r)        z = a(z_z)        n = b(z_x + r z_h)        h = (1 - z) n + z h'
 *
 * h' is h_{t-1}. Of n's argument z_x is what x and a bias of its own give, and z_h what h' and another
 * give. a and b are the activations of the gates and the candidate, sigmoid and tanh unless the cell
 * says otherwise; their arguments are first clipped. Backward the gradient by h' has a part that goes
 * past the product, z dh: it takes c's place.
 */
#ifndef CYLSTM_GRU_H
#define CYLSTM_GRU_H

#include "../cell.h"

enum { N_X, R, Z, N_H }; /* the sums; on the tape n, r, z and z_h are in their places */

INLINE int gru_is_plain(const cell *k) {
    return k->gates.kind == SIGMOID && k->candidate.kind == TANH && k->clip == __builtin_inf();
}

/* Of the sums to the gates, in place, but of n to its argument. */
INLINE void gru_gates(const cell *k, int plain, vec z[4]) {
    z[R] = gate_activation(k, &k->gates, plain, z[R]);
    z[Z] = gate_activation(k, &k->gates, plain, z[Z]);
    z[N_X] += z[R] * z[N_H];
}

#if TRAINS

/* From dh to dz[4], by way of the stored gates; returns the part of h's gradient past the product. */
INLINE vec gru_gradients(const cell *k, int plain, const vec s[4], vec h_prev, vec dh, vec dz[4]) {
    dz[N_X] = dh * (1 - s[Z]) * gate_derivative(k, &k->candidate, plain, s[N_X]);
    dz[R] = dz[N_X] * s[N_H] * gate_derivative(k, &k->gates, plain, s[R]);
    dz[Z] = dh * (h_prev - s[N_X]) * gate_derivative(k, &k->gates, plain, s[Z]);
    dz[N_H] = dz[N_X] * s[R];
    return dh * s[Z];
}

INLINE void gru_backward_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                                const step_tape *tape, const real *h_prev, ptrdiff_t h_prev_row,
                                const step_gradients *grad) {
    vec gate[4], dz[4];
    real *past = (real *)grad->c + row * grad->c_row + j;
    const vec dh = output_gradient(grad, row, j, n) + load_n(past, n);
    ask_for_row((real *)tape->gates + j, tape->gates_row, row, 4, k->hidden);
    ask_for_row(h_prev + j, h_prev_row, row, 1, 0);
    load_each(gate, 4, (real *)tape->gates + row * tape->gates_row + j, k->hidden, n);
    store_n(past, gru_gradients(k, plain, gate, load_n(h_prev + row * h_prev_row + j, n), dh, dz), n);
    store_each((real *)grad->z + row * grad->z_row + j, 4, dz, k->hidden, n);
}

static void gru_backward(const cell *k, ptrdiff_t n, const step_tape *tape, const void *h_prev,
                         ptrdiff_t h_prev_row, const step_gradients *grad, ptrdiff_t from,
                         ptrdiff_t to) {
    FOR_EACH_VECTOR(k, gru_is_plain(k), n, from, to, gru_backward_vector, tape, h_prev, h_prev_row,
                    grad);
}

#endif

/* The cell on the sums of some tiles and rows: all units as far as n's argument, then all to h, since
 * from there on the equations are one chain. */
INLINE void gru_finish(const cell *k, int plain, int taped, const packed_step *s, ptrdiff_t tile,
                       int tiles, ptrdiff_t row, int rows, const vec sum[][4]) {
    struct { vec n, z; } half[MOST_ROWS];
    for (int t = 0; t < tiles; t++)
        for (int r = 0; r < rows; r++) {
            const ptrdiff_t unit = (tile + t) * VLEN, n = lanes_at(k, unit);
            const int j = t * rows + r;
            vec gate[4] = {sum[j][N_X], sum[j][R], sum[j][Z], sum[j][N_H]};
            gru_gates(k, plain, gate);
            half[j].n = gate[N_X], half[j].z = gate[Z];
            if (taped)
                store_each((real *)s->tape->gates + (row + r) * s->tape->gates_row + unit + k->hidden,
                           3, gate + R, k->hidden, n);
        }
    for (int t = 0; t < tiles; t++)
        for (int r = 0; r < rows; r++) {
            const ptrdiff_t unit = (tile + t) * VLEN, n = lanes_at(k, unit);
            const int j = t * rows + r;
            const vec h_prev = load((const real *)s->c + (row + r) * s->c_row + unit);
            const vec candidate = gate_activation(k, &k->candidate, plain, half[j].n);
            const vec h = candidate + half[j].z * (h_prev - candidate);
            store((real *)s->h + (row + r) * s->h_row + unit, h);
            if (s->y) store_n((real *)s->y + s->y_rows[row + r] * s->y_row + unit, h, n);
            if (taped)
                store_n((real *)s->tape->gates + (row + r) * s->tape->gates_row + unit, candidate, n);
        }
}

/* As lstm_ask_for_tape. */
INLINE void gru_ask_for_tape(const cell *k, const step_tape *tape, ptrdiff_t tile, int tiles,
                             ptrdiff_t row, int rows) {
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tiles; t++) {
            const real *gates = (real *)tape->gates + (row + r) * tape->gates_row + (tile + t) * VLEN;
            for (int q = 0; q < 4; q++) __builtin_prefetch(gates + q * k->hidden, 1);
        }
}

DEFINE_FINISH(gru_plain, gru_finish, 1, 0)
DEFINE_FINISH(gru_any, gru_finish, 0, 0)
DEFINE_FINISH(gru_plain_taped, gru_finish, 1, 1)
DEFINE_FINISH(gru_any_taped, gru_finish, 0, 1)

static finish *gru_end(const cell *k, const packed_step *s) {
    if (gru_is_plain(k)) return s->tape ? gru_plain_taped : gru_plain;
    return s->tape ? gru_any_taped : gru_any;
}

#endif
