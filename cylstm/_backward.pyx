"""Backpropagation through time with packed weights, and threads.

It goes over the tape of `Network.forward` in blocks of steps, from the last to the first. The
gradients of a block's pre-activations, dz, stay in the cache until all that needs them is done::

    dz_t, dc_{t-1} = cell_backward(dh_t + dy_t, dc_t)       at each step,
    dh_{t-1} = dz_t W_hh
    dx = dz W_ih                                            for the block's rows at once
    dW_ih += dz' x,  dW_hh += dz' h_{t-1},  db += dz

and, where there is a projection, ``dr_t = dh_t + dy_t`` and ``dh_t = dr_t W_hr`` before the cell,
and ``dW_hr += dr' h``. In the time loop threads divide as in `cylstm._inference`: sequences, or
hidden units, where all meet after every step. The sums over rows they share by what is summed.
Neither changes the order of a sum.
"""

cimport numpy as cnp
from libc.string cimport memcpy, memset

from cylstm._inference cimport (
    MEET,
    TAKE,
    Network,
    Packed,
    arena,
    arena_return,
    barrier,
    check_batch,
    copy_rows,
    counter,
    cylstm_next,
    divide,
    full_batch,
    layout,
    packed,
    row_width,
    run_team,
    share_of,
    take,
    tape_from,
    tape_of,
    useful_threads,
    wait_for_team,
    work,
)
from cylstm._kernels cimport cell, kernels, packed_matrix, step_gradients, step_tape
from cylstm._sequence cimport Recurrence, check_array, first_of

cnp.import_array()

cdef enum:
    BLOCK_ROWS = 192   # at most, but a step's
    INPUT_ROWS = 96    # of x's gradient at once, and
    INPUT_DEPTH = 256  # rows of W_ih: they stay in the L2 cache, as do
    OUTER_ROWS = 384   # rows of a weight's gradient: a multiple of tiles and of groups


# The gradient (m, n) of a weight: a' b of the first block, to which the others add theirs.
cdef struct outer:
    Py_ssize_t m, n
    const void **a            # pointers to the block's rows of (S, m)
    const void **b            # and of (S, n)
    char *sum                 # (m, n)
    Py_ssize_t whole          # n without the columns past whole tiles; of them
    char *rest                # [n - whole, m padded to tiles], the transpose
    Py_ssize_t rest_row       # reals


# One layer and direction. Rows lie close where no distance is named; it is in bytes.
cdef struct passing:
    const cell *equations
    const kernels *kernel
    packed_matrix weight_ih, weight_hh, weight_hr  # transposed
    bint projected, reverse, adds   # adds: grad_x is added to, not written
    Py_ssize_t itemsize, inputs, hidden, outputs, steps
    Py_ssize_t batch                # N
    const Py_ssize_t *sizes         # of the steps; NULL where they are N
    const Py_ssize_t *offsets       # their sums
    const char *x                   # [S, I]
    const char *y                   # [S, R]
    const char *h_0                 # [N, R]
    const char *c_0                 # [N, H]
    const char *grad_y              # [S, R]
    Py_ssize_t y_row, grad_y_row
    step_tape tape                  # of the first row
    char *grad_h                    # [N, R], of h_n; in the end of h_0
    char *grad_c                    # [N, H], of c_n; in the end of c_0
    char *grad_x                    # [S, I]
    char *grad_bias                 # [4H]; NULL for none
    char *grad_peephole             # [3H]; NULL for none
    outer weights[2]                # of W_ih and W_hh
    outer projection                # of W_hr
    Py_ssize_t first, last          # the block: its positions,
    Py_ssize_t row, rows            # first row and number of rows,
    char *z                         # [rows, 4H], the gradient by pre-activations,
    Py_ssize_t z_row
    char *out                       # [rows, R], by outputs, where there is a projection,
    char *cell_outputs              # [rows, H], of what was projected
    char *memory                    # each thread's workspace
    Py_ssize_t memory_each


