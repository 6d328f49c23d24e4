"""What other extension modules compute with, in C: see include/cylstm.h."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.limits cimport INT_MAX

from cylstm.core.memory cimport arena, arena_free, arena_grow, end_arena
from cylstm.core.network cimport Network
from cylstm.core.plan cimport full_batch, layout
from cylstm.core.stack cimport run_stack, stack
from cylstm.core.weights cimport all_packed, point_to, runnable


cdef extern from * nogil:
    """
    #define CYLSTM_ITSELF
    #include <stdatomic.h>
    #include "cylstm.h"
    static int cylstm_take_(atomic_int *busy) { return atomic_exchange(busy, 1) == 0; }
    static void cylstm_give_(atomic_int *busy) { atomic_store(busy, 0); }
    """
    ctypedef struct atomic_int:
        pass
    bint take_turn "cylstm_take_" (atomic_int *busy)
    void give_turn "cylstm_give_" (atomic_int *busy)

    enum:
        CYLSTM_ABI
        CYLSTM_OK
        CYLSTM_NO_MEMORY
        CYLSTM_BAD_ARGUMENT
        CYLSTM_BAD_DTYPE
        CYLSTM_NO_STREAM
        CYLSTM_BUSY

    ctypedef struct cylstm_model:
        pass

    ctypedef struct cylstm_sizes:
        Py_ssize_t input_size, hidden_size, output_size, directions, states
        int itemsize, has_c

    ctypedef struct cylstm_table:
        int abi
        size_t bytes
        cylstm_model *(*open)(object) except NULL
        void (*close)(cylstm_model *) noexcept
        void (*sizes)(const cylstm_model *, cylstm_sizes *) noexcept nogil
        int (*step)(cylstm_model *, int, Py_ssize_t, const void *, void *, void *,
                    void *) noexcept nogil
        int (*sequence)(cylstm_model *, int, Py_ssize_t, Py_ssize_t, const void *, void *, void *,
                        void *) noexcept nogil


# A `cylstm_model`.
cdef struct model:
    cylstm_sizes sizes
    stack cells
    PyObject *weights   # the list of `Kept` that they point into; it is ours
    bint from_the_end   # whether a direction reads so
    bint down           # in the next step; what the last one ended with is in the cache
    atomic_int busy
    arena memory        # what is computed in, as large as the last call wanted it


cdef cylstm_model *open_model(network) except NULL:
    cdef Network net
    cdef list weights
    cdef model *made
    inner = getattr(network, "_network", None)
    if not isinstance(inner, Network):
        raise TypeError(f"network: expected an LSTM, GRU or RNN of cylstm, got {network!r}")
    net = inner
    weights = all_packed(net.store, net.version, net.cells)
    made = <model *> PyMem_Calloc(1, sizeof(model))
    if made == NULL:
        raise MemoryError("no memory for a model")
    made.cells.cells = <const runnable **> PyMem_Calloc(net.states, sizeof(void *))
    if made.cells.cells == NULL:
        PyMem_Free(made)
        raise MemoryError("no memory for a model")
    made.cells.layers, made.cells.directions = len(net.layers), net.directions
    point_to(weights, made.cells.cells)
    for k in range(net.states):
        made.from_the_end |= made.cells.cells[k].reverse
    Py_INCREF(weights)
    made.weights = <PyObject *> weights
    made.sizes = cylstm_sizes(net.inputs, net.hidden, net.outputs, net.directions, net.states,
                              net.itemsize, net.has_c)
    return <cylstm_model *> made


cdef void close_model(cylstm_model *given) noexcept:
    cdef model *m = <model *> given
    if m == NULL:
        return
    arena_free(&m.memory)
    PyMem_Free(m.cells.cells)
    Py_DECREF(<object> m.weights)
    PyMem_Free(m)


cdef void sizes_of(const cylstm_model *given, cylstm_sizes *sizes) noexcept nogil:
    sizes[0] = (<const model *> given).sizes


cdef int step(cylstm_model *given, int itemsize, Py_ssize_t rows, const void *x, void *h, void *c,
              void *y) noexcept nogil:
    if given != NULL and (<model *> given).from_the_end:
        return CYLSTM_NO_STREAM
    return sequence(given, itemsize, 1, rows, x, h, c, y)


cdef int sequence(cylstm_model *given, int itemsize, Py_ssize_t steps, Py_ssize_t rows,
                  const void *x, void *h, void *c, void *y) noexcept nogil:
    cdef model *m = <model *> given
    cdef int got
    if m == NULL:
        return CYLSTM_BAD_ARGUMENT
    if m.sizes.itemsize != itemsize:
        return CYLSTM_BAD_DTYPE
    got = check_arrays(&m.sizes, steps, rows, <const char *> x, <const char *> h,
                       <const char *> c, <const char *> y)
    if got != CYLSTM_OK:
        return got
    if not take_turn(&m.busy):
        return CYLSTM_BUSY
    got = run(m, steps, rows, <const char *> x, <char *> h, <char *> c, <char *> y)
    give_turn(&m.busy)
    return got


cdef int run(model *m, Py_ssize_t steps, Py_ssize_t rows, const char *x, char *h, char *c,
             char *y) noexcept nogil:
    cdef:
        layout lies = full_batch(steps, rows)
        arena memory = m.memory
        Py_ssize_t x_row = m.sizes.input_size * m.sizes.itemsize
        Py_ssize_t y_row = m.sizes.directions * m.sizes.output_size * m.sizes.itemsize
        Py_ssize_t peak
        int got
    if steps == 1:
        lies.down, m.down = m.down, not m.down
    got = run_stack(&memory, &m.cells, &lies, x, x_row * rows, x_row, y, y_row * rows, y_row, h, c)
    peak = end_arena(&memory)
    if got < 0:
        return CYLSTM_NO_MEMORY
    arena_grow(&m.memory, peak)  # if it cannot, the next call takes its own again
    return CYLSTM_OK


cdef int check_arrays(const cylstm_sizes *s, Py_ssize_t steps, Py_ssize_t rows, const char *x,
                      const char *h, const char *c, const char *y) noexcept nogil:
    cdef Py_ssize_t x_size, y_size, h_size, c_size
    if steps < 0 or rows < 0 or (rows > 0 and steps > INT_MAX // rows):
        return CYLSTM_BAD_ARGUMENT
    if steps == 0 or rows == 0:
        return CYLSTM_OK
    if x == NULL or h == NULL or y == NULL or (c != NULL) != s.has_c:
        return CYLSTM_BAD_ARGUMENT
    x_size = steps * rows * s.input_size * s.itemsize
    y_size = steps * rows * s.directions * s.output_size * s.itemsize
    h_size = s.states * rows * s.output_size * s.itemsize
    c_size = s.states * rows * s.hidden_size * s.itemsize if s.has_c else 0
    if (overlap(x, x_size, y, y_size) or overlap(x, x_size, h, h_size)
            or overlap(x, x_size, c, c_size) or overlap(y, y_size, h, h_size)
            or overlap(y, y_size, c, c_size) or overlap(h, h_size, c, c_size)):
        return CYLSTM_BAD_ARGUMENT
    return CYLSTM_OK


cdef inline bint overlap(const char *a, Py_ssize_t a_size, const char *b,
                         Py_ssize_t b_size) noexcept nogil:
    return a < b + b_size and b < a + a_size


cdef cylstm_table _table = cylstm_table(
    CYLSTM_ABI, sizeof(cylstm_table), open_model, close_model, sizes_of, step, sequence)

table = PyCapsule_New(&_table, "cylstm.core.api.table", NULL)
