"""The recurrence without a tape: packed weights, and threads.

The loop is that of `cylstm._sequence`, on sequences as they lie in the caller's arrays::

    z_t = b + x_t W_ih'             by the packed kernel, for a block of steps at once
    h_t, c_t = step(z_t, h_{t-1})   product and gate equations in one kernel
    h_t = h_t W_hr'                 with a projection

A `Task` is one layer and direction for some of the batch's sequences. Threads take tasks each for
itself, or all work on one, where each has some of the hidden units and all meet after every step.
Neither changes an output's sum, so the bits do not depend on it.
"""

import os

import numpy as np

cimport openmp
from cython.parallel cimport parallel, prange, threadid
from libc.string cimport memcpy, memset

from cylstm._kernels cimport cell, kernels, packed_matrix, packed_step, packing
from cylstm._sequence cimport Recurrence, data


cdef extern from "team.h" nogil:
    ctypedef struct barrier:
        pass
    void cylstm_wait(barrier *b, int size)
    void cylstm_watch_forks()
    bint cylstm_was_forked()

cylstm_watch_forks()

PRODUCT = os.environ.get("CYLSTM_PRODUCT", "packed")
if PRODUCT not in ("packed", "blas"):
    raise ImportError(f"CYLSTM_PRODUCT: expected 'packed' or 'blas', got {PRODUCT!r}")

cdef enum:
    BLOCK_BYTES = 262144  # of pre-activations that are projected at once: a part of the L2 cache


def aligned_empty(Py_ssize_t size, dtype):
    """An array that starts where a cache line does, as vectors of any width want."""
    dtype = np.dtype(dtype)
    memory = np.empty(size * dtype.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size * dtype.itemsize].view(dtype)


cdef class Packed:
    """The packed parameters of a `Recurrence`. Nothing in it changes once it is made."""

    cdef packed_matrix weight_ih, weight_hh, weight_hr
    cdef list memory  # what the matrices point to


cdef Packed packed(Recurrence r):
    """Made at the first use, by one thread, then shared."""
    made = r.packed
    if made is None:
        with r.packing_lock:
            if r.packed is None:
                r.packed = _pack(r)
            made = r.packed
    return made


cdef Packed _pack(Recurrence r):
    cdef Packed made = Packed()
    made.memory = []
    _pack_matrix(r, made.memory, packing(True, r.hidden, r.inputs, r.inputs, 1),
                 r.weight_ih, r.bias, &made.weight_ih)
    _pack_matrix(r, made.memory, packing(True, r.hidden, r.outputs, r.outputs, 1),
                 r.weight_hh, NULL, &made.weight_hh)
    if r.weight_hr != NULL:
        _pack_matrix(r, made.memory, packing(False, r.outputs, r.hidden, r.hidden, 1),
                     r.weight_hr, NULL, &made.weight_hr)
    return made


cdef int _pack_matrix(Recurrence r, list memory, packing how, const void *matrix,
                      const void *bias, packed_matrix *to) except -1:
    cdef Py_ssize_t tile = 4 * r.kernel.width
    dtype = np.float64 if r.is_double else np.float32
    to.tiles, to.depth = r.kernel.packed_tiles(&how), how.depth
    weights = aligned_empty(to.tiles * to.depth * tile, dtype)
    biases = aligned_empty(to.tiles * tile, dtype) if bias != NULL else None
    memory += [weights, biases]
    to.weights, to.bias = data(weights), data(biases)
    r.kernel.pack(&how, matrix, bias, <void *> to.weights, <void *> to.bias)
    return 0


# What a task computes with; distances are in bytes.
cdef struct task:
    const cell *equations
    const kernels *kernel
    packed_matrix weight_ih, weight_hh, weight_hr
    bint projected, reverse, gather
    Py_ssize_t itemsize, inputs, hidden, outputs
    Py_ssize_t steps, block          # of time; of them projected at once
    Py_ssize_t most                  # running sequences at any step
    const Py_ssize_t *sizes          # of the batch at each step, or NULL where it is `most`
    const Py_ssize_t *offsets        # their sums
    const Py_ssize_t *order          # place in the caller's batch of each row
    const char *x                    # [T, N, I]
    char *y                          # [T, N, R]
    char *h                          # [n, R], the state: initial, in the end last
    char *c                          # [n, H]
    Py_ssize_t x_step, x_row, y_step, y_row, h_row, c_row
    char *x_block                    # workspace: gathered rows of x,
    char *z_block                    # their pre-activations,
    char *h_now                      # and the state of the running rows, padded to tiles
    char *h_next
    char *c_now
    Py_ssize_t z_width, h_width, c_width
    barrier meeting


