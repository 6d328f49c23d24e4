# Packed weights.

from cylstm.core.cell cimport Cell
from cylstm.core.kernels cimport cell, cell_kernels, cell_sums, kernels, packed_matrix, packing


cdef class Version:
    cdef public Py_ssize_t changes


cdef class Copy:
    cdef list memory         # what it points to
    cdef Py_ssize_t changes  # of the parameters when they were packed


# A layer and direction as the time loop takes it, in C alone. It points into a `Packed`.
cdef struct runnable:
    const cell *equations
    const kernels *kernel
    const cell_kernels *functions
    const cell_sums *sums
    const packed_matrix *weights
    const packed_matrix *weight_ih
    const packed_matrix *weight_hh
    const packed_matrix *weight_hr
    bint projected, reverse
    Py_ssize_t itemsize, inputs, hidden, outputs


cdef class Packed(Copy):
    cdef cell equations                      # with peepholes of its own
    cdef packed_matrix weights               # [W_ih W_hh]; not of the transposes
    cdef packed_matrix weight_ih, weight_hh  # its two parts in the same memory
    cdef packed_matrix weight_hr
    cdef runnable ready                      # not of the transposes


cdef Copy current(dict copies, bint transposed, Version version)
cdef Copy renewed(dict copies, bint transposed, Version version, type kind)
cdef list all_packed(store, Version version, list cells)
cdef void point_to(list weights, const runnable **cells) noexcept
cdef Packed packed(Version version, Cell r, bint transposed)
cdef int pack_seldom(const kernels *kernel, Py_ssize_t size, list memory, const void *matrix,
                     Py_ssize_t rows, Py_ssize_t columns, packed_matrix *to) except -1
cdef int vectors_for(const kernels *kernel, Py_ssize_t depth,
                     Py_ssize_t outputs) noexcept nogil
cdef int new_matrix(const kernels *kernel, Py_ssize_t size, list memory, const packing *how,
                    bint has_bias, int parts, packed_matrix *to) except -1
cdef Py_ssize_t whole_groups(const kernels *kernel, Py_ssize_t depth) noexcept nogil
cdef void set_steps(const kernels *kernel, packed_matrix *to) noexcept nogil
cdef packed_matrix in_place(const kernels *kernel, const void *matrix, Py_ssize_t rows,
                            Py_ssize_t columns) noexcept nogil
