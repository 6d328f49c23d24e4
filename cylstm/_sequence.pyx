"""The recurrence: one layer and one direction over all time steps.

Sequences are sorted by falling length, so that those still running at step t are the first
``sizes[t]`` rows of the batch. *Packed* arrays hold these rows one step after the other, and step t
begins at row ``offsets[t]``: what PyTorch calls a PackedSequence. A batch of equal lengths is
packed as it lies in memory.

A step is (gate order i, f, g, o; for the gate equations see ``src/cell.h``)::

    z_t = b + x_t W_ih' + h_{t-1} W_hh'         one product over many steps, one in each step
    h_t, c_t = cell(z_t, c_{t-1})
    h_t = h_t W_hr'                             with a projection

The pass runs over positions 0, 1, ... in the order of processing; `time_of` gives the step.
"""

from cython cimport floating
from libc.string cimport memcpy

import os
from threading import Lock

import numpy as np

from cylstm._blas cimport gemm, gemv
from cylstm._kernels cimport (
    as_activation, cell, kernels, packed_matrix, packed_step, packing, step_gradients, step_tape,
    table,
)

from cylstm._kernels import ISA

cdef enum:
    BLOCK_BYTES = 262144  # of pre-activations that `run` projects at once: a part of the L2 cache


cdef class Packed:
    """A matrix, and perhaps a bias, packed for the kernels of one table; see src/product.h."""

    cdef packed_matrix matrix
    cdef object memory  # keeps what `matrix` points to

    @staticmethod
    cdef Packed of(const kernels *kernel, packing how, const void *matrix, const void *bias, dtype):
        cdef Packed made = Packed.__new__(Packed)
        cdef Py_ssize_t tile = 4 * kernel.width
        made.matrix.tiles = kernel.packed_tiles(&how)
        made.matrix.depth = how.depth
        weights = aligned_empty(made.matrix.tiles * how.depth * tile, dtype)
        biases = aligned_empty(made.matrix.tiles * tile, dtype)
        kernel.pack(&how, matrix, bias, <void *> _data(weights), <void *> _data(biases))
        made.matrix.weights = _data(weights)
        made.matrix.bias = _data(biases) if bias != NULL else NULL
        made.memory = weights, biases
        return made


cdef class PackedParameters:
    """What `Recurrence.run` multiplies by."""

    cdef Packed weight_ih
    cdef Packed weight_hh
    cdef Packed weight_hr


