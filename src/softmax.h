/* The softmax of a row of numbers, and the way back. A row's sums are in an order that its length
 * alone decides. */
#ifndef CYLSTM_SOFTMAX_H
#define CYLSTM_SOFTMAX_H

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

/* Rows x, some reals apart, become softmax(by x). */
static void softmax(ptrdiff_t rows, ptrdiff_t n, double by, void *given, ptrdiff_t row_step) {
    for (ptrdiff_t row = 0; row < rows; row++) {
        real *x = (real *)given + row * row_step;
        for (ptrdiff_t j = 0; j < n; j++) x[j] *= (real)by;
        const real each = (real)(1 / exponentials(n, x, largest(n, x), x));
        for (ptrdiff_t j = 0; j < n; j++) x[j] *= each;
    }
}

/* From the gradients of rows y = softmax(by x) to those of x, in place. */
static void softmax_gradient(ptrdiff_t rows, ptrdiff_t n, double by, const void *outputs,
                             ptrdiff_t y_row, void *gradient, ptrdiff_t row_step) {
    for (ptrdiff_t row = 0; row < rows; row++) {
        const real *y = (const real *)outputs + row * y_row;
        real *to = (real *)gradient + row * row_step;
        vec products = {0};
        real inner = 0;
        for (ptrdiff_t j = 0; j < n; j += VLEN) {
            const ptrdiff_t lanes = lanes_left(n - j, VLEN);
            products += load_n(y + j, lanes) * load_n(to + j, lanes);
        }
        for (ptrdiff_t lane = 0; lane < VLEN; lane++) inner += products[lane];
        for (ptrdiff_t j = 0; j < n; j++) to[j] = (real)by * (y[j] * (to[j] - inner));
    }
}

#endif
