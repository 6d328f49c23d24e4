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
/* 2^r - 1 = r (P[0] + P[1] r + ...), relative error 2^-55.6 */
static const double P[] = {
    0.6931471805599453112,     0.24022650695910097888,    0.055504108664821236534,
    0.0096181291076070656693,  0.0013333558146531632859,  0.00015403530441480679921,
    1.5252733701214656492e-5,  1.321544272423112757e-6,   1.0178121299165704425e-7,
    7.0725617019303205134e-9,  4.4455372281544427333e-10};
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
/* relative error 2^-20.6, and of 1 + q 2^-23.2 */
static const float P[] = {0.6931470972205113f, 0.2402227310609898f, 0.05550635550415754f,
                          0.009670099962322713f, 0.0013283719260413173f};
#endif

#define E_TERMS ((int)(sizeof E / sizeof *E))
#define P_TERMS ((int)(sizeof P / sizeof *P))
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

INLINE vec within(real low, vec x, real high) {
    return at_most(at_least(x, broadcast(low)), broadcast(high));
}

/* 1 / (1 + exp(-x)), above and below times 2^SUBNORMAL. */
INLINE vec sigmoid(vec x) {
    const real most = EXPONENT_BIAS - 1, one = 1 / (real)((int64_t)1 << -SUBNORMAL);
    vec scale;
    const vec y = within(-(most + SUBNORMAL) * LN2, -x, (most - SUBNORMAL) * LN2);
    const vec q = reduced_expm1(y, SUBNORMAL, &scale);
    return one / (one + (scale + scale * q));
}

/* expm1(2x) / (expm1(2x) + 2) */
INLINE vec hyperbolic_tangent(vec x) {
    vec scale;
    const vec q = reduced_expm1(within(-TANH_MOST, 2 * x, TANH_MOST), 0, &scale);
    const vec m = (scale - 1) + scale * q;
    return copy_sign(m / (m + 2), x); /* -0 */
}

/* For a plain cell, quicker: as right in absolute terms, but a gate near 0 not to its own last bits.
 * exp(x) = 2^k (1 + q) with k = round(a x), r = a x - k, a = log2(e), |r| <= 1/2, and q = r P(r) by
 * a minimax polynomial; returns 2^k q, and 2^k. */
INLINE vec quick_expm1(real a, vec x, vec *scale) {
    const real rounding = ROUNDING + EXPONENT_BIAS;
    const vec rounded = fused(x, broadcast(a), broadcast(rounding));
    const vec k = rounded - rounding;
    const vec r = fused(x, broadcast(a), -k);
    vec p = broadcast(P[P_TERMS - 1]);
    for (int j = P_TERMS - 2; j >= 0; j--) p = p * r + P[j];
    *scale = (vec)((bits)rounded << MANTISSA_BITS);
    return *scale * r * p;
}

/* 1 + exp(-x), of which sigmoid(x) is the reciprocal; finite for any x. */
INLINE vec one_and_exp(vec x) {
    const real most = (EXPONENT_BIAS - 1) * LN2;
    vec scale;
    const vec q = quick_expm1(-LOG2_E, within(-most, x, most), &scale);
    return 1 + (scale + q);
}

/* A quotient before its division. */
typedef struct {
    vec above, below;
} fraction;

INLINE vec quotient(fraction q) { return q.above / q.below; }

INLINE fraction tanh_fraction(vec x) {
    vec scale;
    const vec q = quick_expm1(2 * LOG2_E, within(-TANH_MOST / 2, x, TANH_MOST / 2), &scale);
    const vec m = (scale - 1) + q;
    return (fraction){m, m + 2};
}

INLINE vec relu(vec x) { return at_least(x, broadcast(0)); }

/* Backward compares with the outputs at the clip's bounds, to the last bit; and a compiler may fuse
 * the product here, and not there, where it shares x slope and -x slope. */
INLINE vec hard_sigmoid(vec x, real slope, real offset) {
    const vec line = rounded_product(x, broadcast(slope)) + offset;
    return at_most(at_least(line, broadcast(0)), broadcast(1));
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