# Some sequences of the batch in the time loop: every `shares`-th from `share` on.
cdef struct task:
    Py_ssize_t share, shares, most
    char *dh                            # workspace: of the running rows' outputs, padded to tiles,
    char *dh_cell                       # and of their cells' outputs
    Py_ssize_t dh_width, dh_cell_width  # reals
    barrier meeting


def backward(Network net, Py_ssize_t layer, Py_ssize_t direction, Py_ssize_t first, x, y, tape, h_0,
             c_0, batch, grad_y, grad_h, grad_c, grad_x):
    """The backward pass of a layer and direction, over some steps' rows from `first` on.

    Parameters
    ----------
    x, y, grad_y, grad_x : array, (S', D' R) or (S', D R)
        Of all rows, and both directions; the second adds to grad_x.
    grad_h, grad_c : array, (L D, N, R) and (L D, N, H)
        Of all layers and directions.
    tape, h_0, c_0, batch
        Of these rows, as of `Recurrence.backward`.

    Returns
    -------
    grads : dict of str to array
        For each of the parameters.
    """
    cdef:
        passing p
        work w
        arena memory, empty
        layout lies = full_batch(batch.steps, batch.rows)
        Recurrence r = net.layers[layer][direction]
        Packed weights
        task *tasks
        Py_ssize_t rows = batch.count, size = net.itemsize, k = layer * net.directions + direction
        Py_ssize_t column = direction * net.outputs * size  # of y, and its gradient
        int threads
    check_batch(batch)
    check_part(x, net.typenum, first, rows, r.inputs)
    check_part(grad_x, net.typenum, first, rows, r.inputs)
    check_part(y, net.typenum, first, rows, net.directions * net.outputs)
    check_part(grad_y, net.typenum, first, rows, net.directions * net.outputs)
    check_array(tape, net.typenum, 6 * rows * net.hidden)
    check_array(h_0, net.typenum, lies.rows * net.outputs)
    check_array(c_0, net.typenum, lies.rows * net.hidden)
    check_array(grad_h, net.typenum, net.states * lies.rows * net.outputs)
    check_array(grad_c, net.typenum, net.states * lies.rows * net.hidden)
    weights = packed(net, r, True)
    sizes, offsets = (batch.sizes, batch.offsets) if batch.ragged else (None, None)
    grads = new_gradients(net, r, rows)
    lies.sizes = <const Py_ssize_t *> first_of(sizes)
    if lies.steps < 1 or lies.rows < 1:
        return grads
    memset(&p, 0, sizeof(passing))
    p.equations, p.kernel = &weights.equations, r.kernel
    p.weight_ih, p.weight_hh, p.weight_hr = weights.weight_ih, weights.weight_hh, weights.weight_hr
    p.projected, p.reverse, p.adds = r.weight_hr != NULL, r.reverse, direction > 0
    p.itemsize, p.inputs, p.hidden, p.outputs = size, r.inputs, r.hidden, r.outputs
    p.steps, p.batch = lies.steps, lies.rows
    p.sizes, p.offsets = lies.sizes, <const Py_ssize_t *> first_of(offsets)
    p.y_row = p.grad_y_row = net.directions * net.outputs * size
    p.x = first_of(x) + first * r.inputs * size
    p.grad_x = first_of(grad_x) + first * r.inputs * size
    p.y = first_of(y) + first * p.y_row + column
    p.grad_y = first_of(grad_y) + first * p.y_row + column
    p.h_0, p.c_0 = first_of(h_0), first_of(c_0)
    p.grad_h = first_of(grad_h) + k * p.batch * p.outputs * size
    p.grad_c = first_of(grad_c) + k * p.batch * p.hidden * size
    p.tape = tape_of(r, tape, rows)
    p.grad_bias, p.grad_peephole = sum_of(grads, "bias"), sum_of(grads, "weight_p")
    memset(&empty, 0, sizeof(arena))
    memset(&w, 0, sizeof(work))
    memory, w.memory = empty, &memory
    try:
        divide(net, &lies, 1, &w)
        threads = useful_threads(8.0 * r.hidden * (r.inputs + r.outputs) * rows)
        add_block(&p, grads, min(rows, max(BLOCK_ROWS, p.batch)), threads, &memory)
        tasks = new_tasks(&p, lies.rows, w.shares, &memory)
        with nogil:
            run_blocks(&p, tasks, w.shares, w.threads, threads)
    finally:
        arena_return(&memory, &empty)
    return grads


