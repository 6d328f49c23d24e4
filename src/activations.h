/* The activations of a vector and their derivatives.
 *
 * sigmoid and tanh share one reduction: for y <= 0, exp(y) = 2^k (1 + q) with
 * k = round(y / ln 2), r = y - k ln 2, |r| <= ln(2) / 2, and q = expm1(r) by a minimax polynomial.
 * Both then need one division, keep relative accuracy to the smallest subnormal, and stay inside
 * [0, 1] and [-1, 1] without a clamp. NaN gives NaN. Errors are in docs/accuracy.md.
 */
#ifndef CYLSTM_ACTIVATIONS_H
#define CYLSTM_ACTIVATIONS_H

#include "kernels.h"
#include "vec.h"

#if REAL_IS_DOUBLE
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define ROUNDING 0x1.8p52      /* x + ROUNDING holds round(x) in its lowest mantissa bits */
#define LN2_HIGH 0x1.62e42fee00000p-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#define TANH_MOST 40.0         /* tanh(y / 2) rounds to 1 above */
/* expm1(r) = r + r^2 (E[0] + E[1] r + ...), relative error 2^-55.4 */
static const double E[] = {
    0.50000000000000064906,   0.16666666666666696624,   0.041666666666561650017,
    0.0083333333332929232222, 0.0013888888936439486407, 0.0001984126998773185393,
    2.4801499431919418137e-5, 2.7557116149404746641e-6, 2.7628360357403329894e-7,
    2.5161566560591429996e-8};
#else
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define ROUNDING 0x1.8p23f
#define LN2_HIGH 0x1.62e4p-1f
#define LN2_LOW 0x1.7f7d1cp-20f
#define TANH_MOST 20.0f
/* relative error 2^-26.2 */
static const float E[] = {0.499999981490359726f, 0.166665434159150227f, 0.0416672009239771584f,
                          0.0083665479288661275f, 0.00138825018925274029f};
#endif

#define E_TERMS ((int)(sizeof E / sizeof *E))
#define LOG2_E ((real)1.4426950408889634074)
#define LN2 ((real)0.69314718055994530942)
#define SUBNORMAL (-60) /* a shift with which sigmoid reaches the subnormal numbers */

/* exp(y) = 2^k (1 + q); returns q, and 2^(k + shift), a normal number, through scale. */
INLINE vec reduced_expm1(vec y, int shift, vec *scale) {
    const real rounding = ROUNDING + EXPONENT_BIAS + shift; /* its lowest bits: the exponent's */
    const vec rounded = y * LOG2_E + rounding;
    const vec k = rounded - rounding;
    const vec r = (y - k * LN2_HIGH) - k * LN2_LOW;
    vec p = broadcast(E[E_TERMS - 1]);
    for (int j = E_TERMS - 2; j >= 0; j--) p = p * r + E[j];
    *scale = (vec)((bits)rounded << MANTISSA_BITS);
    return r + r * r * p;
}

/* A quotient before its division. */
typedef struct {
    vec above, below;
} fraction;

INLINE vec within(real low, vec x, real high) {
    return at_most(at_least(x, broadcast(low)), broadcast(high));
}

/* 1 / (1 + exp(-x)), above and below times 2^shift. */
INLINE fraction sigmoid_fraction(vec x, int shift) {
    const real most = EXPONENT_BIAS - 1, one = shift ? 1 / (real)((int64_t)1 << -shift) : 1;
    vec scale;
    const vec y = within(-(most + shift) * LN2, -x, (most - shift) * LN2);
    const vec q = reduced_expm1(y, shift, &scale);
    return (fraction){broadcast(one), one + (scale + scale * q)};
}

/* expm1(2x) / (expm1(2x) + 2) */
INLINE fraction tanh_fraction(vec x) {
    vec scale;
    const vec q = reduced_expm1(within(-TANH_MOST, 2 * x, TANH_MOST), 0, &scale);
    const vec m = (scale - 1) + scale * q;
    return (fraction){m, m + 2};
}

INLINE vec quotient(fraction q) { return q.above / q.below; }
INLINE vec sigmoid(vec x) { return quotient(sigmoid_fraction(x, SUBNORMAL)); }
INLINE vec hyperbolic_tangent(vec x) { return copy_sign(quotient(tanh_fraction(x)), x); } /* -0 */

INLINE vec relu(vec x) { return at_least(x, broadcast(0)); }

INLINE vec hard_sigmoid(vec x, real slope, real offset) {
    return at_most(at_least(x * slope + offset, broadcast(0)), broadcast(1));
}

INLINE vec apply(const activation *a, vec x) {
    switch (a->kind) {
    case SIGMOID: return sigmoid(x);
    case TANH: return hyperbolic_tangent(x);
    case RELU: return relu(x);
    default: return hard_sigmoid(x, (real)a->slope, (real)a->offset);
    }
}

/* The derivative at x, from the stored output s = a(x). */
INLINE vec derivative(const activation *a, vec s) {
    const vec zero = {0};
    switch (a->kind) {
    case SIGMOID: return s * (1 - s);
    case TANH: return 1 - s * s;
    case RELU: return choose(s > 0, broadcast(1), zero);
    default: return choose((s > 0) & (s < 1), broadcast((real)a->slope), zero);
    }
}

#endif
