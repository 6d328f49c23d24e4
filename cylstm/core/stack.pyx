"""All layers of a network, from x to y, in inference. There is no Python in this file."""

from libc.string cimport memset

from cylstm.core.forward cimport run_tasks
from cylstm.core.memory cimport arena, arena_return, arena_take
from cylstm.core.plan cimport add_tasks, chain_layers, divide, layout, work, work_of_step
from cylstm.core.weights cimport runnable

cdef enum:
    SMALL = 100_000  # multiply-adds: a few microseconds


cdef inline double work_of_layer(const stack *s) noexcept nogil:
    """In a step, for a sequence: that of the last, which stands for all."""
    cdef const runnable *r = s.cells[(s.layers - 1) * s.directions]
    return work_of_step(r.sums, r.inputs, r.hidden, r.outputs)


cdef bint is_small(const stack *s, const layout *b) noexcept nogil:
    """Whether a call is so short that giving the GIL away would cost more."""
    return work_of_layer(s) * b.steps * b.rows * s.directions * s.layers < SMALL


cdef int run_stack(arena *memory, const stack *s, const layout *b, const char *x,
                   Py_ssize_t x_step, Py_ssize_t x_row, char *y, Py_ssize_t y_step,
                   Py_ssize_t y_row, char *h, char *c) noexcept nogil:
    """All layers, from x to y, whose strides are in bytes; -1 where there is no memory.

    The layers between write where the last one will, since a layer has read a step before it writes
    it. Not so with two directions: then they take turns with a second memory.
    """
    cdef:
        const runnable *r = s.cells[0]
        Py_ssize_t layer, d, k
        Py_ssize_t width = r.outputs * r.itemsize, spare_row = s.directions * width
        Py_ssize_t h_size = b.rows * width, c_size = b.rows * r.hidden * r.itemsize
        char *spare = NULL
        char *to
        Py_ssize_t to_step, to_row
        arena before
        work w
    if b.steps < 1 or b.rows < 1:
        return 0
    memset(&w, 0, sizeof(work))
    w.memory = memory
    if (divide(work_of_layer(s), s.directions, b, &w) < 0
            or chain_layers(s.layers, s.directions, b, &w) < 0):
        return -1
    if s.directions > 1 and s.layers > 1:
        spare = <char *> arena_take(memory, b.steps * b.rows * spare_row)
        if spare == NULL:
            return -1
    before = memory[0]
    for layer in range(s.layers):
        to, to_step, to_row = y, y_step, y_row
        if spare != NULL and (s.layers - 1 - layer) % 2:
            to, to_step, to_row = spare, b.rows * spare_row, spare_row
        for d in range(s.directions):
            k = layer * s.directions + d
            if b.starts != NULL:
                w.starts = b.starts + d * b.starts_each
            w.table = s.tables[d] if s.tables != NULL and layer == 0 else NULL
            if add_tasks(&w, s.cells[k], b, x, x_step, x_row, to + d * width, to_step, to_row,
                         h + k * h_size, c + k * c_size if c != NULL else NULL) < 0:
                return -1
        x, x_step, x_row = to, to_step, to_row
        if layer + 1 < s.layers and w.block > 0:
            continue
        run_tasks(&w)
        w.count = 0
        if layer + 1 < s.layers:
            arena_return(memory, &before)
    return 0
