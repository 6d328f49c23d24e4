/* What changes parameters by their gradients, and sums over gradients: plain loops, of which the
 * compiler makes vectors. The formulas, and the order of their operations, are PyTorch's.
 */
#ifndef CYLSTM_UPDATES_H
#define CYLSTM_UPDATES_H

#include "kernels.h"
#include "vec.h"

#if REAL_IS_DOUBLE
#define ROOT __builtin_sqrt
#else
#define ROOT __builtin_sqrtf
#endif

/* v = momentum v + g; p -= rate v, or with nesterov p -= rate (g + momentum v). */
static void sgd(const update_rule *u, ptrdiff_t n, void *parameter, const void *gradient,
                void *velocity, void *unused) {
    (void)unused;
    real *restrict p = parameter, *restrict v = velocity;
    const real *restrict g = gradient;
    const real rate = (real)u->rate, momentum = (real)u->momentum, decay = (real)u->decay;
    if (!v)
        for (ptrdiff_t j = 0; j < n; j++) p[j] -= rate * (g[j] + decay * p[j]);
    else if (u->nesterov)
        for (ptrdiff_t j = 0; j < n; j++) {
            const real step = g[j] + decay * p[j];
            v[j] = momentum * v[j] + step;
            p[j] -= rate * (step + momentum * v[j]);
        }
    else
        for (ptrdiff_t j = 0; j < n; j++) {
            v[j] = momentum * v[j] + (g[j] + decay * p[j]);
            p[j] -= rate * v[j];
        }
}

/* m, s = running means of g and g^2; p = shrink p - rate m / (sqrt(s) / correction + eps). */
static void adam(const update_rule *u, ptrdiff_t n, void *parameter, const void *gradient,
                 void *mean, void *square) {
    real *restrict p = parameter, *restrict m = mean, *restrict s = square;
    const real *restrict g = gradient;
    const real rate = (real)u->rate, decay = (real)u->decay, shrink = (real)u->shrink;
    const real of_mean = (real)(1 - u->mean), old = (real)u->square, new = (real)(1 - u->square);
    const real correction = (real)u->correction, eps = (real)u->eps;
    for (ptrdiff_t j = 0; j < n; j++) {
        const real step = g[j] + decay * p[j];
        m[j] += of_mean * (step - m[j]);
        s[j] = old * s[j] + new * step * step;
        p[j] = shrink * p[j] - rate * (m[j] / (ROOT(s[j]) / correction + eps));
    }
}

/* s = running mean of g^2; v = momentum v + g / (sqrt(s) + eps); p -= rate v. */
static void rmsprop(const update_rule *u, ptrdiff_t n, void *parameter, const void *gradient,
                    void *square, void *velocity) {
    real *restrict p = parameter, *restrict s = square, *restrict v = velocity;
    const real *restrict g = gradient;
    const real rate = (real)u->rate, momentum = (real)u->momentum, decay = (real)u->decay;
    const real old = (real)u->square, new = (real)(1 - u->square), eps = (real)u->eps;
    if (!v)
        for (ptrdiff_t j = 0; j < n; j++) {
            const real step = g[j] + decay * p[j];
            s[j] = old * s[j] + new * step * step;
            p[j] -= rate * (step / (ROOT(s[j]) + eps));
        }
    else
        for (ptrdiff_t j = 0; j < n; j++) {
            const real step = g[j] + decay * p[j];
            s[j] = old * s[j] + new * step * step;
            v[j] = momentum * v[j] + step / (ROOT(s[j]) + eps);
            p[j] -= rate * v[j];
        }
}

/* In doubles, in as many sums as vectors of any width can share. */
static double sum_of_squares(ptrdiff_t n, const void *given) {
    enum { SUMS = 16 };
    const real *x = given;
    double sums[SUMS] = {0}, total = 0;
    const ptrdiff_t whole = n - n % SUMS;
    for (ptrdiff_t i = 0; i < whole; i += SUMS)
        for (int j = 0; j < SUMS; j++) sums[j] += (double)x[i + j] * (double)x[i + j];
    for (int j = 0; j < SUMS; j++) total += sums[j];
    for (ptrdiff_t i = whole; i < n; i++) total += (double)x[i] * (double)x[i];
    return total;
}

static void scale(ptrdiff_t n, double by, void *x) {
    const real factor = (real)by;
    for (ptrdiff_t j = 0; j < n; j++) ((real *)x)[j] *= factor;
}

#endif
