"""What a job shows of its progress."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Progress"]

_SECONDS = 10.0  # between lines


class Progress:
    """A bar on a terminal, else a line now and then; or nothing.

    Parameters
    ----------
    wanted : bool or None
        None is True on a terminal, where tqdm is installed.
    total : int or None
        Rows of the input, if known.
    done : int
        Those that an earlier run has done.
    """

    def __init__(self, wanted: bool | None, total: int | None, done: int) -> None:
        self.total, self.done, self._first = total, done, done
        self._bar: Any = None
        self._began = self._told = time.monotonic()
        terminal = sys.stderr.isatty()
        self._lines = bool(wanted)
        if wanted is False or not terminal:
            return
        try:
            from tqdm import tqdm
        except ImportError:
            return
        self._lines = False
        self._bar = tqdm(total=total, initial=done, desc="scoring", unit=" rows", unit_scale=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, rows: int) -> None:
        """So many rows more are done."""
        self.done += rows
        if self._bar is not None:
            self._bar.update(rows)
        elif self._lines and time.monotonic() - self._told >= _SECONDS:
            self._told = time.monotonic()
            print(self._text(), file=sys.stderr, flush=True)

    def _text(self) -> str:
        rate = (self.done - self._first) / max(1e-9, time.monotonic() - self._began)
        text = f"{self.done:,} rows, {rate:,.0f} rows/s"
        if self.total:
            left = (self.total - self.done) / max(1e-9, rate)
            text += f", {100 * self.done / self.total:.0f} %, {_duration(left)} left"
        return text


def _duration(seconds: float) -> str:
    """Return hours, minutes and seconds.

    Examples
    --------
    >>> _duration(75), _duration(7325)
    ('1:15', '2:02:05')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
