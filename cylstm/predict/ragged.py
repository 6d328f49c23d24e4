"""Sequences of different lengths as two arrays, in Arrow's layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cylstm import checks

__all__ = ["Ragged", "any_within", "lists_as_ragged"]


class Ragged:
    """N sequences: the steps of all, one after the other, and where each begins.

    Parameters
    ----------
    values : array, (S, ...)
        The steps.
    offsets : array of int, (N + 1,)
        Sequence n has the steps from offsets[n] to offsets[n + 1].

    Examples
    --------
    >>> ragged = Ragged(np.array([5, 6, 7]), np.array([0, 1, 3]))
    >>> len(ragged), ragged.lengths
    (2, array([1, 2]))
    """

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values, self.offsets = values, offsets

    @property
    def lengths(self) -> np.ndarray:
        """How many steps each has, (N,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        """Return N."""
        return len(self.offsets) - 1

    def chosen(self, rows: np.ndarray) -> Ragged:
        """Return those of a mask (N,); without a copy if it chooses all."""
        if rows.all():
            return self
        lengths = self.lengths
        first, last = self.offsets[0], self.offsets[-1]
        kept = self.values[first:last][np.repeat(rows, lengths)]
        return Ragged(kept, offsets_of(lengths[rows]))

    def places(self, rows: np.ndarray, lengths: np.ndarray, batch_first: bool) -> np.ndarray:
        """Where in `values` each step of a batch is, (T, N) or (N, T).

        Past a sequence's end it is the last step's place, so that padding is what there is anyway.
        """
        steps = np.arange(int(lengths.max(initial=0)))
        first = self.offsets[rows]
        if batch_first:
            steps, first, lengths = steps[None, :], first[:, None], lengths[:, None]
        else:
            steps = steps[:, None]
        places = first + steps
        return places if (lengths == steps.size).all() else np.minimum(places, first + lengths - 1)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return the offsets of sequences that follow each other.

    Examples
    --------
    >>> offsets_of(np.array([2, 0, 3]))
    array([0, 2, 2, 5])
    """
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def any_within(flags: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Tell of which sequences (N,) any step is flagged; steps are counted from offsets[0].

    Examples
    --------
    >>> any_within(np.array([False, False, True]), np.array([0, 2, 2, 3]))
    array([False, False,  True])
    """
    if not flags.any():
        return np.zeros(len(offsets) - 1, bool)
    sums = np.concatenate(([0], np.cumsum(flags, dtype=np.int64)))
    return np.diff(sums[offsets - offsets[0]]) > 0


def lists_as_ragged(name: str, sequences: Sequence[Any]) -> Ragged:
    """Return what a caller has as a list of arrays (T_n,) or (T_n, F), all of one type."""
    arrays = [checks.as_numpy(f"{name}[{n}]", sequence) for n, sequence in enumerate(sequences)]
    if not arrays:
        return Ragged(np.zeros(0), np.zeros(1, np.int64))
    like = next((array for array in arrays if array.size), arrays[0])
    for n, array in enumerate(arrays):
        shape = checks.shape_text(("T", *like.shape[1:]))
        if array.ndim != like.ndim or (array.size and array.shape[1:] != like.shape[1:]):
            raise ValueError(f"{name}[{n}]: expected shape {shape}, got {array.shape}")
        if array.size and array.dtype.kind != like.dtype.kind:
            raise TypeError(f"{name}[{n}]: expected dtype {like.dtype}, got {array.dtype}")
    lengths = np.array([len(array) for array in arrays])
    filled = [array for array in arrays if array.size] or [like]
    return Ragged(np.concatenate(filled), offsets_of(lengths))


def as_ragged(name: str, values: Any, offsets: Any) -> Ragged:
    """Return what a caller has as values and offsets."""
    values, offsets = checks.as_numpy(name, values), checks.as_numpy("offsets", offsets)
    if values.ndim not in (1, 2):
        raise ValueError(f"{name}: expected shape (S,) or (S, F), got {values.shape}")
    if offsets.dtype.kind not in "iu":
        raise TypeError(f"offsets: expected integers, got {offsets.dtype}")
    if offsets.ndim != 1 or not len(offsets):
        raise ValueError(f"offsets: expected shape (N + 1,), got {offsets.shape}")
    offsets = offsets.astype(np.int64)
    if (np.diff(offsets) < 0).any() or offsets[0] < 0 or offsets[-1] > len(values):
        raise ValueError(
            f"offsets: expected rising numbers from 0 to {len(values)}, the steps of {name}"
        )
    return Ragged(values, offsets)
