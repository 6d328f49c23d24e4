"""The order of axes: within, all is (T, N, F); outside it is as the caller gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cylstm.batch import Batch

if TYPE_CHECKING:
    from cylstm.core.memory import Spare


class Axes:
    """How arrays lie outside: (T, N, F), or (N, T, F) with `batch_first`, or (T, F) `unbatched`."""

    __slots__ = ("batch_first", "unbatched")

    def __init__(self, batch_first: bool, unbatched: bool = False) -> None:
        self.batch_first = batch_first
        self.unbatched = unbatched

    def shape(self, steps: Any, size: Any, width: int) -> tuple[Any, ...]:
        """The outer shape of T steps of N sequences."""
        if self.unbatched:
            return steps, width
        return (size, steps, width) if self.batch_first else (steps, size, width)

    def inner(self, given: np.ndarray) -> np.ndarray:
        """A view (T, N, F) of an outer array."""
        if self.unbatched:
            return given[:, None]
        return given.swapaxes(0, 1) if self.batch_first else given

    def outer(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `inner`."""
        if self.unbatched:
            return x[:, 0]
        return x.swapaxes(0, 1) if self.batch_first else x

    def empty(self, steps: int, size: int, width: int, dtype: np.dtype) -> np.ndarray:
        """A new array (T, N, F) that is contiguous outside."""
        return self.inner(np.empty(self.shape(steps, size, width), dtype))

    def outer_rows(
        self, batch: Batch, rows: np.ndarray, copied_to: Spare | None = None
    ) -> np.ndarray:
        """Packed rows (S, F) as an outer array: a copy, if there is where to copy to."""
        steps, size = batch.shape
        if batch.ragged or self.batch_first:
            x = self.empty(steps, size, rows.shape[1], rows.dtype)
            batch.unpack(rows, x)
        else:
            kept = rows if copied_to is None else copied_to.copy(rows)
            x = kept.reshape(steps, size, rows.shape[1])
        return self.outer(x)
