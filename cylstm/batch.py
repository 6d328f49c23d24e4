"""How the sequences of a batch lie: sorted by falling length, and packed step by step."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cylstm.core.memory import Spare


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
    ragged : bool
        Whether the lengths differ from T.
    lengths : array of intp, (N,)
        Of a ragged batch.
    """

    def __init__(self, steps: int, size: int, lengths: np.ndarray | None = None) -> None:
        self.shape = (steps, size)
        self.steps, self.rows = (steps if size else 0), size
        self.ragged = lengths is not None and bool((lengths != steps).any())
        if self.ragged:
            self.lengths = lengths
            self.order = np.argsort(-lengths, kind="stable")
            ends = np.bincount(lengths, minlength=steps + 1)
            self.steps = int(lengths.max())
            self.sizes = (size - np.cumsum(ends))[: self.steps]

    @cached_property
    def order(self) -> np.ndarray:
        """Of a full batch."""
        return np.arange(self.rows)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Of a full batch: not needed for inference, whose memory must not grow with T."""
        return np.full(self.steps, self.rows)

    @property
    def count(self) -> int:
        """The number of packed rows, S."""
        return int(self.offsets[-1]) if self.ragged else self.steps * self.rows

    @cached_property
    def offsets(self) -> np.ndarray:
        """The sums of `sizes`."""
        if not self.ragged:
            return np.arange(self.steps + 1) * self.rows
        return np.concatenate(([0], np.cumsum(self.sizes)))

    def parts(self, steps: int | None) -> list[tuple[slice, Batch]]:
        """The packed rows of so many steps after each other, and all the sequences there."""
        if steps is None or steps >= self.steps:
            return [(slice(0, None), self)]
        return [self._part(t, min(t + steps, self.steps)) for t in range(0, self.steps, steps)]

    def _part(self, first: int, last: int) -> tuple[slice, Batch]:
        part = Batch(last - first, self.rows)
        if self.ragged:
            part.ragged, part.order, part.sizes = True, self.order, self.sizes[first:last]
        return slice(int(self.offsets[first]), int(self.offsets[last])), part

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """The step and the place in the batch of every packed row."""
        step = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return step, self.order[np.arange(self.count) - self.offsets[step]]

    def pack(self, x: np.ndarray, copied_to: Spare | None = None) -> np.ndarray:
        """From (T, N, F) to contiguous rows (S, F): a copy, if there is where to copy to."""
        if self.ragged:
            return x[self._places()]
        rows = np.ascontiguousarray(x) if copied_to is None else copied_to.copy(x)
        return rows.reshape(-1, x.shape[2])

    def unpack(self, rows: np.ndarray, to: np.ndarray) -> None:
        """From rows (S, F) to (T, N, F); what is past a sequence's end becomes zero."""
        if self.ragged:
            to[...] = 0
            to[self._places()] = rows
        else:
            to[...] = rows.reshape(to.shape)

    def sort(self, state: np.ndarray) -> np.ndarray:
        """A copy of states (K, N, F) in the sorted order."""
        return np.take(state, self.order, axis=1) if self.ragged else state.copy()

    def unsort(self, state: np.ndarray) -> np.ndarray:
        """The inverse of `sort`, but where the order is the same no copy."""
        if not self.ragged:
            return state
        given = np.empty_like(state)
        given[:, self.order] = state
        return given
