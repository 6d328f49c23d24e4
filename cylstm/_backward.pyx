"""Backpropagation through time with packed weights, and threads.

The loop runs over the steps of `Network.forward`'s tape from the last to the first::

    dz_t, dc_{t-1} = cell_backward(dh_t + dy_t, dc_t)
    dh_{t-1} = dz_t W_hh

with, where there is a projection, ``dr_t = dh_t + dy_t`` and ``dh_t = dr_t W_hr`` before the cell.
A task is some of the batch's sequences, and threads divide as in `cylstm._inference`: sequences, or
hidden units, where all meet after every step. Neither changes the order of a sum.
"""

cimport openmp
from cython.parallel cimport parallel, prange, threadid
from libc.string cimport memcpy, memset

from cylstm._inference cimport (
    Network,
    Packed,
    arena,
    arena_return,
    barrier,
    cylstm_wait,
    divide,
    first_of,
    layout,
    packed,
    row_width,
    share_of,
    take,
    useful_threads,
    work,
)
from cylstm._kernels cimport cell, kernels, packed_matrix, step_gradients, step_tape
from cylstm._sequence cimport Recurrence, data

from cylstm._sequence import add_outer as add_outer_by_blas

cdef enum:
    BLOCK_ROWS = 96  # of x's gradient at once: they and the weights stay in the L2 cache


# What a task computes with; distances are in bytes. The arrays' first rows are the share's own.
cdef struct task:
    const cell *equations
    const kernels *kernel
    packed_matrix weight_hh, weight_hr  # transposed
    bint projected, reverse
    Py_ssize_t itemsize, hidden, outputs, steps
    Py_ssize_t rows, share, shares      # of the batch, and which of its shares this is
    const Py_ssize_t *sizes             # of the whole batch
    const Py_ssize_t *offsets
    char *gates                         # the tape [S, 4H],
    char *cells                         # [S, H]
    char *tanh_cells                    # [S, H]
    char *c_0                           # [N, H]
    char *grad_y                        # [S, R]
    char *grad_h                        # [N, R], of h_n; in the end of h_0
    char *grad_c                        # [N, H], of c_n; in the end of c_0
    char *grad_z                        # [S, 4H], written
    char *grad_outputs                  # [S, R], written where there is a projection
    Py_ssize_t grad_y_row
    char *dh                            # workspace: of the running rows' outputs, padded to tiles,
    char *dh_cell                       # and of their cells' outputs
    Py_ssize_t dh_width, dh_cell_width
    barrier meeting


def backward(Network net, Py_ssize_t layer, Py_ssize_t direction, tape, c_0, batch, grad_y, grad_h,
             grad_c, grad_z, grad_outputs):
    """The time loop of the backward pass; arguments as of `Recurrence.backward`."""
    cdef layout lies
    cdef work w
    cdef arena memory, empty
    cdef task *tasks
    cdef task *t
    cdef Recurrence r = net.layers[layer][direction]
    cdef Packed weights = packed(r, True)
    cdef Py_ssize_t share, j
    sizes, offsets = batch.sizes, batch.offsets
    lies.steps, lies.rows, lies.order, lies.begins = batch.steps, batch.rows, NULL, NULL
    lies.sizes = <const Py_ssize_t *> data(sizes)
    if lies.steps < 1 or lies.rows < 1:
        return
    memset(&empty, 0, sizeof(arena))
    memset(&w, 0, sizeof(work))
    memory, w.memory = empty, &memory
    try:
        divide(net, &lies, 1, &w)
        tasks = <task *> take(&memory, w.shares * sizeof(task))
        memset(tasks, 0, w.shares * sizeof(task))
        for share in range(w.shares):
            t = &tasks[share]
            t.equations, t.kernel = &weights.equations, r.kernel
            t.weight_hh, t.weight_hr = weights.weight_hh, weights.weight_hr
            t.projected, t.reverse = r.weight_hr != NULL, r.reverse
            t.itemsize, t.hidden, t.outputs = net.itemsize, r.hidden, r.outputs
            t.steps, t.rows, t.share, t.shares = lies.steps, lies.rows, share, w.shares
            t.sizes, t.offsets = lies.sizes, <const Py_ssize_t *> data(offsets)
            t.gates, t.cells, t.tanh_cells = first_of(tape[0]), first_of(tape[1]), first_of(tape[2])
            t.c_0, t.grad_y, t.grad_y_row = first_of(c_0), first_of(grad_y), grad_y.strides[0]
            t.grad_h, t.grad_c, t.grad_z = first_of(grad_h), first_of(grad_c), first_of(grad_z)
            if t.projected:
                t.grad_outputs = first_of(grad_outputs)
            add_workspace(t, &memory)
        with nogil:
            if w.threads > w.shares:
                for j in range(w.shares):
                    with parallel(num_threads=w.threads):
                        run_task(&tasks[j], threadid(), openmp.omp_get_num_threads())
            else:
                for j in prange(w.shares, schedule="dynamic", chunksize=1, num_threads=w.threads):
                    run_task(&tasks[j], 0, 1)
    finally:
        arena_return(&memory, &empty)