cdef int check_part(array, int typenum, Py_ssize_t first, Py_ssize_t rows,
                    Py_ssize_t width) except -1:
    """An array (S', F) that has these rows."""
    check_array(array, typenum, len(array) * width)
    if first < 0 or first + rows > len(array):
        raise ValueError(f"expected {first + rows} rows, got {len(array)}")
    return 0


cdef dict new_gradients(Network net, Recurrence r, Py_ssize_t rows):
    """Arrays to fill: the first block writes the matrices' gradients, and adds to the others."""
    cdef int rank
    cdef dict grads = {}
    for name, array in r.parameters.items():
        rank = cnp.PyArray_NDIM(array)
        if rows > 0 and rank == 2:
            grads[name] = cnp.PyArray_EMPTY(rank, cnp.PyArray_DIMS(array), net.typenum, 0)
        else:
            grads[name] = cnp.PyArray_ZEROS(rank, cnp.PyArray_DIMS(array), net.typenum, 0)
    return grads


cdef char *sum_of(dict grads, str name) noexcept:
    return first_of(grads[name]) if name in grads else NULL


cdef int add_block(passing *p, dict grads, Py_ssize_t rows, int threads, arena *memory) except -1:
    """The workspace of a block of at most so many rows."""
    cdef:
        Py_ssize_t size = p.itemsize, tile = 4 * p.kernel.width, columns
        const void **z
        const void **out
        char *sums
    p.z_row = row_width(4 * p.hidden, size) * size
    p.z = take(memory, rows * p.z_row)
    z = pointers(p.z, p.z_row, rows, memory)
    new_outer(p, &p.weights[0], grads["weight_ih"], z, pointers(NULL, 0, rows, memory), memory)
    new_outer(p, &p.weights[1], grads["weight_hh"], z, pointers(NULL, 0, rows, memory), memory)
    if p.projected:
        p.out = take(memory, rows * p.outputs * size)
        p.cell_outputs = take(memory, rows * p.hidden * size)
        out = pointers(p.out, p.outputs * size, rows, memory)
        z = pointers(p.cell_outputs, p.hidden * size, rows, memory)
        new_outer(p, &p.projection, grads["weight_hr"], out, z, memory)
    if p.grad_peephole != NULL and p.grad_bias == NULL:  # both are summed at once
        sums = take(memory, 4 * p.hidden * size)
        memset(sums, 0, 4 * p.hidden * size)
        p.grad_bias = sums
    columns = min(OUTER_ROWS, max(4 * p.hidden, p.outputs, tile)) + p.kernel.group  # in groups
    p.memory_each = max(rows * (tile + columns), INPUT_ROWS * columns_of(p, &p.weight_ih)) * size
    p.memory_each = (p.memory_each + 63) // 64 * 64
    p.memory = take(memory, threads * p.memory_each)
    return 0


cdef const void **pointers(const char *first, Py_ssize_t row, Py_ssize_t rows,
                           arena *memory) except NULL:
    """To the rows of a matrix."""
    cdef const void **to = <const void **> take(memory, rows * sizeof(void *))
    cdef Py_ssize_t j
    for j in range(rows):
        to[j] = first + j * row
    return to


