# The parameters of one layer and direction, for the passes over them.

from cylstm._kernels cimport cell, kernels

cdef class Recurrence:
    cdef readonly dict parameters
    cdef readonly bint reverse
    cdef bint is_double
    cdef Py_ssize_t inputs, hidden, outputs
    cdef cell equations
    cdef const kernels *kernel
    cdef const void *weight_ih
    cdef const void *weight_hh
    cdef const void *weight_hr
    cdef const void *bias
    cdef dict packed          # parameters as `cylstm._inference` packs them, once they were used

cdef class Version:
    cdef public Py_ssize_t changes

cdef char *first_of(array) noexcept
cdef int check_array(array, int typenum, Py_ssize_t size) except -1
