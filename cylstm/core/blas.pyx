"""Row-major matrix products over :mod:`scipy.linalg.cython_blas`.

BLAS is column-major: a row-major matrix is to it the transpose. So a row-major
``C = A B`` is asked for as ``C' = B' A'``: the operands change places, and nothing is copied.

The pointers to integers that BLAS takes stay in this file. Their type is SciPy's ``blas_int``
where SciPy has one (1.18 and later), else ``int``; ``setup.py`` writes the include.
Every size and leading dimension must fit in it: callers refuse larger ones
(`cylstm.checks.LARGEST`).
"""

from cython cimport floating
from scipy.linalg cimport cython_blas

from cylstm.core.kernels cimport use_blas

include "_blas_int.pxi"

cdef extern from "exclusive.h" nogil:
    void cylstm_exclusive_init()
    void cylstm_exclusive_begin()
    void cylstm_exclusive_end()

cylstm_exclusive_init()

# OpenBLAS runs a product on several threads from these sizes on (its interface/gemm.c and gemv.c,
# where SMP is defined), and before 0.3.34 two such products at once could give wrong results
# (OpenBLAS issue 5836). One at a time is right everywhere, and loses nothing: it has every core.
cdef enum:
    PARALLEL_GEMM = 262144   # m n k
    PARALLEL_GEMV = 9216     # n k, at the least of its versions


cdef inline void add(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const floating *a, Py_ssize_t a_row,
                     const floating *b, Py_ssize_t b_row, floating *c,
                     Py_ssize_t c_row) noexcept nogil:
    """C += A B, of A (m, k), B (k, n) and C (m, n), whose rows are so many numbers apart."""
    cdef bint exclusive
    if m == 0 or n == 0 or k == 0:
        return
    exclusive = (<double> n * k >= PARALLEL_GEMV if m == 1
                 else <double> m * n * k > PARALLEL_GEMM)
    if exclusive:
        cylstm_exclusive_begin()
    if m == 1:
        gemv(n, k, a, b, b_row, c)
    else:
        gemm(m, n, k, a, a_row, b, b_row, c, c_row)
    if exclusive:
        cylstm_exclusive_end()


# cython_blas takes no const pointers: https://github.com/scipy/scipy/issues/14262


cdef inline void gemm(blas_int m, blas_int n, blas_int k, const floating *a, blas_int a_row,
                      const floating *b, blas_int b_row, floating *c,
                      blas_int c_row) noexcept nogil:
    cdef floating one = 1
    if floating is float:
        cython_blas.sgemm(b"N", b"N", &n, &m, &k, &one, <float *> b, &b_row, <float *> a, &a_row,
                          &one, c, &c_row)
    else:
        cython_blas.dgemm(b"N", b"N", &n, &m, &k, &one, <double *> b, &b_row, <double *> a, &a_row,
                          &one, c, &c_row)


cdef inline void gemv(blas_int n, blas_int k, const floating *a, const floating *b, blas_int b_row,
                      floating *c) noexcept nogil:
    cdef floating one = 1
    cdef blas_int step = 1
    if floating is float:
        cython_blas.sgemv(b"N", &n, &k, &one, <float *> b, &b_row, <float *> a, &step, &one, c,
                          &step)
    else:
        cython_blas.dgemv(b"N", &n, &k, &one, <double *> b, &b_row, <double *> a, &step, &one, c,
                          &step)


cdef void add_floats(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const void *a, Py_ssize_t a_row,
                     const void *b, Py_ssize_t b_row, void *c, Py_ssize_t c_row) noexcept nogil:
    add(m, n, k, <const float *> a, a_row, <const float *> b, b_row, <float *> c, c_row)


cdef void add_doubles(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const void *a, Py_ssize_t a_row,
                      const void *b, Py_ssize_t b_row, void *c, Py_ssize_t c_row) noexcept nogil:
    add(m, n, k, <const double *> a, a_row, <const double *> b, b_row, <double *> c, c_row)


use_blas(add_floats, add_doubles)
