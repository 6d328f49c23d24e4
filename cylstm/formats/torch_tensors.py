"""Tensors and arrays as PyTorch's and Python's files hold them, made arrays when they are used.

The formats: ``torch/_utils.py`` of PyTorch; ``numpy/_core/src/multiarray/methods.c`` and
``numpy/lib/format.py`` of NumPy.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm.io import unpickle
from cylstm.io.files import Budget, bfloat16

__all__ = ["Opaque", "Storage", "Tensor", "leaves", "npy", "storage_of", "tensor"]

_MAX_RANK = 32
_ELEMENTS = {  # of storages: NumPy's types; "V" and the size are those that no LSTM has
    "torch DoubleStorage": "f8",
    "torch FloatStorage": "f4",
    "torch HalfStorage": "f2",
    "torch BFloat16Storage": "u2",  # the bits
    "torch LongStorage": "V8",
    "torch IntStorage": "V4",
    "torch ShortStorage": "V2",
    "torch CharStorage": "V1",
    "torch ByteStorage": "V1",
    "torch BoolStorage": "V1",
    "torch ComplexFloatStorage": "V8",
    "torch ComplexDoubleStorage": "V16",
    "torch QInt8Storage": "i1",
    "torch QUInt8Storage": "u1",
    "torch QInt32Storage": "i4",
    **{f"numpy f{size}": f"f{size}" for size in (2, 4, 8)},
}
_INTEGERS = {  # of storages, and bool
    "torch LongStorage": "i8",
    "torch IntStorage": "i4",
    "torch ShortStorage": "i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
    **{f"numpy {kind}{size}": f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
    "numpy b1": "?",
}
_OTHER_ARRAYS = re.compile("numpy [a-zA-Z][0-9]{1,4}")
_NPY = re.compile(
    r"\{'descr': '([<>|=][a-zA-Z][0-9]{1,4})', 'fortran_order': (True|False), "
    r"'shape': \(([0-9, ]*)\), *\}\s*"
)
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_FROM_BUFFER = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")
_PACKED_CELLS = ("quantized_dynamic", "quantized_fp16")


@dataclass(repr=False, eq=False)
class Storage:
    """Memory that tensors share."""

    key: str
    kind: str  # of its elements, as the pickle names it: "torch FloatStorage"
    order: str  # of bytes
    base: int  # the element at which it begins in the memory of its key
    memory: Callable[[str], bytes]

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        if self.kind not in _ELEMENTS:
            raise ValueError(f"expected a storage of numbers, got {short(self.kind)}")
        return int(_ELEMENTS[self.kind][1:])


@dataclass(repr=False, eq=False)
class Tensor:
    """A tensor in a file, which is read when it is made an array."""

    name: str
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    budget: Budget
    quantizer: Any = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read the tensor: an array of its own, in the machine's byte order."""
        kind = self.storage.kind
        element = _ELEMENTS.get(kind, "V")
        if element[0] == "V" or (element[0] == "i" or kind == "torch QUInt8Storage") != (
            self.quantizer is not None
        ):
            raise TypeError(f"{short(self.name)}: expected real numbers, got {short(kind)}")
        held = np.dtype(self.storage.order + element)
        array = self._elements(held).astype(held.newbyteorder("="))
        if self.quantizer is not None:
            return self._dequantised(array)
        return bfloat16(array) if kind == "torch BFloat16Storage" else array

    def numbers(self) -> np.ndarray:
        """Read the tensor: an array of real numbers, or of integers or bools."""
        code = _INTEGERS.get(self.storage.kind)
        if code is None or self.quantizer is not None:
            return np.asarray(self)
        held = np.dtype(self.storage.order + code)
        return self._elements(held).astype(held.newbyteorder("="))

    def _elements(self, held: np.dtype[Any]) -> np.ndarray:
        times = 1 if self.quantizer is None else 3  # what the numbers are computed from
        self.budget.take(self.name, math.prod(self.shape) * max(held.itemsize, 4) * times)
        begin = self.storage.base + self.offset
        last = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        memory = self.storage.memory(self.storage.key)
        elements = np.frombuffer(memory, held, len(memory) // held.itemsize)
        if 0 in self.shape:
            return np.zeros(self.shape, held)
        if begin + last >= len(elements):
            raise ValueError(
                f"{short(self.name)}: expected a storage of more than {begin + last} elements, "
                f"got {len(elements)}"
            )
        steps = [held.itemsize * step for step in self.stride]
        return np.lib.stride_tricks.as_strided(elements[begin:], self.shape, steps)

    def _dequantised(self, integers: np.ndarray) -> np.ndarray:
        """Return the numbers, of one scale and zero for all, or for each index of an axis."""
        scheme, *values = self.quantizer if isinstance(self.quantizer, tuple) else (None,)
        kind = scheme.text if isinstance(scheme, unpickle.Name) else ""
        if kind == "torch per_tensor_affine" and len(values) == 2:
            scale, zero = (np.float32(float(value)) for value in values)
        elif kind == "torch per_channel_affine" and len(values) == 3:
            scale, zero = (self._for_channels(value, values[2]) for value in values[:2])
        else:
            raise ValueError(f"{short(self.name)}: expected a known quantizer, got {short(scheme)}")
        return (integers.astype(np.float32) - zero) * scale

    def _for_channels(self, value: Any, axis: Any) -> np.ndarray:
        own = tensor(self.name, value, self.budget) if isinstance(value, unpickle.Stored) else None
        known = type(axis) is int and 0 <= axis < len(self.shape)
        if own is None or not known or own.shape != (self.shape[axis],):
            raise ValueError(f"{short(self.name)}: expected a scale and a zero for each channel")
        if own.storage.kind == "torch LongStorage":  # the zeros
            array = own._elements(np.dtype(own.storage.order + "i8"))
        else:
            array = np.asarray(own)
        shape = [1] * len(self.shape)
        shape[axis] = -1
        return array.astype(np.float32).reshape(shape)


@dataclass(repr=False, eq=False)
class Opaque:
    """What stands under a name and is no tensor that is read; to use it is an error."""

    name: str
    what: str
    shape: tuple[int, ...] = ()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(f"{short(self.name)}: expected real numbers, got {self.what}")


def storage_of(identity: Any, order: str, memory: Callable[[str], bytes]) -> Storage:
    """Return the storage that a persistent id tells of."""
    mark, kind, key, _device, _count, *view = identity
    if mark != "storage" or not isinstance(key, str):
        raise ValueError(f"expected the id of a storage, got {short(mark)} and {short(key)}")
    base = view[0][1] if view and view[0] is not None else 0
    if not _are_sizes([base]):
        raise ValueError(f"storage {short(key)}: expected a place in another, got {short(base)}")
    return Storage(key, kind.text, order, base, memory)


def tensor(name: str, stored: unpickle.Stored, budget: Budget) -> Tensor:
    """Check what a pickle tells of a tensor."""
    size, stride = stored.size, stored.stride
    if (
        not isinstance(stored.storage, Storage)
        or not _are_sizes([stored.offset])
        or not _are_sizes(size)
        or not _are_sizes(stride)
        or not len(size) == len(stride) <= _MAX_RANK
    ):
        raise ValueError(
            f"{short(name)}: expected a storage, an offset, a shape and strides, got "
            f"{short(stored.storage)}, {short(stored.offset)}, {short(size)} and {short(stride)}"
        )
    steps = tuple(step if n > 1 else 0 for n, step in zip(size, stride, strict=True))
    place = (stored.storage, stored.offset, tuple(size), steps)
    return Tensor(name, *place, budget, stored.quantizer)


def _are_sizes(values: Any) -> bool:
    """Tell whether this is a tuple or list of nothing but integers that can count elements."""
    return isinstance(values, (tuple, list)) and all(
        type(value) is int and 0 <= value < 2**48 for value in values
    )


# What stands in a pickle ------------------------------------------------------------------------


def leaves(name: str, value: Any, budget: Budget) -> Iterator[tuple[str, Any]]:
    """Return the tensors that one value of a pickle is, by their names; of most values none."""
    if isinstance(value, unpickle.Stored):
        yield name, tensor(name, value, budget)
    elif (packed := packed_parts(value)) is not None:
        for own, part in packed.items():
            yield from leaves(f"{name}.{own}", part, budget)
    elif isinstance(value, unpickle.Instance):
        try:
            array = _array(name, value, budget)
        except (AttributeError, IndexError, TypeError) as error:
            raise ValueError(f"{short(name)}: a damaged array: {error!r}") from None
        if array is not None:
            yield name, array
        elif not isinstance(value.state, unpickle.Pairs) and value.items is None:
            yield name, Opaque(name, repr(value))


def packed_parts(value: Any) -> dict[str, Any] | None:
    """Return the tensors of what PyTorch packs for its quantised LSTMs, or None.

    That of a linear map keeps a weight and a bias; that of a cell keeps two such maps. In memory
    they are objects of PyTorch's, in a file what these give to be pickled.
    """
    state = _state_of(value)
    if isinstance(state, tuple) and len(state) == 5 and state[0] in _PACKED_CELLS:
        maps = state[4] if isinstance(state[4], list) else []
        halves = [_state_of(half) for half in maps]
        if len(halves) == 2 and all(isinstance(h, tuple) and len(h) == 2 for h in halves):
            (weight_ih, bias_ih), (weight_hh, bias_hh) = halves
            parts = {"weight_ih": weight_ih, "weight_hh": weight_hh}
            parts |= {"bias_ih": bias_ih, "bias_hh": bias_hh}
            return {name: part for name, part in parts.items() if part is not None}
    if isinstance(state, tuple) and len(state) == 2:
        return {n: p for n, p in zip(("weight", "bias"), state, strict=True) if p is not None}
    return None


def _state_of(value: Any) -> Any:
    """Return what a packed object of PyTorch gives to be pickled."""
    if isinstance(value, unpickle.Instance):
        known = value.kind == "torch ScriptObject" or value.kind.endswith("ParamsBase")
        state = value.state if known else None
    elif type(value).__name__ == "ScriptObject" and hasattr(value, "__getstate__"):
        state = value.__getstate__()
    else:
        return None
    named = isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], str)
    return state[0] if named else state  # with the name of its class


