# What src/team.h offers, and how many threads are worth it. A process has one set of threads: the
# C code is in this module alone, and the others reach it through these.

cdef extern from "team.h" nogil:
    ctypedef struct barrier:
        pass
    ctypedef struct counter:
        pass
    ctypedef struct progress:
        pass
    int cylstm_next(counter *c)
    ctypedef enum manner:
        TAKE
        MEET
    ctypedef void (*member_work)(void *arg, int member, int size) noexcept nogil
    void cylstm_run(int most, manner how, member_work work, void *arg)
    void cylstm_wait(barrier *b, int size)
    void cylstm_advance(progress *p, int done)
    void cylstm_await(progress *p, int least)
    void cylstm_watch_forks()

cdef int useful_threads(double total) noexcept
cdef void run_team(int most, manner how, member_work work, void *arg) noexcept nogil
cdef void wait_for_team(barrier *b, int size) noexcept nogil
cdef void advance(progress *p, int done) noexcept nogil
cdef void await_progress(progress *p, int least) noexcept nogil
