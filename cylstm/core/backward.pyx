"""Backpropagation through time: the time loop backward.

It goes over the tape of `cylstm.core.forward` in blocks of steps, from the last to the first. The
gradients of a block's pre-activations, dz, stay in the cache until all that needs them is done::

    dz_t, dc_{t-1} = cell_backward(dh_t + dy_t, dc_t)       at each step,
    dh_{t-1} = dz_t W_hh
    dx = dz W_ih                                            for the block's rows at once
    dW_ih += dz' x,  dW_hh += dz' h_{t-1},  db += dz

or, where x is one of some vectors at each step (`cylstm.core.lookup`)::

    dtable[id] += dz                    for the block's rows
    dvectors = dtable W_ih, dW_ih = dtable' vectors, db = sum of dtable    in the end

and, where there is a projection, ``dr_t = dh_t + dy_t`` and ``dh_t = dr_t W_hr`` before the cell,
and ``dW_hr += dr' h``. In the time loop threads divide as in `cylstm.core.plan`: sequences, or
hidden units, where all meet after every step. The sums over rows they share by what is summed.
Neither changes the order of a sum.
"""

from libc.string cimport memcpy, memset

from cylstm.core.cell cimport Cell
from cylstm.core.kernels cimport packed_matrix, step_gradients, step_tape
from cylstm.core.memory cimport arena, enough, first_of, row_width, take
from cylstm.core.passing cimport (
    alike_until,
    carried_at,
    passing,
    row_at,
    size_at,
    starts_from_zero,
    tape_at,
)
from cylstm.core.plan cimport (
    ROWS_ALIKE,
    copy_rows,
    divide,
    layout,
    share_of,
    work,
    work_of_step,
)
from cylstm.core.products cimport (
    columns_of,
    end_outer,
    new_outer,
    pointers,
    product_workspace,
    sums_workspace,
)
from cylstm.core.sums cimport run_table, sum_block
from cylstm.core.team cimport (
    ALIKE,
    VARIOUS,
    barrier,
    best_units,
    meet,
    share,
    useful_threads,
    wait_for_team,
)
from cylstm.core.weights cimport Packed

# At most, but a step's. With vectors of 64 bytes products take half of the time, and the sums,
# which come from memory once for each block, more of it. (Zen 5, T=50 N=64 I=H=512: 188 -> 181 ms;
# with vectors of 32 bytes as before, or 1 % slower.)
cdef enum:
    BLOCK_ROWS = 192
    LARGE_BLOCK_ROWS = 256


# Some sequences of the batch in the time loop: every `shares`-th from `share` on.
cdef struct portion:
    Py_ssize_t share, shares, most
    char *dh                            # workspace: of the running rows' outputs, padded to tiles,
    char *dh_cell                       # and of their cells' outputs
    Py_ssize_t dh_width, dh_cell_width  # reals
    barrier meeting


cdef int run_backward(passing *p, Cell r, Packed weights, const layout *b, arena *memory,
                      dict grads) except -1:
    """Fill in the gradients, and write grad_x; of `p` the caller says where the arrays are."""
    cdef:
        work w
        portion *portions
        Py_ssize_t rows = p.offsets[b.steps] if p.offsets != NULL else b.steps * b.rows
        int threads
    p.equations, p.kernel, p.functions = &weights.equations, r.kernel, r.functions
    p.sums = r.sums
    p.weight_ih, p.weight_hh, p.weight_hr = weights.weight_ih, weights.weight_hh, weights.weight_hr
    p.projected, p.reverse = r.weight_hr != NULL, r.reverse
    p.itemsize = 8 if r.is_double else 4
    p.inputs, p.hidden, p.outputs = r.inputs, r.hidden, r.outputs
    p.steps, p.batch, p.sizes = b.steps, b.rows, b.sizes
    if not p.sums.has_c:
        p.c_0, p.tape.c, p.tape.c_row = p.h_0, <void *> p.y, p.y_row // p.itemsize
    take_apart(p)
    p.grad_peephole = first_of(grads.get("weight_p"))
    p.block.kernel, p.block.itemsize = p.kernel, p.itemsize
    memset(&w, 0, sizeof(work))
    w.memory = memory
    enough(memory, divide(
        work_of_step(p.sums, p.inputs, p.hidden, p.outputs), 1, b, &w))
    threads = useful_threads(2.0 * p.sums.gates * r.hidden * (r.inputs + r.outputs) * rows)
    p.sum_shares = best_units(threads)
    p.block_rows = min(rows, max(most_rows(p), p.batch))
    add_block(p, grads, threads, memory)
    portions = new_portions(p, b.rows, w.shares, memory)
    with nogil:
        run_blocks(p, portions, w.shares, w.threads, threads)
    give_bias(p, grads)
    return 0


