# What the time loops are given.

from libc.string cimport memcpy, memset

from cylstm.core.cell cimport Cell
from cylstm.core.kernels cimport cell, cell_kernels, cell_sums, kernels, packed_matrix, step_tape
from cylstm.core.memory cimport arena
from cylstm.core.team cimport barrier, progress
from cylstm.core.weights cimport runnable


cdef enum:
    ROWS_ALIKE = 4  # from which on one row more or less in a share makes little difference


# What a task computes with; distances are in bytes.
cdef struct task:
    const cell *equations
    const kernels *kernel
    const cell_kernels *functions
    packed_matrix weights            # of the step: all of them, or W_hh alone
    packed_matrix weight_ih, weight_hr
    bint fused                       # whether the step takes x's share of the product
    bint projected, reverse, gather
    bint down                        # in the first step, to go up in the next
    bint converts                    # rows, before they are multiplied
    Py_ssize_t itemsize, inputs, hidden, outputs
    Py_ssize_t steps, block          # of time; of them projected at once
    Py_ssize_t rows                  # of the whole batch
    Py_ssize_t most                  # running sequences at any step
    const Py_ssize_t *sizes          # of the batch at each step, or NULL where it is `most`
    const Py_ssize_t *offsets        # their sums
    const Py_ssize_t *order          # place in the caller's batch of each row
    const Py_ssize_t *begins         # row of x and y where a step begins; NULL: at equal distances
    const char *starts               # [T, N]: whether a state starts from zero at a step; or NULL
    const char *x                    # [T, N, I]; or, where there is a table, ids [T, N]
    const char *table                # [K, sums]: x's share of the pre-activations by id; or NULL
    char *y                          # [T, N, R]
    step_tape tape                   # of the first of all rows; NULL gates for none
    char *h                          # [n, R], the state: initial, in the end last
    char *c                          # [n, H]; NULL where the state is h alone
    Py_ssize_t x_step, x_row, y_step, y_row, h_row, c_row, starts_step
    Py_ssize_t *ids                  # workspace: those of each member's running rows; or
    char *x_block                    # gathered rows of x, converted, and
    char *z_block                    # their pre-activations, of a block of steps;
    char *v_now                      # the running rows' h_{t-1}, after x_t where fused,
    char *v_next
    char *c_now                      # and c, padded to tiles; without c its h;
    char *unprojected                # h before its projection,
    char *unprojected_inputs         # converted;
    char *inputs_now                 # each member's running rows [x_t h_{t-1}], or h_{t-1} alone
    Py_ssize_t h_at                  # where in a row of v its h begins
    Py_ssize_t z_width, v_width, c_width
    Py_ssize_t x_width               # of a row of x_block, in inputs, and
    Py_ssize_t inputs_width          # of inputs_now
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
    const char *starts        # of each direction: [T, N] as the caller has them, or of packed rows;
    Py_ssize_t starts_each    # NULL for none. So many bytes


cdef inline layout full_batch(Py_ssize_t steps, Py_ssize_t rows) noexcept nogil:
    cdef layout lies
    memset(&lies, 0, sizeof(layout))
    lies.steps, lies.rows = steps, rows
    return lies


# The tasks of a layer. Shares of a batch are every `shares`-th of the sorted rows: equal work.
cdef struct work:
    arena *memory
    step_tape tape            # for the next tasks; NULL gates for none
    const char *starts        # for them; NULL for none
    const char *table         # for them; NULL for none
    Py_ssize_t shares, count
    double total              # multiply-adds of a layer
    int threads
    int members               # of a task at most
    Py_ssize_t block          # of steps, after which the next layer follows; 0: layer after layer
    Py_ssize_t *sizes         # [shares, steps] and
    Py_ssize_t *offsets       # [shares, steps + 1], of ragged batches
    Py_ssize_t *order         # [rows], share after share
    task *tasks


cdef int check_batch(batch) except -1
cdef step_tape tape_of(Cell r, array, Py_ssize_t rows) noexcept
# These give 0, or -1 where there is no memory.
cdef int divide(double step, Py_ssize_t directions, const layout *b, work *w) noexcept nogil
cdef int chain_layers(Py_ssize_t layers, Py_ssize_t directions, const layout *b,
                      work *w) noexcept nogil
cdef int add_tasks(work *w, const runnable *r, const layout *b, const char *x, Py_ssize_t x_step,
                   Py_ssize_t x_row, char *y, Py_ssize_t y_step, Py_ssize_t y_row, char *h,
                   char *c) noexcept nogil


cdef inline double work_of_step(const cell_sums *sums, Py_ssize_t inputs, Py_ssize_t hidden,
                                Py_ssize_t outputs) noexcept nogil:
    """A layer's multiply-adds for a sequence."""
    return <double> sums.gates * hidden * (inputs + outputs)


cdef inline Py_ssize_t share_of(Py_ssize_t rows, Py_ssize_t share,
                                Py_ssize_t shares) noexcept nogil:
    return rows if shares == 1 else (rows - share + shares - 1) // shares


cdef inline Py_ssize_t rows_between(const task *t, Py_ssize_t first,
                                    Py_ssize_t last) noexcept nogil:
    """How many rows the steps [first, last) have."""
    if t.sizes == NULL:
        return (last - first) * t.most
    return t.offsets[last] - t.offsets[first]


cdef inline void copy_rows(Py_ssize_t n, Py_ssize_t size, const char *rows, Py_ssize_t row,
                           char *to, Py_ssize_t to_row) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        memcpy(to + j * to_row, rows + j * row, size)


cdef inline void convert_rows(const kernels *kernel, Py_ssize_t n, Py_ssize_t depth,
                              const char *rows, Py_ssize_t row, int part, Py_ssize_t at, char *to,
                              Py_ssize_t to_width) noexcept nogil:
    """Rows of reals, some bytes apart, to part `part` of rows of `to_width` inputs."""
    cdef Py_ssize_t j, to_row = to_width * kernel.input_size
    for j in range(n):
        kernel.convert(depth, rows + j * row, part, at, to + j * to_row)


cdef inline step_tape tape_from(step_tape tape, Py_ssize_t row, Py_ssize_t itemsize) noexcept nogil:
    """The tape without the rows before this one."""
    tape.gates = <char *> tape.gates + row * tape.gates_row * itemsize
    tape.c = <char *> tape.c + row * tape.c_row * itemsize
    tape.tanh_c = <char *> tape.tanh_c + row * tape.c_row * itemsize
    return tape
