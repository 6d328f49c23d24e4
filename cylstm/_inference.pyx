"""The recurrence without a tape: packed weights, and threads.

The loop is that of `cylstm._sequence`, on sequences as they lie in the caller's arrays::

    h_t, c_t = step([x_t, h_{t-1}])      product and gate equations in one kernel
    h_t = h_t W_hr'                      with a projection

With few sequences the weights' way to the registers is what limits, and x's share of the product is
taken out of the loop, where a block of steps shares the weights::

    z_t = b + x_t W_ih'
    h_t, c_t = step(z_t, h_{t-1})

A task is one layer and direction for some of the batch's sequences. Threads take tasks each for
itself, a layer's close behind those of the layer before where there are too few in one; or all work
on one, where each has some of the hidden units and all meet after every step. None of it changes an
output's sum, so the bits do not depend on it.
"""

import os

cimport numpy as cnp
cimport openmp
from libc.limits cimport INT_MAX
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

import numpy as np

from cylstm._kernels cimport packed_matrix, packed_step, packing, step_tape
from cylstm._sequence cimport Recurrence, check_array, first_of

from cylstm._sequence import aligned_empty


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object o)

cdef extern from "team.h" nogil:
    void cylstm_run(int most, manner how, member_work work, void *arg)
    void cylstm_wait(barrier *b, int size)
    void cylstm_advance(progress *p, int done)
    void cylstm_await(progress *p, int least)
    void cylstm_watch_forks()

cnp.import_array()
cylstm_watch_forks()

PRODUCT = os.environ.get("CYLSTM_PRODUCT", "packed")
if PRODUCT not in ("packed", "blas"):
    raise ImportError(f"CYLSTM_PRODUCT: expected 'packed' or 'blas', got {PRODUCT!r}")

cdef enum:
    BLOCK_BYTES = 262144  # of pre-activations that are projected at once: a part of the L2 cache,
    LEAST_BLOCK = 96      # and rows: with fewer the input weights would be read too often
    LOCAL_BYTES = 16384   # of workspace that a small call has on the stack
    FUSED_ROWS = 4        # from which on a step takes x's share too, where for each row there are
    FUSED_BYTES = 524288  # at most so many bytes of weights, which come from far at each step
    IN_PLACE_BYTES = 2097152  # of W_ih, that backward takes as it is; more miss the cache too often


cdef class Packed:
    """A copy of a `Recurrence`'s parameters, packed. Nothing in it changes while a call has it."""


cdef list all_packed(Network net):
    """The weights for inference, all of one moment: to be kept until the tasks are done. While the
    parameters change it is the moment before, if they were packed then."""
    cdef Py_ssize_t whole = net.version.changes // 2 * 2
    cdef Packed made
    cdef list all_made = []
    for recurrence in net.recurrences:
        made = (<Recurrence> recurrence).packed.get(False)
        if made is None or made.changes != whole:
            break
        all_made.append(made)
    else:
        return all_made
    all_made = made = None  # else their memory could not be used again
    with net.store.reading():
        return [packed(net, recurrence, False) for recurrence in net.recurrences]


cdef Packed packed(Network net, Recurrence r, bint transposed):
    """Made at the first use, then shared by all threads and streams; made again, in the same memory
    if no call has it any more, when the parameters have changed. The caller reads the parameters.

    There is no lock that a fork could leave locked: threads that come at once may each make one.
    """
    cdef Packed made = r.packed.get(transposed)
    if made is not None and made.changes == net.version.changes:
        return made
    made = r.packed.pop(transposed, None)  # from here on no other thread finds it
    if made is None or Py_REFCNT(made) > 1:
        made = Packed()
        made.memory = []
    made.changes = net.version.changes
    copy_equations(r, made)
    if transposed:
        pack_transposes(r, made)
    else:
        pack_weights(r, made)
    r.packed[transposed] = made
    return made


cdef int copy_equations(Recurrence r, Packed made) except -1:
    """With peepholes of its own, the first of its memory."""
    made.equations = r.equations
    if r.equations.peephole != NULL:
        peephole = r.parameters["weight_p"]
        if not made.memory:
            made.memory.append(np.empty_like(peephole))
        memcpy(first_of(made.memory[0]), first_of(peephole), cnp.PyArray_NBYTES(peephole))
        made.equations.peephole = first_of(made.memory[0])
    return 0


