# Products over the rows of many steps.

from cylstm.core.kernels cimport kernels, packed_matrix
from cylstm.core.memory cimport arena


# The gradient (m, n) of a weight: a' b of the first block of rows, to which the others add theirs.
cdef struct outer:
    Py_ssize_t m, n
    const void **a       # pointers to the block's rows of (S, m)
    const void **b       # and of (S, n)
    char *sum            # (m, n)
    Py_ssize_t whole     # n without the columns past whole tiles; of them
    char *rest           # [n - whole, m padded to tiles], the transpose
    Py_ssize_t rest_row  # reals


# The block of rows that is summed over.
cdef struct summed:
    const kernels *kernel
    Py_ssize_t itemsize, rows
    bint adds            # to what other blocks left


cdef const void **pointers(const char *first, Py_ssize_t row, Py_ssize_t rows,
                           arena *memory) except NULL
cdef int new_outer(const summed *s, outer *o, grad, const void **a, const void **b,
                   arena *memory) except -1
cdef Py_ssize_t sums_workspace(const summed *s, Py_ssize_t rows, Py_ssize_t most) noexcept
cdef void add_products(const summed *s, const outer *outers, Py_ssize_t count, Py_ssize_t member,
                       Py_ssize_t team, char *memory) noexcept nogil
cdef void end_outer(const summed *s, const outer *o) noexcept nogil
cdef Py_ssize_t product_workspace(const summed *s, const packed_matrix *w) noexcept
cdef void multiply_rows(const summed *s, const packed_matrix *w, Py_ssize_t n, const char *z,
                        Py_ssize_t z_row, char *x, Py_ssize_t width, bint adds,
                        char *block) noexcept nogil


cdef inline Py_ssize_t columns_of(const kernels *kernel, const packed_matrix *w) noexcept nogil:
    """The outputs of packed weights, with those that fill the last tile."""
    return w.tiles * w.vectors * kernel.width


cdef inline Py_ssize_t share_begin(Py_ssize_t n, Py_ssize_t each, Py_ssize_t member,
                                   Py_ssize_t team) noexcept nogil:
    """Where a member's share of n begins, a multiple of `each`; n past the last."""
    return min(n, member * ((n + each - 1) // each) // team * each)
