# The parameters of one layer and direction, for the passes over them.

from cylstm.core.kernels cimport cell, cell_kernels, cell_sums, kernels
from cylstm.core.memory cimport Spare

cdef class Cell:
    cdef readonly dict parameters
    cdef readonly bint reverse
    cdef bint is_double
    cdef Py_ssize_t inputs, hidden, outputs
    cdef cell equations
    cdef const kernels *kernel
    cdef const cell_kernels *functions  # of this kind of cell
    cdef const cell_sums *sums
    cdef const void *weight_ih
    cdef const void *weight_hh
    cdef const void *weight_hr
    cdef const void *bias
    cdef const void *bias_hn
    cdef dict packed  # copies of them as `cylstm.core.weights` packs them, once they were used
    cdef Spare tapes
