# x's share of the pre-activations, by which of some vectors it is.

cdef class Tables:
    cdef list memory
    cdef const char *first[2]  # of each direction: [rows, sums]
    cdef Py_ssize_t rows


cdef Tables tables_of(list weights, vectors)
cdef int check_ids(Py_ssize_t vectors, ids) except -1
