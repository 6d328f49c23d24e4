# The backward pass of one layer and direction.

from cylstm.core.cell cimport Cell
from cylstm.core.kernels cimport cell, cell_kernels, cell_sums, kernels, packed_matrix, step_tape
from cylstm.core.plan cimport layout
from cylstm.core.products cimport outer, summed
from cylstm.core.weights cimport Packed


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
    summed block                    # number of rows, of at most
    Py_ssize_t block_rows           # of them,
    char *z                         # [rows, sums H], the gradient by pre-activations,
    Py_ssize_t z_row
    char *out                       # [rows, R], by outputs, where there is a projection,
    char *cell_outputs              # [rows, H], of what was projected
    int sum_shares                  # into which its sums are divided
    char *memory                    # each thread's workspace
    Py_ssize_t memory_each


cdef int run_backward(passing *p, Cell r, Packed weights, const layout *b, dict grads) except -1
