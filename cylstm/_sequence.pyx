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

cimport numpy as cnp
from cython cimport floating
from libc.string cimport memcpy

import numpy as np

from cylstm._blas cimport gemm, gemv
from cylstm._kernels cimport as_activation, step_gradients, step_tape, table

from cylstm._kernels import ISA

cnp.import_array()

cdef enum:
    BLOCK_BYTES = 262144  # of pre-activations that `run` projects at once: a part of the L2 cache


def aligned_empty(Py_ssize_t size, dtype):
    """An array that starts where a cache line does, as vectors of any width want."""
    cdef Py_ssize_t itemsize = dtype.itemsize
    cdef cnp.npy_intp length = size + 64 // itemsize
    memory = cnp.PyArray_EMPTY(1, &length, dtype.num, 0)
    cdef Py_ssize_t start = (-<Py_ssize_t> first_of(memory) & 63) // itemsize
    return memory[start : start + size]


cdef class Version:
    """How often parameters have changed: odd while they do."""


def copy_all(list targets, list sources):
    """Copy arrays, C-contiguous and alike, with no other thread's Python in between."""
    for target, source in zip(targets, sources, strict=True):
        check_array(target, cnp.PyArray_TYPE(target), cnp.PyArray_SIZE(target))
        check_array(source, cnp.PyArray_TYPE(target), cnp.PyArray_SIZE(target))
    for target, source in zip(targets, sources, strict=True):
        memcpy(first_of(target), first_of(source), cnp.PyArray_NBYTES(target))


cdef int check_array(array, int typenum, Py_ssize_t size) except -1:
    """What is read or written through a pointer is what it is said to be, whoever made it."""
    if not (isinstance(array, cnp.ndarray) and cnp.PyArray_TYPE(array) == typenum
            and cnp.PyArray_ISCARRAY_RO(array) and cnp.PyArray_SIZE(array) == size):
        raise ValueError(f"expected a contiguous array of {size} numbers, of its LSTM's dtype")
    return 0


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

    def __init__(self, dict parameters, *, bint reverse, bint coupled, double clip, activations,
                 str isa=ISA):
        weight_ih, weight_hh = parameters["weight_ih"], parameters["weight_hh"]
        self.parameters = parameters
        self.packed = {}
        self.reverse = reverse
        self.is_double = weight_ih.dtype == np.float64
        self.inputs, self.outputs = weight_ih.shape[1], weight_hh.shape[1]
        self.hidden = weight_ih.shape[0] // 4
        self.kernel = table(isa, self.is_double)
        self.weight_ih = first_of(weight_ih)
        self.weight_hh = first_of(weight_hh)
        self.weight_hr = first_of(parameters.get("weight_hr"))
        self.bias = first_of(parameters.get("bias"))
        self.equations.hidden = self.hidden
        self.equations.coupled = coupled
        self.equations.clip = clip
        self.equations.peephole = first_of(parameters.get("weight_p"))
        gates, candidate, output = activations
        self.equations.gates = as_activation(gates)
        self.equations.candidate = as_activation(candidate)
        self.equations.output = as_activation(output)

    def run(self, x, y, h, c, sizes, order):
        """Inference by BLAS: keeps nothing, and its workspace does not grow with T.

        Parameters
        ----------
        x, y : array, (T, N, I) and (T, N, R), each row contiguous
            Input, and output to write; only the rows of running sequences are touched.
        h, c : array, (N, R) and (N, H), C-contiguous
            The state in the sorted order: the initial one going in, the last coming out.
        sizes, order : array of intp, (T,) and (N,)
            Running sequences at each step, and the place in the batch of each sorted row.
        """
        if self.is_double:
            _run_arrays[double](self, x, y, h, c, sizes, order)
        else:
            _run_arrays[float](self, x, y, h, c, sizes, order)

    def new_tape(self, Py_ssize_t rows):
        """Memory for the activated gates (S, 4H), c (S, H) and its output activation (S, H)."""
        return aligned_empty(6 * rows * self.hidden, self.parameters["weight_ih"].dtype)

    def parts_of(self, tape):
        """The three as arrays."""
        cdef Py_ssize_t size = len(tape) // 6
        return (tape[: 4 * size].reshape(-1, 4 * self.hidden),
                tape[4 * size : 5 * size].reshape(-1, self.hidden),
                tape[5 * size :].reshape(-1, self.hidden))

    def forward(self, x, y, h, c, batch, tape):
        """Forward with a tape by BLAS, over packed rows: x (S, I), y (S, R); h, c as in `run`."""
        if self.is_double:
            _forward_arrays[double](self, x, y, h, c, batch.sizes, batch.offsets,
                                    *self.parts_of(tape))
        else:
            _forward_arrays[float](self, x, y, h, c, batch.sizes, batch.offsets,
                                   *self.parts_of(tape))

    def backward(self, x, y, tape, h_0, c_0, batch, grad_y, grad_h, grad_c, grad_x, adds):
        """The backward pass by BLAS.

        Parameters
        ----------
        x, y : array, (S, I) and (S, R)
            In packed rows; y's may lie apart, as grad_y's.
        tape : array
            As `forward` wrote it.
        h_0, c_0 : array, (N, R) and (N, H)
            The initial state, in the sorted order.
        batch : Batch
        grad_y : array, (S, R)
        grad_h, grad_c : array, (N, R) and (N, H), C-contiguous
            Those of h_n and c_n going in, of h_0 and c_0 coming out.
        grad_x : array, (S, I)
            Written, or with `adds` added to.

        Returns
        -------
        grads : dict of str to array
            For each of the parameters.
        """
        if not adds:
            grad_x[...] = 0
        if self.is_double:
            return _backward_arrays[double](self, x, y, tape, h_0, c_0, batch.sizes, batch.offsets,
                                            grad_y, grad_h, grad_c, grad_x)
        return _backward_arrays[float](self, x, y, tape, h_0, c_0, batch.sizes, batch.offsets,
                                       grad_y, grad_h, grad_c, grad_x)


