"""Rows that are the steps of sequences: where groups begin, and their steps' order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cylstm.jobs.arrays import as_arrow, as_numpy, is_missing
from cylstm.jobs.columns import Problems, plain

__all__ = ["Seen", "boundaries", "in_order"]


def boundaries(
    batch: pa.RecordBatch, names: Sequence[str], before: pa.RecordBatch | None
) -> np.ndarray:
    """Return the rows at which a key differs from that of the row before.

    Row 0 is one of them if it differs from the last row of the batch before.
    """
    differs = np.zeros(len(batch), bool)
    for name in names:
        column = batch.column(name)
        differs[1:] |= _unequal(column[1:], column[:-1])
        if before is not None:
            last = before.column(name)
            differs[:1] |= _unequal(column[:1], last[len(last) - 1 :])
    return np.flatnonzero(differs)


def _unequal(left: pa.Array, right: pa.Array) -> np.ndarray:
    """Tell where values differ; nothing differs from something only."""
    unequal = as_numpy(pc.fill_null(pc.not_equal(left, right), False))
    if left.null_count or right.null_count:
        missing = [as_numpy(array.is_null()) for array in (left, right)]
        return unequal | (missing[0] != missing[1])
    return unequal


class Seen:
    """The keys of groups that were there, 8 bytes for each: a group must not come twice.

    Parameters
    ----------
    names : sequence of str
        The columns of the keys.
    """

    _MOST = 8  # arrays that are looked through

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._sorted: list[np.ndarray] = []

    def note(self, batch: pa.RecordBatch, starts: np.ndarray | None = None) -> int | None:
        """Note the groups that begin at some rows; return the row of the first seen before.

        Parameters
        ----------
        batch : RecordBatch
        starts : array of int, optional
            Where groups begin, whole ones that follow each other. If not given, any rows: groups
            may go on from the batch before, and nothing is returned.
        """
        known = starts is not None
        if starts is None:
            changes = boundaries(batch, self.names, None)
            starts = np.concatenate(([0], changes)) if len(batch) else changes
        keys = batch.select(list(self.names)).take(as_arrow(starts)) if len(starts) else None
        if keys is None:
            return None
        found = _hashed(keys)
        ordered, first = np.unique(found, return_index=True)
        again = np.ones(len(found), bool) if known else np.zeros(len(found), bool)
        again[first] = False
        if known:
            for array in self._sorted:
                again |= np.isin(found, array, kind="sort")
        self._sorted.append(ordered)
        if len(self._sorted) > self._MOST:  # like sizes are joined, so that each is seldom
            self._sorted = [np.unique(np.concatenate(self._sorted))]
        return int(starts[again][0]) if again.any() else None


def _hashed(keys: pa.RecordBatch) -> np.ndarray:
    """Return a number for each key: itself, or one of 2**64 that its text gives."""
    columns = [
        column.view(pa.int64() if column.type.bit_width == 64 else pa.int32())
        if pa.types.is_temporal(column.type)
        else column
        for column in keys.columns
    ]
    if len(columns) == 1 and pa.types.is_integer(columns[0].type) and not columns[0].null_count:
        return as_numpy(columns[0]).astype(np.int64)
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return np.fromiter(map(hash, map(repr, rows)), np.int64, len(keys))  # of -1 and -2 it is one


def in_order(
    column: pa.Array, name: str, bounds: np.ndarray, problems: Problems
) -> np.ndarray | None:
    """Return the rows in rising order within each group; None where they are so."""
    missing = is_missing(column)
    if missing is not None:
        problems.of_steps(missing, bounds, name, lambda step: "expected an order, got null")
    if pa.types.is_floating(column.type):
        undefined = as_numpy(pc.fill_null(pc.is_nan(column), False))
        problems.of_steps(undefined, bounds, name, lambda step: "expected an order, got NaN")
    ranks = as_numpy(pc.rank(column, tiebreaker="dense")).astype(np.int64)
    group = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    rises = (np.diff(ranks) > 0) | (np.diff(group) > 0)
    if rises.all():
        return None
    order = np.lexsort((ranks, group))
    ranks = ranks[order]
    twice = np.zeros(len(order), bool)
    twice[order[1:]] = (np.diff(ranks) == 0) & (np.diff(group) == 0)
    problems.of_steps(
        twice,
        bounds,
        name,
        lambda step: f"expected each once in a group, got {plain(column, step)} twice",
    )
    return order
