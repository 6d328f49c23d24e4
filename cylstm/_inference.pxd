# Packed weights, the workspace of a call and its division among threads.

from libc.string cimport memcpy, memset

from cylstm._kernels cimport cell, kernels, packed_matrix, step_tape
from cylstm._sequence cimport Recurrence, Version

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

cdef extern from "arena.h" nogil:
    ctypedef struct arena:
        char *memory
        Py_ssize_t size, peak
    void *arena_take(arena *a, Py_ssize_t size)
    void arena_return(arena *a, const arena *before)


cdef class Packed:
    cdef cell equations                      # with peepholes of its own
    cdef packed_matrix weights               # [W_ih W_hh]; not of the transposes
    cdef packed_matrix weight_ih, weight_hh  # its two parts in the same memory
    cdef packed_matrix weight_hr
    cdef list memory                         # what they point to
    cdef Py_ssize_t changes                  # of the parameters when they were packed


# What a task computes with; distances are in bytes.
cdef struct task:
    const cell *equations
    const kernels *kernel
    packed_matrix weights            # of the step: all of them, or W_hh alone
    packed_matrix weight_ih, weight_hr
    bint fused                       # whether the step takes x's share of the product
    bint projected, reverse, gather
    bint down                        # in the first step, to go up in the next
    Py_ssize_t itemsize, inputs, hidden, outputs
    Py_ssize_t steps, block          # of time; of them projected at once
    Py_ssize_t rows                  # of the whole batch
    Py_ssize_t most                  # running sequences at any step
    const Py_ssize_t *sizes          # of the batch at each step, or NULL where it is `most`
    const Py_ssize_t *offsets        # their sums
    const Py_ssize_t *order          # place in the caller's batch of each row
    const Py_ssize_t *begins         # row of x and y where a step begins; NULL: at equal distances
    const char *x                    # [T, N, I]
    char *y                          # [T, N, R]
    step_tape tape                   # of the first of all rows; NULL gates for none
    char *h                          # [n, R], the state: initial, in the end last
    char *c                          # [n, H]
    Py_ssize_t x_step, x_row, y_step, y_row, h_row, c_row
    char *x_block                    # workspace: gathered rows of x and
    char *z_block                    # their pre-activations, of a block of steps;
    char *v_now                      # the running rows' h_{t-1}, after x_t where fused,
    char *v_next
    char *c_now                      # and c, padded to tiles;
    char *unprojected                # h before its projection
    Py_ssize_t h_at                  # where in a row of v its h begins
    Py_ssize_t z_width, v_width, c_width
    barrier meeting
    bint followed                    # whether another task waits for
    progress finished                # how many of the steps are
    progress *source                 # of the task that writes x; NULL where x is there


# How the sequences of a batch lie: `cylstm.batch.Batch` in C. Without sizes it is a full batch,
# without an order one in its own order.
cdef struct layout:
    Py_ssize_t steps, rows
    const Py_ssize_t *sizes
    const Py_ssize_t *order
    const Py_ssize_t *begins  # of each step, in packed rows; NULL where at equal distances
    bint down                 # whether the first step sweeps the weights from their end


cdef inline layout full_batch(Py_ssize_t steps, Py_ssize_t rows) noexcept:
    cdef layout lies
    memset(&lies, 0, sizeof(layout))
    lies.steps, lies.rows = steps, rows
    return lies


cdef class Workspace:
    cdef arena memory
    cdef bint down   # in the next step; the weights that the last one ended with are in the cache
    cdef int taken   # by a step under way: in which process of a line of forks; 0 for none
    cpdef int begin(self) except -1
    cpdef int end(self) except -1
    cdef int grow(self, Py_ssize_t size) except -1


cdef class Network:
    cdef list layers, recurrences  # by layer and direction; all in one
    cdef object store     # the parameters
    cdef Version version  # of them
    cdef bint batch_first
    cdef int typenum
    cdef Py_ssize_t itemsize, inputs, hidden, outputs, directions, states
    cpdef tuple zero_state(self, Py_ssize_t rows, int rank=*)
    cpdef bint is_input(self, x)


# The tasks of a layer. Shares of a batch are every `shares`-th of the sorted rows: equal work.
cdef struct work:
    arena *memory
    step_tape tape            # for the next tasks; NULL gates for none
    Py_ssize_t shares, count
    double total              # multiply-adds of a layer
    int threads
    Py_ssize_t block          # of steps, after which the next layer follows; 0: layer after layer
    counter next              # of the tasks, that a thread takes
    bint small                # so short that giving the GIL away would cost more
    Py_ssize_t *sizes         # [shares, steps] and
    Py_ssize_t *offsets       # [shares, steps + 1], of ragged batches
    Py_ssize_t *order         # [rows], share after share
    task *tasks


cdef Packed packed(Network net, Recurrence r, bint transposed)
cdef int check_batch(batch) except -1
cdef char *take(arena *memory, Py_ssize_t size) except NULL
cdef step_tape tape_of(Recurrence r, array, Py_ssize_t rows) noexcept
cdef int divide(Network net, const layout *b, Py_ssize_t directions, work *w) except -1
cdef inline Py_ssize_t share_of(Py_ssize_t rows, Py_ssize_t share,
                                Py_ssize_t shares) noexcept nogil:
    return rows if shares == 1 else (rows - share + shares - 1) // shares
cdef Py_ssize_t row_width(Py_ssize_t width, Py_ssize_t size) noexcept
cdef int useful_threads(double total) noexcept
cdef void run_team(int most, manner how, member_work work, void *arg) noexcept nogil
cdef void wait_for_team(barrier *b, int size) noexcept nogil


cdef inline void copy_rows(Py_ssize_t n, Py_ssize_t size, const char *rows, Py_ssize_t row,
                           char *to, Py_ssize_t to_row) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        memcpy(to + j * to_row, rows + j * row, size)


cdef inline step_tape tape_from(step_tape tape, Py_ssize_t row, Py_ssize_t itemsize) noexcept nogil:
    """The tape without the rows before this one."""
    tape.gates = <char *> tape.gates + row * tape.gates_row * itemsize
    tape.c = <char *> tape.c + row * tape.c_row * itemsize
    tape.tanh_c = <char *> tape.tanh_c + row * tape.c_row * itemsize
    return tape
