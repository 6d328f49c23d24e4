"""Products over the rows of many steps: a weight's gradient, and the gradient of what it met."""

from cylstm.core.kernels cimport packed_matrix
from cylstm.core.memory cimport arena, first_of, take
from cylstm.core.plan cimport copy_rows

cdef enum:
    INPUT_ROWS = 96    # of a product with a weight at once, and
    INPUT_DEPTH = 256  # rows of the weight: they stay in the L2 cache, as do
    OUTER_ROWS = 384   # rows of a weight's gradient: a multiple of tiles and of groups


cdef const void **pointers(const char *first, Py_ssize_t row, Py_ssize_t rows,
                           arena *memory) except NULL:
    """To the rows of a matrix."""
    cdef const void **to = <const void **> take(memory, rows * sizeof(void *))
    cdef Py_ssize_t j
    for j in range(rows):
        to[j] = first + j * row
    return to


cdef int new_outer(const summed *s, outer *o, grad, const void **a, const void **b,
                   arena *memory) except -1:
    cdef Py_ssize_t tile = 4 * s.kernel.width
    o.m, o.n, o.a, o.b, o.sum = grad.shape[0], grad.shape[1], a, b, first_of(grad)
    o.whole = o.n // tile * tile
    o.rest_row = (o.m + tile - 1) // tile * tile
    if o.whole < o.n:
        o.rest = take(memory, (o.n - o.whole) * o.rest_row * s.itemsize)
    return 0


cdef Py_ssize_t sums_workspace(const summed *s, Py_ssize_t rows, Py_ssize_t most) noexcept:
    """Bytes that `add_products` wants of each thread, for weights of at most so many rows."""
    cdef Py_ssize_t tile = 4 * s.kernel.width
    return (rows + 1) * (tile + min(OUTER_ROWS, max(most, tile)) + s.kernel.group) * s.itemsize


cdef Py_ssize_t product_workspace(const summed *s, const packed_matrix *w) noexcept:
    """Bytes that `multiply_rows` wants of each thread."""
    return INPUT_ROWS * columns_of(s.kernel, w) * s.itemsize


# No Python from here on.


cdef void add_products(const summed *s, const outer *outers, Py_ssize_t count, Py_ssize_t member,
                       Py_ssize_t team, char *memory) noexcept nogil:
    """A member's rows of gradients that have a in common."""
    cdef Py_ssize_t tile = 4 * s.kernel.width, first = share_begin(outers.m, tile, member, team)
    cdef Py_ssize_t last = share_begin(outers.m, tile, member + 1, team), n
    while first < last:
        n = min(OUTER_ROWS, last - first)
        add_rows(s, outers, count, first, n, memory)
        first += n


cdef void add_rows(const summed *s, const outer *outers, Py_ssize_t count, Py_ssize_t first,
                   Py_ssize_t n, char *memory) noexcept nogil:
    cdef:
        Py_ssize_t size = s.itemsize, j, whole = 0
        const outer *o
        char *groups = memory + s.rows * 4 * s.kernel.width * size
    for j in range(count):
        whole += outers[j].whole
    if whole > 0:
        s.kernel.pack_columns(s.rows, first, n, outers.a, groups)
    for j in range(count):
        o = &outers[j]
        s.kernel.add_outer(s.rows, n, o.whole, groups, o.b, 0, o.sum + first * o.n * size, o.n,
                           s.adds, memory)
    for j in range(count):
        o = &outers[j]
        if o.whole < o.n:
            s.kernel.pack_columns(s.rows, o.whole, o.n - o.whole, o.b, groups)
            s.kernel.add_outer(s.rows, o.n - o.whole, n, groups, o.a, first,
                               o.rest + first * size, o.rest_row, s.adds, memory)


cdef void end_outer(const summed *s, const outer *o) noexcept nogil:
    """Put the columns past whole tiles where they belong."""
    if o.rest != NULL:
        s.kernel.transpose(o.n - o.whole, o.m, o.rest, o.rest_row, o.sum + o.whole * s.itemsize,
                           o.n)


cdef void multiply_rows(const summed *s, const packed_matrix *w, Py_ssize_t n, const char *z,
                        Py_ssize_t z_row, char *x, Py_ssize_t width, bint adds,
                        char *block) noexcept nogil:
    """x (n, width) := z w, or +=, z's rows some bytes apart; where w's tiles end past the width, by
    way of `block`."""
    cdef:
        Py_ssize_t size = s.itemsize, row = width * size, rows, j
        Py_ssize_t columns = columns_of(s.kernel, w)
    while n > 0:
        rows = min(INPUT_ROWS, n)
        if columns == width:
            multiply_deep(s, w, rows, z, z_row, x, width, adds)
        else:
            multiply_deep(s, w, rows, z, z_row, block, columns, False)
            if adds:
                for j in range(rows):
                    s.kernel.add(width, block + j * columns * size, x + j * row)
            else:
                copy_rows(rows, row, block, columns * size, x, row)
        n -= rows
        z += rows * z_row
        x += rows * row


cdef void multiply_deep(const summed *s, const packed_matrix *w, Py_ssize_t n, const char *z,
                        Py_ssize_t z_row, char *to, Py_ssize_t to_row, bint adds) noexcept nogil:
    """By few of w's rows at once: they lie far apart."""
    cdef Py_ssize_t k = 0, size = s.itemsize
    cdef packed_matrix part = w[0]
    while k < w.depth:
        part.weights = <const char *> w.weights + k * part.k_step * size
        part.depth = min(INPUT_DEPTH, w.depth - k)
        s.kernel.multiply(&part, n, z + k * size, z_row // size, to, to_row, 0, part.tiles, False,
                          adds or k > 0)
        k += part.depth
