"""Arrays for the code that works on them through pointers: made, checked, copied."""

cimport numpy as cnp
from libc.string cimport memcpy

import numpy as np

cnp.import_array()

# Of bytes: less is not worth it (malloc keeps that by itself); more should not lie idle.
cdef enum:
    LEAST_SPARED = 1 << 17
    MOST_SPARED = 1 << 28


def aligned_empty(Py_ssize_t size, dtype):
    """An array that starts where a cache line does, as vectors of any width want."""
    cdef Py_ssize_t itemsize = dtype.itemsize
    cdef cnp.npy_intp length = size + 64 // itemsize
    memory = cnp.PyArray_EMPTY(1, &length, dtype.num, 0)
    cdef Py_ssize_t start = (-<Py_ssize_t> first_of(memory) & 63) // itemsize
    return memory[start : start + size]


cdef class Spare:
    """Memory for arrays that come and go with each step of training: what one has left serves the
    next. The system would clear its pages anew for each (Zen 5, tapes of 39 MB: 34.7 -> 32.1 ms a
    step of LSTM(8, 128), T=50, N=256)."""

    def __cinit__(self):
        self.left = []

    def empty(self, Py_ssize_t size, dtype):
        """As `aligned_empty`."""
        cdef Py_ssize_t wanted = size * dtype.itemsize
        cdef cnp.npy_intp length = size
        if not LEAST_SPARED <= wanted <= MOST_SPARED:
            return aligned_empty(size, dtype)
        cdef Lent lent = Lent.__new__(Lent)
        lent.left, lent.block = self.left, self.take(wanted)
        array = cnp.PyArray_SimpleNewFromData(1, &length, dtype.num, first_of(lent.block))
        cnp.set_array_base(array, lent)
        return array

    cdef object take(self, Py_ssize_t wanted):
        """What is left, unless it is too small, or so large that most of it would lie idle."""
        try:
            block = self.left.pop()
        except IndexError:
            block = None
        if block is None or not wanted <= block.nbytes <= 4 * wanted:
            block = aligned_empty(wanted, np.dtype("int8"))
        return block


cdef class Lent:
    """Whose end is the array's that has it as its base: it leaves its memory."""
    cdef list left
    cdef object block

    def __del__(self):
        self.left[:] = [max([*self.left, self.block], key=len)]  # of bytes


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
        raise ValueError(f"expected a contiguous array of {size} numbers, of one dtype")
    return 0


cdef bint is_plain(array, int typenum) noexcept:
    """Whether it is an array of this dtype, C-contiguous, aligned and in native byte order."""
    return (cnp.PyArray_CheckExact(array) and cnp.PyArray_TYPE(array) == typenum
            and cnp.PyArray_ISCARRAY_RO(array))


cdef char *first_of(array) noexcept:
    """Where an array begins; NULL of None."""
    return NULL if array is None else cnp.PyArray_BYTES(array)


cdef char *take(arena *memory, Py_ssize_t size) except NULL:
    cdef void *taken = arena_take(memory, size)
    if taken == NULL:
        raise MemoryError(f"no memory for {size} bytes of workspace")
    return <char *> taken


cdef int enough(const arena *memory, int got) except -1:
    """After code without the GIL, which gives -1 where it got no memory."""
    if got < 0:
        raise MemoryError(f"no memory for {memory.peak} bytes of workspace")
    return 0


cdef Py_ssize_t row_width(Py_ssize_t width, Py_ssize_t size) noexcept nogil:
    """A row's length, off the powers of two at which rows compete for a place in the cache."""
    return width + 64 // size if width * size % 1024 == 0 else width
