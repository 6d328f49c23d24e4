"""The doors to the recurrence: a call, a stream's step, any batch, and the training passes."""

cimport numpy as cnp
from libc.limits cimport INT_MAX
from libc.string cimport memset

import numpy as np

from cylstm.core.backward cimport run_backward
from cylstm.core.cell cimport Cell
from cylstm.core.forward cimport run_tasks
from cylstm.core.lookup cimport (
    Tables,
    check_ids,
    fill,
    is_filled,
    new_tables,
    tables_of,
)
from cylstm.core.memory cimport (
    Spare,
    arena,
    check_array,
    end_arena,
    enough,
    first_of,
    is_plain,
    take,
)
from cylstm.core.passing cimport passing
from cylstm.core.plan cimport (
    add_tasks,
    check_batch,
    divide,
    full_batch,
    layout,
    tape_of,
    work,
    work_of_step,
)
from cylstm.core.stack cimport is_small, run_stack, stack
from cylstm.core.weights cimport (
    Kept,
    Packed,
    all_packed,
    changes_of,
    cylstm_find,
    packed,
    point_to,
    ready_of,
    runnable,
)
from cylstm.core.workspace cimport Workspace

cnp.import_array()

cdef enum:
    LOCAL_BYTES = 16384  # of workspace that a small call has on the stack
    TABLE_BYTES = 33554432  # of x's share of the pre-activations, for all vectors that x may be