cdef int new_outer(const passing *p, outer *o, grad, const void **a, const void **b,
                   arena *memory) except -1:
    cdef Py_ssize_t tile = 4 * p.kernel.width
    o.m, o.n, o.a, o.b, o.sum = grad.shape[0], grad.shape[1], a, b, first_of(grad)
    o.whole = o.n // tile * tile
    o.rest_row = (o.m + tile - 1) // tile * tile
    if o.whole < o.n:
        o.rest = take(memory, (o.n - o.whole) * o.rest_row * p.itemsize)
    return 0


cdef task *new_tasks(const passing *p, Py_ssize_t rows, Py_ssize_t shares,
                     arena *memory) except NULL:
    cdef:
        task *tasks = <task *> take(memory, shares * sizeof(task))
        task *t
        Py_ssize_t share
    memset(tasks, 0, shares * sizeof(task))
    for share in range(shares):
        t = &tasks[share]
        t.share, t.shares, t.most = share, shares, share_of(rows, share, shares)
        t.dh_width = row_width(columns_of(p, &p.weight_hh), p.itemsize)
        t.dh_cell_width = row_width(columns_of(p, &p.weight_hr), p.itemsize) if p.projected else 0
        t.dh = take(memory, t.most * (t.dh_width + t.dh_cell_width) * p.itemsize)
        t.dh_cell = t.dh + t.most * t.dh_width * p.itemsize
    return tasks


# No Python from here on.


# What a team does: the time loops of a block, or one of them, or its sums.
cdef struct job:
    passing *p
    task *tasks
    Py_ssize_t count  # of tasks, or of shares of the sums
    counter next


cdef void run_blocks(passing *p, task *tasks, Py_ssize_t shares, int team,
                     int threads) noexcept nogil:
    """Block by block: `team` threads in the time loop, `threads` in the sums over rows."""
    cdef Py_ssize_t j
    for j in range(shares):
        begin_task(p, &tasks[j])
    p.first = p.steps
    while p.first > 0:
        next_block(p)
        run_steps(p, tasks, shares, team)
        prepare_sums(p)
        run_sums(p, threads)
    for j in range(shares):
        end_task(p, &tasks[j])
    for j in range(2):
        end_outer(p, &p.weights[j])
    end_outer(p, &p.projection)


cdef void run_steps(passing *p, task *tasks, Py_ssize_t shares, int team) noexcept nogil:
    """By threads that take a task each, or that all work on each in turn."""
    cdef Py_ssize_t j
    cdef job todo
    todo.p, todo.tasks, todo.count = p, tasks, shares
    if team == 1:
        for j in range(shares):
            run_task(p, &tasks[j], 0, 1)
    elif team <= shares:
        memset(&todo.next, 0, sizeof(counter))
        run_team(team, TAKE, take_tasks, &todo)
    else:
        for j in range(shares):
            todo.tasks = &tasks[j]
            run_team(team, MEET, run_member, &todo)


cdef void run_sums(passing *p, int threads) noexcept nogil:
    cdef job todo
    todo.p, todo.count = p, threads
    if threads == 1:
        add_sums(p, 0, 1)
    else:
        memset(&todo.next, 0, sizeof(counter))
        run_team(threads, TAKE, take_sums, &todo)


cdef void run_member(void *given, int member, int team) noexcept nogil:
    cdef job *todo = <job *> given
    run_task(todo.p, todo.tasks, member, team)


cdef void take_tasks(void *given, int member, int team) noexcept nogil:
    cdef job *todo = <job *> given
    cdef Py_ssize_t j = cylstm_next(&todo.next)
    while j < todo.count:
        run_task(todo.p, &todo.tasks[j], 0, 1)
        j = cylstm_next(&todo.next)


cdef void take_sums(void *given, int member, int team) noexcept nogil:
    cdef job *todo = <job *> given
    cdef Py_ssize_t j = cylstm_next(&todo.next)
    while j < todo.count:
        add_sums(todo.p, j, todo.count)
        j = cylstm_next(&todo.next)


