from cylstm.core.memory cimport arena


cdef class Workspace:
    cdef arena memory
    cdef bint down   # in the next step; the weights that the last one ended with are in the cache
    cdef int taken   # by a step under way: in which process of a line of forks; 0 for none
    cpdef int begin(self) except -1
    cpdef int end(self) except -1
    cdef int grow(self, Py_ssize_t size) except -1