cdef int pack_weights(Recurrence r, Packed made) except -1:
    """For x W_ih', h W_hh' and h W_hr'."""
    cdef packing how = packing(True, False, r.hidden, r.inputs, r.inputs, 1)
    cdef packing both = packing(True, False, r.hidden, r.inputs + r.outputs, 0, 0)
    if made.weights.weights == NULL:
        new_matrix(r, made.memory, &both, &made.weights)
        made.weight_ih = made.weight_hh = made.weights
        made.weight_ih.depth, made.weight_hh.depth = r.inputs, r.outputs
        made.weight_hh.bias = NULL
        made.weight_hh.weights = (<char *> made.weights.weights
                                  + r.inputs * made.weights.k_step * (8 if r.is_double else 4))
    r.kernel.pack(&how, r.weight_ih, r.bias, &made.weight_ih)
    how.depth = how.row_step = r.outputs
    r.kernel.pack(&how, r.weight_hh, NULL, &made.weight_hh)
    if r.weight_hr != NULL:
        how = packing(False, False, r.outputs, r.hidden, r.hidden, 1)
        pack_matrix(r, made.memory, r.weight_hr, &how, &made.weight_hr)
    return 0


cdef int pack_transposes(Recurrence r, Packed made) except -1:
    """For dz W_ih, dz W_hh and dh W_hr. W_ih serves as it is, if of whole tiles and not large:
    it is read for many rows at once."""
    cdef Py_ssize_t tile = 4 * r.kernel.width, depth = 4 * r.hidden
    if r.inputs % tile == 0 and r.parameters["weight_ih"].nbytes <= IN_PLACE_BYTES:
        made.weight_ih = packed_matrix(False, r.inputs // tile, depth, tile, r.inputs, r.weight_ih,
                                       NULL)
    else:
        pack_transpose(r, made.memory, r.weight_ih, depth, r.inputs, &made.weight_ih)
    pack_transpose(r, made.memory, r.weight_hh, depth, r.outputs, &made.weight_hh)
    if r.weight_hr != NULL:
        pack_transpose(r, made.memory, r.weight_hr, r.outputs, r.hidden, &made.weight_hr)
    return 0


cdef int pack_transpose(Recurrence r, list memory, const void *matrix, Py_ssize_t rows,
                        Py_ssize_t columns, packed_matrix *to) except -1:
    cdef bint narrow = columns <= 2 * r.kernel.width and rows % 4 == 0
    cdef packing how = packing(False, narrow, columns, rows, 1, columns)
    return pack_matrix(r, memory, matrix, &how, to)


cdef int pack_matrix(Recurrence r, list memory, const void *matrix, const packing *how,
                     packed_matrix *to) except -1:
    if to.weights == NULL:
        new_matrix(r, memory, how, to)
    r.kernel.pack(how, matrix, NULL, to)
    return 0


cdef int new_matrix(Recurrence r, list memory, const packing *how, packed_matrix *to) except -1:
    """Memory for packed weights, and for gates a bias."""
    cdef Py_ssize_t tile = (1 if how.narrow else 4) * r.kernel.width
    dtype = r.parameters["weight_ih"].dtype
    to.narrow, to.tiles, to.depth = how.narrow, r.kernel.packed_tiles(how), how.depth
    to.tile_step, to.k_step = how.depth * tile, tile
    weights = aligned_empty(to.tiles * to.tile_step, dtype)
    bias = aligned_empty(to.tiles * tile, dtype) if how.gated else None
    memory += [weights, bias]
    to.weights, to.bias = first_of(weights), first_of(bias)
    return 0


cdef int _process = 1  # one more in each child of a fork


def _after_in_child():
    global _process
    _process += 1


os.register_at_fork(after_in_child=_after_in_child)


cdef class Workspace:
    """Memory that a stream's steps compute in, as large as the last one wanted it; and whether one
    is under way."""

    cpdef int begin(self) except -1:
        """Before a step, or what else reads or changes the state."""
        if self.taken == _process:
            raise RuntimeError("stream: it is in use by another thread; give each thread its own")
        if self.taken:
            raise RuntimeError("stream: the process was forked amid a step, so its state is of "
                               "none; set it, or reset all of it")
        self.taken = _process
        return 0

    cpdef int end(self) except -1:
        """After it."""
        self.taken = 0
        return 0

    def forget_fork(self):
        """Before the whole state is set anew."""
        if self.taken != _process:
            self.taken = 0

    def __dealloc__(self):
        free(self.memory.memory)

    def __reduce__(self):
        return Workspace, ()

    cdef int grow(self, Py_ssize_t size) except -1:
        cdef void *memory = NULL
        if size <= self.memory.size:
            return 0
        if posix_memalign(&memory, 64, size):
            raise MemoryError(f"no memory for {size} bytes of workspace")
        free(self.memory.memory)
        self.memory.memory, self.memory.size = <char *> memory, size
        return 0