cdef class Network:
    """All layers and directions of an LSTM, or of another kind of cell: then c is None.

    Parameters
    ----------
    layers : list of list of Cell
        By layer and direction.
    batch_first : bool
    store : Parameters
        Of all of them.
    """

    def __init__(self, list layers, bint batch_first, store):
        cdef Cell r = layers[0][0]
        self.layers, self.batch_first = layers, batch_first
        self.kept, self.spare = {}, Spare()
        self.cells = [r for directions in layers for r in directions]
        self.store, self.version = store, store.version
        self.typenum = cnp.NPY_DOUBLE if r.is_double else cnp.NPY_FLOAT
        self.itemsize = 8 if r.is_double else 4
        self.inputs, self.hidden, self.outputs = r.inputs, r.hidden, r.outputs
        self.directions = len(layers[0])
        self.states = len(layers) * self.directions
        self.has_c = r.sums.has_c

    @property
    def may_look_up(self):
        """Whether x can be rows of `Tables`."""
        return not (<Cell> self.cells[0]).kernel.flat

    def tables(self, vectors):
        """`Tables` for an x that is one of the vectors (K, I) at each step.

        The caller reads the parameters.
        """
        return tables_of(self.packed_layer(0), vectors)

    def tables_for(self, x):
        """Those of a `LookedUp`, with the rows that it wants; None if they would be too large, or
        it is no input.

        They are kept until parameters or vectors change. The caller reads both.
        """
        cdef Cell r = self.cells[0]
        cdef Tables tables
        if not x.has_steps:
            return None
        weights = self.packed_layer(0)
        of = x.version, x.version.changes, self.version.changes
        kept = cylstm_find(self.kept, "tables")
        if kept is not None and kept[0] == of:
            tables = kept[1]
        else:
            each = r.sums.sums * self.hidden * self.itemsize * self.directions
            if not self.may_look_up or each * len(x.vectors) > TABLE_BYTES:
                return None
            tables = new_tables(weights, len(x.vectors))
            self.kept["tables"] = of, tables
        fill(tables, weights, x.vectors, x.ids)
        return tables

    def run(self, x, y, h, c, batch, starts=None, Tables tables=None):
        """Any batch, in any layout whose rows are contiguous.

        Parameters
        ----------
        x, y : array, (T, N, I) and (T, N, D R)
            Input, and output to write; only the rows of running sequences are touched. They may be
            one memory if they are one array.
        h, c : array, (L D, N, R) and (L D, N, H), C-contiguous
            The state in the order of `batch`: the initial one going in, the last coming out.
        batch : Batch
        starts : array of bool, (D, T, N), optional
            Whether, in the order in which a direction reads, a state starts from zero at a step.
        tables : Tables, optional
            Then x is intp (T, N, 1), rows of these.
        """
        cdef layout lies = full_batch(batch.steps, batch.rows)
        check_batch(batch)
        if tables is not None:
            check_ids(tables.rows, x)
            check_rows(x, cnp.NPY_INTP, lies.steps, lies.rows, 1)
        else:
            check_rows(x, self.typenum, lies.steps, lies.rows, self.inputs)
        check_rows(y, self.typenum, lies.steps, lies.rows, self.directions * self.outputs)
        self.check_state(h, c, self.states, lies.rows)
        sizes, order = (batch.sizes, batch.order) if batch.ragged else (None, None)
        lies.sizes = <const Py_ssize_t *> first_of(sizes)
        lies.order = <const Py_ssize_t *> first_of(order)
        if starts is not None:
            lies.starts_each = len(starts[0]) * lies.rows
            if len(starts[0]) < lies.steps:
                raise ValueError("starts: expected as many steps as x has")
            check_array(starts, cnp.NPY_BOOL, self.directions * lies.starts_each)
            lies.starts = first_of(starts)
        run_layers(self, None, tables, &lies, first_of(x), x.strides[0], x.strides[1],
                   first_of(y), y.strides[0], y.strides[1], first_of(h), first_of(c))

    def forward(self, Py_ssize_t layer, x, y, h, c, batch, tapes, starts=None,
                Tables tables=None):
        """One layer with a tape, over packed rows: x (S, D' R), y (S, D R).

        Parameters
        ----------
        h, c : array
            Of the layer's directions; as in `run`.
        tapes : list of array
            Each direction's to write, from `Cell.new_tape`. A direction without is not run.
        starts : array of bool, (D, S), optional
            As of `run`, of these rows.
        tables : Tables, optional
            Then x is intp (S, 1), rows of these.
        """
        cdef layout lies = full_batch(batch.steps, batch.rows)
        cdef Py_ssize_t d, rows, width = self.outputs * self.itemsize
        cdef work w
        cdef arena memory
        cdef Cell r = self.layers[layer][0]
        check_batch(batch)
        rows = batch.count
        if tables is not None:
            check_array(x, cnp.NPY_INTP, rows)
            check_ids(tables.rows, x[:, None])
        else:
            check_array(x, self.typenum, rows * r.inputs)
        check_array(y, self.typenum, rows * self.directions * self.outputs)
        for d in range(self.directions):
            if tapes[d] is not None:
                check_array(tapes[d], self.typenum, r.sums.taped * rows * self.hidden)
                self.check_state(h[d], None if c is None else c[d], 1, lies.rows)
        sizes, offsets = (batch.sizes, batch.offsets) if batch.ragged else (None, None)
        lies.sizes = <const Py_ssize_t *> first_of(sizes)
        lies.begins = <const Py_ssize_t *> first_of(offsets)
        if starts is not None:
            check_array(starts, cnp.NPY_BOOL, self.directions * rows)
            lies.starts, lies.starts_each = first_of(starts), rows
        if lies.steps < 1 or lies.rows < 1:
            return
        _room = self.spare.begin_arena(&memory, self.forward_peak)
        memset(&w, 0, sizeof(work))
        w.memory = &memory
        try:
            enough(&memory, divide(work_of_step(r.sums, r.inputs, r.hidden, r.outputs),
                                   self.directions, &lies, &w))
            weights = self.packed_layer(layer)
            for d in range(self.directions):
                if tapes[d] is None:
                    continue
                r = self.layers[layer][d]
                w.tape = tape_of(r, tapes[d], rows)
                w.table = tables.first[d] if tables is not None else NULL
                if lies.starts != NULL:
                    w.starts = lies.starts + d * lies.starts_each
                enough(&memory, add_tasks(
                    &w, ready_of(weights[d]), &lies, first_of(x),
                    lies.rows * x.strides[0], x.strides[0], first_of(y) + d * width,
                    lies.rows * y.strides[0], y.strides[0], first_of(h[d]),
                    first_of(None if c is None else c[d])))
            with nogil:
                run_tasks(&w)
        finally:
            self.forward_peak = end_arena(&memory)

    def backward(self, Py_ssize_t layer, Py_ssize_t direction, Py_ssize_t first, x, y, tape, h_0,
                 c_0, batch, grad_y, grad_h, grad_c, grad_x, starts=None, vectors=None):
        """The backward pass of a layer and direction, over some steps' rows from `first` on.

        Parameters
        ----------
        x, y, grad_y, grad_x : array, (S', D' R) or (S', D R)
            Of all rows, and both directions; grad_x is written by the first, and the second adds.
        tape : array
            As `forward` wrote it.
        h_0, c_0 : array, (N, R) and (N, H)
            The state that these rows began in, in the order of `batch`.
        batch : Batch
            Of these rows.
        grad_h, grad_c : array, (L D, N, R) and (L D, N, H)
            Of all layers and directions: of h_n and c_n going in, of h_0 and c_0 coming out.
        starts : array of bool, (S,), optional
            As `forward` was given for these rows and this direction.
        vectors : array (K, I), optional
            Then x is intp (S', 1), which of them it was at each row; grad_x, which is added to, is
            theirs.

        Returns
        -------
        grads : dict of str to array
            For each of the parameters.
        """
        cdef:
            passing p
            arena memory
            layout lies = full_batch(batch.steps, batch.rows)
            Cell r = self.layers[layer][direction]
            Py_ssize_t rows = batch.count, size = self.itemsize
            Kept kept
            Py_ssize_t width = self.directions * self.outputs, row
            Py_ssize_t k = layer * self.directions + direction
        check_batch(batch)
        for array, columns in ((y, width), (grad_y, width)):
            check_part(array, self.typenum, first, rows, columns)
        if vectors is None:
            check_part(x, self.typenum, first, rows, r.inputs)
            check_part(grad_x, self.typenum, first, rows, r.inputs)
        else:
            check_part(x, cnp.NPY_INTP, first, rows, 1)
            check_array(vectors, self.typenum, len(vectors) * r.inputs)
            check_array(grad_x, self.typenum, len(vectors) * r.inputs)
            check_ids(len(vectors), x[:, None])
        check_array(tape, self.typenum, r.sums.taped * rows * self.hidden)
        self.check_state(h_0, c_0, 1, lies.rows)
        self.check_state(grad_h, grad_c, self.states, lies.rows)
        sizes, offsets = (batch.sizes, batch.offsets) if batch.ragged else (None, None)
        grads = self.new_gradients(r, rows)
        lies.sizes = <const Py_ssize_t *> first_of(sizes)
        if lies.steps < 1 or lies.rows < 1:
            return grads
        memset(&p, 0, sizeof(passing))
        row = width * size
        p.adds, p.offsets = direction > 0, <const Py_ssize_t *> first_of(offsets)
        p.y_row = p.grad_y_row = row
        if vectors is None:
            p.x = first_of(x) + first * r.inputs * size
            p.grad_x = first_of(grad_x) + first * r.inputs * size
        else:
            p.ids, p.vectors = <const Py_ssize_t *> first_of(x) + first, len(vectors)
            p.x, p.grad_x, p.adds = first_of(vectors), first_of(grad_x), True
        p.y = first_of(y) + first * row + direction * self.outputs * size
        p.grad_y = first_of(grad_y) + first * row + direction * self.outputs * size
        p.h_0, p.c_0 = first_of(h_0), first_of(c_0)
        p.grad_h = first_of(grad_h) + k * lies.rows * self.outputs * size
        if self.has_c:
            p.grad_c = first_of(grad_c) + k * lies.rows * self.hidden * size
        if starts is not None:
            check_array(starts, cnp.NPY_BOOL, rows)
            p.starts = first_of(starts)
        p.tape = tape_of(r, tape, rows)
        kept = packed(self.version, r, True)
        _room = self.spare.begin_arena(&memory, self.backward_peak)
        try:
            run_backward(&p, r, <Packed> kept.copy, &lies, &memory, grads)
        finally:
            self.backward_peak = end_arena(&memory)
        return grads

    cdef list packed_layer(self, Py_ssize_t layer):
        """The weights of its directions. The caller reads the parameters."""
        return [packed(self.version, r, False) for r in self.layers[layer]]

    cdef dict new_gradients(self, Cell r, Py_ssize_t rows):
        """To be filled: the first block writes the matrices' gradients, and adds to the others."""
        cdef dict grads = {}
        for name, array in r.parameters.items():
            if rows > 0 and cnp.PyArray_NDIM(array) == 2:
                grads[name] = self.spare.empty(array.shape, array.dtype)
            else:
                grads[name] = np.zeros_like(array)
        return grads

    cdef int check_state(self, h, c, Py_ssize_t states, Py_ssize_t rows) except -1:
        check_array(h, self.typenum, states * rows * self.outputs)
        if self.has_c:
            check_array(c, self.typenum, states * rows * self.hidden)
        elif c is not None:
            raise ValueError("expected no c")
        return 0

    cpdef tuple zero_state(self, Py_ssize_t rows, int rank=3):
        """h (L D, N, R) and c (L D, N, H), which may be None; of rank 2 they are without N."""
        cdef cnp.npy_intp shape[3]
        shape[0], shape[1] = self.states, rows
        shape[rank - 1] = self.outputs
        h = cnp.PyArray_ZEROS(rank, shape, self.typenum, 0)
        if not self.has_c:
            return h, None
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
            run_layers(self, None, None, &lies, cnp.PyArray_BYTES(x),
                       x_row, x_row * lies.steps, cnp.PyArray_BYTES(y), y_row, y_row * lies.steps,
                       cnp.PyArray_BYTES(h), first_of(c))
        else:
            run_layers(self, None, None, &lies, cnp.PyArray_BYTES(x), x_row * lies.rows, x_row,
                       cnp.PyArray_BYTES(y), y_row * lies.rows, y_row,
                       cnp.PyArray_BYTES(h), first_of(c))
        return y, state if self.has_c else h

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
        self.run_step(workspace, None, &lies, cnp.PyArray_BYTES(x), self.inputs * self.itemsize,
                      out, h, c)
        return out

    def step_row(self, ids, Version version, h, c, Workspace workspace):
        """As `step`, for ids (N,) of vectors whose version this is, if their rows are there.

        Returns
        -------
        y : array, (N, R)
            None where ids need conversion, or rows are missing.
        """
        cdef layout lies = full_batch(1, cnp.PyArray_DIM(h, 1))
        cdef cnp.npy_intp wide[2]
        cdef tuple kept = cylstm_find(self.kept, "tables"), of
        cdef Tables tables
        if kept is None or not is_plain(ids, cnp.NPY_INTP) or cnp.PyArray_NDIM(ids) != 1:
            return None
        of, tables = kept
        if not (of[0] is version and of[1] == changes_of(version)
                and of[2] == changes_of(self.version)):
            return None
        if cnp.PyArray_DIM(ids, 0) != lies.rows or not is_filled(
                tables, <const Py_ssize_t *> first_of(ids), lies.rows):
            return None
        wide[0], wide[1] = lies.rows, self.outputs
        y = cnp.PyArray_EMPTY(2, wide, self.typenum, 0)
        self.run_step(workspace, tables, &lies, cnp.PyArray_BYTES(ids), sizeof(Py_ssize_t), y, h, c)
        return y

    cdef int run_step(self, Workspace workspace, Tables tables, layout *lies, const char *x,
                      Py_ssize_t x_row, y, h, c) except -1:
        self.check_state(h, c, self.states, lies.rows)
        workspace.begin()
        lies.down = workspace.down
        workspace.down = not workspace.down
        try:
            run_layers(self, workspace, tables, lies, x, 0, x_row, cnp.PyArray_BYTES(y), 0,
                       self.outputs * self.itemsize, cnp.PyArray_BYTES(h), first_of(c))
        finally:
            workspace.end()
        return 0


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


