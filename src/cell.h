/* The gate equations, forward and backward, for a vector of hidden units of one sequence.
 *
 *     i = a(z_i + p_i c')        f = a(z_f + p_f c')  or 1 - i       g = b(z_g)
 *     c = f c' + i g             o = a(z_o + p_o c)                  h = o d(c)
 *
 * c' is c_{t-1}; a, b, d are the activations of the gates, the candidate and the output, sigmoid,
 * tanh, tanh unless the cell says otherwise; p are the peepholes; every argument of a and b is
 * first clipped. `plain` is a constant in each instance: a plain cell has none of the options, and
 * its code holds no test for them.
 */
#ifndef CYLSTM_CELL_H
#define CYLSTM_CELL_H

#include "activations.h"

enum { I, F, G, O };

/* The units of one vector: gates, cell state before and after, output activation of c, output. */
typedef struct {
    vec gate[4], c_prev, c, tanh_c, h;
} units;

INLINE int is_plain(const cell *k) {
    return k->gates.kind == SIGMOID && k->candidate.kind == TANH && k->output.kind == TANH &&
           !k->coupled && !k->peephole && k->clip == __builtin_inf();
}

INLINE vec gate_activation(const cell *k, const activation *a, int plain, vec z) {
    if (plain && a != &k->candidate) return 1 / one_and_exp(z);
    if (plain) return quotient(tanh_fraction(z));
    const vec bound = broadcast((real)k->clip);
    return apply(a, at_most(at_least(z, -bound), bound));
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

#endif
