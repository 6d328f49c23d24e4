/* The softmax's cross entropy, a row of logits at a time. */
#ifndef CYLSTM_LOSSES_H
#define CYLSTM_LOSSES_H

#include <math.h>

#include "softmax.h"

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