# NumPy's arrays ---------------------------------------------------------------------------------


def _array(name: str, value: unpickle.Instance, budget: Budget) -> Tensor | Opaque | None:
    """Return the array that NumPy pickled as this object, if it did."""
    if value.kind in _RECONSTRUCT and value.arguments[:1] == (unpickle.Name("numpy ndarray"),):
        _version, shape, dtype, fortran, memory = value.state
    elif value.kind in _FROM_BUFFER:
        memory, dtype, shape, order = value.arguments
        fortran = order == "F"
    else:
        return None
    code, order = _code(dtype)
    if code is None or not isinstance(memory, (bytes, bytearray, str, unpickle.Instance)):
        return Opaque(name, "an array of objects, or of a type of another library")
    if not _are_sizes(shape) or len(shape) > _MAX_RANK:
        raise ValueError(f"{short(name)}: expected a shape, got {short(shape)}")
    storage = Storage(name, f"numpy {code}", order, 0, functools.cache(lambda _: _bytes(memory)))
    return Tensor(name, storage, 0, tuple(shape), _steps(shape, fortran), budget)


def _code(dtype: Any) -> tuple[str | None, str]:
    """Return NumPy's code of a pickled dtype, None where it has none, and the order of bytes."""
    if not isinstance(dtype, unpickle.Instance) or dtype.kind != "numpy dtype":
        return None, "<"
    code, state = dtype.arguments[0], dtype.state
    order = state[1] if isinstance(state, tuple) else "<"
    if not isinstance(code, str) or not _OTHER_ARRAYS.fullmatch(f"numpy {code}") or code[0] in "OV":
        return None, "<"
    return code, ">" if order == ">" else "<"


