"""Copies of parameters as the products want them, and when they are stale."""

cimport cython
cimport numpy as cnp
from libc.string cimport memcpy

import numpy as np

from cylstm.core.cell cimport Cell
from cylstm.core.kernels cimport kernels, packed_matrix, packing
from cylstm.core.memory cimport first_of

from cylstm.core.memory import aligned_empty

cnp.import_array()

cdef enum:
    IN_PLACE_BYTES = 2097152  # of a matrix taken as it is; more miss the cache too often


cdef class Version:
    """How often parameters have changed: odd while they do. One thread at a time sets it."""

    @property
    def changes(self):
        return changes_of(self)

    @changes.setter
    def changes(self, Py_ssize_t changes):
        cylstm_set_count(&self.count, changes)


cdef class Copy:
    """Memory with a copy of parameters, packed."""

    def __cinit__(self):
        self.memory = []


@cython.no_gc  # what it points to does not lead back to it
cdef class Kept:
    """A copy of one moment's parameters. Nothing in it changes while a call has this.

    It is made at the first use, then shared by all threads and streams; made again, in the same
    memory if no call has it any more, when the parameters have changed. There is no lock that a
    fork could leave locked: threads that come at once may each make one.
    """

    def __dealloc__(self):
        if self.left is not None:
            self.left.append(self.copy)


cdef Kept current(dict copies, bint transposed, Version version):
    """The copy that is there, if the parameters have not changed since; else None."""
    cdef Kept made = cylstm_find(copies, transposed)
    return made if made is not None and made.changes == changes_of(version) else None


cdef Kept renewed(dict copies, bint transposed, Version version, type kind):
    """One to be packed now, and then put where others find it."""
    cdef Kept made = Kept()
    cdef Kept last = copies.pop(transposed, None)  # from here on no other thread finds it
    cdef list left = []
    if last is not None:
        last.left = left
        last = None  # if no call has it, it ends here, and its memory is left
    made.copy = left.pop() if left else kind()
    made.changes = changes_of(version)
    return made


cdef class Packed(Copy):
    """Of a `Cell`'s parameters."""


cdef list all_packed(store, Version version, list cells):
    """The weights for inference, all of one moment: to be kept until the tasks are done. While the
    parameters change it is the moment before, if they were packed then."""
    cdef Py_ssize_t whole = changes_of(version) // 2 * 2
    cdef Kept made
    cdef list all_made = []
    for r in cells:
        made = cylstm_find((<Cell> r).packed, False)
        if made is None or made.changes != whole:
            break
        all_made.append(made)
    else:
        return all_made
    all_made = made = None  # else their memory could not be used again
    with store.reading():
        return [packed(version, r, False) for r in cells]


cdef void point_to(list weights, const runnable **cells) noexcept:
    """At those of `all_packed`."""
    cdef Py_ssize_t k
    for k in range(len(weights)):
        cells[k] = ready_of(weights[k])


cdef const runnable *ready_of(Kept kept) noexcept:
    """Of weights that are not transposes."""
    return &(<Packed> kept.copy).ready


cdef Kept packed(Version version, Cell r, bint transposed):
    """The copy for now. The caller reads the parameters."""
    cdef Kept kept = current(r.packed, transposed, version)
    if kept is None:
        with cython.critical_section(r):  # those who come at once need not all pack
            kept = current(r.packed, transposed, version)
            if kept is None:
                kept = renewed(r.packed, transposed, version, Packed)
                pack(r, transposed, kept.copy)
                r.packed[transposed] = kept
    return kept


cdef int pack(Cell r, bint transposed, Packed made) except -1:
    copy_equations(r, made)
    if transposed:
        pack_transposes(r, made)
    else:
        pack_weights(r, made)
        made.ready = runnable(
            &made.equations, r.kernel, r.functions, r.sums, &made.weights, &made.weight_ih,
            &made.weight_hh, &made.weight_hr, r.weight_hr != NULL, r.reverse,
            8 if r.is_double else 4, r.inputs, r.hidden, r.outputs)
    return 0