cdef char *first_of(array) noexcept:
    """Where an array begins; NULL of None."""
    return NULL if array is None else cnp.PyArray_BYTES(array)


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


cdef inline step_tape tape_of(Recurrence r, Py_ssize_t row, const floating *gates,
                              const floating *cells, const floating *tanh_cells) noexcept nogil:
    cdef step_tape tape
    tape.gates = <void *> (gates + row * 4 * r.hidden)
    tape.c = <void *> (cells + row * r.hidden)
    tape.tanh_c = <void *> (tanh_cells + row * r.hidden)
    tape.gates_row, tape.c_row = 4 * r.hidden, r.hidden
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


cdef inline Py_ssize_t carried_rows(Recurrence r, Py_ssize_t steps, const Py_ssize_t *sizes,
                                    Py_ssize_t position) noexcept nogil:
    """How many of a step's rows the step before it had too: the others begin."""
    if position == 0:
        return 0
    return min(sizes[time_of(r.reverse, steps, position)],
               sizes[time_of(r.reverse, steps, position - 1)])


cdef void previous_rows(
        Recurrence r, Py_ssize_t steps, const Py_ssize_t *sizes, const Py_ssize_t *offsets,
        Py_ssize_t position, Py_ssize_t width, const floating *values, Py_ssize_t values_row,
        const floating *initial, floating *to) noexcept nogil:
    """What the step at `position` started from: of the step before it, or the initial state."""
    cdef Py_ssize_t n = sizes[time_of(r.reverse, steps, position)], j
    cdef Py_ssize_t carried = carried_rows(r, steps, sizes, position)
    cdef Py_ssize_t before = time_of(r.reverse, steps, position - 1)
    for j in range(carried):
        memcpy(to + j * width, values + (offsets[before] + j) * values_row,
               width * sizeof(floating))
    memcpy(to + carried * width, initial + carried * width,
           (n - carried) * width * sizeof(floating))


