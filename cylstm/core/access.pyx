"""Who reads parameters, and who changes them: a change is seen whole or not at all.

Any number of threads read a store at once, and one that changes it is alone. They come to their
turns in the order in which they asked; but a thread that has something already need only wait for
those who have theirs. All that a thread asks for it is given in one moment, so that none keeps what
another waits for. A fork waits for changes, since its child would inherit the half of one.

A store is an object with ``begin_change()`` and ``end_change()``. It is compiled since each step of
a model's stream takes a turn: some 0.3 us, where Python took 3.
"""

from cpython.pythread cimport PyThread_get_thread_ident

import threading

from cylstm.core.forks import at_fork

_lock = threading.RLock()  # of all below
_changed = threading.Condition(_lock)
cdef list _holds = []  # the turns that threads have now,
cdef list _waiting = []  # and those they wait for, in the order in which they asked
cdef _Turn _fork = None  # there is one at a time: its thread keeps the lock until it is over


cdef class _Turn:
    """A ``with`` block in which a thread has some stores; None stands for all."""

    cdef readonly frozenset stores
    cdef unsigned long thread
    cdef bint writes

    def __init__(self, frozenset stores):
        self.stores = stores

    def __enter__(self):
        self.begin()

    def __exit__(self, *_):
        self.end()

    cdef int begin(self) except -1:
        self.thread = PyThread_get_thread_ident()
        with _lock:
            if _waiting or self.conflicts(_holds, len(_holds)):
                self.wait()
            _holds.append(self)
        return 0

    cdef int end(self) except -1:
        with _lock:
            _holds.remove(self)
            if _waiting:
                _changed.notify_all()
        return 0

    cdef int wait(self) except -1:
        _waiting.append(self)
        try:
            _changed.wait_for(self.may_begin)
        finally:
            _waiting.remove(self)
            _changed.notify_all()
        return 0

    def may_begin(self):
        """Whether neither who has a turn nor who asked before stands in the way."""
        has_one = any([(<_Turn> hold).thread == self.thread for hold in _holds])
        return not (self.conflicts(_holds, len(_holds))
                    or (not has_one and self.conflicts(_waiting, _waiting.index(self))))

    cdef bint conflicts(self, list turns, Py_ssize_t count) except -1:
        """Whether one of the first turns is another thread's, of what cannot be had at once."""
        cdef _Turn other
        cdef Py_ssize_t j
        for j in range(count):
            other = turns[j]
            if other.thread != self.thread and (self.writes or other.writes):
                if (self.stores is None or other.stores is None
                        or not self.stores.isdisjoint(other.stores)):
                    return True
        return False


cdef class reading(_Turn):
    """A ``with`` block in which no other thread changes these stores.

    Parameters
    ----------
    stores : frozenset
    """


cdef class writing(_Turn):
    """A ``with`` block in which no other thread reads or changes these stores.

    Parameters
    ----------
    stores : frozenset

    Raises
    ------
    RuntimeError
        If this thread reads one of them: it would wait for itself.
    """

    cdef frozenset outermost

    def __init__(self, frozenset stores not None):
        self.stores, self.writes = stores, True

    def __enter__(self):
        cdef _Turn hold
        outermost = self.stores
        with _lock:
            for hold in _holds:
                if hold.thread != PyThread_get_thread_ident():
                    continue
                if hold.writes:
                    outermost -= hold.stores
                elif hold.stores is not None and not self.stores.isdisjoint(hold.stores):
                    raise RuntimeError("parameters: a call that uses them cannot change them")
        self.begin()
        self.outermost = outermost
        for store in outermost:
            store.begin_change()

    def __exit__(self, *_):
        for store in self.outermost:
            store.end_change()
        self.end()


def _before_fork():
    global _fork
    cdef _Turn turn = _Turn(None)
    turn.begin()
    _lock.acquire()
    _fork = turn


def _after_in_parent():
    cdef _Turn turn = _fork
    _lock.release()
    turn.end()


def _after_in_child():
    """The other threads are not there: what they had is free, and none waits."""
    global _changed, _lock
    cdef unsigned long own = PyThread_get_thread_ident()
    _lock = threading.RLock()
    _changed = threading.Condition(_lock)
    _holds[:] = [hold for hold in _holds if (<_Turn> hold).thread == own and hold is not _fork]
    _waiting.clear()


at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
