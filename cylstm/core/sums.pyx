"""The sums of the backward pass over a block's rows: gradients of parameters and of x."""

from cylstm.core.kernels cimport step_tape
from cylstm.core.passing cimport (
    alike_until,
    carried_at,
    passing,
    row_at,
    size_at,
    starts_from_zero,
    tape_at,
)
from cylstm.core.products cimport add_products, multiply_rows, share_begin
from cylstm.core.team cimport VARIOUS, share


cdef void sum_block(passing *p, int threads) noexcept nogil:
    """The sums over the rows of the block, by so many threads."""
    prepare_sums(p)
    share(threads, p.sum_shares, VARIOUS, take_sums, p)


cdef void take_sums(void *given, int unit, int member) noexcept nogil:
    cdef passing *p = <passing *> given
    add_sums(p, unit, p.sum_shares, p.memory + member * p.memory_each)


cdef void prepare_sums(const passing *p) noexcept nogil:
    """What the block's rows are multiplied with: x, the h before each step, what was projected."""
    cdef Py_ssize_t position, j, at, carried, size = p.outputs * p.itemsize
    cdef step_tape tape = tape_at(p, p.row)
    if p.ids == NULL:
        for j in range(p.block.rows):
            p.weights[0].b[j] = p.x + (p.row + j) * p.inputs * p.itemsize
    for position in range(p.first, p.last):
        at, carried = row_at(p, position) - p.row, carried_at(p, position)
        for j in range(size_at(p, position)):
            if starts_from_zero(p, p.row + at + j):
                p.weights[1].b[at + j] = p.zeros
            elif j < carried:
                p.weights[1].b[at + j] = p.y + (row_at(p, position - 1) + j) * p.y_row
            else:
                p.weights[1].b[at + j] = p.h_0 + j * size
    if p.projected:
        p.kernel.cell_output(p.equations, p.block.rows, &tape, p.cell_outputs)


cdef void add_sums(const passing *p, Py_ssize_t member, Py_ssize_t team,
                   char *memory) noexcept nogil:
    """A member's share: of rows of x's gradient, of units, of rows of the weights' gradients."""
    cdef Py_ssize_t begin = share_begin(p.hidden, p.kernel.width, member, team)
    cdef Py_ssize_t end = share_begin(p.hidden, p.kernel.width, member + 1, team)
    cdef int first = 0  # of the weights
    if p.ids != NULL:
        add_to_table(p, begin, end)
        first = 1
    else:
        give_x(p, p.z, p.grad_x + p.row * p.inputs * p.itemsize, member, team, memory)
    if p.grad_sums != NULL and (p.ids == NULL or p.grad_peephole != NULL):
        add_units(p, begin, end)
    add_products(&p.block, p.weights + first, 2 - first, member, team, memory)
    if p.sums.common < p.sums.gates:
        add_products(&p.block, &p.apart[1], 1, member, team, memory)
        if p.ids == NULL:
            add_products(&p.block, &p.apart[0], 1, member, team, memory)
    if p.projected:
        add_products(&p.block, &p.projection, 1, member, team, memory)


cdef void give_x(const passing *p, const char *z, char *grad_x, Py_ssize_t member,
                 Py_ssize_t team, char *memory) noexcept nogil:
    """To a member's share of a block's rows of x, from those of z."""
    cdef Py_ssize_t first = member * p.block.rows // team
    cdef Py_ssize_t last = (member + 1) * p.block.rows // team
    grad_x += first * p.inputs * p.itemsize
    z += first * p.z_row
    multiply_rows(&p.block, &p.weight_ih, last - first,
                  z + p.sums.common_sum * p.hidden * p.itemsize, p.z_row, grad_x, p.inputs, p.adds,
                  memory)
    if p.sums.common < p.sums.gates:
        multiply_rows(&p.block, &p.weight_ih_apart, last - first,
                      z + p.sums.x_sum * p.hidden * p.itemsize, p.z_row, grad_x, p.inputs, True,
                      memory)


