# Sums over the rows of a block, backward.

from cylstm.core.passing cimport passing


cdef void sum_block(passing *p, int threads) noexcept nogil
cdef void run_table(passing *p, int threads) noexcept nogil
