# x's share of the pre-activations, by which of some vectors it is.

cdef class Tables:
    cdef list memory           # of each direction: (rows, sums)
    cdef const char *first[2]  # where these begin
    cdef object made           # of each row, whether it is there
    cdef Py_ssize_t rows


cdef Tables new_tables(list weights, Py_ssize_t rows)
cdef Tables tables_of(list weights, vectors)
cdef int fill(Tables tables, list weights, vectors, ids) except -1
cdef bint is_filled(Tables tables, const Py_ssize_t *ids, Py_ssize_t count) noexcept
cdef int check_ids(Py_ssize_t vectors, ids) except -1
