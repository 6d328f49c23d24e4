from cylstm.core.memory cimport arena


cdef extern from * nogil:
    """
    #ifndef CYLSTM_TURN
    #define CYLSTM_TURN
    #include <stdatomic.h>
    /* Whose it was: the new one's if it was `before`. */
    static inline int cylstm_turn(atomic_int *taken, int before, int now) {
        atomic_compare_exchange_strong(taken, &before, now);
        return before;
    }
    static inline void cylstm_leave(atomic_int *taken) {
        atomic_store_explicit(taken, 0, memory_order_release);
    }
    #endif
    """
    ctypedef struct atomic_int:
        pass
    int cylstm_turn(atomic_int *taken, int before, int now)
    void cylstm_leave(atomic_int *taken)


cdef class Workspace:
    cdef arena memory
    cdef bint down   # in the next step; the weights that the last one ended with are in the cache
    cdef atomic_int taken  # by a step under way: in which process of a line of forks; 0: none
    cpdef int begin(self) except -1
    cpdef int end(self) except -1
    cdef int grow(self, Py_ssize_t size) except -1
