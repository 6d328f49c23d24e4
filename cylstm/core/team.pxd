# What src/team.h offers, and how many threads are worth it. A process has one set of threads: the
# C code is in this module alone, and the others reach it through these.

cdef extern from "team.h" nogil:
    ctypedef struct barrier:
        pass
    ctypedef struct progress:
        pass
    ctypedef void (*member_work)(void *arg, int member, int size) noexcept nogil
    ctypedef void (*unit_work)(void *arg, int unit, int member) noexcept nogil
    void cylstm_meet(int most, member_work work, void *arg)
    ctypedef enum sameness:
        VARIOUS
        ALIKE
    void cylstm_share(int most, int units, sameness are, unit_work work, void *arg)
    int cylstm_units(int threads)
    void cylstm_wait(barrier *b, int size)
    void cylstm_advance(progress *p, int done)
    void cylstm_await(progress *p, int least)
    void cylstm_begin()

cdef int useful_threads(double total) noexcept nogil
cdef void meet(int most, member_work work, void *arg) noexcept nogil
cdef void share(int most, int units, sameness are, unit_work work, void *arg) noexcept nogil
cdef int best_units(int threads) noexcept nogil
cdef void wait_for_team(barrier *b, int size) noexcept nogil
cdef void advance(progress *p, int done) noexcept nogil
cdef void await_progress(progress *p, int least) noexcept nogil