cdef class Network:
    """All layers and directions of an LSTM, for inference.

    Parameters
    ----------
    layers : list of list of Recurrence
        By layer and direction.
    batch_first : bool
    store : Parameters
        Of all of them.
    """

    def __init__(self, list layers, bint batch_first, store):
        cdef Recurrence r = layers[0][0]
        self.layers, self.batch_first = layers, batch_first
        self.recurrences = [r for directions in layers for r in directions]
        self.store, self.version = store, store.version
        self.typenum = cnp.NPY_DOUBLE if r.is_double else cnp.NPY_FLOAT
        self.itemsize = 8 if r.is_double else 4
        self.inputs, self.hidden, self.outputs = r.inputs, r.hidden, r.outputs
        self.directions = len(layers[0])
        self.states = len(layers) * self.directions

    def run(self, x, y, h, c, batch):
        """Any batch, in any layout whose rows are contiguous.

        Parameters
        ----------
        x, y : array, (T, N, I) and (T, N, D R)
            Input, and output to write; only the rows of running sequences are touched. They may be
            one memory if they are one array.
        h, c : array, (L D, N, R) and (L D, N, H), C-contiguous
            The state in the order of `batch`: the initial one going in, the last coming out.
        batch : Batch
        """
        cdef layout lies = full_batch(batch.steps, batch.rows)
        check_batch(batch)
        check_rows(x, self.typenum, lies.steps, lies.rows, self.inputs)
        check_rows(y, self.typenum, lies.steps, lies.rows, self.directions * self.outputs)
        check_array(h, self.typenum, self.states * lies.rows * self.outputs)
        check_array(c, self.typenum, self.states * lies.rows * self.hidden)
        sizes, order = (batch.sizes, batch.order) if batch.ragged else (None, None)
        lies.sizes = <const Py_ssize_t *> first_of(sizes)
        lies.order = <const Py_ssize_t *> first_of(order)
        run_layers(self, None, &lies, first_of(x), x.strides[0], x.strides[1],
                   first_of(y), y.strides[0], y.strides[1], first_of(h), first_of(c))

    def forward(self, Py_ssize_t layer, x, y, h, c, batch, tapes):
        """One layer with a tape, over packed rows: x (S, D' R), y (S, D R).

        Parameters
        ----------
        h, c : array
            Of the layer's directions; as in `run`.
        tapes : list of array
            Each direction's to write, from `Recurrence.new_tape`. A direction without is not run.
        """
        cdef layout lies = full_batch(batch.steps, batch.rows)
        cdef Py_ssize_t d, rows, width = self.outputs * self.itemsize
        cdef work w
        cdef arena memory, empty
        cdef Recurrence r = self.layers[layer][0]
        check_batch(batch)
        rows = batch.count
        check_array(x, self.typenum, rows * r.inputs)
        check_array(y, self.typenum, rows * self.directions * self.outputs)
        for d in range(self.directions):
            if tapes[d] is not None:
                check_array(tapes[d], self.typenum, 6 * rows * self.hidden)
                check_array(h[d], self.typenum, lies.rows * self.outputs)
                check_array(c[d], self.typenum, lies.rows * self.hidden)
        sizes, offsets = (batch.sizes, batch.offsets) if batch.ragged else (None, None)
        lies.sizes = <const Py_ssize_t *> first_of(sizes)
        lies.begins = <const Py_ssize_t *> first_of(offsets)
        if lies.steps < 1 or lies.rows < 1:
            return
        memset(&empty, 0, sizeof(arena))
        memset(&w, 0, sizeof(work))
        memory, w.memory = empty, &memory
        try:
            divide(self, &lies, self.directions, &w)
            weights = [packed(self, r, False) for r in self.layers[layer]]
            for d in range(self.directions):
                if tapes[d] is None:
                    continue
                r = self.layers[layer][d]
                w.tape = tape_of(r, tapes[d], rows)
                add_tasks(&w, r, weights[d], &lies, first_of(x), lies.rows * x.strides[0],
                          x.strides[0], first_of(y) + d * width, lies.rows * y.strides[0],
                          y.strides[0], first_of(h[d]), first_of(c[d]))
            with nogil:
                run_tasks(&w)
        finally:
            arena_return(&memory, &empty)

    cpdef tuple zero_state(self, Py_ssize_t rows, int rank=3):
        """h (L D, N, R) and c (L D, N, H); of rank 2 they are without N."""
        cdef cnp.npy_intp shape[3]
        shape[0], shape[1] = self.states, rows
        shape[rank - 1] = self.outputs
        h = cnp.PyArray_ZEROS(rank, shape, self.typenum, 0)
        shape[rank - 1] = self.hidden
        return h, cnp.PyArray_ZEROS(rank, shape, self.typenum, 0)

    cpdef bint is_input(self, x):
        """Whether x is an array (T, N, I), (N, T, I) or (T, I) that needs no conversion."""
        cdef int rank
        if not is_plain(x, self.typenum):
            return False
        rank = cnp.PyArray_NDIM(x)
        return (2 <= rank <= 3 and cnp.PyArray_DIM(x, rank - 1) == self.inputs
                and cnp.PyArray_SIZE(x) // self.inputs <= INT_MAX)

    def call(self, x):
        """The commonest case of all, fast: `x` an array that needs no conversion, zero states.

        Returns
        -------
        y, (h_n, c_n)
            None where x is not so: then the call must go through the checks and `run`.
        """
        cdef layout lies
        cdef cnp.npy_intp *shape
        cdef cnp.npy_intp wide[3]
        cdef int rank
        cdef Py_ssize_t x_row = self.inputs * self.itemsize
        cdef Py_ssize_t y_row = self.directions * self.outputs * self.itemsize
        if not self.is_input(x):
            return None
        rank, shape = cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x)
        lies = full_batch(shape[0], shape[1] if rank == 3 else 1)
        if self.batch_first and rank == 3:
            lies.steps, lies.rows = lies.rows, lies.steps
        if lies.steps < 1 or lies.rows < 1:
            return None
        wide[0], wide[1] = shape[0], shape[1]
        wide[rank - 1] = self.directions * self.outputs
        y = cnp.PyArray_EMPTY(rank, wide, self.typenum, 0)
        state = self.zero_state(lies.rows, rank)
        h, c = state
        if self.batch_first and rank == 3:
            run_layers(self, None, &lies, cnp.PyArray_BYTES(x), x_row, x_row * lies.steps,
                       cnp.PyArray_BYTES(y), y_row, y_row * lies.steps,
                       cnp.PyArray_BYTES(h), cnp.PyArray_BYTES(c))
        else:
            run_layers(self, None, &lies, cnp.PyArray_BYTES(x), x_row * lies.rows, x_row,
                       cnp.PyArray_BYTES(y), y_row * lies.rows, y_row,
                       cnp.PyArray_BYTES(h), cnp.PyArray_BYTES(c))
        return y, state

    def step(self, x, out, h, c, Workspace workspace):
        """One step of a stream, fast: x (N, I), or (I,) where N is 1; h, c as in `run`.

        The workspace is the stream's: from its second step on nothing is allocated.

        Returns
        -------
        y : array, (N, R) or (R,)
            `out` where it was given; None where x or out need conversion or are wrong.
        """
        cdef layout lies
        cdef cnp.npy_intp wide[2]
        cdef int rank
        if not is_plain(x, self.typenum):
            return None
        rank = cnp.PyArray_NDIM(x)
        lies = full_batch(1, cnp.PyArray_DIM(h, 1))
        if lies.rows < 1 or not 1 <= rank <= 2 or cnp.PyArray_DIM(x, rank - 1) != self.inputs:
            return None
        if (cnp.PyArray_DIM(x, 0) if rank == 2 else 1) != lies.rows:
            return None
        wide[0], wide[rank - 1] = lies.rows, self.outputs
        if out is None:
            out = cnp.PyArray_EMPTY(rank, wide, self.typenum, 0)
        elif not (is_plain(out, self.typenum) and cnp.PyArray_ISWRITEABLE(out)
                  and cnp.PyArray_NDIM(out) == rank and not overlap(x, out)
                  and cnp.PyArray_CompareLists(cnp.PyArray_DIMS(out), wide, rank)):
            return None
        check_array(h, self.typenum, self.states * lies.rows * self.outputs)
        check_array(c, self.typenum, self.states * lies.rows * self.hidden)
        workspace.begin()
        lies.down = workspace.down
        workspace.down = not workspace.down
        try:
            run_layers(self, workspace, &lies, cnp.PyArray_BYTES(x), 0, self.inputs * self.itemsize,
                       cnp.PyArray_BYTES(out), 0, self.outputs * self.itemsize,
                       cnp.PyArray_BYTES(h), cnp.PyArray_BYTES(c))
        finally:
            workspace.end()
        return out


