"""Weights in fewer bits: int8 with a scale for each row, and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import numpy as np

from cylstm import checks
from cylstm.core.weights import Version
from cylstm.io.files import bfloat16
from cylstm.parameters import read_only

FORMATS = ("int8", "bfloat16")
MOST = 127  # magnitude of an int8 weight: -128 has no counterpart
_NEAR = 1e-4  # to an integer: float32 has 128 times its rounding, twice, 2e-5
_FEW_COLUMNS, _ROWS_AT_ONCE = 8, 256  # of a first look, which tells nearly all rows
LONGEST = 2**31 // (255 * 128)  # columns, of which 32 bits hold every sum

SCALE = "_scale"  # what the names of scales end in


def to_int8(name: str, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round a matrix's rows to integers from -127 to 127, symmetrically, each with its own scale.

    Returns
    -------
    rounded : array of int8, (R, C)
    scale : array of float32, (R,)
        The largest magnitude of the row becomes 127; a row of zeros has the scale 0. A row that is
        already 8-bit integers times something, as a quantized model's weights are that were read
        as float32, stays what it is: integers from -128 and that scale.

    Raises
    ------
    ValueError
        If a number is not finite, or there are more columns than exact sums allow.

    Examples
    --------
    >>> to_int8("weight", np.array([[0.3, -1.0, 0.777]], np.float32))[0]
    array([[  38, -127,   99]], dtype=int8)
    """
    check_columns(name, matrix)
    _check_finite(name, matrix)
    most = np.abs(matrix).max(axis=1, initial=0).astype(np.float64)
    scale = (most / MOST).astype(np.float32)
    divisor = np.where(scale > 0, scale, np.float32(1)).astype(np.float64)
    rounded = np.clip(np.rint(matrix / divisor[:, None]), -MOST, MOST)
    for row, unit in _units(matrix):
        rounded[row] = np.rint(matrix[row] / unit)
        scale[row] = unit
    return rounded.astype(np.int8), scale


def _units(matrix: np.ndarray) -> Iterator[tuple[int, float]]:
    """Find the rows that are integers from -128 to 127 times a unit, and that.

    The smallest magnitude of such a row is one to 128 units. A row of other numbers passes for one
    by chance where it has two columns, and is then as near to integers.
    """
    if matrix.shape[1] < 2:
        return
    magnitude = np.abs(matrix).astype(np.float64)
    least = np.where(magnitude > 0, magnitude, np.inf).min(axis=1, initial=np.inf)
    for part in range(0, len(matrix), _ROWS_AT_ONCE):
        rows = slice(part, part + _ROWS_AT_ONCE)
        units = least[rows, None] / np.arange(1, 129)
        few = magnitude[rows, :_FEW_COLUMNS, None] / units[:, None]
        fits = (np.abs(few - np.rint(few)) < _NEAR).all(axis=1) & np.isfinite(units)
        for row in part + np.flatnonzero(fits.any(axis=1)):
            for unit in units[row - part, fits[row - part]]:
                numbers = matrix[row] / unit
                whole = np.rint(numbers)
                if (
                    whole.min() >= -128
                    and whole.max() <= MOST
                    and (np.abs(numbers - whole) < _NEAR).all()
                ):
                    largest = np.abs(whole).argmax()  # its quotient has the least error
                    yield int(row), float(matrix[row, largest] / whole[largest])
                    break


def to_bfloat16(name: str, array: np.ndarray) -> np.ndarray:
    """Round to bfloat16, half to even; returns its bits, as uint16.

    Raises
    ------
    ValueError
        If a number is not finite, or too large for bfloat16.

    Examples
    --------
    >>> [hex(bits) for bits in to_bfloat16("weight", np.array([1.0, 1.00390625], np.float32))]
    ['0x3f80', '0x3f80']
    """
    _check_finite(name, array)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    _check_finite(name, bfloat16(rounded), "numbers that bfloat16 holds")
    return rounded


def exact_bfloat16(name: str, array: np.ndarray) -> np.ndarray:
    """As `to_bfloat16`, of numbers that need no rounding."""
    bits = to_bfloat16(name, array)
    if not np.array_equal(bfloat16(bits), array):
        raise ValueError(f"{name}: expected numbers of bfloat16")
    return bits


def rounded(weights: str, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return parameters by name with all matrices rounded, and scales beside those of int8.

    Parameters
    ----------
    weights : {"int8", "bfloat16"}
    parameters : mapping of str to array
        Of float32.
    """
    made: dict[str, np.ndarray] = {}
    for name, array in parameters.items():
        if array.ndim != 2:
            made[name] = array
        elif weights == "int8":
            made[name], made[name + SCALE] = to_int8(name, array)
        else:
            made[name] = to_bfloat16(name, array)
    return made


def widened(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parameters of float32 that the stored ones stand for."""
    made = {}
    for name, array in stored.items():
        if array.dtype == np.int8:
            made[name] = array * stored[name + SCALE][:, None]
        elif array.dtype == np.uint16:
            made[name] = bfloat16(array)
        elif not name.endswith(SCALE):
            made[name] = array
    return made


def checked_tensors(
    weights: str, shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return a file's tensors as `rounded` gives them, if they are just those that there must be.

    Parameters
    ----------
    weights : {"int8", "bfloat16"}
    shapes : mapping of str to tuple
        Of the parameters.
    tensors : mapping of str to array
        As they were read: those of bfloat16 as float32.
    """
    expected: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, shape in shapes.items():
        is_integer = len(shape) == 2 and weights == "int8"
        expected[name] = shape, "int8" if is_integer else "float32"
        if is_integer:
            expected[name + SCALE] = shape[:1], "float32"
    found = {name: (tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()}
    if found != expected:
        differ = sorted(n for n in expected.keys() | found if expected.get(n) != found.get(n))
        raise ValueError(f"tensors do not fit the configuration: {differ}")
    stored = {}
    for name in expected:
        stored[name] = tensors[name]
        if stored[name].dtype == np.int8:
            check_columns(name, stored[name])
        elif stored[name].ndim == 2:
            stored[name] = exact_bfloat16(name, stored[name])
    return stored


def checked_format(weights: Any) -> str:
    """Return the name of a format, if it is one."""
    if not isinstance(weights, str) or weights not in FORMATS:
        raise ValueError(f"weights: expected one of {', '.join(FORMATS)}, got {weights!r}")
    return weights


def check_columns(name: str, matrix: np.ndarray) -> None:
    """Refuse more than the sums of int8 can take."""
    if matrix.shape[1] > LONGEST:
        raise ValueError(f"{name}: expected at most {LONGEST} columns, got {matrix.shape[1]}")


def _check_finite(name: str, array: np.ndarray, expected: str = "finite numbers") -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected {expected} to quantize")


class Fixed:
    """Parameters that do not change, as calls want a store of them.

    Parameters
    ----------
    arrays : mapping of str to array
        Copied.

    Attributes
    ----------
    views : dict of str to array
        Read-only.
    version : Version
        As of `cylstm.parameters.Parameters`.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.views: dict[str, np.ndarray] = {}
        for name, array in arrays.items():
            own = checks.memory(array.shape, array.dtype)
            own[...] = array
            self.views[name] = read_only(own)
        self.version = Version()
        self.alone: frozenset[Any] = frozenset()  # of the stores whose readers take turns: none

    def reading(self) -> AbstractContextManager[None]:
        """Return a ``with`` block: nobody changes them anyway."""
        return nullcontext()

    def memory(self) -> NoReturn:
        """Refuse: they do not change."""
        raise TypeError("quantized weights do not change: change the model, then quantize it")

    edit = memory