cdef void next_block(passing *p) noexcept nogil:
    """The steps before the last block, as many as make BLOCK_ROWS rows but at least one."""
    p.last = p.first
    p.rows = 0
    while p.first > 0 and (p.rows == 0 or p.rows + size_at(p, p.first - 1) <= BLOCK_ROWS):
        p.first -= 1
        p.rows += size_at(p, p.first)
    p.row = row_at(p, p.last - 1 if p.reverse else p.first)


cdef inline Py_ssize_t columns_of(const passing *p, const packed_matrix *w) noexcept nogil:
    """The outputs of packed weights, with those that fill the last tile."""
    return w.tiles * (1 if w.narrow else 4) * p.kernel.width


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


# The time loop. Where a task's rows are meant, row j of it is row share + j * shares of a step.


cdef void begin_task(const passing *p, task *t) noexcept nogil:
    cdef Py_ssize_t size = p.outputs * p.itemsize
    copy_rows(t.most, size, p.grad_h + t.share * size, t.shares * size, t.dh,
              t.dh_width * p.itemsize)


cdef void end_task(const passing *p, task *t) noexcept nogil:
    cdef Py_ssize_t size = p.outputs * p.itemsize
    copy_rows(t.most, size, t.dh, t.dh_width * p.itemsize, p.grad_h + t.share * size,
              t.shares * size)


cdef void run_task(const passing *p, task *t, int member, int team) noexcept nogil:
    """The block's steps; of the tiles of hidden units, and of outputs, a member's share."""
    cdef:
        const packed_matrix *w = &p.weight_hr if p.projected else &p.weight_hh
        Py_ssize_t position, n, row, carried, tiles = w.tiles, width = columns_of(p, w) // tiles
        Py_ssize_t tile = member * tiles // team, end = (member + 1) * tiles // team
        Py_ssize_t begin = tile * width, units = min(end * width, p.hidden)
        Py_ssize_t out = member * p.weight_hh.tiles // team
        Py_ssize_t out_end = (member + 1) * p.weight_hh.tiles // team
        Py_ssize_t z_row = p.z_row // p.itemsize * t.shares
    for position in range(p.last - 1, p.first - 1, -1):
        n = share_of(size_at(p, position), t.share, t.shares)
        row = row_at(p, position) - p.row + t.share
        if p.projected:
            if member == 0:
                add_outputs(p, t, row, n)
            wait_for_team(&t.meeting, team)
            p.kernel.multiply(&p.weight_hr, n, p.out + row * p.outputs * p.itemsize,
                              p.outputs * t.shares, t.dh_cell, t.dh_cell_width, tile, end,
                              position % 2, False)
        if begin < units:
            carried = share_of(carried_at(p, position), t.share, t.shares)
            cell_rows(p, t, position, 0, carried, begin, units)
            cell_rows(p, t, position, carried, n, begin, units)
        wait_for_team(&t.meeting, team)
        p.kernel.multiply(&p.weight_hh, n, p.z + row * p.z_row, z_row, t.dh, t.dh_width, out,
                          out_end, position % 2, False)
        if p.projected:  # else a member's outputs are its own units
            wait_for_team(&t.meeting, team)


cdef void add_outputs(const passing *p, task *t, Py_ssize_t row, Py_ssize_t n) noexcept nogil:
    """By a projection's outputs: dh + dy."""
    cdef Py_ssize_t j, size = p.outputs * p.itemsize
    cdef char *to = p.out + row * size
    for j in range(n):
        memcpy(to, t.dh + j * t.dh_width * p.itemsize, size)
        p.kernel.add(p.outputs, p.grad_y + (p.row + row + j * t.shares) * p.grad_y_row, to)
        to += t.shares * size


