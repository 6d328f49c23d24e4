"""x's share of the pre-activations, where x is one of some vectors at each step, such as words'.

The product is then one for each vector, not for each step::

    table = b + vectors W_ih'
    h_t, c_t = step(table[id_t], h_{t-1})

Each sum takes its terms in the order in which a step takes them: all bits are the same.
"""

cimport numpy as cnp

import numpy as np

from cylstm.core.kernels cimport kernels, packed_matrix
from cylstm.core.memory cimport check_array, first_of, row_width
from cylstm.core.plan cimport convert_rows
from cylstm.core.team cimport VARIOUS, share, useful_threads
from cylstm.core.weights cimport Packed, runnable

from cylstm.core.memory import aligned_empty

cnp.import_array()

cdef enum:
    ROWS = 96  # of a unit of work


cdef class Tables:
    """Of a network's first layer, a table for each direction. Nothing in it changes."""

    def __len__(self):
        return self.rows


# The making of one.
cdef struct job:
    const kernels *kernel
    const packed_matrix *weight
    const char *vectors
    char *converted    # workspace [rows, input_width], where products want it
    char *table
    Py_ssize_t itemsize, inputs, input_width, rows, width


cdef Tables tables_of(list weights, vectors):
    """For vectors (K, I), by the `Packed` weights of each direction."""
    cdef Tables made = Tables()
    cdef Py_ssize_t d
    made.memory, made.rows = [], vectors.shape[0]
    for d in range(len(weights)):
        table = new_table(&(<Packed> weights[d]).ready, vectors)
        made.memory.append(table)
        made.first[d] = first_of(table)
    return made


cdef new_table(const runnable *r, vectors):
    cdef job j
    cdef int threads
    dtype = np.dtype("float64" if r.itemsize == 8 else "float32")
    j.kernel, j.weight, j.itemsize, j.inputs = r.kernel, r.weight_ih, r.itemsize, r.inputs
    j.rows = vectors.shape[0]
    check_array(vectors, dtype.num, j.rows * j.inputs)
    j.width = row_width(4 * j.weight.tiles * j.kernel.width, j.itemsize)
    table = aligned_empty(j.rows * j.width, dtype)
    j.vectors, j.table = first_of(vectors), first_of(table)
    j.input_width, j.converted = j.inputs, NULL
    if j.kernel.convert != NULL:
        j.input_width = j.kernel.header + j.weight.depth
        workspace = aligned_empty(j.rows * j.input_width * j.kernel.input_size, np.dtype("int8"))
        j.converted = first_of(workspace)
    threads = useful_threads(4.0 * j.weight.tiles * j.kernel.width * j.inputs * j.rows)
    with nogil:
        share(threads, <int> ((j.rows + ROWS - 1) // ROWS), VARIOUS, make_rows, &j)
    return table


cdef void make_rows(void *given, int unit, int member) noexcept nogil:
    cdef:
        job *j = <job *> given
        Py_ssize_t first = unit * ROWS, n = min(ROWS, j.rows - first)
        const char *x = j.vectors + first * j.inputs * j.itemsize
        char *to = j.converted
    if to != NULL:
        to += first * j.input_width * j.kernel.input_size
        convert_rows(j.kernel, n, j.inputs, x, j.inputs * j.itemsize, 0, 0, to, j.input_width)
        x = to
    j.kernel.multiply(j.weight, n, x, j.input_width, j.table + first * j.width * j.itemsize,
                      j.width, 0, j.weight.tiles, False, False)


cdef int check_ids(Py_ssize_t vectors, ids) except -1:
    """An array (T, N, 1) of intp, in any layout, each of which is one of so many vectors."""
    cdef Py_ssize_t step, j, steps, rows, id
    cdef const char *row
    if not (isinstance(ids, cnp.ndarray) and cnp.PyArray_TYPE(ids) == cnp.NPY_INTP
            and cnp.PyArray_NDIM(ids) == 3 and cnp.PyArray_DIM(ids, 2) == 1):
        raise ValueError("ids: expected an array (T, N, 1) of intp")
    steps, rows = cnp.PyArray_DIM(ids, 0), cnp.PyArray_DIM(ids, 1)
    for step in range(steps):
        row = cnp.PyArray_BYTES(ids) + step * cnp.PyArray_STRIDE(ids, 0)
        for j in range(rows):
            id = (<const Py_ssize_t *> (row + j * cnp.PyArray_STRIDE(ids, 1)))[0]
            if not 0 <= id < vectors:
                raise ValueError(f"ids: expected 0 to {vectors - 1}, got {id}")
    return 0
