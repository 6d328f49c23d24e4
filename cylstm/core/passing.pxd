# What the backward pass is given, and where in it a step's rows are.

from cylstm.core.kernels cimport cell, cell_kernels, cell_sums, kernels, packed_matrix, step_tape
from cylstm.core.plan cimport tape_from
from cylstm.core.products cimport outer, summed


# One layer and direction. Rows lie close where no distance is named; it is in bytes.
cdef struct passing:
    const cell *equations
    const kernels *kernel
    const cell_kernels *functions
    const cell_sums *sums
    packed_matrix weight_ih, weight_hh, weight_hr  # transposed
    packed_matrix weight_ih_apart   # its last gates, whose sums lie apart from the others
    bint projected, reverse, adds   # adds: grad_x is added to, not written
    Py_ssize_t itemsize, inputs, hidden, outputs, steps
    Py_ssize_t batch                # N
    const Py_ssize_t *sizes         # of the steps; NULL where they are N
    const Py_ssize_t *offsets       # their sums
    const char *x                   # [S, I]; or, where there are ids, some vectors [vectors, I],
    const Py_ssize_t *ids           # [S], of which x is one at each row; NULL for none
    Py_ssize_t vectors
    const char *y                   # [S, R]
    const char *h_0                 # [N, R]
    const char *c_0                 # [N, H]; h_0 where there is no c
    const char *grad_y              # [S, R]
    const char *starts              # [S]: whether a row's state started from zero; NULL for none
    const char *zeros               # such a state
    Py_ssize_t y_row, grad_y_row
    step_tape tape                  # of the first row
    char *grad_h                    # [N, R], of h_n; in the end of h_0
    char *grad_c                    # [N, H], of c_n; in the end of c_0; without c a workspace
    char *grad_x                    # [S, I], or [vectors, I]
    char *grad_table                # [vectors, sums H]: what comes to each from all of its rows
    char *grad_sums                 # [sums H], of the bias of each; NULL for none
    char *grad_peephole             # [3H]; NULL for none
    outer weights[2]                # of W_ih and W_hh: the gates that have their sums in common,
    outer apart[2]                  # and the others
    outer projection                # of W_hr
    Py_ssize_t first, last          # the block: its positions,
    Py_ssize_t row                  # its first row,
    summed block                    # number of rows,
    Py_ssize_t block_rows           # at most,
    char *z                         # [rows, sums H], the gradient by pre-activations,
    Py_ssize_t z_row
    char *out                       # [rows, R], by outputs, where there is a projection,
    char *cell_outputs              # [rows, H], of what was projected
    int sum_shares                  # into which its sums are divided
    char *memory                    # each thread's workspace
    Py_ssize_t memory_each


cdef inline Py_ssize_t time_of(const passing *p, Py_ssize_t position) noexcept nogil:
    return p.steps - 1 - position if p.reverse else position


cdef inline Py_ssize_t size_at(const passing *p, Py_ssize_t position) noexcept nogil:
    return p.batch if p.sizes == NULL else p.sizes[time_of(p, position)]


cdef inline Py_ssize_t row_at(const passing *p, Py_ssize_t position) noexcept nogil:
    """Where in packed rows a step begins."""
    cdef Py_ssize_t step = time_of(p, position)
    return step * p.batch if p.offsets == NULL else p.offsets[step]


cdef inline Py_ssize_t carried_at(const passing *p, Py_ssize_t position) noexcept nogil:
    """How many of a step's rows the step before it had too: the others begin."""
    return min(size_at(p, position), size_at(p, position - 1)) if position > 0 else 0


cdef inline step_tape tape_at(const passing *p, Py_ssize_t row) noexcept nogil:
    return tape_from(p.tape, row, p.itemsize)


cdef inline bint starts_from_zero(const passing *p, Py_ssize_t row) noexcept nogil:
    return p.starts != NULL and p.starts[row]


cdef inline Py_ssize_t alike_until(const passing *p, Py_ssize_t row, Py_ssize_t stride,
                                   Py_ssize_t first, Py_ssize_t carried,
                                   Py_ssize_t n) noexcept nogil:
    """How far rows come to their step's state in the same way as the first: carried, as `carried`
    are, or begun, or from zero. Row j is row + j * stride of all."""
    cdef Py_ssize_t until = first + 1, most = carried if first < carried else n
    if p.starts == NULL:
        return most
    while until < most and p.starts[row + until * stride] == p.starts[row + first * stride]:
        until += 1
    return until
