/* The softmax's cross entropy, a row of logits at a time. */
#ifndef CYLSTM_LOSSES_H
#define CYLSTM_LOSSES_H

#include <math.h>

#include "activations.h"
#include "kernels.h"

/* exp(y) for y <= 0; zero where it would be subnormal. */
INLINE vec falling_exp(vec y) {
    const real least = -(EXPONENT_BIAS - 1) * LN2;
    vec power;
    const vec q = reduced_expm1(within(least, y, 0), 0, &power);
    return choose(y < least, (vec){0}, power + power * q);
}

/* The largest of n numbers; NaN counts for nothing. */
INLINE real largest(ptrdiff_t n, const real *x) {
    real top = x[0];
    vec most = broadcast(-(real)__builtin_inf());
    ptrdiff_t j = 0;
    for (; j + VLEN <= n; j += VLEN) most = choose(load(x + j) > most, load(x + j), most);
    for (ptrdiff_t lane = 0; lane < VLEN; lane++)
        if (!(most[lane] <= top)) top = most[lane];
    for (; j < n; j++)
        if (!(x[j] <= top)) top = x[j];
    return top;
}

/* to[j] = exp(x[j] - top); returns their sum. Few at a time are summed in vectors, and these in
 * double, so that ten thousand classes lose no more digits than ten. */
INLINE double exponentials(ptrdiff_t n, const real *x, real top, real *to) {
    enum { AT_ONCE = 32 };
    double total = 0;
    for (ptrdiff_t first = 0; first < n; first += AT_ONCE * VLEN) {
        vec sum = {0};
        for (ptrdiff_t j = first; j < n && j < first + AT_ONCE * VLEN; j += VLEN) {
            const ptrdiff_t lanes = lanes_left(n - j, VLEN);
            const vec e = falling_exp(load_n(x + j, lanes) - top);
            store_n(to + j, e, lanes);
            if (lanes == VLEN) {
                sum += e;
                continue;
            }
            for (ptrdiff_t lane = 0; lane < lanes; lane++) total += (double)e[lane];
        }
        for (ptrdiff_t lane = 0; lane < VLEN; lane++) total += (double)sum[lane];
    }
    return total;
}

static void cross_entropy(ptrdiff_t n, ptrdiff_t classes, const void *logits,
                          const ptrdiff_t *labels, double each, void *gradient, double *losses) {
    for (ptrdiff_t row = 0; row < n; row++) {
        const real *x = (const real *)logits + row * classes;
        real *to = (real *)gradient + row * classes;
        const ptrdiff_t label = labels[row];
        if (label < 0) {
            memset(to, 0, (size_t)classes * sizeof *to);
            losses[row] = 0;
            continue;
        }
        const real top = largest(classes, x);
        const double total = exponentials(classes, x, top, to);
        const real factor = (real)(each / total);
        losses[row] = log(total) - ((double)x[label] - (double)top);
        for (ptrdiff_t j = 0; j < classes; j++) to[j] *= factor;
        to[label] -= (real)each;
    }
}

#endif
