"""Arrow's arrays as NumPy's, and back: without a copy, and without pandas.

pyarrow's own conversions import pandas where it is installed, which takes half a second; and
pyarrow 24 looks for it even to name a type, and fails without.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["as_arrow", "as_numpy", "is_missing"]

_DTYPES = {
    pa.from_numpy_dtype(name): np.dtype(name)
    for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
}


def as_numpy(array: pa.Array) -> np.ndarray:
    """Return numbers as an array that shares their memory; what is null has any value."""
    kind = array.type
    if pa.types.is_boolean(kind):
        array, kind = array.cast(pa.uint8()), pa.uint8()
        return as_numpy(array).astype(bool)
    data = array.buffers()[1]
    dtype = _DTYPES[kind]
    if data is None:
        return np.zeros(len(array), dtype)
    return np.frombuffer(data, dtype, array.offset + len(array))[array.offset :]


def is_missing(array: pa.Array) -> np.ndarray | None:
    """Return where an array is null, or None if nowhere."""
    return as_numpy(array.is_null()) if array.null_count else None


def as_arrow(array: np.ndarray) -> Any:
    """Return an array (N,) of numbers as Arrow's."""
    array = np.ascontiguousarray(array)
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(array.dtype), len(array), [None, pa.py_buffer(array)]
    )
