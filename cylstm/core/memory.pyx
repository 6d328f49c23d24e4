"""Arrays for the code that works on them through pointers: made, checked, copied."""

cimport cython
cimport numpy as cnp
from libc.string cimport memcpy, memset

import numpy as np

cnp.import_array()

# Of bytes: less is not worth it (malloc keeps that by itself); more should not lie idle.
cdef enum:
    LEAST_SPARED = 1 << 15
    MOST_SPARED = 1 << 28

BYTES = np.dtype("int8")


def aligned_empty(Py_ssize_t size, dtype):
    """An array that starts where a cache line does, as vectors of any width want."""
    cdef Py_ssize_t itemsize = dtype.itemsize
    cdef cnp.npy_intp length = size + 64 // itemsize
    memory = cnp.PyArray_EMPTY(1, &length, dtype.num, 0)
    cdef Py_ssize_t start = (-<Py_ssize_t> first_of(memory) & 63) // itemsize
    return memory[start : start + size]


cdef class Spare:
    """Memory for arrays that come and go with each step of training: what some have left serves the
    next. The system would clear its pages anew for each (Zen 5, tapes of 39 MB: 34.7 -> 32.1 ms a
    step of LSTM(8, 128), T=50, N=256). Its blocks are never more than were lent at once."""

    def __cinit__(self):
        self.left = []

    def empty(self, shape, dtype):
        """As `np.empty`; an array of one dimension starts where a cache line does."""
        cdef cnp.npy_intp sizes[3]
        cdef int rank = 1, k
        if isinstance(shape, tuple):
            rank = len(shape)
            if rank > 3:
                raise ValueError(f"shape: expected at most three axes, got {shape}")
            for k in range(rank):
                sizes[k] = shape[k]
        else:
            sizes[0] = shape
        return self.array(rank, sizes, dtype)

    cdef object array(self, int rank, cnp.npy_intp *sizes, dtype):
        cdef double wanted = dtype.itemsize  # which no product exceeds
        cdef Lent lent
        cdef int k
        for k in range(rank):
            wanted *= sizes[k]
        if not LEAST_SPARED <= wanted <= MOST_SPARED:
            if rank == 1:
                return aligned_empty(sizes[0], dtype)
            return cnp.PyArray_EMPTY(rank, sizes, dtype.num, 0)
        lent = Lent.__new__(Lent)
        lent.block = self.lend(<Py_ssize_t> wanted)
        lent.spare = self
        array = cnp.PyArray_SimpleNewFromData(rank, sizes, dtype.num, first_of(lent.block))
        cnp.set_array_base(array, lent)
        return array

    def copy(self, array):
        """A contiguous copy."""
        if cnp.PyArray_NBYTES(array) < LEAST_SPARED:
            return cnp.PyArray_NewCopy(array, cnp.NPY_CORDER)
        copy = self.array(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), array.dtype)
        copy[...] = array
        return copy

    cdef object begin_arena(self, arena *memory, Py_ssize_t size):
        """One of so many bytes, which are the object's that is returned."""
        memset(memory, 0, sizeof(arena))
        room = self.empty(size, BYTES)
        memory.memory, memory.size = first_of(room), size
        return room

    cdef object lend(self, Py_ssize_t wanted):
        """A block that is left, or a new one."""
        with cython.critical_section(self):
            block = self.pop(wanted)
        if block is None:
            block = aligned_empty(wanted, BYTES)
        with cython.critical_section(self):
            self.lent += 1
            if self.lent > self.most:
                self.most = self.lent
        return block

    cdef object pop(self, Py_ssize_t wanted):
        """The smallest that is large enough, unless most of it would lie idle."""
        cdef Py_ssize_t k
        for k in range(len(self.left)):
            if wanted <= len(self.left[k]) <= 4 * wanted:
                return self.left.pop(k)
        self.keep(self.most - self.lent - 1)  # beside the new one
        return None

    cdef int take_back(self, block) except -1:
        cdef Py_ssize_t k = 0
        with cython.critical_section(self):
            self.lent -= 1
            while k < len(self.left) and len(self.left[k]) < len(block):
                k += 1
            self.left.insert(k, block)  # of equals it is the next: some of it is in the cache
            self.keep(self.most - self.lent)
        return 0

    cdef int keep(self, Py_ssize_t count) except -1:
        """Of what is left so many, the largest that are not too much together."""
        cdef Py_ssize_t k, total = 0
        for k in range(len(self.left) - 1, -1, -1):
            total += len(self.left[k])
            if len(self.left) - k > count or total > MOST_SPARED:
                del self.left[:k + 1]
                break
        return 0


@cython.no_gc  # what it points to does not lead back to it
cdef class Lent:
    """Whose end is the array's that has it as its base: it leaves its memory."""
    cdef Spare spare
    cdef object block

    def __dealloc__(self):
        if self.spare is not None:
            self.spare.take_back(self.block)


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


cdef Py_ssize_t end_arena(arena *memory) noexcept nogil:
    """Gives all back; how much was taken at once."""
    cdef arena empty
    memset(&empty, 0, sizeof(arena))
    arena_return(memory, &empty)
    return memory.peak


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