cdef void backward_steps(
        Recurrence r, Py_ssize_t steps, const Py_ssize_t *sizes, const Py_ssize_t *offsets,
        const floating *gates, const floating *cells, const floating *tanh_cells,
        const floating *c_0, const floating *grad_y, Py_ssize_t grad_y_row, floating *grad_h,
        floating *grad_c, floating *grad_z, floating *grad_outputs, floating *grad_cell_h,
        floating *c_prev) noexcept nogil:
    """grad_z of all steps; `grad_outputs` only with a projection."""
    cdef Py_ssize_t position, t, j, k, n
    cdef floating zero = 0
    cdef step_tape tape
    cdef step_gradients grad
    grad.h = grad_cell_h
    grad.y = NULL
    grad.c = grad_c
    grad.h_row = grad.c_row = r.hidden
    grad.y_row, grad.z_row = 0, 4 * r.hidden
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
        r.kernel.cell_backward(&r.equations, n, &tape, c_prev, r.hidden, &grad, 0, r.hidden)
        product(n, r.outputs, 4 * r.hidden, <const floating *> grad.z, False,
                <const floating *> r.weight_hh, zero, grad_h)


cdef void sum_steps(
        Recurrence r, Py_ssize_t steps, const Py_ssize_t *sizes, const Py_ssize_t *offsets,
        const floating *gates, const floating *cells, const floating *c_0, const floating *grad_z,
        floating *grad_bias, floating *grad_peephole) noexcept nogil:
    """The gradients that are sums over rows: for a peephole, of products with c before the step."""
    cdef Py_ssize_t position, t, carried, width = 4 * r.hidden
    cdef step_tape tape = tape_of(r, 0, gates, cells, cells)
    if grad_peephole == NULL:
        r.kernel.sum_gradients(&r.equations, offsets[steps], &tape, NULL, 0, grad_z, width,
                               grad_bias, NULL, 0, r.hidden)
        return
    for position in range(steps):
        t = time_of(r.reverse, steps, position)
        carried = carried_rows(r, steps, sizes, position)
        tape = tape_of(r, offsets[t], gates, cells, cells)
        if carried > 0:
            r.kernel.sum_gradients(
                &r.equations, carried, &tape,
                cells + offsets[time_of(r.reverse, steps, position - 1)] * r.hidden, r.hidden,
                grad_z + offsets[t] * width, width, grad_bias, grad_peephole, 0,
                r.hidden)
        tape = tape_of(r, offsets[t] + carried, gates, cells, cells)
        r.kernel.sum_gradients(
            &r.equations, sizes[t] - carried, &tape, c_0 + carried * r.hidden, r.hidden,
            grad_z + (offsets[t] + carried) * width, width, grad_bias, grad_peephole, 0, r.hidden)


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
    block = BLOCK_BYTES // (4 * r.hidden * <Py_ssize_t> sizeof(floating) * batch)
    block = max(1, min(steps, block))
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


cdef dict _backward_arrays(Recurrence r, const floating[:, ::1] x, const floating[:, :] y,
                           tape, const floating[:, ::1] h_0, const floating[:, ::1] c_0,
                           const Py_ssize_t[::1] sizes, const Py_ssize_t[::1] offsets,
                           const floating[:, :] grad_y, floating[:, ::1] grad_h,
                           floating[:, ::1] grad_c, floating[:, ::1] grad_x):
    cdef:
        const floating[:, ::1] gates, cells, tanh_cells
        Py_ssize_t steps = sizes.shape[0], batch = c_0.shape[0], rows = x.shape[0]
        floating[:, ::1] grad_z, grad_outputs, grad_cell_h = grad_h, c_prev
        floating one = 1
        floating *unused = NULL
    grads = {name: np.zeros_like(array) for name, array in r.parameters.items()}
    if rows == 0:
        return grads
    gates, cells, tanh_cells = r.parts_of(tape)
    dtype = np.float64 if floating is double else np.float32
    grad_z = np.empty((rows, 4 * r.hidden), dtype)
    grad_outputs = np.empty((rows, r.outputs if r.weight_hr != NULL else 0), dtype)
    c_prev = np.empty((batch, r.hidden), dtype)
    if r.weight_hr != NULL:
        grad_cell_h = np.empty((batch, r.hidden), dtype)
    with nogil:
        backward_steps(r, steps, &sizes[0], &offsets[0], &gates[0, 0], &cells[0, 0],
                       &tanh_cells[0, 0], &c_0[0, 0], &grad_y[0, 0],
                       items(grad_y.strides[0], unused), &grad_h[0, 0], &grad_c[0, 0],
                       &grad_z[0, 0], &grad_outputs[0, 0] if r.weight_hr != NULL else NULL,
                       &grad_cell_h[0, 0], &c_prev[0, 0])
        product(rows, r.inputs, 4 * r.hidden, &grad_z[0, 0], False,
                <const floating *> r.weight_ih, one, &grad_x[0, 0])
    _sum_arrays[floating](r, gates, cells, c_0, sizes, offsets, grad_z, grads)
    _add_outer[floating](grad_z, x, grads["weight_ih"])
    _add_outer[floating](grad_z, _previous_outputs[floating](r, y, h_0, sizes, offsets),
                         grads["weight_hh"])
    if r.weight_hr != NULL:
        _add_outer[floating](grad_outputs, _cell_outputs[floating](r, gates, tanh_cells),
                             grads["weight_hr"])
    return grads