cdef void cell_rows(const passing *p, const task *t, Py_ssize_t position, Py_ssize_t first,
                    Py_ssize_t last, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """The cell backward for a task's rows [first, last) of a step and units [begin, end).

    Either all of them were running at the step before, or all begin.
    """
    cdef:
        Py_ssize_t at = t.share + first * t.shares, row = row_at(p, position) + at
        Py_ssize_t width = t.dh_cell_width if p.projected else t.dh_width
        const char *c_prev = p.c_0 + at * p.hidden * p.itemsize
        step_tape tape = tape_at(p, row)
        step_gradients grad
    if first >= last:
        return
    if first < share_of(carried_at(p, position), t.share, t.shares):
        c_prev = <const char *> tape_at(p, row_at(p, position - 1) + at).c
    grad.h = (t.dh_cell if p.projected else t.dh) + first * width * p.itemsize
    grad.y = NULL
    if not p.projected:
        grad.y = p.grad_y + row * p.grad_y_row
    grad.c = p.grad_c + at * p.hidden * p.itemsize
    grad.z = p.z + (row - p.row) * p.z_row
    grad.h_row, grad.y_row = width, p.grad_y_row // p.itemsize * t.shares
    grad.z_row = p.z_row // p.itemsize * t.shares
    grad.c_row = p.hidden * t.shares
    tape.gates_row *= t.shares
    tape.c_row *= t.shares
    p.kernel.cell_backward(p.equations, last - first, &tape, c_prev, p.hidden * t.shares, &grad,
                           begin, end)


# The sums over a block's rows.


cdef void prepare_sums(const passing *p) noexcept nogil:
    """What the block's rows are multiplied with: x, the h before each step, what was projected."""
    cdef Py_ssize_t position, j, at, carried, size = p.outputs * p.itemsize
    cdef step_tape tape = tape_at(p, p.row)
    for j in range(p.rows):
        p.weights[0].b[j] = p.x + (p.row + j) * p.inputs * p.itemsize
    for position in range(p.first, p.last):
        at, carried = row_at(p, position) - p.row, carried_at(p, position)
        for j in range(carried):
            p.weights[1].b[at + j] = p.y + (row_at(p, position - 1) + j) * p.y_row
        for j in range(carried, size_at(p, position)):
            p.weights[1].b[at + j] = p.h_0 + j * size
    if p.projected:
        p.kernel.cell_output(p.equations, p.rows, &tape, p.cell_outputs)


cdef void add_sums(const passing *p, Py_ssize_t member, Py_ssize_t team) noexcept nogil:
    """A member's share: of rows of x's gradient, of units, of rows of the weights' gradients."""
    cdef char *memory = p.memory + member * p.memory_each
    input_gradient(p, member * p.rows // team, (member + 1) * p.rows // team, memory)
    if p.grad_bias != NULL:
        add_units(p, share_begin(p.hidden, p.kernel.width, member, team),
                  share_begin(p.hidden, p.kernel.width, member + 1, team))
    add_products(p, p.weights, 2, member, team, memory)
    if p.projected:
        add_products(p, &p.projection, 1, member, team, memory)


cdef inline Py_ssize_t share_begin(Py_ssize_t n, Py_ssize_t each, Py_ssize_t member,
                                   Py_ssize_t team) noexcept nogil:
    """Where a member's share of n begins, a multiple of `each`; n past the last."""
    return min(n, member * ((n + each - 1) // each) // team * each)


cdef void input_gradient(const passing *p, Py_ssize_t first, Py_ssize_t last,
                         char *block) noexcept nogil:
    """dx of the block's rows [first, last); where it does not fit its place, by way of `block`."""
    cdef:
        Py_ssize_t size = p.itemsize, row = p.inputs * size, j, n
        Py_ssize_t width = columns_of(p, &p.weight_ih)
        char *x
    while first < last:
        n = min(INPUT_ROWS, last - first)
        x = p.grad_x + (p.row + first) * row
        if width == p.inputs:
            multiply_z(p, first, n, x, width, p.adds)
        else:
            multiply_z(p, first, n, block, width, False)
            if p.adds:
                for j in range(n):
                    p.kernel.add(p.inputs, block + j * width * size, x + j * row)
            else:
                copy_rows(n, row, block, width * size, x, row)
        first += n


cdef void multiply_z(const passing *p, Py_ssize_t first, Py_ssize_t n, char *to, Py_ssize_t width,
                     bint adds) noexcept nogil:
    """`to` := dz W_ih, or +=, of n rows; by few of W_ih's rows at once, which lie far apart."""
    cdef Py_ssize_t k = 0, size = p.itemsize
    cdef packed_matrix part = p.weight_ih
    while k < p.weight_ih.depth:
        part.weights = <const char *> p.weight_ih.weights + k * part.k_step * size
        part.depth = min(INPUT_DEPTH, p.weight_ih.depth - k)
        p.kernel.multiply(&part, n, p.z + first * p.z_row + k * size, p.z_row // size, to, width,
                          0, part.tiles, False, adds or k > 0)
        k += part.depth


cdef void add_units(const passing *p, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """The gradients of bias and peepholes, for units [begin, end)."""
    cdef Py_ssize_t position, carried
    cdef step_tape tape = tape_at(p, p.row)
    if p.grad_peephole == NULL:
        p.kernel.sum_gradients(p.equations, p.rows, &tape, NULL, 0, p.z, p.z_row // p.itemsize,
                               p.grad_bias, NULL, begin, end)
        return
    for position in range(p.first, p.last):
        carried = carried_at(p, position)
        if carried > 0:
            add_step_units(p, row_at(p, position), carried,
                           <const char *> tape_at(p, row_at(p, position - 1)).c, begin, end)
        add_step_units(p, row_at(p, position) + carried, size_at(p, position) - carried,
                       p.c_0 + carried * p.hidden * p.itemsize, begin, end)


cdef void add_step_units(const passing *p, Py_ssize_t row, Py_ssize_t n, const char *c_prev,
                         Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef step_tape tape = tape_at(p, row)
    p.kernel.sum_gradients(p.equations, n, &tape, c_prev, p.hidden, p.z + (row - p.row) * p.z_row,
                           p.z_row // p.itemsize, p.grad_bias, p.grad_peephole, begin, end)


cdef void add_products(const passing *p, const outer *outers, Py_ssize_t count, Py_ssize_t member,
                       Py_ssize_t team, char *memory) noexcept nogil:
    """A member's rows of gradients that have a in common."""
    cdef Py_ssize_t tile = 4 * p.kernel.width, first = share_begin(outers.m, tile, member, team)
    cdef Py_ssize_t last = share_begin(outers.m, tile, member + 1, team), n
    while first < last:
        n = min(OUTER_ROWS, last - first)
        add_rows(p, outers, count, first, n, memory)
        first += n


cdef void add_rows(const passing *p, const outer *outers, Py_ssize_t count, Py_ssize_t first,
                   Py_ssize_t n, char *memory) noexcept nogil:
    cdef:
        Py_ssize_t size = p.itemsize, j, whole = 0
        bint adds = p.last < p.steps  # to what later blocks left
        const outer *o
        char *groups = memory + p.rows * 4 * p.kernel.width * size
    for j in range(count):
        whole += outers[j].whole
    if whole > 0:
        p.kernel.pack_columns(p.rows, first, n, outers.a, groups)
    for j in range(count):
        o = &outers[j]
        p.kernel.add_outer(p.rows, n, o.whole, groups, o.b, 0, o.sum + first * o.n * size, o.n,
                           adds, memory)
    for j in range(count):
        o = &outers[j]
        if o.whole < o.n:
            p.kernel.pack_columns(p.rows, o.whole, o.n - o.whole, o.b, groups)
            p.kernel.add_outer(p.rows, o.n - o.whole, n, groups, o.a, first,
                               o.rest + first * size, o.rest_row, adds, memory)


cdef void end_outer(const passing *p, const outer *o) noexcept nogil:
    """Put the columns past whole tiles where they belong."""
    if o.rest != NULL:
        p.kernel.transpose(o.n - o.whole, o.m, o.rest, o.rest_row, o.sum + o.whole * p.itemsize,
                           o.n)
