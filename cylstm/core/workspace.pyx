"""The memory that a stream's steps compute in."""

from cylstm.core.memory cimport arena_free, arena_grow

from cylstm.core.forks import at_fork

cdef int _process = 1  # one more in each child of a fork


def _after_in_child():
    global _process
    _process += 1


at_fork(after_in_child=_after_in_child)


cdef class Workspace:
    """Memory that a stream's steps compute in, as large as the last one wanted it; and whether one
    is under way: in a ``with`` block no other thread's is."""

    def __enter__(self):
        self.begin()

    def __exit__(self, *_):
        self.end()

    cpdef int begin(self) except -1:
        """Before a step, or what else reads or changes the state."""
        cdef int before = cylstm_turn(&self.taken, 0, _process)
        if before == _process:
            raise RuntimeError("stream: it is in use by another thread; give each thread its own")
        if before:
            raise RuntimeError("stream: the process was forked amid a step, so its state is of "
                               "none; set it, or reset all of it")
        return 0

    cpdef int end(self) except -1:
        """After it."""
        cylstm_leave(&self.taken)
        return 0

    def forget_fork(self):
        """Before the whole state is set anew."""
        cdef int before = cylstm_turn(&self.taken, 0, 0)
        if before != _process:
            cylstm_turn(&self.taken, before, 0)

    def __dealloc__(self):
        arena_free(&self.memory)

    def __reduce__(self):
        return Workspace, ()

    cdef int grow(self, Py_ssize_t size) except -1:
        if arena_grow(&self.memory, size) < 0:
            raise MemoryError(f"no memory for {size} bytes of workspace")
        return 0