cdef int add_workspace(task *t, arena *memory) except -1:
    cdef Py_ssize_t tile = 4 * t.kernel.width, most = share_of(t.rows, t.share, t.shares)
    t.dh_width = row_width(t.weight_hh.tiles * tile, t.itemsize)
    t.dh_cell_width = row_width(t.weight_hr.tiles * tile, t.itemsize) if t.projected else 0
    t.dh = take(memory, most * (t.dh_width + t.dh_cell_width) * t.itemsize)
    t.dh_cell = t.dh + most * t.dh_width * t.itemsize
    return 0


def input_gradient(Network net, Py_ssize_t layer, Py_ssize_t direction, grad_z, grad_x):
    """grad_x (S, I) += grad_z W_ih, in blocks of rows."""
    cdef:
        Recurrence r = net.layers[layer][direction]
        Packed weights = packed(r, True)
        packed_matrix w = weights.weight_ih
        Py_ssize_t rows = grad_z.shape[0], size = net.itemsize, number, first
        Py_ssize_t width = row_width(w.tiles * 4 * r.kernel.width, size)
        int threads = useful_threads(4.0 * r.hidden * r.inputs * rows)
        char *z = first_of(grad_z)
        char *x = first_of(grad_x)
        char *blocks
        arena memory, empty
    if rows == 0:
        return
    memset(&empty, 0, sizeof(arena))
    memory = empty
    try:
        blocks = take(&memory, threads * BLOCK_ROWS * width * size)
        for number in prange((rows + BLOCK_ROWS - 1) // BLOCK_ROWS, nogil=True, schedule="static",
                             num_threads=threads):
            first = number * BLOCK_ROWS
            add_product(r, &w, min(BLOCK_ROWS, rows - first), z + first * 4 * r.hidden * size,
                        blocks + threadid() * BLOCK_ROWS * width * size, width,
                        x + first * r.inputs * size)
    finally:
        arena_return(&memory, &empty)


def add_outer(Recurrence r, a, b, c):
    """c (m, n) += a' b for a (S, m), b (S, n), whose rows are contiguous.

    By tiles of c's columns; what they leave is BLAS's. Threads share c's rows.
    """
    cdef:
        Py_ssize_t rows = len(a), size = c.itemsize, m = c.shape[0], tile = 4 * r.kernel.width
        Py_ssize_t whole = c.shape[1] // tile * tile, each, j, begin
        Py_ssize_t a_row = a.strides[0] // size, b_row = b.strides[0] // size
        Py_ssize_t c_row = c.strides[0] // size, workspace
        int threads = useful_threads(<double> rows * m * whole)
        char *first_a = first_of(a)
        char *first_b = first_of(b)
        char *first_c = first_of(c)
        char *memory_of_all
        arena memory, empty
    if whole < c.shape[1]:
        add_outer_by_blas(r, a, b[:, whole:], c[:, whole:])
    if rows == 0 or whole == 0:
        return
    each = (m + threads - 1) // threads
    workspace = (r.kernel.outer_workspace(each) * size + 63) // 64 * 64
    memset(&empty, 0, sizeof(arena))
    memory = empty
    try:
        memory_of_all = take(&memory, threads * workspace)
        for j in prange(threads, nogil=True, schedule="static", num_threads=threads):
            begin = j * each
            r.kernel.add_outer(rows, min(each, m - begin), whole, first_a + begin * size, a_row,
                               first_b, b_row, first_c + begin * c_row * size, c_row,
                               memory_of_all + j * workspace)
    finally:
        arena_return(&memory, &empty)


# No Python from here on.


cdef void add_product(Recurrence r, const packed_matrix *w, Py_ssize_t n, const char *z,
                      char *block, Py_ssize_t width, char *x) noexcept nogil:
    """x (n, I) += z W_ih, by way of the block."""
    cdef Py_ssize_t j
    r.kernel.multiply(w, n, z, 4 * r.hidden, block, width, 0, w.tiles)
    for j in range(n):
        r.kernel.add(r.inputs, block + j * width * (8 if r.is_double else 4),
                     x + j * r.inputs * (8 if r.is_double else 4))


cdef inline Py_ssize_t time_of(const task *t, Py_ssize_t position) noexcept nogil:
    return t.steps - 1 - position if t.reverse else position


cdef inline Py_ssize_t size_at(const task *t, Py_ssize_t position) noexcept nogil:
    return share_of(t.sizes[time_of(t, position)], t.share, t.shares)


cdef inline Py_ssize_t row_of(const task *t, Py_ssize_t position, Py_ssize_t j) noexcept nogil:
    """Where in packed rows the share's row j of a step lies."""
    return t.offsets[time_of(t, position)] + t.share + j * t.shares


