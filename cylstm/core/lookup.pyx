"""x's share of the pre-activations, where x is one of some vectors at each step, such as words'.

The product is then one for each vector, not for each step::

    table = b + vectors W_ih'
    h_t, c_t = step(table[id_t], h_{t-1})

Each sum takes its terms in the order in which a step takes them: all bits are the same.
"""

cimport numpy as cnp

import threading

import numpy as np

from cylstm.core.kernels cimport kernels, packed_matrix
from cylstm.core.memory cimport check_array, first_of, row_width
from cylstm.core.plan cimport convert_rows
from cylstm.core.team cimport VARIOUS, share, useful_threads
from cylstm.core.weights cimport ready_of, runnable

from cylstm.core.forks import at_fork
from cylstm.core.memory import aligned_empty

cnp.import_array()

cdef enum:
    ROWS = 96         # of a unit of work
    AT_ONCE = 1024    # rows that are made beside a table, and then put there

cdef extern from *:
    """
    static inline int row_is_made(const char *made) {
        return __atomic_load_n(made, __ATOMIC_ACQUIRE);
    }
    static inline void mark_row(char *made) { __atomic_store_n(made, 1, __ATOMIC_RELEASE); }
    """
    bint row_is_made(const char *made) noexcept nogil  # then the row can be read
    void mark_row(char *made) noexcept nogil           # whoever sees it sees the row

_put = threading.Lock()  # whoever writes rows that others may come to read


cdef class Tables:
    """Of a network's first layer, a table for each direction.

    Rows are made when they are first wanted, and then do not change.
    """

    def __len__(self):
        return self.rows


# The making of rows.
cdef struct job:
    const kernels *kernel
    const packed_matrix *weight
    const char *vectors
    char *converted    # workspace [rows, input_width], where products want it
    char *table
    Py_ssize_t itemsize, inputs, input_width, rows, width


cdef Tables new_tables(list weights, Py_ssize_t rows):
    """By the `Packed` weights of each direction; without a row."""
    cdef Tables tables = Tables()
    cdef Py_ssize_t d
    cdef const runnable *r
    tables.memory, tables.rows, tables.made = [], rows, np.zeros(rows, bool)
    for d in range(len(weights)):
        r = ready_of(weights[d])
        table = aligned_empty(rows * width_of(r), dtype_of(r)).reshape(rows, -1)
        tables.memory.append(table)
        tables.first[d] = first_of(table)
    return tables


cdef Tables tables_of(list weights, vectors):
    """With the rows of all vectors (K, I)."""
    cdef Tables tables = new_tables(weights, vectors.shape[0])
    cdef Py_ssize_t d
    for d in range(len(weights)):
        make(ready_of(weights[d]), vectors, tables.memory[d])
    tables.made[...] = True
    return tables


cdef int fill(Tables tables, list weights, vectors, ids) except -1:
    """Make the rows of these ids that are missing; of the vectors (rows, I).

    A thread that comes meanwhile makes what it misses for itself: none goes on before its rows are
    there. But it puts only those that still are missing, since others may read the rest.
    """
    cdef Py_ssize_t first, d
    missing = missing_of(tables, ids)
    for first in range(0, len(missing), AT_ONCE):
        some = missing[first : first + AT_ONCE]
        taken, beside = vectors[some], []
        for d in range(len(weights)):
            beside.append(np.empty((len(some), tables.memory[d].shape[1]), tables.memory[d].dtype))
            make(ready_of(weights[d]), taken, beside[d])
        with _put:
            put(tables, some, beside)
    return 0


cdef int put(Tables tables, some, list beside) except -1:
    """Copy rows to a table of each direction, if they are not there."""
    cdef char *made = first_of(tables.made)
    cdef const Py_ssize_t *id
    cdef Py_ssize_t j
    absent = ~tables.made[some]
    put_now = some[absent]
    for table, rows in zip(tables.memory, beside, strict=True):
        table[put_now] = rows[absent]
    id = <const Py_ssize_t *> first_of(put_now)
    for j in range(len(put_now)):
        mark_row(made + id[j])
    return 0


cdef missing_of(Tables tables, ids):
    """Those ids whose rows are not there, each once."""
    cdef const char *made = first_of(tables.made)
    cdef const Py_ssize_t *id
    cdef cnp.npy_bool *absent
    cdef Py_ssize_t j
    plain = np.ravel(ids)
    check_ids(tables.rows, plain.reshape(-1, 1, 1))
    is_absent = np.empty(plain.shape, bool)
    id, absent = <const Py_ssize_t *> first_of(plain), <cnp.npy_bool *> first_of(is_absent)
    for j in range(len(plain)):
        absent[j] = not row_is_made(made + id[j])
    return np.unique(plain[is_absent])


cdef bint is_filled(Tables tables, const Py_ssize_t *ids, Py_ssize_t count) noexcept:
    """Whether the rows of so many ids are there; if an id is none, not."""
    cdef const char *made = first_of(tables.made)
    cdef Py_ssize_t j
    for j in range(count):
        if not 0 <= ids[j] < tables.rows or not row_is_made(made + ids[j]):
            return False
    return True


cdef Py_ssize_t width_of(const runnable *r) noexcept:
    return row_width(4 * r.weight_ih.tiles * r.kernel.width, r.itemsize)


cdef dtype_of(const runnable *r):
    return np.dtype("float64" if r.itemsize == 8 else "float32")


cdef int make(const runnable *r, vectors, rows) except -1:
    """Write the rows (K, sums) of vectors (K, I)."""
    cdef job j
    cdef int threads
    j.kernel, j.weight, j.itemsize, j.inputs = r.kernel, r.weight_ih, r.itemsize, r.inputs
    j.rows, j.width = vectors.shape[0], width_of(r)
    check_array(vectors, dtype_of(r).num, j.rows * j.inputs)
    check_array(rows, dtype_of(r).num, j.rows * j.width)
    j.vectors, j.table = first_of(vectors), first_of(rows)
    j.input_width, j.converted = j.inputs, NULL
    if j.kernel.convert != NULL:
        j.input_width = j.kernel.header + j.weight.depth
        workspace = aligned_empty(j.rows * j.input_width * j.kernel.input_size, np.dtype("int8"))
        j.converted = first_of(workspace)
    threads = useful_threads(4.0 * j.weight.tiles * j.kernel.width * j.inputs * j.rows)
    share(threads, <int> ((j.rows + ROWS - 1) // ROWS), VARIOUS, make_rows, &j)
    return 0


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


def _after_in_child():
    """Who was putting rows is not there; those are not marked."""
    global _put
    _put = threading.Lock()


at_fork(after_in_child=_after_in_child)