cdef inline bint is_plain(x, int typenum) noexcept:
    """Whether x is an array of this dtype, C-contiguous, aligned and in native byte order."""
    return (cnp.PyArray_CheckExact(x) and cnp.PyArray_TYPE(x) == typenum
            and cnp.PyArray_ISCARRAY_RO(x))


cdef int check_rows(array, int typenum, Py_ssize_t steps, Py_ssize_t rows,
                    Py_ssize_t width) except -1:
    """As `check_array`, of (T, N, F) in any layout whose rows are contiguous."""
    if not (isinstance(array, cnp.ndarray) and cnp.PyArray_TYPE(array) == typenum
            and cnp.PyArray_NDIM(array) == 3 and cnp.PyArray_DIM(array, 0) >= steps
            and cnp.PyArray_DIM(array, 1) == rows and cnp.PyArray_DIM(array, 2) == width
            and (width == 1 or cnp.PyArray_SIZE(array) == 0
                 or cnp.PyArray_STRIDE(array, 2) == cnp.PyArray_ITEMSIZE(array))):
        raise ValueError(f"expected rows ({steps}, {rows}, {width}) of the LSTM's dtype")
    return 0


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


cdef inline bint overlap(a, b) noexcept:
    """Whether two contiguous arrays share memory."""
    cdef char *first = cnp.PyArray_BYTES(a)
    cdef char *second = cnp.PyArray_BYTES(b)
    return first < second + cnp.PyArray_NBYTES(b) and second < first + cnp.PyArray_NBYTES(a)