cdef Py_ssize_t most_rows(const passing *p) noexcept:
    return LARGE_BLOCK_ROWS if p.kernel.width * p.itemsize == 64 else BLOCK_ROWS


cdef void take_apart(passing *p) noexcept:
    """Of W_ih the gates whose sums do not follow those of the others."""
    cdef Py_ssize_t common = p.sums.common * p.hidden
    p.weight_ih_apart = p.weight_ih
    p.weight_ih_apart.weights = (<const char *> p.weight_ih.weights
                                 + common * p.weight_ih.k_step * p.itemsize)
    p.weight_ih_apart.depth = p.weight_ih.depth - common
    p.weight_ih.depth = common


cdef int add_block(passing *p, dict grads, int threads, arena *memory) except -1:
    """The workspace of a block."""
    cdef:
        Py_ssize_t rows = p.block_rows, size = p.itemsize, j
        const void **z
        const void **out
        char *apart
        char *zeros
    p.z_row = row_width(p.sums.sums * p.hidden, size) * size
    p.z = take(memory, rows * p.z_row)
    z = pointers(p.z + p.sums.common_sum * p.hidden * size, p.z_row, rows, memory)
    for j, name in enumerate(("weight_ih", "weight_hh")):
        grad, common = grads[name], p.sums.common * p.hidden
        out = pointers(NULL, 0, rows, memory)
        new_outer(&p.block, &p.weights[j], grad[:common], z, out, memory)
        if p.sums.common < p.sums.gates:
            apart = p.z + (p.sums.h_sum if j else p.sums.x_sum) * p.hidden * size
            new_outer(&p.block, &p.apart[j], grad[common:],
                      pointers(apart, p.z_row, rows, memory), out, memory)
    if p.projected:
        p.out = take(memory, rows * p.outputs * size)
        p.cell_outputs = take(memory, rows * p.hidden * size)
        out = pointers(p.out, p.outputs * size, rows, memory)
        z = pointers(p.cell_outputs, p.hidden * size, rows, memory)
        new_outer(&p.block, &p.projection, grads["weight_hr"], out, z, memory)
    if "bias" in grads or p.grad_peephole != NULL:  # both are summed at once
        p.grad_sums = take(memory, p.sums.sums * p.hidden * size)
        memset(p.grad_sums, 0, p.sums.sums * p.hidden * size)
    if p.ids != NULL:
        p.grad_table = take(memory, p.vectors * p.z_row)
        memset(p.grad_table, 0, p.vectors * p.z_row)
    if p.starts != NULL:
        zeros = take(memory, max(p.hidden, p.outputs) * size)
        memset(zeros, 0, max(p.hidden, p.outputs) * size)
        p.zeros = zeros
    if not p.sums.has_c:
        p.grad_c = take(memory, p.batch * p.hidden * size)
        memset(p.grad_c, 0, p.batch * p.hidden * size)
    p.memory_each = max(sums_workspace(&p.block, rows, max(p.sums.gates * p.hidden, p.outputs)),
                        product_workspace(&p.block, &p.weight_ih))
    p.memory_each = (p.memory_each + 63) // 64 * 64
    p.memory = take(memory, threads * p.memory_each)
    return 0


cdef void give_bias(const passing *p, dict grads) except *:
    """The sums where the parameters' gradients are."""
    cdef Py_ssize_t each = p.hidden * p.itemsize, common = p.sums.common * each
    cdef const char *sums = p.grad_sums
    cdef char *bias = first_of(grads.get("bias"))
    if bias == NULL:
        return
    memcpy(bias, sums + p.sums.common_sum * each, common)
    if p.sums.common < p.sums.gates:
        memcpy(bias + common, sums + p.sums.x_sum * each, each)
        memcpy(first_of(grads["bias_hn"]), sums + p.sums.h_sum * each, each)


