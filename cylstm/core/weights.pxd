# Packed weights.

from cylstm.core.cell cimport Cell
from cylstm.core.kernels cimport cell, packed_matrix


cdef class Version:
    cdef public Py_ssize_t changes


cdef class Packed:
    cdef cell equations                      # with peepholes of its own
    cdef packed_matrix weights               # [W_ih W_hh]; not of the transposes
    cdef packed_matrix weight_ih, weight_hh  # its two parts in the same memory
    cdef packed_matrix weight_hr
    cdef list memory                         # what they point to
    cdef Py_ssize_t changes                  # of the parameters when they were packed


cdef list all_packed(store, Version version, list cells)
cdef Packed packed(Version version, Cell r, bint transposed)