cdef int copy_equations(Cell r, Packed made) except -1:
    """With peepholes of its own, the first of its memory."""
    made.equations = r.equations
    if r.equations.peephole != NULL:
        peephole = r.parameters["weight_p"]
        if not made.memory:
            made.memory.append(np.empty_like(peephole))
        memcpy(first_of(made.memory[0]), first_of(peephole), cnp.PyArray_NBYTES(peephole))
        made.equations.peephole = first_of(made.memory[0])
    return 0


cdef int pack_weights(Cell r, Packed made) except -1:
    """For x W_ih', h W_hh' and h W_hr'."""
    cdef packing how = packing_of_sums(r)
    cdef Py_ssize_t size = 8 if r.is_double else 4
    if made.weights.weights == NULL:
        new_parts(r, size, made)
    bias = bias_of_sums(r)
    r.kernel.pack(&how, r.weight_ih, first_of(bias), &made.weight_ih)
    how.depth = how.row_step = r.outputs
    how.scales = scales(r, "weight_hh")
    if how.gates != NULL:
        how.at = 0 if r.kernel.flat else r.sums.first_of_h
        how.gates = &r.sums.h[how.at]
    r.kernel.pack(&how, r.weight_hh, NULL, &made.weight_hh)
    if r.weight_hr != NULL:
        how = packing(NULL, 4, 0, r.outputs, r.hidden, r.hidden, 1, scales(r, "weight_hr"))
        if made.weight_hr.weights == NULL:
            new_matrix(r.kernel, size, made.memory, &how, False, 1, &made.weight_hr)
        r.kernel.pack(&how, r.weight_hr, NULL, &made.weight_hr)
    return 0


cdef packing packing_of_sums(Cell r) noexcept:
    """Of x's share of them."""
    cdef packing how
    cdef bint has_gates = r.sums.tile == 1
    how = packing(NULL, 4, 0, r.hidden, r.inputs, r.inputs, 1, scales(r, "weight_ih"))
    if has_gates:
        how.gates = &r.sums.x[0]
        how.vectors = 4 if r.kernel.flat else r.sums.gates
    return how


cdef bias_of_sums(Cell r):
    """For each sum of all units; None for zero."""
    bias, bias_hn = r.parameters.get("bias"), r.parameters.get("bias_hn")
    if bias_hn is None:
        return bias
    resets, updates, candidates = np.split(bias, 3)
    return np.concatenate((candidates, resets, updates, bias_hn))


cdef const void *scales(Cell r, str name) noexcept:
    return first_of(r.parameters.get(name + "_scale"))