cdef int run_layers(Network net, Workspace workspace, const layout *b, const char *x,
                    Py_ssize_t x_step, Py_ssize_t x_row, char *y, Py_ssize_t y_step,
                    Py_ssize_t y_row, char *h, char *c) except -1:
    """All layers, from x to y, in the workspace or, for None, in memory for this call. Strides in
    bytes."""
    cdef char local[LOCAL_BYTES + 64]
    cdef arena memory, empty
    memset(&empty, 0, sizeof(arena))
    memory = empty
    if workspace is not None:
        memory = workspace.memory
    else:
        memory.memory, memory.size = local + (-<Py_ssize_t> local & 63), LOCAL_BYTES
    try:
        return run_layers_in(&memory, net, b, x, x_step, x_row, y, y_step, y_row, h, c)
    finally:
        if workspace is not None:
            workspace.grow(memory.peak)
        arena_return(&memory, &empty)


cdef int run_layers_in(arena *memory, Network net, const layout *b, const char *x,
                       Py_ssize_t x_step, Py_ssize_t x_row, char *y, Py_ssize_t y_step,
                       Py_ssize_t y_row, char *h, char *c) except -1:
    """The layers between write where the last one will, since a layer has read a step before it
    writes it. Not so with two directions: then they take turns with a second memory.
    """
    cdef:
        Py_ssize_t layers = len(net.layers), layer, d, k, size = net.itemsize
        Py_ssize_t width = net.outputs * size, spare_row = net.directions * width
        Py_ssize_t h_size = b.rows * width, c_size = b.rows * net.hidden * size
        char *spare = NULL
        char *to
        Py_ssize_t to_step, to_row
        arena before
        work w
        Recurrence r
    if b.steps < 1 or b.rows < 1:
        return 0
    memset(&w, 0, sizeof(work))
    w.memory = memory
    divide(net, b, net.directions, &w)
    chain_layers(net, b, &w)
    weights = all_packed(net)
    if net.directions > 1 and layers > 1:
        spare = take(memory, b.steps * b.rows * spare_row)
    before = memory[0]
    for layer in range(layers):
        to, to_step, to_row = y, y_step, y_row
        if spare != NULL and (layers - 1 - layer) % 2:
            to, to_step, to_row = spare, b.rows * spare_row, spare_row
        for d in range(net.directions):
            r = net.layers[layer][d]
            k = layer * net.directions + d
            add_tasks(&w, r, weights[k], b, x, x_step, x_row, to + d * width, to_step, to_row,
                      h + k * h_size, c + k * c_size)
        x, x_step, x_row = to, to_step, to_row
        if layer + 1 < layers and w.block > 0:
            continue
        if w.small:
            run_tasks(&w)
        else:
            with nogil:
                run_tasks(&w)
        w.count = 0
        if layer + 1 < layers:
            arena_return(memory, &before)
    return 0


cdef step_tape tape_of(Recurrence r, array, Py_ssize_t rows) noexcept:
    """A tape's arrays, from the first row on."""
    cdef step_tape tape
    cdef Py_ssize_t size = rows * r.hidden * (8 if r.is_double else 4)
    tape.gates = first_of(array)
    tape.c, tape.tanh_c = <char *> tape.gates + 4 * size, <char *> tape.gates + 5 * size
    tape.gates_row, tape.c_row = 4 * r.hidden, r.hidden
    return tape


cdef char *take(arena *memory, Py_ssize_t size) except NULL:
    cdef void *taken = arena_take(memory, size)
    if taken == NULL:
        raise MemoryError(f"no memory for {size} bytes of workspace")
    return <char *> taken


cdef enum:
    SMALL = 100_000             # multiply-adds: a few microseconds
    ENOUGH = 250_000            # that are worth another thread
    ENOUGH_IN_A_STEP = 80_000   # that are worth a meeting after each step
    MOST_FOR_A_CPU = 4          # threads
    ROWS_OF_ONE = 4             # as many sequences keep a thread busy without sharing units
    CHAIN_STEPS = 8             # after which the next layer follows; more in longer sequences,
    CHAIN_PARTS = 16            # of which it waits for such a part