cdef class Recurrence:
    """The parameters of one layer and direction, and its passes over a batch.

    The arrays are shared with the caller, not copied, and must stay where they are.

    Parameters
    ----------
    parameters : dict
        ``weight_ih`` (4H, I), ``weight_hh`` (4H, R) and, where the layer has them, ``bias`` (4H,),
        ``weight_hr`` (R, H), ``weight_p`` (3H,): C-contiguous, of one dtype.
    reverse, coupled, clip, activations
        As of `cylstm.LSTM`; `clip` is infinity for none, an activation ``(name, slope, offset)``.
    """

    cdef readonly dict parameters
    cdef bint reverse, is_double
    cdef Py_ssize_t inputs, hidden, outputs
    cdef cell equations
    cdef const kernels *kernel
    cdef const void *weight_ih
    cdef const void *weight_hh
    cdef const void *weight_hr
    cdef const void *bias
    cdef PackedParameters packed
    cdef object packing_lock

    def __init__(self, dict parameters, *, bint reverse, bint coupled, double clip, activations,
                 str isa=ISA):
        weight_ih, weight_hh = parameters["weight_ih"], parameters["weight_hh"]
        self.parameters = parameters
        self.reverse = reverse
        self.is_double = weight_ih.dtype == np.float64
        self.inputs, self.outputs = weight_ih.shape[1], weight_hh.shape[1]
        self.hidden = weight_ih.shape[0] // 4
        self.kernel = table(isa, self.is_double)
        self.weight_ih = _data(weight_ih)
        self.weight_hh = _data(weight_hh)
        self.weight_hr = _data(parameters.get("weight_hr"))
        self.bias = _data(parameters.get("bias"))
        self.equations.hidden = self.hidden
        self.equations.coupled = coupled
        self.equations.clip = clip
        self.equations.peephole = _data(parameters.get("weight_p"))
        gates, candidate, output = activations
        self.equations.gates = as_activation(gates)
        self.equations.candidate = as_activation(candidate)
        self.equations.output = as_activation(output)
        self.packing_lock = Lock()

    def parameters_changed(self):
        """Drop what was packed from the old ones; calls under way keep it to their end."""
        self.packed = None

    cdef PackedParameters pack(self):
        """The packed parameters: made at the first use, by one thread, and then shared."""
        cdef PackedParameters made = self.packed
        if made is not None:
            return made
        with self.packing_lock:
            if self.packed is None:
                self.packed = self._packed_now()
            return self.packed

    cdef PackedParameters _packed_now(self):
        cdef PackedParameters made = PackedParameters()
        cdef packing how
        dtype = np.float64 if self.is_double else np.float32
        how = packing(True, self.hidden, self.inputs, self.inputs, 1)
        made.weight_ih = Packed.of(self.kernel, how, self.weight_ih, self.bias, dtype)
        how = packing(True, self.hidden, self.outputs, self.outputs, 1)
        made.weight_hh = Packed.of(self.kernel, how, self.weight_hh, NULL, dtype)
        if self.weight_hr != NULL:
            how = packing(False, self.outputs, self.hidden, self.hidden, 1)
            made.weight_hr = Packed.of(self.kernel, how, self.weight_hr, NULL, dtype)
        return made

    def run(self, x, y, h, c, sizes, offsets, order, bint ragged):
        """Inference: keeps nothing, and its workspace does not grow with T.

        Parameters
        ----------
        x, y : array, (T, N, I) and (T, N, R), each row contiguous
            Input, and output to write; only the rows of running sequences are touched.
        h, c : array, (N, R) and (N, H), C-contiguous
            The state in the sorted order: the initial one going in, the last coming out.
        sizes, offsets, order : array of intp, (T,), (T + 1,) and (N,)
            Running sequences at each step, their sums, and the place in the batch of each sorted
            row.
        ragged : bool
            Whether `sizes` and `order` are other than of a full batch in its own order.
        """
        if PRODUCT == "blas":
            if self.is_double:
                _run_arrays[double](self, x, y, h, c, sizes, order)
            else:
                _run_arrays[float](self, x, y, h, c, sizes, order)
        elif self.is_double:
            _run_packed_arrays[double](self, self.pack(), x, y, h, c, sizes, offsets, order, ragged)
        else:
            _run_packed_arrays[float](self, self.pack(), x, y, h, c, sizes, offsets, order, ragged)

    def forward(self, x, y, h, c, sizes, offsets):
        """Forward with a tape, over packed rows: x (S, I), y (S, R); h, c as in `run`.

        Returns
        -------
        tape : tuple of array
            The gates after activation (S, 4H), c (S, H) and its output activation (S, H).
        """
        rows, dtype = x.shape[0], x.dtype
        gates = np.empty((rows, 4 * self.hidden), dtype)
        cells = np.empty((rows, self.hidden), dtype)
        tanh_cells = np.empty((rows, self.hidden), dtype)
        if self.is_double:
            _forward_arrays[double](self, x, y, h, c, sizes, offsets, gates, cells, tanh_cells)
        else:
            _forward_arrays[float](self, x, y, h, c, sizes, offsets, gates, cells, tanh_cells)
        return gates, cells, tanh_cells

    def backward(self, tape, x, y, h_0, c_0, sizes, offsets, grad_y, grad_h, grad_c, grad_x):
        """The gradients of a forward pass.

        Parameters
        ----------
        tape, x, y, sizes, offsets
            As given to, and returned by, `forward`.
        h_0, c_0 : array, (N, R) and (N, H)
            The initial state, in the sorted order.
        grad_y : array, (S, R)
        grad_h, grad_c : array, (N, R) and (N, H), C-contiguous
            Those of h_n and c_n going in, of h_0 and c_0 coming out.
        grad_x : array, (S, I), C-contiguous
            Is added to.

        Returns
        -------
        dict
            The gradient of each of `parameters`.
        """
        grads = {name: np.zeros_like(p) for name, p in self.parameters.items()}
        bias = grads["bias"] if "bias" in grads else np.zeros(4 * self.hidden, x.dtype)
        if self.is_double:
            _backward_arrays[double](self, tape, x, y, h_0, c_0, sizes, offsets, grad_y, grad_h,
                                     grad_c, grad_x, grads, bias)
        else:
            _backward_arrays[float](self, tape, x, y, h_0, c_0, sizes, offsets, grad_y, grad_h,
                                    grad_c, grad_x, grads, bias)
        return grads


