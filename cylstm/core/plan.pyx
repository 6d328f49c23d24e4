"""Who does what of a call: shares of the batch, threads, and the workspace of each.

A task is one layer and direction for some of the batch's sequences. Threads take tasks each for
itself, a layer's close behind those of the layer before where there are too few in one; or all work
on one, where each has some of the hidden units and all meet after every step. None of it changes an
output's sum, so the bits do not depend on it.
"""

cimport numpy as cnp
from libc.string cimport memset

from cylstm.core.cell cimport Cell
from cylstm.core.kernels cimport step_tape
from cylstm.core.memory cimport arena, arena_take, check_array, first_of, row_width
from cylstm.core.team cimport best_units, useful_threads
from cylstm.core.weights cimport runnable, whole_groups

cnp.import_array()

cdef enum:
    BLOCK_BYTES = 262144  # of pre-activations that are projected at once: a part of the L2 cache,
    LEAST_BLOCK = 96      # and rows: with fewer the input weights would be read too often
    LEAST_OF_CONVERTED = 24  # where more of them would take the place of smaller weights in it
    FUSED_ROWS = 4        # from which on a step takes x's share too, where for each row there are
    FUSED_BYTES = 524288  # at most so many bytes of weights, which come from far at each step
    ENOUGH_IN_A_STEP = 80_000   # that are worth a meeting after each step
    ROWS_OF_ONE = 4             # as many sequences keep a thread busy without sharing units
    ROWS_OF_SMALL = 32          # in fewer the weights come from afar too often to pay for balance
    CHAIN_STEPS = 8             # after which the next layer follows; more in longer sequences,
    CHAIN_PARTS = 16            # of which it waits for such a part


cdef step_tape tape_of(Cell r, array, Py_ssize_t rows) noexcept:
    """A tape's arrays, from the first row on."""
    cdef step_tape tape
    cdef Py_ssize_t size = rows * r.hidden * (8 if r.is_double else 4)
    memset(&tape, 0, sizeof(step_tape))
    if r.sums.taped == 0:
        return tape
    tape.gates, tape.gates_row, tape.c_row = first_of(array), r.sums.sums * r.hidden, r.hidden
    if r.sums.has_c:
        tape.c = <char *> tape.gates + r.sums.sums * size
        tape.tanh_c = <char *> tape.c + size
    return tape


cdef int divide(double step, Py_ssize_t directions, const layout *b, work *w) noexcept nogil:
    """How many threads and shares, by a layer's work in a step; and the shares' rows."""
    cdef:
        Py_ssize_t share, t, j, n, at = 0
    w.total = step * b.steps * b.rows * directions
    w.threads = useful_threads(w.total)
    w.shares = 1
    if w.threads > directions and (b.rows >= ROWS_OF_ONE * w.threads
                                   or step * b.rows < ENOUGH_IN_A_STEP):
        w.shares = min(best_units(w.threads), b.rows)
        if w.shares > w.threads and b.rows < ROWS_OF_SMALL * w.shares:
            w.threads = w.shares = 1
    if step * b.rows < ENOUGH_IN_A_STEP or w.shares > 1:
        w.threads = min(w.threads, w.shares * directions)
    w.members = w.threads if w.threads > w.shares * directions else 1
    w.tasks = <task *> arena_take(w.memory, w.shares * directions * sizeof(task))
    w.order = <Py_ssize_t *> arena_take(w.memory, b.rows * sizeof(Py_ssize_t))
    if w.tasks == NULL or w.order == NULL:
        return -1
    for share in range(w.shares):
        for j in range(share_of(b.rows, share, w.shares)):
            n = share + j * w.shares
            w.order[at] = b.order[n] if b.order != NULL else n
            at += 1
    if b.sizes == NULL:
        return 0
    w.sizes = <Py_ssize_t *> arena_take(w.memory, w.shares * b.steps * sizeof(Py_ssize_t))
    w.offsets = <Py_ssize_t *> arena_take(
        w.memory, w.shares * (b.steps + 1) * sizeof(Py_ssize_t))
    if w.sizes == NULL or w.offsets == NULL:
        return -1
    for share in range(w.shares):
        at = 0
        for t in range(b.steps):
            n = share_of(b.sizes[t], share, w.shares)
            w.sizes[share * b.steps + t] = n
            w.offsets[share * (b.steps + 1) + t] = at
            at += n
        w.offsets[share * (b.steps + 1) + b.steps] = at
    return 0


