"""Work that runs beside the caller's, with a bounded number of things between them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["Consumer", "ahead"]

_POLL = 0.1  # seconds after which a thread looks whether it is to end


class _End:
    """What a thread gives at last: the error that ended it, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[Any], depth: int) -> Iterator[Any]:
    """Iterate over items that another thread makes, up to so many of them ahead."""
    made: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return made.put(item, timeout=_POLL)
            except queue.Full:
                continue

    def work() -> None:
        error = None
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
        except BaseException as caught:  # it is the caller's to see
            error = caught
        put(_End(error))

    thread = threading.Thread(target=work, name="cylstm-read", daemon=True)
    thread.start()
    try:
        while not isinstance(item := made.get(), _End):
            yield item
            del item  # else its memory is held until the next has come
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()


class Consumer:
    """A thread to which work is given in order.

    Parameters
    ----------
    work : callable
    depth : int
        How much may wait.
    """

    def __init__(self, work: Callable[..., None], depth: int) -> None:
        self._work = work
        self._given: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="cylstm-write", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (given := self._given.get()) is not None:
            if self._error is None:
                try:
                    self._work(*given)
                except BaseException as error:  # it is the caller's to see
                    self._error = error
            del given

    def put(self, *given: Any) -> None:
        """Give work; raise what work before has raised."""
        if self._error is not None:
            raise self._error
        self._given.put(given)

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *error: Any) -> None:
        self._given.put(None)
        self._thread.join()
        if self._error is not None and error[1] is not self._error:
            raise self._error