cdef int new_parts(Cell r, Py_ssize_t size, Packed made) except -1:
    """Memory for [W_ih W_hh], and the two in it."""
    cdef Py_ssize_t first = whole_groups(r.kernel, r.inputs)
    cdef Py_ssize_t depth = first + whole_groups(r.kernel, r.outputs), scales_each
    cdef packing both = packing_of_sums(r)
    both.depth = depth
    new_matrix(r.kernel, size, made.memory, &both, True, 2, &made.weights)
    made.weights.first = first
    made.weight_ih = made.weight_hh = made.weights
    made.weight_ih.depth = first
    made.weight_hh.depth = made.weight_hh.first = depth - first
    made.weight_hh.bias = NULL
    made.weight_hh.weights = (
        <char *> made.weights.weights
        + first // r.kernel.together * made.weights.k_step * r.kernel.weight_size)
    if made.weights.scales != NULL:
        scales_each = made.weights.tiles * 4 * r.kernel.width * size
        made.weight_hh.scales = <char *> made.weights.scales + scales_each
        made.weight_hh.starts = <char *> made.weights.starts + scales_each
    return 0


cdef Py_ssize_t whole_groups(const kernels *kernel, Py_ssize_t depth) noexcept nogil:
    """A depth, padded to what lies together."""
    return (depth + kernel.together - 1) // kernel.together * kernel.together


cdef int pack_transposes(Cell r, Packed made) except -1:
    """For dz W_ih, dz W_hh and dh W_hr."""
    cdef Py_ssize_t depth = r.sums.gates * r.hidden, size = 8 if r.is_double else 4
    pack_seldom(r.kernel, size, made.memory, r.weight_ih, depth, r.inputs, &made.weight_ih)
    pack_transpose(r.kernel, size, made.memory, r.weight_hh, depth, r.outputs, &made.weight_hh)
    if r.weight_hr != NULL:
        pack_transpose(r.kernel, size, made.memory, r.weight_hr, r.outputs, r.hidden,
                       &made.weight_hr)
    return 0


cdef int pack_seldom(const kernels *kernel, Py_ssize_t size, list memory, const void *matrix,
                     Py_ssize_t rows, Py_ssize_t columns, packed_matrix *to) except -1:
    """As `pack_transpose`, of what is read for many rows at once: a matrix of whole tiles, if not
    large, serves as it is."""
    cdef Py_ssize_t tile = 4 * kernel.width
    if columns % tile or rows * columns * size > IN_PLACE_BYTES:
        return pack_transpose(kernel, size, memory, matrix, rows, columns, to)
    to[0] = in_place(kernel, matrix, rows, columns)
    return 0


cdef packed_matrix in_place(const kernels *kernel, const void *matrix, Py_ssize_t rows,
                            Py_ssize_t columns) noexcept nogil:
    """A matrix of whole tiles, as it lies, for x m."""
    cdef Py_ssize_t tile = 4 * kernel.width
    return packed_matrix(4, columns // tile, rows, tile, columns, tile // 2, matrix, NULL, rows,
                         NULL, NULL)


cdef int pack_transpose(const kernels *kernel, Py_ssize_t size, list memory, const void *matrix,
                        Py_ssize_t rows, Py_ssize_t columns, packed_matrix *to) except -1:
    """The matrix (rows, columns) for x m, x (..., rows)."""
    cdef int vectors = vectors_for(kernel, rows, columns)
    cdef packing how = packing(NULL, vectors, 0, columns, rows, 1, columns, NULL)
    if to.weights == NULL:
        new_matrix(kernel, size, memory, &how, False, 1, to)
    kernel.pack(&how, matrix, NULL, to)
    return 0


cdef int vectors_for(const kernels *kernel, Py_ssize_t depth,
                     Py_ssize_t outputs) noexcept nogil:
    """In a tile of outputs: one where they are few."""
    if outputs > 2 * kernel.width or depth % 4 or kernel.flat or kernel.convert != NULL:
        return 4
    return 1


cdef void set_steps(const kernels *kernel, packed_matrix *to) noexcept nogil:
    """How far what is packed lies apart."""
    cdef Py_ssize_t tile = to.vectors * kernel.width
    to.tile_step, to.k_step = to.depth * tile, tile * kernel.together
    to.half_step = 2 * kernel.width * kernel.together
    if kernel.flat:
        to.tile_step, to.k_step = tile, to.tiles * tile
    elif kernel.halves and to.vectors == 4:
        to.k_step, to.half_step = to.half_step, to.depth * tile // 2


cdef int new_matrix(const kernels *kernel, Py_ssize_t size, list memory, const packing *how,
                    bint has_bias, int parts, packed_matrix *to) except -1:
    """Memory for packed weights, and for a bias and scales of each part."""
    cdef Py_ssize_t tile = how.vectors * kernel.width, sums
    dtype = np.dtype("float64" if size == 8 else "float32")
    to.vectors, to.tiles = how.vectors, kernel.packed_tiles(how)
    to.depth = to.first = whole_groups(kernel, how.depth)
    sums = to.tiles * 4 * kernel.width
    set_steps(kernel, to)
    bytes_of_weights = to.tiles * tile * to.depth * kernel.weight_size
    weights = aligned_empty(bytes_of_weights, np.dtype("int8"))
    bias = aligned_empty(sums, dtype) if has_bias else None
    memory += [weights, bias]
    to.weights, to.bias = first_of(weights), first_of(bias)
    if kernel.convert != NULL:
        beside = [aligned_empty(parts * sums, dtype) for _ in range(2)]
        memory += beside
        to.scales, to.starts = first_of(beside[0]), first_of(beside[1])
    return 0