cdef portion *new_portions(const passing *p, Py_ssize_t rows, Py_ssize_t shares,
                           arena *memory) except NULL:
    cdef:
        portion *portions = <portion *> take(memory, shares * sizeof(portion))
        portion *t
        Py_ssize_t number
    memset(portions, 0, shares * sizeof(portion))
    for number in range(shares):
        t = &portions[number]
        t.share, t.shares, t.most = number, shares, share_of(rows, number, shares)
        t.dh_width = row_width(columns_of(p.kernel, &p.weight_hh), p.itemsize)
        if p.projected:
            t.dh_cell_width = row_width(columns_of(p.kernel, &p.weight_hr), p.itemsize)
        t.dh = take(memory, t.most * (t.dh_width + t.dh_cell_width) * p.itemsize)
        t.dh_cell = t.dh + t.most * t.dh_width * p.itemsize
    return portions


# No Python from here on.


# The time loops of a block, or one of them.
cdef struct job:
    passing *p
    portion *portions


cdef void run_blocks(passing *p, portion *portions, Py_ssize_t shares, int team,
                     int threads) noexcept nogil:
    """Block by block: `team` threads in the time loop, `threads` in the sums over rows."""
    cdef Py_ssize_t j
    for j in range(shares):
        begin_portion(p, &portions[j])
    p.first = p.steps
    while p.first > 0:
        next_block(p)
        run_steps(p, portions, shares, team)
        sum_block(p, threads)
    if p.ids != NULL:
        run_table(p, threads)
    for j in range(shares):
        end_portion(p, &portions[j])
    for j in range(2):
        end_outer(&p.block, &p.weights[j])
        end_outer(&p.block, &p.apart[j])
    end_outer(&p.block, &p.projection)


cdef void run_steps(passing *p, portion *portions, Py_ssize_t shares, int team) noexcept nogil:
    """By threads that take a portion each, or that all work on each in turn."""
    cdef Py_ssize_t j
    cdef job todo
    todo.p, todo.portions = p, portions
    if team <= shares:
        share(team, <int> shares, ALIKE if portions.most >= ROWS_ALIKE else VARIOUS, take_portion,
              &todo)
        return
    for j in range(shares):
        todo.portions = &portions[j]
        meet(team, run_member, &todo)


cdef void run_member(void *given, int member, int team) noexcept nogil:
    cdef job *todo = <job *> given
    run_portion(todo.p, todo.portions, member, team)


cdef void take_portion(void *given, int unit, int member) noexcept nogil:
    cdef job *todo = <job *> given
    run_portion(todo.p, &todo.portions[unit], 0, 1)


cdef void next_block(passing *p) noexcept nogil:
    """The steps before the last block, as many as a block has rows for but at least one."""
    cdef Py_ssize_t rows = 0
    p.last = p.first
    while p.first > 0 and (rows == 0 or rows + size_at(p, p.first - 1) <= p.block_rows):
        p.first -= 1
        rows += size_at(p, p.first)
    p.block.rows = rows
    p.block.adds = p.last < p.steps
    p.row = row_at(p, p.last - 1 if p.reverse else p.first)


# The time loop. Where a portion's rows are meant, row j of it is row share + j * shares of a step.


cdef void begin_portion(const passing *p, portion *t) noexcept nogil:
    cdef Py_ssize_t size = p.outputs * p.itemsize
    copy_rows(t.most, size, p.grad_h + t.share * size, t.shares * size, t.dh,
              t.dh_width * p.itemsize)


cdef void end_portion(const passing *p, portion *t) noexcept nogil:
    cdef Py_ssize_t size = p.outputs * p.itemsize, j, at
    copy_rows(t.most, size, t.dh, t.dh_width * p.itemsize, p.grad_h + t.share * size,
              t.shares * size)
    if p.sums.has_c:
        return
    for j in range(t.most):
        at = (t.share + j * t.shares) * size
        p.kernel.add(p.hidden, p.grad_c + at, p.grad_h + at)  # what came past the products


