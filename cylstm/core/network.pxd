from cylstm.core.cell cimport Cell
from cylstm.core.lookup cimport Tables
from cylstm.core.memory cimport Spare
from cylstm.core.plan cimport layout
from cylstm.core.weights cimport Version
from cylstm.core.workspace cimport Workspace


cdef class Network:
    cdef list layers, cells  # by layer and direction; all in one
    cdef object store        # the parameters
    cdef Version version     # of them
    cdef dict kept           # "tables": of what they are, and they, if any
    cdef readonly Spare spare  # memory of what training passes give and keep, but tapes, and
    cdef Py_ssize_t forward_peak, backward_peak  # of their workspaces, which were last as large
    cdef bint batch_first
    cdef readonly bint has_c  # whether the state is h and c, not h alone
    cdef int typenum
    cdef Py_ssize_t itemsize, inputs, hidden, outputs, directions, states
    cdef list packed_layer(self, Py_ssize_t layer)
    cdef int run_step(self, Workspace workspace, Tables tables, layout *lies, const char *x,
                      Py_ssize_t x_row, y, h, c) except -1
    cdef dict new_gradients(self, Cell r, Py_ssize_t rows)
    cdef int check_state(self, h, c, Py_ssize_t states, Py_ssize_t rows) except -1
    cpdef tuple zero_state(self, Py_ssize_t rows, int rank=*)
    cpdef bint is_input(self, x)
