/* What the kinds of cells in cells/ have in common: vectors of hidden units, and how their equations
 * are given the sums of a step's product.
 *
 * `plain` is a constant in each instance: a plain cell has none of the options, and its code holds no
 * test for them.
 */
#ifndef CYLSTM_CELL_H
#define CYLSTM_CELL_H

#include "activations.h"
#include "product.h"

/* Loads vector j of [.., H] gates or peepholes that lie H reals apart. */
INLINE void load_each(vec *to, int count, const real *from, ptrdiff_t hidden, ptrdiff_t n) {
    for (int q = 0; q < count; q++) to[q] = load_n(from + q * hidden, n);
}
INLINE void store_each(real *to, int count, const vec *from, ptrdiff_t hidden, ptrdiff_t n) {
    for (int q = 0; q < count; q++) store_n(to + q * hidden, from[q], n);
}

INLINE ptrdiff_t lanes_at(const cell *k, ptrdiff_t unit) {
    return lanes_left(k->hidden - unit, VLEN);
}

/* Calls BODY(plain, at row, from unit j, over n units) for every row and each vector of units
 * [from, to). */
#define FOR_EACH_VECTOR(k, plain, rows, from, to, BODY, ...)                                      \
    do {                                                                                          \
        const ptrdiff_t rest = ((to) - (from)) % VLEN, whole = (to) - rest;                       \
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

/* `a` is one of k's two, of which the candidate is tanh in a plain cell. */
INLINE vec gate_activation(const cell *k, const activation *a, int plain, vec z) {
    if (plain && a != &k->candidate) return 1 / one_and_exp(z);
    if (plain) return quotient(tanh_fraction(z));
    const vec bound = broadcast((real)k->clip);
    return apply(a, at_most(at_least(z, -bound), bound));
}

/* The outputs of an activation at the clip's two bounds: from there on its gradient is zero. */
typedef struct {
    vec low, high;
} clipped;

INLINE clipped clipped_outputs(const cell *k, const activation *a) {
    const vec bound = broadcast((real)k->clip);
    const vec first = apply(a, -bound), last = apply(a, bound);
    return (clipped){at_most(first, last), at_least(first, last)};
}

INLINE vec gate_derivative(const cell *k, const activation *a, int plain, vec s) {
    if (plain) return a == &k->candidate ? 1 - s * s : s * (1 - s);
    const vec d = derivative(a, s);
    if (k->clip == __builtin_inf()) return d;
    const clipped at = clipped_outputs(k, a);
    return choose((s > at.low) & (s < at.high), d, (vec){0});
}

/* Backward asks for what it will read of a later row: of the tape, which is far away, each row has pieces
 * too short for the CPU to see what comes. (AVX-512, Zen 5: T=50 N=256 I=8 H=128 32.5 -> 31.6 ms of
 * training, two layers both ways T=40 N=32 I=256 H=128 27.9 -> 26.8.) */
INLINE void ask_for_row(const real *from, ptrdiff_t row_step, ptrdiff_t row, int count,
                        ptrdiff_t hidden) {
    enum { AHEAD = 2 };
    for (int q = 0; q < count; q++)
        __builtin_prefetch(from + (row + AHEAD) * row_step + q * hidden);
}

/* By h: what comes from the step after, and from y. */
INLINE vec output_gradient(const step_gradients *grad, ptrdiff_t row, ptrdiff_t j, ptrdiff_t n) {
    vec dh = load_n((const real *)grad->h + row * grad->h_row + j, n);
    if (grad->y) {
        dh += load_n((const real *)grad->y + row * grad->y_row + j, n);
        ask_for_row((const real *)grad->y + j, grad->y_row, row, 1, 0);
    }
    return dh;
}

/* The sums of z's gradient over rows [first, last), for units [j, j + n); they are added to. */
INLINE void sum_vector(const cell *k, ptrdiff_t first, ptrdiff_t last, ptrdiff_t j, ptrdiff_t n,
                       int sums, const real *z, ptrdiff_t z_row, real *bias) {
    vec sum[4], dz[4];
    load_each(sum, sums, bias + j, k->hidden, n);
    for (ptrdiff_t row = first; row < last; row++) {
        load_each(dz, sums, z + row * z_row + j, k->hidden, n);
        for (int q = 0; q < sums; q++) sum[q] += dz[q];
    }
    store_each(bias + j, sums, sum, k->hidden, n);
}

/* What takes the sums of some tiles and rows to the end of a step. They are functions of their own,
 * whatever the number of rows: the product has used up the registers, so that the sums go through
 * memory anyway. */
typedef void finish(const cell *k, const packed_step *s, ptrdiff_t tile, int tiles, ptrdiff_t row,
                    int rows, const vec sum[][4]);

#define DEFINE_FINISH(name, body, plain, taped)                                                   \
    static __attribute__((noinline)) void name(const cell *k, const packed_step *s,               \
                                               ptrdiff_t tile, int tiles, ptrdiff_t row,          \
                                               int rows, const vec sum[][4]) {                    \
        body(k, plain, taped, s, tile, tiles, row, rows, sum);                                    \
    }

#endif