cdef int _sum_arrays(Recurrence r, const floating[:, ::1] gates, const floating[:, ::1] cells,
                     const floating[:, ::1] c_0, const Py_ssize_t[::1] sizes,
                     const Py_ssize_t[::1] offsets, const floating[:, ::1] grad_z,
                     dict grads) except -1:
    cdef:
        floating[::1] grad_bias, grad_peephole
        floating *peephole = NULL
    if not ("bias" in grads or "weight_p" in grads):
        return 0
    grad_bias = grads["bias"] if "bias" in grads else np.zeros_like(grad_z[0])
    if "weight_p" in grads:
        grad_peephole = grads["weight_p"]
        peephole = &grad_peephole[0]
    with nogil:
        sum_steps(r, sizes.shape[0], &sizes[0], &offsets[0], &gates[0, 0], &cells[0, 0],
                  &c_0[0, 0], &grad_z[0, 0], &grad_bias[0], peephole)
    return 0


cdef floating[:, ::1] _previous_outputs(
        Recurrence r, const floating[:, :] y, const floating[:, ::1] h_0,
        const Py_ssize_t[::1] sizes, const Py_ssize_t[::1] offsets):
    """What each step started from: the h (S, R) before it."""
    cdef Py_ssize_t position, t, steps = sizes.shape[0]
    cdef floating *unused = NULL
    cdef floating[:, ::1] h_prev = np.empty((y.shape[0], r.outputs),
                                            np.float64 if floating is double else np.float32)
    with nogil:
        for position in range(steps):
            t = time_of(r.reverse, steps, position)
            previous_rows(r, steps, &sizes[0], &offsets[0], position, r.outputs, &y[0, 0],
                          items(y.strides[0], unused), &h_0[0, 0], &h_prev[offsets[t], 0])
    return h_prev


cdef floating[:, ::1] _cell_outputs(Recurrence r, const floating[:, ::1] gates,
                                    const floating[:, ::1] tanh_cells):
    """The h (S, H) before their projection, computed again."""
    cdef step_tape tape = tape_of(r, 0, &gates[0, 0], <const floating *> NULL, &tanh_cells[0, 0])
    cdef floating[:, ::1] h = np.empty((gates.shape[0], r.hidden),
                                       np.float64 if floating is double else np.float32)
    r.kernel.cell_output(&r.equations, gates.shape[0], &tape, &h[0, 0])
    return h


cdef int _add_outer(const floating[:, ::1] a, const floating[:, ::1] b,
                    floating[:, ::1] c) except -1:
    """c (m, n) += a' b for a (S, m), b (S, n)."""
    cdef floating one = 1
    with nogil:
        gemm(True, False, c.shape[0], c.shape[1], a.shape[0], one, &a[0, 0], a.shape[1],
             &b[0, 0], b.shape[1], one, &c[0, 0], c.shape[1])
    return 0
