"""One pass over a parameter for each optimizer: no array beside those that it keeps.

A parameter and what is kept for it are matrices (R, W); the gradient (K, W) holds the rows that
`rows` (K,) names, each at most once. A dense parameter is one row. The formulas, and the order of
their operations, are PyTorch's.
"""

from cython cimport floating
from libc.math cimport sqrt, sqrtf


cdef inline floating root(floating x) noexcept nogil:
    return sqrtf(x) if floating is float else sqrt(x)


cdef int check(const floating[:, ::1] parameter, const floating[:, ::1] kept,
               const floating[:, ::1] gradient, const Py_ssize_t[::1] rows) except -1:
    """Whatever made them, the loops below stay within the arrays, and take each row once."""
    cdef Py_ssize_t k, height = parameter.shape[0], width = parameter.shape[1]
    if kept.shape[0] != height or kept.shape[1] != width:
        raise ValueError(f"expected ({height}, {width}) to be kept, "
                         f"got ({kept.shape[0]}, {kept.shape[1]})")
    if gradient.shape[0] != rows.shape[0] or gradient.shape[1] != width:
        raise ValueError(f"gradient: expected shape ({rows.shape[0]}, {width}), "
                         f"got ({gradient.shape[0]}, {gradient.shape[1]})")
    for k in range(rows.shape[0]):
        if not (0 <= rows[k] < height and (k == 0 or rows[k - 1] < rows[k])):
            raise ValueError(f"rows: expected rising numbers from 0 to {height - 1}, "
                             f"got {rows[k]} at place {k}")
    return 0


def sgd(
    floating[:, ::1] parameter, const floating[:, ::1] gradient, const Py_ssize_t[::1] rows,
    floating[:, ::1] velocity, double lr, double momentum, double weight_decay, bint nesterov,
):
    """v = momentum v + g; parameter -= lr v. Without momentum, velocity is not touched.

    With `nesterov`, parameter -= lr (g + momentum v).
    """
    cdef Py_ssize_t j, k, width = parameter.shape[1]
    cdef floating rate = <floating>lr, keep = <floating>momentum, decay = <floating>weight_decay
    cdef floating step, moved
    cdef floating *p
    cdef floating *v
    cdef const floating *g
    check[floating](parameter, velocity, gradient, rows)
    with nogil:
        for k in range(rows.shape[0]):
            p, g = &parameter[rows[k], 0], &gradient[k, 0]
            if momentum == 0:
                for j in range(width):
                    p[j] -= rate * (g[j] + decay * p[j])
                continue
            v = &velocity[rows[k], 0]
            for j in range(width):
                step = g[j] + decay * p[j]
                moved = keep * v[j] + step
                v[j] = moved
                p[j] -= rate * (step + keep * moved if nesterov else moved)


def adam(
    floating[:, ::1] parameter, const floating[:, ::1] gradient, const Py_ssize_t[::1] rows,
    floating[:, ::1] mean, floating[:, ::1] square, double rate, double beta1, double beta2,
    double eps, double correction, double weight_decay, double shrink,
):
    """m, s = running means of g and g^2; parameter -= rate m / (sqrt(s) / correction + eps).

    Before that, the parameter is multiplied by `shrink` and the gradient grows by `weight_decay`
    times the parameter.
    """
    cdef Py_ssize_t j, k, width = parameter.shape[1]
    cdef floating lr = <floating>rate, epsilon = <floating>eps, decay = <floating>weight_decay
    cdef floating new1 = <floating>(1 - beta1), old2 = <floating>beta2
    cdef floating new2 = <floating>(1 - beta2), divisor = <floating>correction
    cdef floating factor = <floating>shrink, step
    cdef floating *p
    cdef floating *m
    cdef floating *s
    cdef const floating *g
    check[floating](parameter, mean, gradient, rows)
    check[floating](parameter, square, gradient, rows)
    with nogil:
        for k in range(rows.shape[0]):
            p, g = &parameter[rows[k], 0], &gradient[k, 0]
            m, s = &mean[rows[k], 0], &square[rows[k], 0]
            for j in range(width):
                step = g[j] + decay * p[j]
                m[j] += new1 * (step - m[j])
                s[j] = old2 * s[j] + new2 * step * step
                p[j] = factor * p[j] - lr * (m[j] / (root(s[j]) / divisor + epsilon))


def rmsprop(
    floating[:, ::1] parameter, const floating[:, ::1] gradient, const Py_ssize_t[::1] rows,
    floating[:, ::1] square, floating[:, ::1] velocity, double lr, double alpha, double eps,
    double momentum, double weight_decay,
):
    """s = running mean of g^2; v = momentum v + g / (sqrt(s) + eps); parameter -= lr v."""
    cdef Py_ssize_t j, k, width = parameter.shape[1]
    cdef floating rate = <floating>lr, epsilon = <floating>eps, decay = <floating>weight_decay
    cdef floating old = <floating>alpha, new = <floating>(1 - alpha), keep = <floating>momentum
    cdef floating step
    cdef floating *p
    cdef floating *s
    cdef floating *v
    cdef const floating *g
    check[floating](parameter, square, gradient, rows)
    check[floating](parameter, velocity, gradient, rows)
    with nogil:
        for k in range(rows.shape[0]):
            p, g, s = &parameter[rows[k], 0], &gradient[k, 0], &square[rows[k], 0]
            if momentum == 0:
                for j in range(width):
                    step = g[j] + decay * p[j]
                    s[j] = old * s[j] + new * step * step
                    p[j] -= rate * (step / (root(s[j]) + epsilon))
                continue
            v = &velocity[rows[k], 0]
            for j in range(width):
                step = g[j] + decay * p[j]
                s[j] = old * s[j] + new * step * step
                v[j] = keep * v[j] + step / (root(s[j]) + epsilon)
                p[j] -= rate * v[j]


def sum_of_squares(const floating[::1] x):
    """In float64, in eight sums, so that the compiler may keep them in vectors."""
    cdef double sums[8]
    cdef double total = 0
    cdef Py_ssize_t i, j, whole = x.shape[0] - x.shape[0] % 8
    cdef const floating *p = &x[0] if x.shape[0] else NULL
    with nogil:
        for j in range(8):
            sums[j] = 0
        for i in range(0, whole, 8):
            for j in range(8):
                sums[j] += <double>p[i + j] * <double>p[i + j]
        for j in range(8):
            total += sums[j]
        for i in range(whole, x.shape[0]):
            total += <double>p[i] * <double>p[i]
    return total
