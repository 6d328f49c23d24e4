from cylstm.core.plan cimport work

cdef void run_tasks(work *w) noexcept nogil
