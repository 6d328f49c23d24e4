"""Scaled dot-product attention over a batch of sequences, forward and backward.

Each sequence has products of its own, over its own steps, whose order nothing else decides: its
results are the same bits in any batch. Threads take sequences, and blocks of their rows.
"""

cimport numpy as cnp
from libc.string cimport memcpy, memset

import numpy as np

from cylstm.core.kernels cimport format_of, kernels, packed_matrix, packing, table
from cylstm.core.memory cimport arena, check_array, end_arena, first_of, take
from cylstm.core.plan cimport copy_rows
from cylstm.core.team cimport VARIOUS, share, unit_work, useful_threads
from cylstm.core.weights cimport in_place, set_steps, vectors_for

from cylstm.core.kernels import ISA

cnp.import_array()

cdef enum:
    ROWS = 96  # of a unit of work: a multiple of the columns that a sum of outer products takes


# Rows (T, N, F) of all sequences, as far apart as the caller has them.
cdef struct rows_of:
    char *at
    Py_ssize_t step, sequence  # bytes from a step, and from a sequence, to the next


cdef struct attention:
    const kernels *kernel
    Py_ssize_t size, width, batch
    Py_ssize_t steps, length       # of queries, and of the memory
    const Py_ssize_t *query_ends   # of each sequence's own
    const Py_ssize_t *ends
    double scale
    rows_of queries, memory, context
    Py_ssize_t wide                # of the weights [N, T, wide]: the memory's steps, in whole tiles
    char *weights
    char *grad_scores              # as the weights; `context` is then its gradient
    rows_of grad_queries, grad_memory
    Py_ssize_t columns             # the features, in whole tiles
    Py_ssize_t blocks              # of a sequence's rows
    char *space                    # each member's
    Py_ssize_t space_each


def attend(queries, memory, ends, query_ends, double scale, context):
    """Write the context, and return the weights (N, T, S or more): zero past a sequence's own.

    Parameters
    ----------
    queries, memory, context : array, (T, N, F), (S, N, F), (T, N, F)
    ends, query_ends : array of intp, (N,)
        How many steps of the memory, and how many queries, are a sequence's own.
    scale : float
        Of the scores.
    """
    cdef attention a = attention_of(queries, memory, ends, query_ends, scale, context)
    weights = np.empty((a.batch, a.steps, a.wide), queries.dtype)
    a.weights = first_of(weights)
    run(&a, a.steps, a.steps, take_context)
    return weights


def attend_backward(queries, memory, ends, query_ends, double scale, weights, grad_context,
                    grad_queries, grad_memory):
    """Write the gradients of queries and memory."""
    cdef attention a = attention_of(queries, memory, ends, query_ends, scale, grad_context)
    check_array(weights, cnp.PyArray_TYPE(queries), a.batch * a.steps * a.wide)
    grad_scores = np.empty_like(weights)
    a.weights, a.grad_scores = first_of(weights), first_of(grad_scores)
    a.grad_queries = rows_in(grad_queries, queries, a.steps)
    a.grad_memory = rows_in(grad_memory, queries, a.length)
    run(&a, a.steps, a.steps, take_queries)
    run(&a, a.length, a.steps, take_memory)


cdef attention attention_of(queries, memory, ends, query_ends, double scale, context) except *:
    cdef attention a
    cdef Py_ssize_t j, tile
    memset(&a, 0, sizeof(attention))
    a.kernel = table(ISA, format_of(queries.dtype), "packed")
    a.size, a.scale = queries.dtype.itemsize, scale
    a.steps, a.batch, a.width = queries.shape
    a.length = len(memory)
    a.queries = rows_in(queries, queries, a.steps)
    a.memory = rows_in(memory, queries, a.length)
    a.context = rows_in(context, queries, a.steps)
    check_array(ends, cnp.NPY_INTP, a.batch)
    check_array(query_ends, cnp.NPY_INTP, a.batch)
    a.ends = <const Py_ssize_t *> first_of(ends)
    a.query_ends = <const Py_ssize_t *> first_of(query_ends)
    for j in range(a.batch):
        if not (0 <= a.ends[j] <= a.length and 0 <= a.query_ends[j] <= a.steps):
            raise ValueError("ends: expected no more steps than there are")
    tile = a.kernel.width * vectors_for(a.kernel, a.width, a.length)
    a.wide = (a.length + tile - 1) // tile * tile
    tile = 4 * a.kernel.width
    a.columns = (a.width + tile - 1) // tile * tile
    return a


