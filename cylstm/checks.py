"""Checks of what a caller gives: each names the argument, what was expected and what came."""

from __future__ import annotations

import math
import operator
import sys
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import numpy as np

from cylstm.core.memory import aligned_empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Lengths = Sequence[int] | npt.NDArray[np.integer[Any]]  # of sequences, (N,)

LARGEST = 2**31 - 1  # BLAS takes 32-bit sizes


def is_true_or_false(name: str, value: Any) -> bool:
    """A bool, Python's or NumPy's."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def whole(name: str, value: Any, lowest: int = 0) -> int:
    """An integer that BLAS can count with."""
    try:
        if isinstance(value, (bool, np.bool_)) or is_masked(value):
            raise TypeError
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if not lowest <= value <= LARGEST:
        raise ValueError(f"{name}: expected an integer from {lowest} to 2**31 - 1, got {value}")
    return value


def real(name: str, value: Any) -> float:
    """A real number, which may be infinite or NaN."""
    dtype = getattr(value, "dtype", None)
    try:
        if isinstance(value, (str, bytes, bool)) or is_masked(value):
            raise TypeError
        if isinstance(dtype, np.dtype) and (dtype.kind not in "iuf" or np.ndim(value)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {short(value)}") from None
    except OverflowError:
        raise ValueError(f"{name}: expected a finite number, got one beyond float64") from None


def finite(name: str, value: Any) -> float:
    """A real number, neither infinite nor NaN."""
    number = real(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return number


def within(name: str, value: Any, dtype: np.dtype) -> float:
    """A real number that is finite in this dtype too."""
    number = finite(name, value)
    if abs(number) > float(np.finfo(dtype).max):
        raise ValueError(f"{name}: expected a number that {dtype} holds, got {number}")
    return number


def floating(name: str, value: Any) -> np.dtype:
    """float32 or float64, in the machine's byte order."""
    try:
        if value is None:  # NumPy's default
            raise TypeError
        dtype = np.dtype(value).newbyteorder("=")
    except (TypeError, SyntaxError):
        raise TypeError(f"{name}: expected 'float32' or 'float64', got {value!r}") from None
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: expected 'float32' or 'float64', got {value!r}")
    return dtype


def memory(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to fill, aligned as vectors are; MemoryError for what there is no memory for."""
    try:
        return aligned_empty(math.prod(shape), dtype).reshape(shape)
    except (MemoryError, OverflowError, ValueError):
        raise MemoryError(f"no memory for an array of shape {shape}") from None


def available_memory() -> int:
    """How many bytes can be had without swapping; where no one tells, any number."""
    try:
        with open("/proc/meminfo", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file)
        return int(fields[b"MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return LARGEST**2


def progress_bar(extra: str, **given: Any) -> Any:
    """A bar of tqdm's; ImportError says which extra to install where it is missing."""
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError(
            "progress: expected tqdm, which is not installed: "
            f"python -m pip install 'cylstm[{extra}]', or progress=False"
        ) from None
    return tqdm(**given)


def output(out: Any, like: np.ndarray) -> None:
    """Refuse an `out` that cannot be written to as if it were this array."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.matrix) or is_of_numpy_ma(out):
        raise TypeError(f"out: expected an array, got {type(out).__name__}")
    if out.dtype != like.dtype:
        raise TypeError(f"out: expected dtype {like.dtype}, got {out.dtype}")
    if out.shape != like.shape:
        raise ValueError(f"out: expected shape {like.shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: expected a writable array, got a read-only one")


def steps(x: np.ndarray) -> None:
    """Refuse more of them than can be counted, in all sequences together."""
    rows = math.prod(x.shape[:-1])
    if rows > LARGEST:
        raise ValueError(
            f"x: expected at most {LARGEST} steps in all sequences together, got {rows}; "
            "run it in parts, carrying the state"
        )


def shape_text(shape: tuple[Any, ...]) -> str:
    """As NumPy writes it: ``(3, N)``."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def is_array(name: str, value: Any) -> np.ndarray:
    """An ndarray, or an object that gives one without loss (a CPU tensor of another library)."""
    if type(value) is np.ndarray:
        return value
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return as_numpy(name, value)
    try:
        return np.asarray(memoryview(value))
    except TypeError:
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}") from None


