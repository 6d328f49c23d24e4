# All layers of a network, from x to y.

from cylstm.core.memory cimport arena
from cylstm.core.plan cimport layout
from cylstm.core.weights cimport runnable


cdef struct stack:
    const runnable **cells  # by layer and direction
    const char **tables     # of the first layer's directions, where x is ids; or NULL
    Py_ssize_t layers, directions


cdef bint is_small(const stack *s, const layout *b) noexcept nogil
cdef int run_stack(arena *memory, const stack *s, const layout *b, const char *x,
                   Py_ssize_t x_step, Py_ssize_t x_row, char *y, Py_ssize_t y_step,
                   Py_ssize_t y_row, char *h, char *c) noexcept nogil