cdef void add_units(const passing *p, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """The gradients of bias and peepholes, for units [begin, end)."""
    cdef Py_ssize_t position, carried, done, until, n
    if p.grad_peephole == NULL:
        add_biases(p, p.z, begin, end)
        return
    for position in range(p.first, p.last):
        carried, n, done = carried_at(p, position), size_at(p, position), 0
        while done < n:
            until = alike_until(p, row_at(p, position), 1, done, carried, n)
            add_step_units(p, position, done, until, begin, end)
            done = until


cdef void add_biases(const passing *p, const char *z, Py_ssize_t begin,
                     Py_ssize_t end) noexcept nogil:
    """From a block's rows of z, for units [begin, end)."""
    p.functions.sum_gradients(p.equations, p.block.rows, NULL, NULL, 0, z, p.z_row // p.itemsize,
                              p.grad_sums, NULL, begin, end)


cdef void add_step_units(const passing *p, Py_ssize_t position, Py_ssize_t first, Py_ssize_t last,
                         Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """For rows [first, last) of a step, which are alike."""
    cdef:
        Py_ssize_t row = row_at(p, position) + first, c_prev_row = p.hidden, n = last - first
        const char *c_prev = p.c_0 + first * p.hidden * p.itemsize
        step_tape tape = tape_at(p, row)
    if starts_from_zero(p, row):
        c_prev, c_prev_row = p.zeros, 0
    elif first < carried_at(p, position):
        c_prev = <const char *> tape_at(p, row_at(p, position - 1) + first).c
    p.functions.sum_gradients(p.equations, n, &tape, c_prev, c_prev_row,
                              p.z + (row - p.row) * p.z_row, p.z_row // p.itemsize, p.grad_sums,
                              p.grad_peephole, begin, end)


# The same for vectors of which x was one at each row.


cdef void add_to_table(const passing *p, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """The block's z, for units [begin, end), to those of its vectors."""
    cdef Py_ssize_t j, q, at = begin * p.itemsize, each = p.hidden * p.itemsize
    cdef const char *z = p.z + at
    cdef char *to
    for j in range(p.block.rows):
        to = p.grad_table + p.ids[p.row + j] * p.z_row + at
        for q in range(p.sums.sums):
            p.kernel.add(end - begin, z + q * each, to + q * each)
        z += p.z_row


cdef void run_table(passing *p, int threads) noexcept nogil:
    """The products of the table's gradient, by as many of its rows at once as a block has."""
    cdef Py_ssize_t j
    cdef const char *z
    p.row = 0
    while p.row < p.vectors:
        p.block.rows, p.block.adds = min(p.block_rows, p.vectors - p.row), p.row > 0
        for j in range(p.block.rows):
            z = p.grad_table + (p.row + j) * p.z_row
            p.weights[0].b[j] = p.x + (p.row + j) * p.inputs * p.itemsize
            p.weights[0].a[j] = z + p.sums.common_sum * p.hidden * p.itemsize
            if p.sums.common < p.sums.gates:
                p.apart[0].a[j] = z + p.sums.x_sum * p.hidden * p.itemsize
        share(threads, p.sum_shares, VARIOUS, take_table, p)
        p.row += p.block.rows


cdef void take_table(void *given, int unit, int member) noexcept nogil:
    cdef:
        passing *p = <passing *> given
        char *memory = p.memory + member * p.memory_each
        const char *z = p.grad_table + p.row * p.z_row
    give_x(p, z, p.grad_x + p.row * p.inputs * p.itemsize, unit, p.sum_shares, memory)
    add_products(&p.block, p.weights, 1, unit, p.sum_shares, memory)
    if p.sums.common < p.sums.gates:
        add_products(&p.block, &p.apart[0], 1, unit, p.sum_shares, memory)
    if p.grad_sums != NULL and p.grad_peephole == NULL:
        add_biases(p, z, share_begin(p.hidden, p.kernel.width, unit, p.sum_shares),
                   share_begin(p.hidden, p.kernel.width, unit + 1, p.sum_shares))
