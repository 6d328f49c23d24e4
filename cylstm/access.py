"""Who reads parameters, and who changes them: a change is seen whole or not at all.

Any number of threads read a store at once. One that changes stores waits until those that read them
have ended, and who comes meanwhile waits for it. All that a thread asks for it is given in one
moment, so that none keeps what another waits for. A fork waits for changes, since its child would
inherit the half of one.
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


_changed = threading.Condition()  # of the three below, which it guards
_holds: list[reading | writing] = []  # who has what
_waiting: list[writing] = []  # writers whose turn has not come
_writers = 0  # among those who have


class reading:
    """A ``with`` block in which no other thread changes these stores.

    Parameters
    ----------
    stores : frozenset of Store
    """

    __slots__ = ("stores", "thread")
    writes = False

    def __init__(self, stores: frozenset[Store]) -> None:
        self.stores = stores

    def __enter__(self) -> None:
        self.thread = threading.get_ident()
        with _changed:
            if _writers or _waiting:
                _changed.wait_for(self._may_begin)
            _holds.append(self)

    def __exit__(self, *_: object) -> None:
        with _changed:
            _holds.remove(self)
            if _waiting:
                _changed.notify_all()

    def _may_begin(self) -> bool:
        """Writers that wait come first, but a thread that has something must come to its end."""
        has_something = any(hold.thread == self.thread for hold in _holds)
        before = [hold for hold in _holds if hold.writes] if has_something else [*_holds, *_waiting]
        return not any(hold.writes for hold in _conflicts(self, before))


class writing:
    """A ``with`` block in which no other thread reads or changes these stores.

    Parameters
    ----------
    stores : frozenset of Store

    Raises
    ------
    RuntimeError
        If this thread reads one of them: it would wait for itself.
    """

    __slots__ = ("outermost", "stores", "thread")
    writes = True

    def __init__(self, stores: frozenset[Store]) -> None:
        self.stores = stores

    def __enter__(self) -> None:
        global _writers
        self.thread = threading.get_ident()
        with _changed:
            own = [hold for hold in _holds if hold.thread == self.thread]
            if any(not hold.writes and not self.stores.isdisjoint(hold.stores) for hold in own):
                raise RuntimeError("parameters: a call that uses them cannot change them")
            _waiting.append(self)
            try:
                _changed.wait_for(lambda: not _conflicts(self, _holds))
            finally:
                _waiting.remove(self)
                _changed.notify_all()
            _holds.append(self)
            _writers += 1
        self.outermost = self.stores.difference(*(hold.stores for hold in own))
        for store in self.outermost:
            store.begin_change()

    def __exit__(self, *_: object) -> None:
        global _writers
        for store in self.outermost:
            store.end_change()
        with _changed:
            _holds.remove(self)
            _writers -= 1
            _changed.notify_all()


def _conflicts(
    wanted: reading | writing, holds: Collection[reading | writing]
) -> list[reading | writing]:
    """Those of other threads that have, or wait for, one of the stores that this one wants."""
    return [
        hold
        for hold in holds
        if hold.thread != wanted.thread and not hold.stores.isdisjoint(wanted.stores)
    ]


def _before_fork() -> None:
    _changed.acquire()
    own = threading.get_ident()
    _changed.wait_for(lambda: not any(hold.writes and hold.thread != own for hold in _holds))


def _after_in_parent() -> None:
    _changed.release()


def _after_in_child() -> None:
    """The other threads are not there: what they had is free, and none waits."""
    global _changed, _writers
    own = threading.get_ident()
    _holds[:] = [hold for hold in _holds if hold.thread == own]
    _writers = sum(hold.writes for hold in _holds)
    _waiting.clear()
    _changed = threading.Condition()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
