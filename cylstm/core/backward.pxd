# The backward pass of one layer and direction.

from cylstm.core.cell cimport Cell
from cylstm.core.memory cimport arena
from cylstm.core.passing cimport passing
from cylstm.core.plan cimport layout
from cylstm.core.weights cimport Packed


cdef int run_backward(passing *p, Cell r, Packed weights, const layout *b, arena *memory,
                      dict grads) except -1