PRODUCT = os.environ.get("CYLSTM_PRODUCT", "packed")
if PRODUCT not in ("packed", "blas"):
    raise ImportError(f"CYLSTM_PRODUCT: expected 'packed' or 'blas', got {PRODUCT!r}")


def aligned_empty(Py_ssize_t size, dtype):
    """An array that starts where a cache line does, as vectors of any width want."""
    dtype = np.dtype(dtype)
    memory = np.empty(size * dtype.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size * dtype.itemsize].view(dtype)


cdef const void *_data(array) except? NULL:
    cdef const char[::1] view
    if array is None:
        return NULL
    view = array.reshape(-1).view(np.int8)
    return &view[0]


# The time loops. No Python from here to the end of the section.


cdef inline Py_ssize_t time_of(bint reverse, Py_ssize_t steps, Py_ssize_t position) noexcept nogil:
    return steps - 1 - position if reverse else position


cdef inline void product(Py_ssize_t rows, Py_ssize_t n, Py_ssize_t k, const floating *a,
                         bint transpose_w, const floating *w, floating beta,
                         floating *c) noexcept nogil:
    """C := A op(W) + beta C; A (rows, k), C (rows, n); W (n, k) with `transpose_w`, else (k, n)."""
    cdef floating one = 1
    if rows == 1 and transpose_w:
        gemv(False, n, k, one, w, k, a, 1, beta, c, 1)
    elif rows == 1:
        gemv(True, k, n, one, w, n, a, 1, beta, c, 1)
    else:
        gemm(False, transpose_w, rows, n, k, one, a, k, w, k if transpose_w else n, beta, c, n)


cdef inline void add_outer_products(Py_ssize_t rows, Py_ssize_t m, Py_ssize_t n, const floating *a,
                                    const floating *b, floating *c) noexcept nogil:
    """C := C + A' B; A (rows, m), B (rows, n), C (m, n)."""
    cdef floating one = 1
    gemm(True, False, m, n, rows, one, a, m, b, n, one, c, n)


cdef inline void fill_rows(Py_ssize_t rows, Py_ssize_t width, const floating *row,
                           floating *to) noexcept nogil:
    """Every row of `to` := row, or zero where it is NULL."""
    cdef Py_ssize_t j
    for j in range(rows):
        if row != NULL:
            memcpy(to + j * width, row, width * sizeof(floating))
        else:
            fill_zero(width, to + j * width)


cdef inline void fill_zero(Py_ssize_t n, floating *to) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        to[j] = 0


cdef inline void project(Recurrence r, Py_ssize_t rows, const floating *x,
                         floating *z) noexcept nogil:
    """z := b + x W_ih', for the rows of many steps."""
    cdef floating one = 1
    fill_rows(rows, 4 * r.hidden, <const floating *> r.bias, z)
    product(rows, 4 * r.hidden, r.inputs, x, True, <const floating *> r.weight_ih, one, z)


