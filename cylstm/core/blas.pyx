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
    PARALLEL_GEMV = 9216     # m n, at the least of its versions


cdef void gemm(
        bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
        floating alpha, const floating *a, Py_ssize_t lda, const floating *b, Py_ssize_t ldb,
        floating beta, floating *c, Py_ssize_t ldc) noexcept nogil:
    """C := alpha op(A) op(B) + beta C, op(A) (m, k), op(B) (k, n), C (m, n).

    ``lda``, ``ldb``, ``ldc`` are the distances between rows as stored. Where k is 0, C := beta C.
    """
    cdef:
        blas_int rows = m, columns = n, inner = k
        blas_int a_ld = max(lda, 1), b_ld = max(ldb, 1), c_ld = max(ldc, 1)
        char *op_a = b"T" if transpose_a else b"N"
        char *op_b = b"T" if transpose_b else b"N"
        bint exclusive = <double>m * n * k > PARALLEL_GEMM
    if m == 0 or n == 0:
        return
    if exclusive:
        cylstm_exclusive_begin()
    # cython_blas takes no const pointers: https://github.com/scipy/scipy/issues/14262
    if floating is float:
        cython_blas.sgemm(op_b, op_a, &columns, &rows, &inner, &alpha, <float *> b, &b_ld,
                          <float *> a, &a_ld, &beta, c, &c_ld)
    else:
        cython_blas.dgemm(op_b, op_a, &columns, &rows, &inner, &alpha, <double *> b, &b_ld,
                          <double *> a, &a_ld, &beta, c, &c_ld)
    if exclusive:
        cylstm_exclusive_end()


cdef void gemv(
        bint transpose_a, Py_ssize_t m, Py_ssize_t n,
        floating alpha, const floating *a, Py_ssize_t lda, const floating *x, Py_ssize_t incx,
        floating beta, floating *y, Py_ssize_t incy) noexcept nogil:
    """y := alpha op(A) x + beta y, A (m, n) as stored, y of n with ``transpose_a``, else of m.

    Where op(A) has no column, y := beta y.
    """
    cdef:
        blas_int rows = m, columns = n, a_ld = max(lda, 1)
        blas_int x_step = max(incx, 1), y_step = max(incy, 1)
        char *op_a = b"N" if transpose_a else b"T"
        Py_ssize_t length = n if transpose_a else m, j
        bint exclusive = <double>m * n >= PARALLEL_GEMV
    if m == 0 or n == 0:  # BLAS would leave y as it is
        for j in range(length):
            y[j * incy] = beta * y[j * incy] if beta != 0 else 0
        return
    if exclusive:
        cylstm_exclusive_begin()
    if floating is float:
        cython_blas.sgemv(op_a, &columns, &rows, &alpha, <float *> a, &a_ld,
                          <float *> x, &x_step, &beta, y, &y_step)
    else:
        cython_blas.dgemv(op_a, &columns, &rows, &alpha, <double *> a, &a_ld,
                          <double *> x, &x_step, &beta, y, &y_step)
    if exclusive:
        cylstm_exclusive_end()


cdef inline void add(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const floating *a, Py_ssize_t a_row,
                     const floating *b, Py_ssize_t b_row, floating *c,
                     Py_ssize_t c_row) noexcept nogil:
    cdef floating one = 1
    if m == 1:
        gemv(True, k, n, one, b, b_row, a, 1, one, c, 1)
    else:
        gemm(False, False, m, n, k, one, a, a_row, b, b_row, one, c, c_row)


cdef void add_floats(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const void *a, Py_ssize_t a_row,
                     const void *b, Py_ssize_t b_row, void *c, Py_ssize_t c_row) noexcept nogil:
    add(m, n, k, <const float *> a, a_row, <const float *> b, b_row, <float *> c, c_row)


cdef void add_doubles(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const void *a, Py_ssize_t a_row,
                      const void *b, Py_ssize_t b_row, void *c, Py_ssize_t c_row) noexcept nogil:
    add(m, n, k, <const double *> a, a_row, <const double *> b, b_row, <double *> c, c_row)


use_blas(add_floats, add_doubles)


# Twins for the tests: the same calls on arrays, whose rows may lie further apart than their length.

cdef Py_ssize_t _leading(floating[:, :] a) except -1:
    if a.shape[1] > 1 and a.strides[1] != sizeof(floating):
        raise ValueError("expected rows that are contiguous")
    return a.strides[0] // <Py_ssize_t> sizeof(floating) if a.shape[0] > 1 else a.shape[1]


cdef floating *_first(floating[:, :] a) noexcept:
    return &a[0, 0] if a.shape[0] and a.shape[1] else NULL


def _gemm_memview(bint transpose_a, bint transpose_b, double alpha, floating[:, :] a,
                  floating[:, :] b, double beta, floating[:, :] c):
    m, k = (a.shape[1], a.shape[0]) if transpose_a else (a.shape[0], a.shape[1])
    inner, n = (b.shape[1], b.shape[0]) if transpose_b else (b.shape[0], b.shape[1])
    if inner != k or c.shape[0] != m or c.shape[1] != n:
        raise ValueError(f"shapes do not match: ({m}, {k}) ({inner}, {n})")
    gemm(transpose_a, transpose_b, m, n, k, <floating> alpha, _first(a), _leading(a),
         _first(b), _leading(b), <floating> beta, _first(c), _leading(c))


def _gemv_memview(bint transpose_a, double alpha, floating[:, :] a, floating[:] x, double beta,
                  floating[:] y):
    m, n = a.shape[0], a.shape[1]
    if (x.shape[0], y.shape[0]) != ((m, n) if transpose_a else (n, m)):
        raise ValueError(f"shapes do not match: ({m}, {n}) ({x.shape[0]},)")
    gemv(transpose_a, m, n, <floating> alpha, _first(a), _leading(a),
         &x[0] if x.shape[0] else NULL, x.strides[0] // <Py_ssize_t> sizeof(floating),
         <floating> beta,
         &y[0] if y.shape[0] else NULL, y.strides[0] // <Py_ssize_t> sizeof(floating))
