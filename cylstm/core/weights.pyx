"""Copies of parameters as the products want them, and when they are stale."""

cimport numpy as cnp
from cpython.ref cimport Py_REFCNT
from libc.string cimport memcpy

import numpy as np

from cylstm.core.cell cimport Cell
from cylstm.core.kernels cimport packed_matrix, packing
from cylstm.core.memory cimport first_of

from cylstm.core.memory import aligned_empty

cnp.import_array()

cdef enum:
    IN_PLACE_BYTES = 2097152  # of W_ih, that backward takes as it is; more miss the cache too often


cdef class Version:
    """How often parameters have changed: odd while they do."""


cdef class Packed:
    """A copy of a `Cell`'s parameters, packed. Nothing in it changes while a call has it."""


cdef list all_packed(store, Version version, list cells):
    """The weights for inference, all of one moment: to be kept until the tasks are done. While the
    parameters change it is the moment before, if they were packed then."""
    cdef Py_ssize_t whole = version.changes // 2 * 2
    cdef Packed made
    cdef list all_made = []
    for r in cells:
        made = (<Cell> r).packed.get(False)
        if made is None or made.changes != whole:
            break
        all_made.append(made)
    else:
        return all_made
    all_made = made = None  # else their memory could not be used again
    with store.reading():
        return [packed(version, r, False) for r in cells]


cdef Packed packed(Version version, Cell r, bint transposed):
    """Made at the first use, then shared by all threads and streams; made again, in the same memory
    if no call has it any more, when the parameters have changed. The caller reads the parameters.

    There is no lock that a fork could leave locked: threads that come at once may each make one.
    """
    cdef Packed made = r.packed.get(transposed)
    if made is not None and made.changes == version.changes:
        return made
    made = r.packed.pop(transposed, None)  # from here on no other thread finds it
    if made is None or Py_REFCNT(made) > 1:
        made = Packed()
        made.memory = []
    made.changes = version.changes
    copy_equations(r, made)
    if transposed:
        pack_transposes(r, made)
    else:
        pack_weights(r, made)
    r.packed[transposed] = made
    return made


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


cdef int pack_transposes(Cell r, Packed made) except -1:
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


cdef int pack_transpose(Cell r, list memory, const void *matrix, Py_ssize_t rows,
                        Py_ssize_t columns, packed_matrix *to) except -1:
    cdef bint narrow = columns <= 2 * r.kernel.width and rows % 4 == 0 and not r.kernel.flat
    cdef packing how = packing(False, narrow, columns, rows, 1, columns)
    return pack_matrix(r, memory, matrix, &how, to)


cdef int pack_matrix(Cell r, list memory, const void *matrix, const packing *how,
                     packed_matrix *to) except -1:
    if to.weights == NULL:
        new_matrix(r, memory, how, to)
    r.kernel.pack(how, matrix, NULL, to)
    return 0


cdef int new_matrix(Cell r, list memory, const packing *how, packed_matrix *to) except -1:
    """Memory for packed weights, and for gates a bias."""
    cdef Py_ssize_t tile = (1 if how.narrow else 4) * r.kernel.width
    dtype = r.parameters["weight_ih"].dtype
    to.narrow, to.tiles, to.depth = how.narrow, r.kernel.packed_tiles(how), how.depth
    to.tile_step, to.k_step = how.depth * tile, tile
    if r.kernel.flat:
        to.tile_step, to.k_step = tile, to.tiles * tile
    weights = aligned_empty(to.tiles * how.depth * tile, dtype)
    bias = aligned_empty(to.tiles * tile, dtype) if how.gated else None
    memory += [weights, bias]
    to.weights, to.bias = first_of(weights), first_of(bias)
    return 0
