"""How the sequences of a batch lie: sorted by falling length, and packed step by step."""

from __future__ import annotations

from functools import cached_property

import numpy as np


class Batch:
    """The layout of N sequences of up to T steps.

    Parameters
    ----------
    steps, size : int
        T and N.
    lengths : array of intp, (N,), optional
        Each sequence's own length; T by default.

    Attributes
    ----------
    steps, rows : int
        The longest length, and N.
    order : array of intp, (N,)
        The place in the batch of each row as sorted: longest first, equals as they came.
    sizes : array of intp
        How many sequences have a step t, for each t up to the longest length.
    offsets : array of intp
        Where step t begins in packed rows; the last is the number of rows, S.
    scattered : bool
        Whether these rows are other than all of the batch in its own order at every step.
    """

    def __init__(self, steps: int, size: int, lengths: np.ndarray | None = None) -> None:
        self.shape = (steps, size)
        self.steps, self.rows = (steps if size else 0), size
        self.scattered = self.ragged = lengths is not None and bool((lengths != steps).any())
        if self.ragged:
            self.order = np.argsort(-lengths, kind="stable")
            ends = np.bincount(lengths, minlength=steps + 1)
            self.steps = int(lengths.max())
            self.sizes = (size - np.cumsum(ends))[: self.steps]
        else:
            self.order = np.arange(size)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Of a full batch: not needed for inference, whose memory must not grow with T."""
        return np.full(self.steps, self.rows)

    @cached_property
    def offsets(self) -> np.ndarray:
        """The sums of `sizes`."""
        return np.concatenate(([0], np.cumsum(self.sizes)))

    def part(self, number: int, count: int) -> Batch:
        """Every `count`-th sorted row, from row `number` on: a share of the work in each step."""
        if count == 1:
            return self
        part = Batch(self.shape[0], 0)
        part.scattered, part.ragged = True, self.ragged
        part.order = np.ascontiguousarray(self.order[number::count])
        part.steps, part.rows = self.steps, len(part.order)
        if self.ragged:
            part.sizes = (self.sizes - number + count - 1) // count
        return part

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """The step and the place in the batch of every packed row."""
        step = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return step, self.order[np.arange(self.offsets[-1]) - self.offsets[step]]

    def pack(self, x: np.ndarray) -> np.ndarray:
        """From (T, N, F) to contiguous rows (S, F); not copied where it lies so already."""
        if self.ragged:
            return x[self._places()]
        return np.ascontiguousarray(x).reshape(-1, x.shape[2])

    def unpack(self, rows: np.ndarray, to: np.ndarray) -> None:
        """From rows (S, F) to (T, N, F); what is past a sequence's end becomes zero."""
        if self.ragged:
            to[...] = 0
            to[self._places()] = rows
        else:
            to[...] = rows.reshape(to.shape)

    def sort(self, state: np.ndarray) -> np.ndarray:
        """A copy of states (K, N, F) in the sorted order."""
        return np.take(state, self.order, axis=1)

    def unsort(self, state: np.ndarray) -> np.ndarray:
        """The inverse of `sort`."""
        given = np.empty_like(state)
        given[:, self.order] = state
        return given
