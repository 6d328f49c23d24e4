# What reads and writes arrays through pointers checks them first.

cimport numpy as cnp


cdef extern from "platform/memory.h" nogil:
    void *cylstm_allocate(Py_ssize_t size)
    void cylstm_release(void *memory)

cdef extern from "arena.h" nogil:
    ctypedef struct arena:
        char *memory
        Py_ssize_t size, peak
    void *arena_take(arena *a, Py_ssize_t size)
    void arena_return(arena *a, const arena *before)
    int arena_grow(arena *a, Py_ssize_t size)
    void arena_free(arena *a)

cdef class Spare:
    cdef list left              # blocks of memory, the smallest first
    cdef Py_ssize_t lent, most  # how many arrays have one; and had at once
    cdef object array(self, int rank, cnp.npy_intp *sizes, dtype)
    cdef object begin_arena(self, arena *memory, Py_ssize_t size)
    cdef object lend(self, Py_ssize_t wanted)
    cdef object pop(self, Py_ssize_t wanted)
    cdef int take_back(self, block) except -1
    cdef int keep(self, Py_ssize_t count) except -1

cdef bint is_plain(array, int typenum) noexcept
cdef char *first_of(array) noexcept
cdef int check_array(array, int typenum, Py_ssize_t size) except -1
cdef Py_ssize_t end_arena(arena *memory) noexcept nogil
cdef char *take(arena *memory, Py_ssize_t size) except NULL
cdef int enough(const arena *memory, int got) except -1
cdef Py_ssize_t row_width(Py_ssize_t width, Py_ssize_t size) noexcept nogil
