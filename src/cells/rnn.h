/* The plain recurrent network's equation, h = b(z), forward and backward. It has one sum for each
 * hidden unit, so that a tile is of four vectors of units; and it needs no tape, since y holds h.
 */
#ifndef CYLSTM_RNN_H
#define CYLSTM_RNN_H

#include "../cell.h"

INLINE int rnn_is_plain(const cell *k) {
    return k->candidate.kind == TANH && k->clip == __builtin_inf();
}

#if TRAINS

/* tape->c is h_t here. */
INLINE void rnn_backward_vector(const cell *k, int plain, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n,
                                const step_tape *tape, const step_gradients *grad) {
    const vec h = load_n((const real *)tape->c + row * tape->c_row + j, n);
    const vec dh = output_gradient(grad, row, j, n);
    store_n((real *)grad->z + row * grad->z_row + j,
            dh * gate_derivative(k, &k->candidate, plain, h), n);
}

static void rnn_backward(const cell *k, ptrdiff_t n, const step_tape *tape, const void *h_prev,
                         ptrdiff_t h_prev_row, const step_gradients *grad, ptrdiff_t from,
                         ptrdiff_t to) {
    (void)h_prev, (void)h_prev_row;
    FOR_EACH_VECTOR(k, rnn_is_plain(k), n, from, to, rnn_backward_vector, tape, grad);
}

#endif

INLINE void rnn_finish(const cell *k, int plain, int taped, const packed_step *s, ptrdiff_t tile,
                       int tiles, ptrdiff_t row, int rows, const vec sum[][4]) {
    (void)taped;
    for (int t = 0; t < tiles; t++)
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 4; q++) {
                const ptrdiff_t unit = (tile + t) * TILE + q * VLEN;
                const vec h = gate_activation(k, &k->candidate, plain, sum[t * rows + r][q]);
                store((real *)s->h + (row + r) * s->h_row + unit, h);
                if (s->y)
                    store_n((real *)s->y + s->y_rows[row + r] * s->y_row + unit, h,
                            lanes_at(k, unit));
            }
}

DEFINE_FINISH(rnn_plain, rnn_finish, 1, 0)
DEFINE_FINISH(rnn_any, rnn_finish, 0, 0)

static finish *rnn_end(const cell *k) { return rnn_is_plain(k) ? rnn_plain : rnn_any; }

#endif