def _bytes(memory: Any) -> bytes:
    """Return an array's bytes, which old pickles hold as text."""
    if isinstance(memory, unpickle.Instance):
        text, encoding = memory.arguments if memory.kind == "_codecs encode" else (None, None)
        memory = text if encoding in ("latin1", "latin-1") else None
    if isinstance(memory, str):
        return memory.encode("latin-1")
    if not isinstance(memory, (bytes, bytearray)):
        raise ValueError("expected the bytes of an array, got none")
    return bytes(memory)


def _steps(shape: Any, fortran: Any) -> tuple[int, ...]:
    """Return the strides, in elements, of an array that fills its memory."""
    sizes = list(shape) if fortran else list(shape)[::-1]
    steps = [math.prod(sizes[:axis]) for axis in range(len(sizes))]
    return tuple(steps if fortran else steps[::-1])


def npy(name: str, start: bytes, content: Callable[[], bytes], budget: Budget) -> Tensor | Opaque:
    """Return the array of a ``.npy`` file that begins so; its content is read when used."""
    file = io.BytesIO(start)
    if file.read(6) != b"\x93NUMPY":
        raise ValueError(f"{short(name)}: expected an array of NumPy, got another file")
    major = file.read(2)[:1]
    length = int.from_bytes(file.read(2 if major == b"\x01" else 4), "little")
    header = file.read(length).decode("latin-1")
    begin = file.tell()
    if (told := _NPY.fullmatch(header)) is None:
        return Opaque(name, f"an array of NumPy that begins with {short(header)}")
    order, code = told[1][0], told[1][1:]
    sizes = [size.strip() for size in told[3].split(",")]
    shape = [int(size) for size in sizes if size]
    if not _are_sizes(shape) or len(shape) > _MAX_RANK:
        raise ValueError(f"{short(name)}: expected a shape, got {short(shape)}")
    memory = functools.cache(lambda _: content()[begin:])
    storage = Storage(name, f"numpy {code}", ">" if order == ">" else "<", 0, memory)
    fortran = told[2] == "True"
    return Tensor(name, storage, 0, tuple(shape), _steps(shape, fortran), budget)