cdef int divide(Network net, const layout *b, Py_ssize_t directions, work *w) except -1:
    """How many threads and shares, by the work of a layer; and the shares' rows."""
    cdef:
        Recurrence r = net.layers[len(net.layers) - 1][0]
        double step = 4.0 * r.hidden * (r.inputs + r.outputs)
        Py_ssize_t share, t, j, n, at = 0
    w.total = step * b.steps * b.rows * directions
    w.threads = useful_threads(w.total)
    w.small = w.total * len(net.layers) < SMALL
    w.shares = 1
    if w.threads > directions and (b.rows >= ROWS_OF_ONE * w.threads
                                   or step * b.rows < ENOUGH_IN_A_STEP):
        w.shares = min(w.threads, b.rows)
    if step * b.rows < ENOUGH_IN_A_STEP or w.shares > 1:
        w.threads = min(w.threads, w.shares * directions)
    w.tasks = <task *> take(w.memory, w.shares * directions * sizeof(task))
    w.order = <Py_ssize_t *> take(w.memory, b.rows * sizeof(Py_ssize_t))
    for share in range(w.shares):
        for j in range(share_of(b.rows, share, w.shares)):
            n = share + j * w.shares
            w.order[at] = b.order[n] if b.order != NULL else n
            at += 1
    if b.sizes == NULL:
        return 0
    w.sizes = <Py_ssize_t *> take(w.memory, w.shares * b.steps * sizeof(Py_ssize_t))
    w.offsets = <Py_ssize_t *> take(w.memory, w.shares * (b.steps + 1) * sizeof(Py_ssize_t))
    for share in range(w.shares):
        at = 0
        for t in range(b.steps):
            n = share_of(b.sizes[t], share, w.shares)
            w.sizes[share * b.steps + t] = n
            w.offsets[share * (b.steps + 1) + t] = at
            at += n
        w.offsets[share * (b.steps + 1) + b.steps] = at
    return 0