cdef rows_of rows_in(array, like, Py_ssize_t steps) except *:
    """The rows of (steps, N, F), of which each is contiguous."""
    cdef rows_of rows
    cdef Py_ssize_t size = like.dtype.itemsize
    if not (isinstance(array, np.ndarray) and array.dtype == like.dtype
            and array.shape == (steps, *like.shape[1:]) and cnp.PyArray_ISALIGNED(array)):
        raise ValueError(f"expected an array of shape {(steps, *like.shape[1:])}, of one dtype")
    rows.step, rows.sequence = array.strides[:2]
    if array.strides[2] != size or rows.step % size or rows.step < 0 or rows.sequence < 0:
        raise ValueError("expected rows that are contiguous")
    rows.at = first_of(array)
    return rows


cdef int run(attention *a, Py_ssize_t rows, Py_ssize_t deep, unit_work work) except -1:
    """By units of a sequence's rows; `deep` is how many there are in a sum of outer products."""
    cdef:
        arena memory
        int threads = useful_threads(2.0 * a.batch * a.steps * a.length * a.width)
        Py_ssize_t tile = 4 * a.kernel.width
        Py_ssize_t products = (a.wide + tile) * a.width + a.length * a.columns
        Py_ssize_t outers = (deep + 1) * (ROWS + tile)
    if rows == 0 or a.batch == 0:
        return 0
    memset(&memory, 0, sizeof(arena))
    a.blocks = (rows + ROWS - 1) // ROWS
    a.space_each = ((max(products, outers) + ROWS * a.columns) * a.size
                    + 2 * deep * sizeof(void *) + 256) // 64 * 64
    try:
        a.space = take(&memory, threads * a.space_each)
        with nogil:
            share(threads, <int> (a.batch * a.blocks), VARIOUS, work, a)
    finally:
        end_arena(&memory)
    return 0


# No Python from here on.


# The rows of a unit: [first, last) of a sequence's queries, or steps of its memory.
cdef struct part:
    Py_ssize_t sequence, first, last
    Py_ssize_t length, steps  # of the sequence's own memory, and queries
    char *space


cdef part part_of(const attention *a, int unit, int member) noexcept nogil:
    cdef part p
    p.sequence = unit // a.blocks
    p.first = unit % a.blocks * ROWS
    p.last = p.first + ROWS
    p.length, p.steps = a.ends[p.sequence], a.query_ends[p.sequence]
    p.space = a.space + member * a.space_each
    return p


cdef inline char *row(const rows_of *rows, const part *p, Py_ssize_t step) noexcept nogil:
    return rows.at + p.sequence * rows.sequence + step * rows.step