cdef void copy_rows(Py_ssize_t n, Py_ssize_t size, const char *rows, Py_ssize_t row, char *to,
                    Py_ssize_t to_row) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        memcpy(to + j * to_row, rows + j * row, size)


cdef void cell_rows(const task *t, Py_ssize_t position, Py_ssize_t first, Py_ssize_t n,
                    const char *c_prev, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """The cell backward for rows [first, first + n) and units [begin, end) of a step after c_prev.
    """
    cdef:
        Py_ssize_t hidden = t.hidden * t.itemsize, row = row_of(t, position, first)
        Py_ssize_t width = t.dh_cell_width if t.projected else t.dh_width
        step_tape tape
        step_gradients grad
    if n <= 0:
        return
    tape.gates = t.gates + row * 4 * hidden
    tape.c, tape.tanh_c = t.cells + row * hidden, t.tanh_cells + row * hidden
    grad.h = (t.dh_cell if t.projected else t.dh) + first * width * t.itemsize
    grad.y = NULL if t.projected else t.grad_y + row * t.grad_y_row
    grad.c = t.grad_c + (t.share + first * t.shares) * hidden
    grad.z = t.grad_z + row * 4 * hidden
    tape.gates_row = grad.z_row = 4 * t.hidden * t.shares
    tape.c_row = grad.c_row = t.hidden * t.shares
    grad.h_row, grad.y_row = width, t.grad_y_row // t.itemsize * t.shares
    t.kernel.cell_backward(t.equations, n, &tape, c_prev, t.hidden * t.shares, &grad, begin, end)


cdef void unproject(const task *t, Py_ssize_t position, Py_ssize_t n, Py_ssize_t tile,
                    Py_ssize_t end) noexcept nogil:
    """dh of the cells := (dh + dy) W_hr, for tiles [tile, end)."""
    t.kernel.multiply(&t.weight_hr, n, t.grad_outputs + row_of(t, position, 0) * t.outputs
                      * t.itemsize, t.outputs * t.shares, t.dh_cell, t.dh_cell_width, tile, end)


cdef void add_outputs(const task *t, Py_ssize_t position, Py_ssize_t n) noexcept nogil:
    """grad_outputs := dh + dy, where a projection has its inputs."""
    cdef Py_ssize_t j, row
    cdef char *to
    for j in range(n):
        row = row_of(t, position, j)
        to = t.grad_outputs + row * t.outputs * t.itemsize
        memcpy(to, t.dh + j * t.dh_width * t.itemsize, t.outputs * t.itemsize)
        t.kernel.add(t.outputs, t.grad_y + row * t.grad_y_row, to)


cdef void run_task(task *t, int member, int team) noexcept nogil:
    """A member's share of a task: of the tiles of hidden units and of outputs."""
    cdef:
        Py_ssize_t size = t.itemsize, width = 4 * t.kernel.width
        Py_ssize_t most = share_of(t.rows, t.share, t.shares), position, n, carried
        Py_ssize_t tiles = t.weight_hr.tiles if t.projected else t.weight_hh.tiles
        Py_ssize_t tile = member * tiles // team, end = (member + 1) * tiles // team
        Py_ssize_t begin = tile * width, units = min(end * width, t.hidden)
        Py_ssize_t out = member * t.weight_hh.tiles // team
        Py_ssize_t out_end = (member + 1) * t.weight_hh.tiles // team
        Py_ssize_t h_row = t.outputs * size, hidden = t.hidden * size
        char *grad_h = t.grad_h + t.share * h_row
    if member == 0:
        copy_rows(most, h_row, grad_h, t.shares * h_row, t.dh, t.dh_width * size)
    cylstm_wait(&t.meeting, team)
    for position in range(t.steps - 1, -1, -1):
        n = size_at(t, position)
        if t.projected:
            if member == 0:
                add_outputs(t, position, n)
            cylstm_wait(&t.meeting, team)
            unproject(t, position, n, tile, end)
        carried = min(n, size_at(t, position - 1)) if position > 0 else 0
        if begin < units:
            if carried > 0:
                cell_rows(t, position, 0, carried, t.cells + row_of(t, position - 1, 0) * hidden,
                          begin, units)
            cell_rows(t, position, carried, n - carried,
                      t.c_0 + (t.share + carried * t.shares) * hidden, begin, units)
        cylstm_wait(&t.meeting, team)
        t.kernel.multiply(&t.weight_hh, n, t.grad_z + row_of(t, position, 0) * 4 * hidden,
                          4 * t.hidden * t.shares, t.dh, t.dh_width, out, out_end)
        if t.projected:  # else a member's outputs are its own units
            cylstm_wait(&t.meeting, team)
    cylstm_wait(&t.meeting, team)
    if member == 0:
        copy_rows(most, h_row, t.dh, t.dh_width * size, grad_h, t.shares * h_row)