cdef int chain_layers(Network net, const layout *b, work *w) except -1:
    """Let each layer follow the one before, a few steps behind, where threads lack work."""
    cdef Py_ssize_t layers = len(net.layers)
    cdef int threads
    if (net.directions > 1 or layers == 1 or b.steps < 2 * CHAIN_STEPS
            or w.threads > w.shares):
        return 0
    threads = <int> min(useful_threads(w.total * layers), w.shares * layers)
    if threads <= w.threads:
        return 0
    w.threads, w.block = threads, max(CHAIN_STEPS, b.steps // CHAIN_PARTS)
    w.tasks = <task *> take(w.memory, w.shares * layers * sizeof(task))
    return 0


cdef int add_tasks(work *w, Recurrence r, Packed weights, const layout *b, const char *x,
                   Py_ssize_t x_step, Py_ssize_t x_row, char *y, Py_ssize_t y_step,
                   Py_ssize_t y_row, char *h, char *c) except -1:
    """The tasks of one layer and direction; h, c are its [rows, R] and [rows, H]."""
    cdef Py_ssize_t share, first = 0
    cdef task *t
    for share in range(w.shares):
        t = &w.tasks[w.count]
        memset(t, 0, sizeof(task))
        w.count += 1
        t.equations, t.kernel, t.reverse = &weights.equations, r.kernel, r.reverse
        t.weights, t.weight_ih, t.weight_hr = (
            weights.weights, weights.weight_ih, weights.weight_hr)
        t.projected = r.weight_hr != NULL
        t.itemsize = 8 if r.is_double else 4
        t.inputs, t.hidden, t.outputs = r.inputs, r.hidden, r.outputs
        t.steps, t.rows, t.most = b.steps, b.rows, share_of(b.rows, share, w.shares)
        t.begins, t.tape, t.down = b.begins, w.tape, b.down
        t.order = w.order + first
        first += t.most
        if b.sizes != NULL:
            t.sizes = w.sizes + share * b.steps
            t.offsets = w.offsets + share * (b.steps + 1)
        t.x, t.x_step, t.x_row = x, x_step, x_row
        t.y, t.y_step, t.y_row = y, y_step, y_row
        t.h_row = w.shares * r.outputs * t.itemsize
        t.c_row = w.shares * r.hidden * t.itemsize
        t.h, t.c = h + share * t.h_row // w.shares, c + share * t.c_row // w.shares
        t.followed = w.block > 0
        t.block = w.block if t.followed else b.steps
        if t.followed and w.count > w.shares:
            t.source = &(t - w.shares).finished
        t.fused = not t.followed and is_fused(t)
        if not t.fused:
            t.weights = weights.weight_hh
        # Rows of x at equal distances through all steps are read where they lie.
        t.gather = not t.fused and (w.shares > 1 or (b.begins == NULL and (
            b.sizes != NULL or (b.rows > 1 and x_step != b.rows * x_row))))
        if not (t.gather or t.fused) and b.rows == 1 and b.begins == NULL:
            t.x_row = x_step
        add_workspace(t, w.memory)
    return 0


cdef bint is_fused(const task *t) noexcept nogil:
    """Whether a step's product takes x's share: it saves a way through memory, and costs one of the
    input weights at each step."""
    cdef Py_ssize_t rows = rows_between(t, 0, t.steps) // t.steps
    cdef Py_ssize_t weights = t.weights.tiles * t.weights.tile_step * t.itemsize
    return t.steps == 1 or (rows >= FUSED_ROWS and weights // rows <= FUSED_BYTES)


cdef int add_workspace(task *t, arena *memory) except -1:
    cdef:
        Py_ssize_t width = t.kernel.width, tiles = t.weights.tiles, size = t.itemsize
        Py_ssize_t most, rows, state
    t.z_width = row_width(4 * tiles * width, size)
    t.c_width = row_width(tiles * width, size)
    t.h_at = (t.inputs + width - 1) // width * width if t.fused else 0
    t.v_width = row_width(t.h_at + max(tiles, 4 * t.weight_hr.tiles) * width, size)
    most = max(LEAST_BLOCK, BLOCK_BYTES // (t.z_width * size))
    t.block = t.steps if t.fused else max(1, min(t.block, most // t.most))
    rows = 0 if t.fused else t.block * t.most
    state = t.most * (2 * t.v_width + 2 * t.c_width)
    t.v_now = take(
        memory, (state + rows * (t.z_width + (t.inputs if t.gather else 0))) * size)
    t.v_next = t.v_now + t.most * t.v_width * size
    t.c_now = t.v_next + t.most * t.v_width * size
    t.unprojected = t.c_now + t.most * t.c_width * size
    t.z_block = t.unprojected + t.most * t.c_width * size
    t.x_block = t.z_block + rows * t.z_width * size
    memset(t.v_now, 0, state * size)
    return 0


cdef Py_ssize_t row_width(Py_ssize_t width, Py_ssize_t size) noexcept:
    """A row's length, off the powers of two at which rows compete for a place in the cache."""
    return width + 64 // size if width * size % 1024 == 0 else width


# No Python from here on.


cdef inline Py_ssize_t size_at(const task *t, Py_ssize_t step) noexcept nogil:
    return t.most if t.sizes == NULL else t.sizes[step]


cdef inline const char *x_at(const task *t, Py_ssize_t step) noexcept nogil:
    return t.x + (t.begins[step] * t.x_row if t.begins != NULL else step * t.x_step)


cdef inline Py_ssize_t rows_between(const task *t, Py_ssize_t first,
                                    Py_ssize_t last) noexcept nogil:
    """How many rows the steps [first, last) have."""
    if t.sizes == NULL:
        return (last - first) * t.most
    return t.offsets[last] - t.offsets[first]


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
            memcpy(to, x_at(t, step) + t.order[j] * t.x_row, size)
            to += size


cdef inline step_tape tape_at(const task *t, Py_ssize_t step) noexcept nogil:
    """A step's rows of the tape: those of its share lie as far apart as there are shares."""
    cdef Py_ssize_t row = t.order[0] + (t.begins[step] if t.begins != NULL else step * t.rows)
    cdef Py_ssize_t shares = t.h_row // (t.outputs * t.itemsize)
    cdef step_tape tape = tape_from(t.tape, row, t.itemsize)
    tape.gates_row *= shares
    tape.c_row *= shares
    return tape


cdef inline void take_x(const task *t, Py_ssize_t step, char *v, int member,
                        int team) noexcept nogil:
    """A member's share of the running rows' x_t into v, where it ends before h."""
    cdef Py_ssize_t j, n = size_at(t, step), size = t.itemsize
    v += (t.h_at - t.inputs) * size
    for j in range(n * member // team, n * (member + 1) // team):
        memcpy(v + j * t.v_width * size, x_at(t, step) + t.order[j] * t.x_row, t.inputs * size)


cdef void project(const task *t, Py_ssize_t first, Py_ssize_t last, Py_ssize_t tile,
                  Py_ssize_t end) noexcept nogil:
    """z_block := x's share of the pre-activations: steps [first, last), tiles [tile, end)."""
    cdef const char *x = <const char *> t.x_block if t.gather else x_at(t, first)
    cdef Py_ssize_t x_row = t.inputs if t.gather else t.x_row // t.itemsize
    t.kernel.multiply(&t.weight_ih, rows_between(t, first, last), x, x_row, t.z_block, t.z_width,
                      tile, end, False, False)


cdef void change_running(const task *t, Py_ssize_t running, Py_ssize_t n,
                         char *v_now) noexcept nogil:
    """From `running` rows to n: take in the state of those that begin, give back the others'."""
    cdef:
        Py_ssize_t size = t.itemsize, v_row = t.v_width * size, c_row = t.c_width * size
        Py_ssize_t begin = min(running, n), count = max(running, n) - begin
        char *h = t.h + begin * t.h_row
        char *c = t.c + begin * t.c_row
        char *h_padded = v_now + t.h_at * size + begin * v_row
        char *c_padded = t.c_now + begin * c_row
    if n > running:
        copy_rows(count, t.outputs * size, h, t.h_row, h_padded, v_row)
        copy_rows(count, t.hidden * size, c, t.c_row, c_padded, c_row)
    else:
        copy_rows(count, t.outputs * size, h_padded, v_row, h, t.h_row)
        copy_rows(count, t.hidden * size, c_padded, c_row, c, t.c_row)


cdef void run_team(int most, manner how, member_work work, void *arg) noexcept nogil:
    """For other modules too: a process has one set of threads."""
    cylstm_run(most, how, work, arg)


cdef void wait_for_team(barrier *b, int size) noexcept nogil:
    cylstm_wait(b, size)


cdef void run_tasks(work *w) noexcept nogil:
    """All tasks, by threads that take one each, or that all work on each in turn."""
    cdef Py_ssize_t j
    if w.threads > w.count:
        for j in range(w.count):
            cylstm_run(min(w.threads, w.tasks[j].weights.tiles), MEET, run_member, &w.tasks[j])
    elif w.threads > 1:
        memset(&w.next, 0, sizeof(counter))
        cylstm_run(w.threads, TAKE, take_tasks, w)
    else:
        for j in range(w.count):
            run_task(&w.tasks[j], 0, 1)


cdef void run_member(void *t, int member, int team) noexcept nogil:
    run_task(<task *> t, member, team)


cdef void take_tasks(void *given, int member, int team) noexcept nogil:
    cdef work *w = <work *> given
    cdef int j = cylstm_next(&w.next)
    while j < w.count:
        run_task(&w.tasks[j], 0, 1)
        j = cylstm_next(&w.next)


cdef void run_task(task *t, int member, int team) noexcept nogil:
    """A member's share of a task. Where the rows change or move, the first member does it."""
    cdef:
        Py_ssize_t tiles = t.weights.tiles, size = t.itemsize, h_at = t.h_at * size
        Py_ssize_t tile = member * tiles // team, end = (member + 1) * tiles // team
        Py_ssize_t number, first, last, position, step, n, running = 0
        char *y
        char *v_now = t.v_now
        char *v_next = t.v_next
        step_tape tape
        packed_step s
    s.z, s.c, s.y_rows, s.tape = NULL, t.c_now, t.order, NULL
    s.v_row, s.z_row, s.c_row, s.y_row = t.v_width, t.z_width, t.c_width, t.y_row // size
    s.h_row = t.c_width if t.projected else t.v_width
    if t.fused:
        take_x(t, t.steps - 1 if t.reverse else 0, v_now, member, team)
    for number in range((t.steps + t.block - 1) // t.block):
        first = number * t.block
        last = min(first + t.block, t.steps)
        if t.source != NULL:
            cylstm_await(t.source, last)
        if t.reverse:
            first, last = t.steps - last, t.steps - first
        if not t.fused:
            if t.gather:
                if member == 0:
                    gather_rows(t, first, last)
                cylstm_wait(&t.meeting, team)
            project(t, first, last, tile, end)
        cylstm_wait(&t.meeting, team)  # y may be where x is: all have read before one writes
        for position in range(last - first):
            step = last - 1 - position if t.reverse else first + position
            n = size_at(t, step)
            if n != running:
                if member == 0:
                    change_running(t, running, n, v_now)
                cylstm_wait(&t.meeting, team)
                running = n
            y = t.y + (t.begins[step] * t.y_row if t.begins != NULL else step * t.y_step)
            if t.fused:
                s.v = v_now + h_at - t.inputs * size
            else:
                s.v = v_now
                s.z = t.z_block + rows_between(t, first, step) * t.z_width * size
            s.h = t.unprojected if t.projected else v_next + h_at
            s.y = NULL if t.projected else y
            if t.tape.gates != NULL:
                tape = tape_at(t, step)
                s.tape = &tape
            s.down = t.down ^ (first + position) % 2
            t.kernel.step(t.equations, &t.weights, n, &s, tile, end)
            if t.fused and position + 1 < last - first:
                take_x(t, step - 1 if t.reverse else step + 1, v_next, member, team)
            cylstm_wait(&t.meeting, team)
            if t.projected:
                if member == 0:
                    t.kernel.multiply(&t.weight_hr, n, t.unprojected, t.c_width, v_next + h_at,
                                      t.v_width, 0, t.weight_hr.tiles, s.down, False)
                    scatter_rows(t, n, v_next + h_at, t.v_width * size, y)
                cylstm_wait(&t.meeting, team)
            v_now, v_next = v_next, v_now
        if t.followed:
            cylstm_advance(&t.finished, t.steps - first if t.reverse else last)
    if member == 0:
        change_running(t, running, 0, v_now)


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
    process's CPU affinity count. A call too small to gain from threads uses one; calls at once
    share as many.
    """
    global _chosen
    from cylstm.checks import whole

    _chosen = whole("n", n, 1)


def get_num_threads():
    """How many threads a call may use; see `set_num_threads`."""
    return _num_threads()


cdef int _num_threads() noexcept:
    return _chosen or min(openmp.omp_get_max_threads(), _QUOTA)


cdef int useful_threads(double total) noexcept:
    """As many as the work is worth; far more than there are CPUs would only wait for each other."""
    cdef int threads
    if total < 2 * ENOUGH:
        return 1
    threads = _num_threads()
    if threads > MOST_FOR_A_CPU:  # else no need to ask the system, which takes longer than a step
        threads = min(threads, MOST_FOR_A_CPU * openmp.omp_get_num_procs())
    return max(1, <int> min(<double> threads, total / ENOUGH))


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
