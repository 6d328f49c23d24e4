"""The gradients that layers give: arrays, or few rows of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cylstm import checks

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class RowGradient:
    """The gradient of a matrix of which few rows took part: zero but for those.

    Attributes
    ----------
    rows : ndarray of intp, (K,)
        Which rows, rising, each once; a copy, read-only.
    values : ndarray of float32 or float64, (K, D)
        Their gradients.
    shape : tuple of int
        (R, D), of the whole.

    Raises
    ------
    TypeError
        If the rows are no integers, or the values no such numbers.
    ValueError
        If rows are not within the whole, do not rise, or have no values of their own.

    Examples
    --------
    >>> RowGradient(np.array([2]), np.array([[1.0, 5.0]]), (3, 2)).dense()
    array([[0., 0.],
           [0., 0.],
           [1., 5.]])
    """

    rows: npt.NDArray[np.intp]
    values: Array
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = (checks.whole("shape", size) for size in self.shape)
        rows = checks.is_array("rows", self.rows)
        if rows.dtype.kind not in "iu" and rows.size:
            raise TypeError(f"rows: expected integers, got {rows.dtype}")
        if rows.ndim != 1:
            raise ValueError(f"rows: expected shape (K,), got {rows.shape}")
        rows = rows.astype(np.intp)  # a copy: who made it may change it
        if len(rows) and not (rows[0] >= 0 and rows[-1] < height and (rows[1:] > rows[:-1]).all()):
            raise ValueError(f"rows: expected rising numbers from 0 to {height - 1}, got {rows}")
        values = checked_gradient("values", self.values)
        if values.shape != (len(rows), width):
            raise ValueError(f"values: expected shape {(len(rows), width)}, got {values.shape}")
        rows.flags.writeable = False
        for name, value in (("rows", rows), ("values", values), ("shape", (height, width))):
            object.__setattr__(self, name, value)

    def dense(self) -> Array:
        """Return the whole as an array."""
        whole = np.zeros(self.shape, self.values.dtype)
        whole[self.rows] = self.values
        return whole


Gradient: TypeAlias = "Array | RowGradient"


def checked_gradient(name: str, gradient: Any) -> Array:
    """Return an array of float32 or float64, in either byte order."""
    array = checks.is_array(name, gradient)
    if array.dtype.char not in "fd":
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    return array