cdef class Task:
    """One layer and direction, for the sequences of a `cylstm.batch.Batch`.

    Parameters
    ----------
    recurrence : Recurrence
    batch : Batch
    x, y : array, (T, N, I) and (T, N, R), each row contiguous
        Input, and output to write; only the rows of running sequences are touched.
    h, c : array, (n, R) and (n, H), each row contiguous
        The batch's state in its order: the initial one going in, the last coming out.
    """

    cdef task what
    cdef object alive  # what it points to

    def __init__(self, Recurrence r, batch, x, y, h, c):
        cdef:
            task *t = &self.what
            Packed weights = packed(r)
            Py_ssize_t most = batch.rows, rows, width = 4 * r.kernel.width
        t.equations, t.kernel, t.reverse = &r.equations, r.kernel, r.reverse
        t.weight_ih, t.weight_hh, t.weight_hr = (
            weights.weight_ih, weights.weight_hh, weights.weight_hr)
        t.projected = r.weight_hr != NULL
        t.itemsize = 8 if r.is_double else 4
        t.inputs, t.hidden, t.outputs = r.inputs, r.hidden, r.outputs
        t.steps, t.most = batch.steps if most else 0, most
        if batch.ragged and t.steps:
            t.sizes = <const Py_ssize_t *> data(batch.sizes)
            t.offsets = <const Py_ssize_t *> data(batch.offsets)
        t.order = <const Py_ssize_t *> data(batch.order) if most else NULL
        t.x, t.y = first_of(x), first_of(y)
        t.h, t.c = first_of(h), first_of(c)
        t.x_step, t.x_row = x.strides[0], x.strides[1]
        t.y_step, t.y_row = y.strides[0], y.strides[1]
        t.h_row, t.c_row = h.strides[0], c.strides[0]
        t.gather = batch.scattered or (most > 1 and t.x_step != most * t.x_row)
        if most == 1 and not t.gather:
            t.x_row = t.x_step
        t.z_width = t.weight_hh.tiles * width
        t.c_width = t.h_width = t.z_width // 4
        if t.projected:
            t.h_width = t.weight_hr.tiles * width
        t.block = max(1, min(t.steps, BLOCK_BYTES // max(1, t.z_width * t.itemsize * most)))
        rows = t.block * most
        work = aligned_empty(
            rows * t.z_width + most * (t.h_width + 2 * t.c_width)
            + (rows * t.inputs if t.gather else 0), np.float64 if r.is_double else np.float32)
        t.z_block = <char *> data(work) if len(work) else NULL
        t.h_now = t.z_block + rows * t.z_width * t.itemsize
        t.h_next = t.h_now + most * t.h_width * t.itemsize
        t.c_now = t.h_next + most * t.c_width * t.itemsize
        t.x_block = t.c_now + most * t.c_width * t.itemsize
        memset(&t.meeting, 0, sizeof(barrier))
        if len(work):
            memset(t.h_now, 0, most * (t.h_width + 2 * t.c_width) * t.itemsize)
        self.alive = (r, weights, batch.sizes if t.sizes != NULL else None,
                      batch.offsets if t.sizes != NULL else None, batch.order, x, y, h, c, work)


cdef char *first_of(array) except? NULL:
    """Where an array of any strides begins."""
    return <char *> <size_t> array.ctypes.data


def run_each(list tasks, int threads):
    """Run tasks that do not depend on each other, on up to so many threads."""
    cdef Py_ssize_t count = len(tasks), j
    cdef task **each
    cdef task *first
    if count == 1 or threads == 1:
        for one in tasks:
            first = &(<Task> one).what
            with nogil:
                run_task(first, 0, 1)
        return
    pointers = np.empty(count, np.intp)
    each = <task **> data(pointers)
    for j in range(count):
        each[j] = &(<Task> tasks[j]).what
    for j in prange(count, nogil=True, schedule="dynamic", chunksize=1, num_threads=threads):
        run_task(each[j], 0, 1)


def run_together(Task one, int threads):
    """Run one task on up to so many threads, which share out its hidden units."""
    cdef task *t = &one.what
    with nogil, parallel(num_threads=threads):
        run_task(t, threadid(), openmp.omp_get_num_threads())


# No Python from here on.


cdef inline Py_ssize_t size_at(const task *t, Py_ssize_t step) noexcept nogil:
    return t.most if t.sizes == NULL else t.sizes[step]


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


cdef inline void scatter_rows(const task *t, Py_ssize_t n, const char *rows, Py_ssize_t row,
                              char *y) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        memcpy(y + t.order[j] * t.y_row, rows + j * row, t.outputs * t.itemsize)


cdef void gather_rows(const task *t, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """x_block := the running rows of steps [first, last)."""
    cdef Py_ssize_t step, j, size = t.inputs * t.itemsize
    cdef char *to = t.x_block
    for step in range(first, last):
        for j in range(size_at(t, step)):
            memcpy(to, t.x + step * t.x_step + t.order[j] * t.x_row, size)
            to += size


cdef void change_running(const task *t, Py_ssize_t running, Py_ssize_t n,
                         char *h_now) noexcept nogil:
    """From `running` rows to n: take in the state of those that begin, give back the others'."""
    cdef:
        Py_ssize_t size = t.itemsize, h_row = t.h_width * size, c_row = t.c_width * size
        Py_ssize_t begin = min(running, n), count = max(running, n) - begin
        char *h = t.h + begin * t.h_row
        char *c = t.c + begin * t.c_row
        char *h_padded = h_now + begin * h_row
        char *c_padded = t.c_now + begin * c_row
    if n > running:
        copy_rows(count, t.outputs * size, h, t.h_row, h_padded, h_row)
        copy_rows(count, t.hidden * size, c, t.c_row, c_padded, c_row)
    else:
        copy_rows(count, t.outputs * size, h_padded, h_row, h, t.h_row)
        copy_rows(count, t.hidden * size, c_padded, c_row, c, t.c_row)


cdef void run_task(task *t, int member, int team) noexcept nogil:
    """A member's share of a task. Where the rows change or move, the first member does it."""
    cdef:
        Py_ssize_t tiles = t.weight_hh.tiles
        Py_ssize_t tile = member * tiles // team, end = (member + 1) * tiles // team
        Py_ssize_t number, first, last, position, step, n, running = 0
        const char *x
        Py_ssize_t x_row
        char *y
        char *h_now = t.h_now
        char *h_next = t.h_next
        packed_step s
    s.c = t.c_now
    s.y_rows = t.order
    s.z_row, s.h_row, s.c_row, s.y_row = t.z_width, t.h_width, t.c_width, t.y_row // t.itemsize
    for number in range((t.steps + t.block - 1) // t.block):
        first = number * t.block
        last = min(first + t.block, t.steps)
        if t.reverse:
            first, last = t.steps - last, t.steps - first
        x, x_row = t.x + first * t.x_step, t.x_row // t.itemsize
        if t.gather:
            if member == 0:
                gather_rows(t, first, last)
            cylstm_wait(&t.meeting, team)
            x, x_row = t.x_block, t.inputs
        t.kernel.multiply(&t.weight_ih, rows_between(t, first, last), x, x_row, t.z_block,
                          t.z_width, tile, end)
        for position in range(last - first):
            step = last - 1 - position if t.reverse else first + position
            n = size_at(t, step)
            if n != running:
                if member == 0:
                    change_running(t, running, n, h_now)
                cylstm_wait(&t.meeting, team)
                running = n
            y = t.y + step * t.y_step
            s.z = t.z_block + rows_between(t, first, step) * t.z_width * t.itemsize
            s.h, s.h_next, s.y = h_now, h_next, NULL if t.projected else y
            t.kernel.step(t.equations, &t.weight_hh, n, &s, tile, end)
            cylstm_wait(&t.meeting, team)
            if t.projected:
                if member == 0:
                    t.kernel.multiply(&t.weight_hr, n, h_next, t.c_width, h_now, t.h_width, 0,
                                      t.weight_hr.tiles)
                    scatter_rows(t, n, h_now, t.h_width * t.itemsize, y)
                cylstm_wait(&t.meeting, team)
            else:
                h_now, h_next = h_next, h_now
    if member == 0:
        change_running(t, running, 0, h_now)


# How many threads.

cdef int _chosen = 0  # by set_num_threads; 0 for none


def set_num_threads(n):
    """Set how many threads a call may use, for the whole process.

    Parameters
    ----------
    n : int
        From 1 up.

    Notes
    -----
    Until then it is what OpenMP would use: ``OMP_NUM_THREADS``, threadpoolctl's limits and the
    process's CPU affinity count. A call too small to gain from threads uses one. In a fork's child
    it is one.
    """
    global _chosen
    from cylstm.checks import whole

    _chosen = whole("n", n, 1)


def get_num_threads():
    """How many threads a call may use; see `set_num_threads`."""
    if cylstm_was_forked():
        return 1
    return _chosen or min(openmp.omp_get_max_threads(), _QUOTA)


def _quota():
    """The whole CPUs that this process's control group may use, as Linux tells (cgroup v2, v1)."""
    for name, period in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            with open(f"/sys/fs/cgroup/{name}") as file:
                quota = file.read().split()
            if period is not None:
                with open(f"/sys/fs/cgroup/{period}") as file:
                    quota += file.read().split()
            if int(quota[0]) > 0:
                return max(1, int(quota[0]) // int(quota[1]))
        except (OSError, ValueError, IndexError):
            continue
    return 2**31 - 1


cdef int _QUOTA = _quota()