cdef void run_portion(const passing *p, portion *t, int member, int team) noexcept nogil:
    """The block's steps; of the tiles of hidden units, and of outputs, a member's share."""
    cdef:
        const packed_matrix *w = &p.weight_hr if p.projected else &p.weight_hh
        Py_ssize_t position, n, row, carried, done, until, tiles = w.tiles
        Py_ssize_t width = columns_of(p.kernel, w) // tiles
        Py_ssize_t tile = member * tiles // team, end = (member + 1) * tiles // team
        Py_ssize_t begin = tile * width, units = min(end * width, p.hidden)
        Py_ssize_t out = member * p.weight_hh.tiles // team
        Py_ssize_t out_end = (member + 1) * p.weight_hh.tiles // team
        Py_ssize_t z_row = p.z_row // p.itemsize * t.shares
        const char *z_of_h = p.z + p.sums.first_of_h * p.hidden * p.itemsize
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
        carried = share_of(carried_at(p, position), t.share, t.shares)
        done = 0
        while begin < units and done < n:
            until = alike_until(p, p.row + row, t.shares, done, carried, n)
            cell_rows(p, t, position, done, until, begin, units)
            done = until
        wait_for_team(&t.meeting, team)
        p.kernel.multiply(&p.weight_hh, n, z_of_h + row * p.z_row, z_row, t.dh, t.dh_width, out,
                          out_end, position % 2, False)
        if p.starts != NULL:
            end_gradients(p, t, p.row + row, n, begin, units, out, out_end)
        if p.projected:  # else a member's outputs are its own units
            wait_for_team(&t.meeting, team)


cdef void end_gradients(const passing *p, const portion *t, Py_ssize_t row, Py_ssize_t n,
                        Py_ssize_t begin, Py_ssize_t end, Py_ssize_t out,
                        Py_ssize_t out_end) noexcept nogil:
    """None goes on to before a start from zero: a member's share, of units and tiles of outputs."""
    cdef:
        Py_ssize_t j, at, size = p.itemsize
        Py_ssize_t tile = columns_of(p.kernel, &p.weight_hh) // p.weight_hh.tiles * size
    for j in range(n):
        if p.starts[row + j * t.shares]:
            at = (t.share + j * t.shares) * p.hidden
            memset(t.dh + j * t.dh_width * size + out * tile, 0, (out_end - out) * tile)
            if begin < end:
                memset(p.grad_c + (at + begin) * size, 0, (end - begin) * size)


cdef void add_outputs(const passing *p, portion *t, Py_ssize_t row, Py_ssize_t n) noexcept nogil:
    """By a projection's outputs: dh + dy."""
    cdef Py_ssize_t j, size = p.outputs * p.itemsize
    cdef char *to = p.out + row * size
    for j in range(n):
        memcpy(to, t.dh + j * t.dh_width * p.itemsize, size)
        p.kernel.add(p.outputs, p.grad_y + (p.row + row + j * t.shares) * p.grad_y_row, to)
        to += t.shares * size


cdef void cell_rows(const passing *p, const portion *t, Py_ssize_t position, Py_ssize_t first,
                    Py_ssize_t last, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """The cell backward for a portion's rows [first, last) of a step and units [begin, end).

    They are alike: all of them were running at the step before, or begin, or start from zero.
    """
    cdef:
        Py_ssize_t at = t.share + first * t.shares, row = row_at(p, position) + at
        Py_ssize_t width = t.dh_cell_width if p.projected else t.dh_width
        Py_ssize_t c_prev_row = p.hidden * t.shares
        const char *c_prev = p.c_0 + at * p.hidden * p.itemsize
        step_tape tape = tape_at(p, row)
        step_gradients grad
    if starts_from_zero(p, row):
        c_prev, c_prev_row = p.zeros, 0
    elif first < share_of(carried_at(p, position), t.share, t.shares):
        c_prev = <const char *> tape_at(p, row_at(p, position - 1) + at).c
        c_prev_row = tape.c_row * t.shares
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
    p.functions.backward(p.equations, last - first, &tape, c_prev, c_prev_row, &grad, begin, end)
