"""Who reads parameters, and who changes them: a change is seen whole or not at all.

Any number of threads read a store at once, and one that changes it is alone. They come to their
turns in the order in which they asked; but a thread that has something already need only wait for
those who have theirs. All that a thread asks for it is given in one moment, so that none keeps what
another waits for. A fork waits for changes, since its child would inherit the half of one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from typing import Protocol

__all__ = ["reading", "writing"]


class Store(Protocol):
    """What is read and changed."""

    def begin_change(self) -> None: ...

    def end_change(self) -> None: ...


_changed = threading.Condition()  # of the two below, which it guards
_holds: list[_Turn] = []  # who has what
_waiting: list[_Turn] = []  # who asked for what, in that order


class _Turn:
    """A ``with`` block in which a thread has some stores; None stands for all."""

    __slots__ = ("stores", "thread")
    writes = False

    def __init__(self, stores: frozenset[Store] | None) -> None:
        self.stores = stores

    def __enter__(self) -> None:
        self.thread = threading.get_ident()
        with _changed:
            if _waiting or any(self.conflicts(hold) for hold in _holds):
                self._await()
            _holds.append(self)

    def __exit__(self, *_: object) -> None:
        with _changed:
            _holds.remove(self)
            if _waiting:
                _changed.notify_all()

    def _await(self) -> None:
        _waiting.append(self)
        try:
            _changed.wait_for(self._may_begin)
        finally:
            _waiting.remove(self)
            _changed.notify_all()

    def _may_begin(self) -> bool:
        before: Collection[_Turn] = _holds
        if not any(hold.thread == self.thread for hold in _holds):
            before = [*_holds, *_waiting[: _waiting.index(self)]]
        return not any(self.conflicts(turn) for turn in before)

    def conflicts(self, other: _Turn) -> bool:
        """Whether the two threads cannot have what they want at once."""
        if other.thread == self.thread or not (self.writes or other.writes):
            return False
        either_wants_all = self.stores is None or other.stores is None
        return either_wants_all or not self.stores.isdisjoint(other.stores)


class reading(_Turn):
    """A ``with`` block in which no other thread changes these stores.

    Parameters
    ----------
    stores : frozenset of Store
    """

    __slots__ = ()


class writing(_Turn):
    """A ``with`` block in which no other thread reads or changes these stores.

    Parameters
    ----------
    stores : frozenset of Store

    Raises
    ------
    RuntimeError
        If this thread reads one of them: it would wait for itself.
    """

    __slots__ = ("outermost",)
    writes = True

    def __enter__(self) -> None:
        own = [hold for hold in list(_holds) if hold.thread == threading.get_ident()]
        if any(not hold.writes and not self.stores.isdisjoint(hold.stores) for hold in own):
            raise RuntimeError("parameters: a call that uses them cannot change them")
        super().__enter__()
        self.outermost = self.stores.difference(*(hold.stores for hold in own))
        for store in self.outermost:
            store.begin_change()

    def __exit__(self, *raised: object) -> None:
        for store in self.outermost:
            store.end_change()
        super().__exit__(*raised)


_fork: _Turn | None = None  # there is one at a time: its thread keeps _changed until it is over


def _before_fork() -> None:
    global _fork
    turn = _Turn(None)
    turn.__enter__()
    _changed.acquire()
    _fork = turn


def _after_in_parent() -> None:
    turn = _fork
    _changed.release()
    turn.__exit__()


def _after_in_child() -> None:
    """The other threads are not there: what they had is free, and none waits."""
    global _changed
    _changed = threading.Condition()
    own = threading.get_ident()
    _holds[:] = [hold for hold in _holds if hold.thread == own and hold is not _fork]
    _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
