"""What the user at the keyboard sees of a training run, and says to it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cylstm import checks
from cylstm.train.history import History

__all__ = ["Bar", "Interrupts"]


class Bar:
    """A progress bar over all batches, or nothing."""

    def __init__(self, wanted: bool, total: int | None, done: int) -> None:
        self._bar = None
        if not checks.is_true_or_false("progress", wanted):
            return
        self._bar = checks.progress_bar(
            "train", total=total, initial=done, desc="training", unit=" batches"
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self) -> None:
        """One batch more."""
        if self._bar is not None:
            self._bar.update()

    def tell(self, history: History) -> None:
        """Show the last epoch's losses and metrics."""
        if self._bar is not None:
            shown = {"epoch": len(history.loss), "loss": f"{history.loss[-1]:.4g}"}
            if history.validation:
                shown["validation"] = f"{history.validation[-1]:.4g}"
            for name, values in (history.validation_metrics or history.metrics).items():
                shown[name] = f"{values[-1]:.4g}"
            self._bar.set_postfix(shown)


class Interrupts:
    """Ctrl-C while training: it comes at once, or, where it is held, at the end of that block."""

    def __init__(self) -> None:
        self._before: Any = None
        self._holds = self._came = False

    def __enter__(self) -> Interrupts:
        # Outside the main thread no interrupt comes; a handler set in C could not be put back.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
        if self._before is not None:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: Any) -> None:
        if self._holds:
            self._came = True
        elif callable(self._before):
            self._before(number, frame)
        else:  # what the system does, or nothing
            signal.signal(signal.SIGINT, self._before)
            signal.raise_signal(signal.SIGINT)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let it wait until the block's end."""
        self._holds = True
        try:
            yield
        finally:
            self._holds = False
            if self._came:
                self._came = False
                self._handle(signal.SIGINT, None)