cdef int check_part(array, int typenum, Py_ssize_t first, Py_ssize_t rows,
                    Py_ssize_t width) except -1:
    """An array (S', F) that has these rows."""
    check_array(array, typenum, len(array) * width)
    if first < 0 or first + rows > len(array):
        raise ValueError(f"expected {first + rows} rows, got {len(array)}")
    return 0


cdef inline bint overlap(a, b) noexcept:
    """Whether two contiguous arrays share memory."""
    cdef char *first = cnp.PyArray_BYTES(a)
    cdef char *second = cnp.PyArray_BYTES(b)
    return first < second + cnp.PyArray_NBYTES(b) and second < first + cnp.PyArray_NBYTES(a)


cdef int run_layers(Network net, Workspace workspace, Tables tables, const layout *b,
                    const char *x, Py_ssize_t x_step, Py_ssize_t x_row, char *y, Py_ssize_t y_step,
                    Py_ssize_t y_row, char *h, char *c) except -1:
    """All layers, from x to y, in the workspace or, for None, in memory for this call. With tables
    x is ids. Strides in bytes."""
    cdef char local[LOCAL_BYTES + 64]
    cdef arena memory
    cdef stack s
    cdef int got
    cdef Py_ssize_t peak
    cdef list weights = all_packed(net.store, net.version, net.cells)  # kept until all is done
    if workspace is not None:
        memory = workspace.memory
    else:
        memset(&memory, 0, sizeof(arena))
        memory.memory, memory.size = local + (-<Py_ssize_t> local & 63), LOCAL_BYTES
    try:
        s.layers, s.directions = len(net.layers), net.directions
        s.tables = tables.first if tables is not None else NULL
        s.cells = <const runnable **> take(&memory, net.states * sizeof(void *))
        point_to(weights, s.cells)
        if is_small(&s, b):
            got = run_stack(&memory, &s, b, x, x_step, x_row, y, y_step, y_row, h, c)
        else:
            with nogil:
                got = run_stack(&memory, &s, b, x, x_step, x_row, y, y_step, y_row, h, c)
        return enough(&memory, got)
    finally:
        peak = end_arena(&memory)
        if workspace is not None:
            workspace.grow(peak)
