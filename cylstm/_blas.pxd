# The one door to BLAS: row-major products over scipy.linalg.cython_blas.

from cython cimport floating

cdef void gemm(
    bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    floating alpha, const floating *a, Py_ssize_t lda, const floating *b, Py_ssize_t ldb,
    floating beta, floating *c, Py_ssize_t ldc) noexcept nogil

cdef void gemv(
    bint transpose_a, Py_ssize_t m, Py_ssize_t n,
    floating alpha, const floating *a, Py_ssize_t lda, const floating *x, Py_ssize_t incx,
    floating beta, floating *y, Py_ssize_t incy) noexcept nogil