def mask(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """An array of bool, of this shape, from one or from lists."""
    given = np.asarray(value) if isinstance(value, (bool, list, tuple)) else is_array(name, value)
    if given.dtype != bool:
        raise TypeError(f"{name}: expected an array of bool, got {given.dtype}")
    if given.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {given.shape}")
    return given


def as_numpy(name: str, value: Any) -> np.ndarray:
    """What NumPy makes an array of, as an array of NumPy's own type: a masked element has no value.

    A masked array without any such, a matrix or a memory map is what its numbers are.
    """
    if is_masked(value):
        raise ValueError(
            f"{name}: expected an array without masked elements, got "
            f"{np.ma.count_masked(value)} of {np.size(value)} masked; fill them, or leave them out"
        )
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors with gradients
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: expected an array, got {type(value).__name__}: {error}") from None


def is_masked(value: Any) -> bool:
    """Whether a number, or one of an array, has no value."""
    return is_of_numpy_ma(value) and value.dtype.names is None and bool(np.ma.is_masked(value))


def is_of_numpy_ma(value: Any) -> bool:
    """Whether it is a masked array; numpy.ma, slow to import, is not imported for the question."""
    return "numpy.ma" in sys.modules and isinstance(value, np.ma.MaskedArray)


def real_array(name: str, value: Any) -> np.ndarray:
    """An array of real numbers of any precision."""
    given = as_numpy(name, value)
    if given.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers, got {given.dtype}")
    return given


def array(name: str, value: Any, dtype: np.dtype, shape: tuple[int | str, ...]) -> np.ndarray:
    """An array of this dtype and shape, whose sizes given as letters are free.

    It is returned in the machine's byte order, with its last axis contiguous: as it is where it
    already is so, else copied.
    """
    if type(value) is np.ndarray and value.shape == shape and is_regular(value, dtype):
        return value
    given = is_array(name, value)
    if given.dtype != dtype and given.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {given.dtype}")
    if not fits(given.shape, shape):
        raise ValueError(f"{name}: expected shape {shape_text(shape)}, got {given.shape}")
    return given if is_regular(given, dtype) else np.array(given, dtype, order="C")


def fits(came: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    """Whether a shape is as wanted, where letters are free."""
    return len(came) == len(wanted) and all(
        isinstance(size, str) or size == n for n, size in zip(came, wanted, strict=True)
    )


def is_regular(given: np.ndarray, dtype: np.dtype) -> bool:
    """Whether rows can be read through a pointer and strides of whole items."""
    flags = given.flags
    if given.dtype != dtype or not flags.aligned:
        return False
    return flags.c_contiguous or (
        (given.shape[-1] < 2 or given.strides[-1] == given.itemsize)
        and math.gcd(given.itemsize, *given.strides) == given.itemsize
    )


def seeded(name: str, value: Any) -> np.random.Generator:
    """The generator that a seed gives."""
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def generator(name: str, value: Any) -> np.random.Generator:
    """A source of random numbers."""
    if not isinstance(value, np.random.Generator):
        raise TypeError(f"{name}: expected a numpy.random.Generator, got {type(value).__name__}")
    return value


def index(name: str, value: Any) -> slice | np.ndarray:
    """What can index one axis: a slice, integers or a mask."""
    if isinstance(value, slice):
        return value
    given = as_numpy(name, value)
    if given.size == 0:
        return given.astype(np.intp)
    if given.dtype.kind not in "biu" or (given.dtype.kind == "b" and given.ndim == 0):
        raise TypeError(f"{name}: expected integers, a mask or a slice, got {given.dtype}")
    return given


def lengths(value: Any, steps: int, batch: int) -> np.ndarray:
    """The length of each sequence, integers (N,) from 0 to T."""
    given = as_numpy("lengths", value)
    if given.dtype.kind not in "iu" and given.size:
        raise TypeError(f"lengths: expected integers, got {given.dtype}")
    if given.shape != (batch,):
        raise ValueError(f"lengths: expected shape ({batch},), got {given.shape}")
    if batch and not (given.min() >= 0 and given.max() <= steps):
        raise ValueError(
            f"lengths: expected 0 to {steps} (the steps of x), got {given.min()} to {given.max()}"
        )
    return given.astype(np.intp)