cdef void clear(const attention *a, const rows_of *rows, const part *p, Py_ssize_t first,
                Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(first, last):
        memset(row(rows, p, j), 0, a.width * a.size)


cdef packed_matrix pack_keys(const attention *a, part *p) noexcept nogil:
    """The sequence's memory for products with its rows; it takes of the unit's space."""
    cdef packed_matrix keys
    cdef packing how
    cdef int vectors = vectors_for(a.kernel, a.width, p.length)
    how = packing(NULL, vectors, 0, p.length, a.width, a.memory.step // a.size, 1, NULL)
    memset(&keys, 0, sizeof(packed_matrix))
    keys.vectors, keys.tiles = vectors, a.kernel.packed_tiles(&how)
    keys.depth = keys.first = a.width
    keys.weights = p.space
    set_steps(a.kernel, &keys)
    a.kernel.pack(&how, row(&a.memory, p, 0), NULL, &keys)
    p.space += keys.tiles * keys.tile_step * a.size
    return keys


cdef packed_matrix copy_values(const attention *a, part *p) noexcept nogil:
    """The same for means of its rows."""
    cdef Py_ssize_t j, each = a.columns * a.size, own = a.width * a.size
    cdef packed_matrix values = in_place(a.kernel, p.space, p.length, a.columns)
    for j in range(p.length):
        memcpy(p.space + j * each, row(&a.memory, p, j), own)
        memset(p.space + j * each + own, 0, each - own)
    p.space += p.length * each
    return values


cdef inline char *scores_at(const attention *a, char *scores, const part *p,
                            Py_ssize_t step) noexcept nogil:
    return scores + (p.sequence * a.steps + step) * a.wide * a.size


cdef void multiply(const attention *a, const packed_matrix *keys, Py_ssize_t n, const rows_of *rows,
                   const part *p, char *scores) noexcept nogil:
    a.kernel.multiply(keys, n, row(rows, p, p.first), rows.step // a.size, scores, a.wide, 0,
                      keys.tiles, False, False)


cdef void give_means(const attention *a, const packed_matrix *values, Py_ssize_t n,
                     const char *scores, const part *p, const rows_of *to) noexcept nogil:
    a.kernel.multiply(values, n, scores, a.wide, p.space, a.columns, 0, values.tiles, False, False)
    copy_rows(n, a.width * a.size, p.space, a.columns * a.size, row(to, p, p.first), to.step)


cdef void take_context(void *given, int unit, int member) noexcept nogil:
    cdef:
        attention *a = <attention *> given
        part p = part_of(a, unit, member)
        Py_ssize_t j, last = min(p.last, a.steps), n = min(last, p.steps) - p.first
        char *weights = scores_at(a, a.weights, &p, p.first)
        packed_matrix keys, values
    if n <= 0 or p.length == 0:
        n = 0
    else:
        keys = pack_keys(a, &p)
        multiply(a, &keys, n, &a.queries, &p, weights)
        a.kernel.softmax(n, p.length, a.scale, weights, a.wide)
        values = copy_values(a, &p)
        give_means(a, &values, n, weights, &p, &a.context)
    for j in range(n):
        memset(weights + (j * a.wide + p.length) * a.size, 0, (a.wide - p.length) * a.size)
    memset(weights + n * a.wide * a.size, 0, (last - p.first - n) * a.wide * a.size)
    clear(a, &a.context, &p, p.first + n, last)


cdef void take_queries(void *given, int unit, int member) noexcept nogil:
    """The gradients of the scores, and of the queries."""
    cdef:
        attention *a = <attention *> given
        part p = part_of(a, unit, member)
        Py_ssize_t last = min(p.last, a.steps), n = min(last, p.steps) - p.first
        char *grad = scores_at(a, a.grad_scores, &p, p.first)
        packed_matrix keys, values
    if n <= 0 or p.length == 0:
        clear(a, &a.grad_queries, &p, p.first, last)
        return
    keys = pack_keys(a, &p)
    multiply(a, &keys, n, &a.context, &p, grad)
    a.kernel.softmax_gradient(n, p.length, a.scale, scores_at(a, a.weights, &p, p.first), a.wide,
                              grad, a.wide)
    values = copy_values(a, &p)
    give_means(a, &values, n, grad, &p, &a.grad_queries)
    clear(a, &a.grad_queries, &p, p.first + n, last)


cdef void take_memory(void *given, int unit, int member) noexcept nogil:
    """The gradients of the memory: by its scores, and by its means."""
    cdef:
        attention *a = <attention *> given
        part p = part_of(a, unit, member)
        Py_ssize_t last = min(p.last, a.length), n = min(last, p.length) - p.first
    if n <= 0 or p.steps == 0:
        clear(a, &a.grad_memory, &p, p.first, last)
        return
    add_outers(a, &p, n, a.grad_scores, &a.queries, False)
    add_outers(a, &p, n, a.weights, &a.context, True)
    copy_rows(n, a.width * a.size, p.space, a.columns * a.size, row(&a.grad_memory, &p, p.first),
              a.grad_memory.step)
    clear(a, &a.grad_memory, &p, p.first + n, last)


cdef void add_outers(const attention *a, const part *p, Py_ssize_t n, char *scores,
                     const rows_of *rows, bint adds) noexcept nogil:
    """The space's first rows := scores' rows, or +=, over a sequence's queries."""
    cdef:
        Py_ssize_t j
        const void **of_scores = <const void **> (p.space + ROWS * a.columns * a.size)
        const void **of_rows = of_scores + p.steps
        char *groups = <char *> (of_rows + p.steps)
    for j in range(p.steps):
        of_scores[j], of_rows[j] = scores_at(a, scores, p, j), row(rows, p, j)
    a.kernel.pack_columns(p.steps, p.first, n, of_scores, groups)
    a.kernel.add_outer(p.steps, n, a.width, groups, of_rows, 0, p.space, a.columns, adds,
                       groups + (p.steps + 1) * ROWS * a.size)