cdef int chain_layers(Py_ssize_t layers, Py_ssize_t directions, const layout *b,
                      work *w) noexcept nogil:
    """Let each layer follow the one before, a few steps behind, where threads lack work."""
    cdef int threads
    if (directions > 1 or layers == 1 or b.steps < 2 * CHAIN_STEPS
            or w.threads > w.shares):
        return 0
    threads = <int> min(useful_threads(w.total * layers), w.shares * layers)
    if threads <= w.threads:
        return 0
    w.threads, w.block = threads, max(CHAIN_STEPS, b.steps // CHAIN_PARTS)
    w.tasks = <task *> arena_take(w.memory, w.shares * layers * sizeof(task))
    return 0 if w.tasks != NULL else -1


cdef int add_tasks(work *w, const runnable *r, const layout *b, const char *x, Py_ssize_t x_step,
                   Py_ssize_t x_row, char *y, Py_ssize_t y_step, Py_ssize_t y_row, char *h,
                   char *c) noexcept nogil:
    """The tasks of one layer and direction; h, c are its [rows, R] and [rows, H], or c is NULL."""
    cdef Py_ssize_t share, first = 0
    cdef task *t
    for share in range(w.shares):
        t = &w.tasks[w.count]
        memset(t, 0, sizeof(task))
        w.count += 1
        t.equations, t.kernel, t.functions = r.equations, r.kernel, r.functions
        t.reverse, t.projected = r.reverse, r.projected
        t.converts = r.kernel.convert != NULL
        t.weights, t.weight_ih, t.weight_hr = r.weights[0], r.weight_ih[0], r.weight_hr[0]
        t.itemsize = r.itemsize
        t.inputs, t.hidden, t.outputs = r.inputs, r.hidden, r.outputs
        t.steps, t.rows, t.most = b.steps, b.rows, share_of(b.rows, share, w.shares)
        t.begins, t.tape, t.down = b.begins, w.tape, b.down
        t.starts, t.starts_step = w.starts, b.rows
        t.order = w.order + first
        first += t.most
        if b.sizes != NULL:
            t.sizes = w.sizes + share * b.steps
            t.offsets = w.offsets + share * (b.steps + 1)
        t.x, t.x_step, t.x_row = x, x_step, x_row
        t.y, t.y_step, t.y_row = y, y_step, y_row
        t.h_row = w.shares * r.outputs * t.itemsize
        t.c_row = w.shares * r.hidden * t.itemsize
        t.h = h + share * t.h_row // w.shares
        t.c = c + share * t.c_row // w.shares if c != NULL else NULL
        t.followed = w.block > 0
        t.block = w.block if t.followed else b.steps
        if t.followed and w.count > w.shares:
            t.source = &(t - w.shares).finished
        t.table = w.table
        t.fused = t.table == NULL and not t.followed and is_fused(t)
        if not t.fused:
            t.weights = r.weight_hh[0]
        # Rows of x at equal distances through all steps are read where they lie.
        t.gather = not t.fused and t.table == NULL and (
            t.converts or w.shares > 1 or (b.begins == NULL and (
                b.sizes != NULL or (b.rows > 1 and x_step != b.rows * x_row))))
        if not (t.gather or t.fused) and b.rows == 1 and b.begins == NULL:
            t.x_row = x_step
        if add_workspace(t, r.sums.tile, w.memory) < 0:
            return -1
        if t.table != NULL:
            t.ids = <Py_ssize_t *> arena_take(
                w.memory, w.members * t.most * sizeof(Py_ssize_t))
            if t.ids == NULL:
                return -1
        if t.converts and add_inputs(t, w.members, w.memory) < 0:
            return -1
    return 0


cdef bint is_fused(const task *t) noexcept nogil:
    """Whether a step's product takes x's share: it saves a way through memory, and costs one of the
    input weights at each step."""
    cdef Py_ssize_t rows = rows_between(t, 0, t.steps) // t.steps
    cdef Py_ssize_t weights = t.weights.tiles * t.weights.tile_step * t.kernel.weight_size
    if t.kernel.flat:
        return False
    return t.steps == 1 or (rows >= FUSED_ROWS and weights // rows <= FUSED_BYTES)


cdef int add_workspace(task *t, Py_ssize_t tile, arena *memory) noexcept nogil:
    """A tile is of so many vectors of units."""
    cdef:
        Py_ssize_t width = t.kernel.width, tiles = t.weights.tiles, size = t.itemsize
        Py_ssize_t most, rows = 0, state
    t.z_width = row_width(4 * tiles * width, size)
    t.c_width = row_width(tiles * tile * width, size)
    t.h_at = (t.inputs + width - 1) // width * width if t.fused and not t.converts else 0
    t.x_width = t.kernel.header + (t.weight_ih.depth if t.converts else t.inputs)
    t.v_width = row_width(t.h_at + max(tiles * tile, 4 * t.weight_hr.tiles) * width, size)
    most = max(LEAST_BLOCK, BLOCK_BYTES // (t.z_width * size))
    if t.converts:
        most = max(LEAST_OF_CONVERTED, BLOCK_BYTES // 2 // (t.z_width * size))
    if not t.fused and t.table == NULL:
        t.block = max(1, min(t.block, most // t.most))
        rows = t.block * t.most
    state = t.most * (2 * t.v_width + 2 * t.c_width)
    t.v_now = <char *> arena_take(
        memory, (state + rows * t.z_width) * size + (
            rows * t.x_width * t.kernel.input_size if t.gather else 0))
    if t.v_now == NULL:
        return -1
    t.v_next = t.v_now + t.most * t.v_width * size
    t.c_now = t.v_next + t.most * t.v_width * size
    t.unprojected = t.c_now + t.most * t.c_width * size
    t.z_block = t.unprojected + t.most * t.c_width * size
    t.x_block = t.z_block + rows * t.z_width * size
    memset(t.v_now, 0, state * size)
    return 0


cdef int add_inputs(task *t, Py_ssize_t members, arena *memory) noexcept nogil:
    """What converted rows want beside."""
    cdef Py_ssize_t size = t.kernel.input_size
    cdef Py_ssize_t depth = t.kernel.header + whole_groups(t.kernel, t.outputs)
    depth += t.weight_ih.depth if t.fused else 0
    t.inputs_width = row_width((depth * size + 63) // 64 * 64, 1) // size
    t.inputs_now = <char *> arena_take(memory, members * t.most * t.inputs_width * size)
    if t.projected:
        t.unprojected_inputs = <char *> arena_take(
            memory, t.most * (t.kernel.header + t.weight_hr.depth) * size)
        if t.unprojected_inputs == NULL:
            return -1
    return 0 if t.inputs_now != NULL else -1


cdef int check_batch(batch) except -1:
    """A ragged batch's sizes fall from at most N, and its order is of N sequences."""
    cdef Py_ssize_t j, before, rows = batch.rows, steps = batch.steps
    cdef const Py_ssize_t *sizes
    cdef const Py_ssize_t *order
    cdef const Py_ssize_t *offsets
    if not batch.ragged:
        return 0
    check_array(batch.sizes, cnp.NPY_INTP, steps)
    check_array(batch.order, cnp.NPY_INTP, rows)
    check_array(batch.offsets, cnp.NPY_INTP, steps + 1)
    sizes = <const Py_ssize_t *> first_of(batch.sizes)
    order = <const Py_ssize_t *> first_of(batch.order)
    offsets = <const Py_ssize_t *> first_of(batch.offsets)
    before = rows
    for j in range(steps):
        if not 0 <= sizes[j] <= before or offsets[j + 1] - offsets[j] != sizes[j]:
            raise ValueError("batch: expected sizes that fall, and their sums")
        before = sizes[j]
    for j in range(rows):
        if not 0 <= order[j] < rows:
            raise ValueError(f"batch: expected an order of {rows} sequences")
    if offsets[0] != 0:
        raise ValueError("batch: expected offsets from 0")
    return 0