cdef inline void recur(Recurrence r, Py_ssize_t n, const floating *h, floating *z) noexcept nogil:
    """z := z + h_{t-1} W_hh', for the n rows of one step."""
    cdef floating one = 1
    product(n, 4 * r.hidden, r.outputs, h, True, <const floating *> r.weight_hh, one, z)


cdef inline void emit(Recurrence r, Py_ssize_t n, const floating *cell_h,
                      floating *h) noexcept nogil:
    """h := cell_h W_hr'; without a projection they are one array."""
    cdef floating zero = 0
    if r.weight_hr != NULL:
        product(n, r.outputs, r.hidden, cell_h, True, <const floating *> r.weight_hr, zero, h)


cdef void run_steps(
        Recurrence r, Py_ssize_t steps, const Py_ssize_t *sizes, const Py_ssize_t *order,
        const floating *x, Py_ssize_t x_step, Py_ssize_t x_row,
        floating *y, Py_ssize_t y_step, Py_ssize_t y_row, floating *h, floating *c,
        Py_ssize_t block, floating *x_block, floating *z_block, floating *cell_h) noexcept nogil:
    cdef Py_ssize_t number, first, last, position, t, j, rows
    cdef floating *z
    for number in range((steps + block - 1) // block):
        first = number * block
        last = min(first + block, steps)
        rows = 0
        for position in range(first, last):
            t = time_of(r.reverse, steps, position)
            for j in range(sizes[t]):
                memcpy(x_block + (rows + j) * r.inputs, x + t * x_step + order[j] * x_row,
                       r.inputs * sizeof(floating))
            rows += sizes[t]
        project(r, rows, x_block, z_block)
        z = z_block
        for position in range(first, last):
            t = time_of(r.reverse, steps, position)
            recur(r, sizes[t], h, z)
            r.kernel.cell_run(&r.equations, sizes[t], z, c, cell_h)
            emit(r, sizes[t], cell_h, h)
            for j in range(sizes[t]):
                memcpy(y + t * y_step + order[j] * y_row, h + j * r.outputs,
                       r.outputs * sizeof(floating))
            z += sizes[t] * 4 * r.hidden


cdef inline void copy_rows(Py_ssize_t n, Py_ssize_t width, const floating *rows, Py_ssize_t row,
                           floating *to, Py_ssize_t to_row) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        memcpy(to + j * to_row, rows + j * row, width * sizeof(floating))


cdef inline void gather_rows(Py_ssize_t first, Py_ssize_t last, const Py_ssize_t *sizes,
                             const Py_ssize_t *order, Py_ssize_t width, const floating *x,
                             Py_ssize_t x_step, Py_ssize_t x_row, floating *to) noexcept nogil:
    """The running rows of steps [first, last), packed."""
    cdef Py_ssize_t t, j
    for t in range(first, last):
        for j in range(sizes[t]):
            memcpy(to, x + t * x_step + order[j] * x_row, width * sizeof(floating))
            to += width


cdef void run_packed_steps(
        Recurrence r, PackedParameters w, Py_ssize_t steps, const Py_ssize_t *sizes,
        const Py_ssize_t *offsets, const Py_ssize_t *order,
        const floating *x, Py_ssize_t x_step, Py_ssize_t x_row, bint gather,
        floating *y, Py_ssize_t y_step, Py_ssize_t y_row, floating *h, floating *c,
        Py_ssize_t block, floating *x_block, floating *z_block, floating *h_now, floating *h_next,
        Py_ssize_t h_width, floating *c_now) noexcept nogil:
    """h_now and c_now hold the state of the running rows, padded; h, c that of the others."""
    cdef:
        Py_ssize_t first, last, position, number, t, n, row, running = 0, width = 4 * r.kernel.width
        Py_ssize_t z_width = w.weight_hh.matrix.tiles * width, c_width = z_width // 4
        Py_ssize_t tiles = w.weight_hh.matrix.tiles
        const floating *x_rows
        packed_step s
        bint projected = r.weight_hr != NULL
    s.c = c_now
    s.y_rows = order
    s.z_row, s.h_row, s.c_row, s.y_row = z_width, h_width, c_width, y_row
    for number in range((steps + block - 1) // block):
        first = number * block
        last = min(first + block, steps)
        if r.reverse:
            first, last = steps - last, steps - first
        x_rows = x + first * x_step
        if gather:
            gather_rows(first, last, sizes, order, r.inputs, x, x_step, x_row, x_block)
            x_rows = x_block
        r.kernel.multiply(&w.weight_ih.matrix, offsets[last] - offsets[first], x_rows,
                          r.inputs if gather else x_row, z_block, z_width, 0, tiles)
        for position in range(last - first):
            t = last - 1 - position if r.reverse else first + position
            n = sizes[t]
            if n > running:
                copy_rows(n - running, r.outputs, h + running * r.outputs, r.outputs,
                          h_now + running * h_width, h_width)
                copy_rows(n - running, r.hidden, c + running * r.hidden, r.hidden,
                          c_now + running * c_width, c_width)
            elif n < running:
                copy_rows(running - n, r.outputs, h_now + n * h_width, h_width,
                          h + n * r.outputs, r.outputs)
                copy_rows(running - n, r.hidden, c_now + n * c_width, c_width,
                          c + n * r.hidden, r.hidden)
            running = n
            s.z = z_block + (offsets[t] - offsets[first]) * z_width
            s.h = h_now
            s.h_next = h_next
            s.y = NULL if projected else y + t * y_step
            r.kernel.step(&r.equations, &w.weight_hh.matrix, n, &s, 0, tiles)
            if projected:
                r.kernel.multiply(&w.weight_hr.matrix, n, h_next, c_width, h_now, h_width, 0,
                                  w.weight_hr.matrix.tiles)
                for row in range(n):
                    memcpy(y + t * y_step + order[row] * y_row,
                           h_now + row * h_width, r.outputs * sizeof(floating))
            else:
                h_now, h_next = h_next, h_now
    copy_rows(running, r.outputs, h_now, h_width, h, r.outputs)
    copy_rows(running, r.hidden, c_now, c_width, c, r.hidden)


cdef inline step_tape tape_of(Recurrence r, Py_ssize_t row, const floating *gates,
                              const floating *cells, const floating *tanh_cells) noexcept nogil:
    cdef step_tape tape
    tape.gates = <void *> (gates + row * 4 * r.hidden)
    tape.c = <void *> (cells + row * r.hidden)
    tape.tanh_c = <void *> (tanh_cells + row * r.hidden)
    return tape


cdef void forward_steps(
        Recurrence r, Py_ssize_t steps, const Py_ssize_t *sizes, const Py_ssize_t *offsets,
        const floating *x, floating *y, Py_ssize_t y_row, floating *h, floating *c,
        floating *gates, floating *cells, floating *tanh_cells, floating *cell_h) noexcept nogil:
    cdef Py_ssize_t position, t, j
    cdef step_tape tape
    project(r, offsets[steps], x, gates)
    for position in range(steps):
        t = time_of(r.reverse, steps, position)
        tape = tape_of(r, offsets[t], gates, cells, tanh_cells)
        recur(r, sizes[t], h, <floating *> tape.gates)
        r.kernel.cell_forward(&r.equations, sizes[t], &tape, c, cell_h)
        emit(r, sizes[t], cell_h, h)
        for j in range(sizes[t]):
            memcpy(y + (offsets[t] + j) * y_row, h + j * r.outputs, r.outputs * sizeof(floating))


cdef void previous_rows(
        Recurrence r, Py_ssize_t steps, const Py_ssize_t *sizes, const Py_ssize_t *offsets,
        Py_ssize_t position, Py_ssize_t width, const floating *values, Py_ssize_t values_row,
        const floating *initial, floating *to) noexcept nogil:
    """What the step at `position` started from: of the step before it, or the initial state."""
    cdef Py_ssize_t n = sizes[time_of(r.reverse, steps, position)], carried = 0, before = 0, j
    if position > 0:
        before = time_of(r.reverse, steps, position - 1)
        carried = min(n, sizes[before])
    for j in range(carried):
        memcpy(to + j * width, values + (offsets[before] + j) * values_row,
               width * sizeof(floating))
    memcpy(to + carried * width, initial + carried * width,
           (n - carried) * width * sizeof(floating))


cdef void backward_steps(
        Recurrence r, Py_ssize_t steps, const Py_ssize_t *sizes, const Py_ssize_t *offsets,
        const floating *gates, const floating *cells, const floating *tanh_cells,
        const floating *c_0, const floating *grad_y, Py_ssize_t grad_y_row, floating *grad_h,
        floating *grad_c, floating *grad_z, floating *grad_bias, floating *grad_peephole,
        floating *grad_outputs, floating *grad_cell_h, floating *c_prev) noexcept nogil:
    """grad_z of all steps, and what is summed on the way; `grad_outputs` only with a projection."""
    cdef Py_ssize_t position, t, j, k, n
    cdef floating zero = 0
    cdef step_tape tape
    cdef step_gradients grad
    grad.h = grad_cell_h
    grad.c = grad_c
    grad.bias = grad_bias
    grad.peephole = grad_peephole
    for position in range(steps - 1, -1, -1):
        t = time_of(r.reverse, steps, position)
        n = sizes[t]
        for j in range(n):
            for k in range(r.outputs):
                grad_h[j * r.outputs + k] += grad_y[(offsets[t] + j) * grad_y_row + k]
        if r.weight_hr != NULL:
            memcpy(grad_outputs + offsets[t] * r.outputs, grad_h,
                   n * r.outputs * sizeof(floating))
            product(n, r.hidden, r.outputs, grad_h, False, <const floating *> r.weight_hr, zero,
                    grad_cell_h)
        previous_rows(r, steps, sizes, offsets, position, r.hidden, cells, r.hidden, c_0, c_prev)
        tape = tape_of(r, offsets[t], gates, cells, tanh_cells)
        grad.z = grad_z + offsets[t] * 4 * r.hidden
        r.kernel.cell_backward(&r.equations, n, &tape, c_prev, &grad)
        product(n, r.outputs, 4 * r.hidden, <const floating *> grad.z, False,
                <const floating *> r.weight_hh, zero, grad_h)


cdef void backward_products(
        Recurrence r, Py_ssize_t steps, const Py_ssize_t *sizes, const Py_ssize_t *offsets,
        const floating *x, const floating *y, Py_ssize_t y_row, const floating *h_0,
        const floating *grad_z, floating *h_prev, floating *grad_x, floating *grad_weight_ih,
        floating *grad_weight_hh) noexcept nogil:
    """What needs no recurrence: one product each over all steps."""
    cdef Py_ssize_t position, t, rows = offsets[steps]
    cdef floating one = 1
    for position in range(steps):
        t = time_of(r.reverse, steps, position)
        previous_rows(r, steps, sizes, offsets, position, r.outputs, y, y_row, h_0,
                      h_prev + offsets[t] * r.outputs)
    product(rows, r.inputs, 4 * r.hidden, grad_z, False, <const floating *> r.weight_ih, one,
            grad_x)
    add_outer_products(rows, 4 * r.hidden, r.inputs, grad_z, x, grad_weight_ih)
    add_outer_products(rows, 4 * r.hidden, r.outputs, grad_z, h_prev, grad_weight_hh)


cdef void projection_products(
        Recurrence r, Py_ssize_t rows, const floating *gates, const floating *tanh_cells,
        const floating *grad_outputs, floating *cell_h, floating *grad_weight_hr) noexcept nogil:
    """The projection's gradient; the cell's outputs are computed again, not kept."""
    cdef step_tape tape = tape_of(r, 0, gates, gates, tanh_cells)
    r.kernel.cell_output(&r.equations, rows, &tape, cell_h)
    add_outer_products(rows, r.outputs, r.hidden, grad_outputs, cell_h, grad_weight_hr)


# From arrays to pointers. Memoryviews check dtype, rank and layout; sizes are the caller's care.


cdef inline Py_ssize_t items(Py_ssize_t stride, floating *unused) noexcept nogil:
    return stride // <Py_ssize_t> sizeof(floating)


cdef int _run_arrays(Recurrence r, const floating[:, :, :] x, floating[:, :, :] y,
                     floating[:, ::1] h, floating[:, ::1] c, const Py_ssize_t[::1] sizes,
                     const Py_ssize_t[::1] order) except -1:
    cdef:
        Py_ssize_t steps = sizes.shape[0], batch = h.shape[0]
        floating[::1] x_block, z_block, cell_h
        Py_ssize_t block
        floating *unused = NULL
    if steps == 0 or batch == 0:
        return 0
    block = max(1, min(steps, BLOCK_BYTES // (4 * r.hidden * sizeof(floating) * batch)))
    dtype = np.float64 if floating is double else np.float32
    x_block = np.empty(block * batch * r.inputs, dtype)
    z_block = np.empty(block * batch * 4 * r.hidden, dtype)
    cell_h = h.base.reshape(-1) if r.weight_hr == NULL else np.empty(batch * r.hidden, dtype)
    with nogil:
        run_steps(r, steps, &sizes[0], &order[0],
                  &x[0, 0, 0], items(x.strides[0], unused), items(x.strides[1], unused),
                  &y[0, 0, 0], items(y.strides[0], unused), items(y.strides[1], unused),
                  &h[0, 0], &c[0, 0], block, &x_block[0], &z_block[0], &cell_h[0])
    return 0


cdef int _run_packed_arrays(
        Recurrence r, PackedParameters w, const floating[:, :, :] x, floating[:, :, :] y,
        floating[:, ::1] h, floating[:, ::1] c, const Py_ssize_t[::1] sizes,
        const Py_ssize_t[::1] offsets, const Py_ssize_t[::1] order, bint ragged) except -1:
    cdef:
        Py_ssize_t steps = sizes.shape[0], batch = h.shape[0], block, rows
        Py_ssize_t z_width = w.weight_hh.matrix.tiles * 4 * r.kernel.width, c_width = z_width // 4
        Py_ssize_t h_width = c_width
        floating *unused = NULL
        Py_ssize_t x_step = items(x.strides[0], unused), x_row = items(x.strides[1], unused)
        bint gather = ragged or (batch > 1 and x_step != batch * x_row)
        floating[::1] work
        floating *z_block
        floating *h_now
        floating *h_next
        floating *c_now
        floating *x_block
    if steps == 0 or batch == 0:
        return 0
    if r.weight_hr != NULL:
        h_width = w.weight_hr.matrix.tiles * 4 * r.kernel.width
    if batch == 1:
        x_row = x_step
    block = max(1, min(steps, BLOCK_BYTES // (z_width * sizeof(floating) * batch)))
    rows = block * batch
    dtype = np.float64 if floating is double else np.float32
    work = aligned_empty(rows * z_width + batch * (h_width + 2 * c_width)
                         + (rows * r.inputs if gather else 0), dtype)
    z_block = &work[0]
    h_now = z_block + rows * z_width
    h_next = h_now + batch * h_width
    c_now = h_next + batch * c_width
    x_block = c_now + batch * c_width
    with nogil:
        fill_zero(batch * (h_width + 2 * c_width), h_now)
        run_packed_steps(r, w, steps, &sizes[0], &offsets[0], &order[0],
                         &x[0, 0, 0], x_step, x_row, gather,
                         &y[0, 0, 0], items(y.strides[0], unused), items(y.strides[1], unused),
                         &h[0, 0], &c[0, 0], block, x_block, z_block, h_now, h_next, h_width,
                         c_now)
    return 0


cdef int _forward_arrays(Recurrence r, const floating[:, ::1] x, floating[:, :] y,
                         floating[:, ::1] h, floating[:, ::1] c, const Py_ssize_t[::1] sizes,
                         const Py_ssize_t[::1] offsets, floating[:, ::1] gates,
                         floating[:, ::1] cells, floating[:, ::1] tanh_cells) except -1:
    cdef:
        Py_ssize_t steps = sizes.shape[0], batch = h.shape[0]
        floating[::1] cell_h
        floating *unused = NULL
    if x.shape[0] == 0:
        return 0
    dtype = np.float64 if floating is double else np.float32
    cell_h = h.base.reshape(-1) if r.weight_hr == NULL else np.empty(batch * r.hidden, dtype)
    with nogil:
        forward_steps(r, steps, &sizes[0], &offsets[0], &x[0, 0], &y[0, 0],
                      items(y.strides[0], unused), &h[0, 0], &c[0, 0], &gates[0, 0], &cells[0, 0],
                      &tanh_cells[0, 0], &cell_h[0])
    return 0


cdef int _backward_arrays(Recurrence r, tuple tape, const floating[:, ::1] x,
                          const floating[:, :] y, const floating[:, ::1] h_0,
                          const floating[:, ::1] c_0, const Py_ssize_t[::1] sizes,
                          const Py_ssize_t[::1] offsets, const floating[:, :] grad_y,
                          floating[:, ::1] grad_h, floating[:, ::1] grad_c,
                          floating[:, ::1] grad_x, dict grads, floating[::1] grad_bias) except -1:
    cdef:
        const floating[:, ::1] gates = tape[0], cells = tape[1], tanh_cells = tape[2]
        Py_ssize_t steps = sizes.shape[0], rows = x.shape[0], batch = h_0.shape[0]
        floating[:, ::1] grad_weight_ih = grads["weight_ih"], grad_weight_hh = grads["weight_hh"]
        floating[:, ::1] grad_weight_hr, grad_z, h_prev, grad_outputs, cell_h
        floating[:, ::1] grad_cell_h, c_prev
        floating[::1] grad_peephole
        floating *peephole = NULL
        floating *outputs = NULL
        floating *unused = NULL
        bint projected = r.weight_hr != NULL
    if rows == 0:
        return 0
    dtype = np.float64 if floating is double else np.float32
    grad_z = np.empty((rows, 4 * r.hidden), dtype)
    h_prev = np.empty((rows, r.outputs), dtype)
    c_prev = np.empty((batch, r.hidden), dtype)
    grad_cell_h = grad_h
    if projected:
        grad_weight_hr = grads["weight_hr"]
        grad_outputs = np.empty((rows, r.outputs), dtype)
        grad_cell_h = np.empty((batch, r.hidden), dtype)
        cell_h = np.empty((rows, r.hidden), dtype)
        outputs = &grad_outputs[0, 0]
    if r.equations.peephole != NULL:
        grad_peephole = grads["weight_p"]
        peephole = &grad_peephole[0]
    with nogil:
        backward_steps(r, steps, &sizes[0], &offsets[0], &gates[0, 0], &cells[0, 0],
                       &tanh_cells[0, 0], &c_0[0, 0], &grad_y[0, 0],
                       items(grad_y.strides[0], unused), &grad_h[0, 0], &grad_c[0, 0],
                       &grad_z[0, 0], &grad_bias[0], peephole, outputs, &grad_cell_h[0, 0],
                       &c_prev[0, 0])
        backward_products(r, steps, &sizes[0], &offsets[0], &x[0, 0], &y[0, 0],
                          items(y.strides[0], unused), &h_0[0, 0], &grad_z[0, 0], &h_prev[0, 0],
                          &grad_x[0, 0], &grad_weight_ih[0, 0], &grad_weight_hh[0, 0])
        if projected:
            projection_products(r, rows, &gates[0, 0], &tanh_cells[0, 0], outputs, &cell_h[0, 0],
                                &grad_weight_hr[0, 0])
    return 0
