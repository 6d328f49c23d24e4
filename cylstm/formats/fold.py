"""ONNX operators on constants: those by which exporters bring weights into the shape they want.

The operators: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections.abc import Callable
from reprlib import repr as short
from typing import Any

import numpy as np

__all__ = ["FOLDED", "VIEWS", "attributes", "axes_of", "dequantize", "flat", "reshape", "slices"]

_CASTS = {1: "f4", 2: "u1", 3: "i1", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8"}

Array = np.ndarray
Attributes = dict[str, Any]


_NAMES_OF_TYPES = {  # of AttributeProto.AttributeType; a name means the same in all operators here
    1: ("alpha", "beta", "clip", "ratio", "value_float"),
    2: ("allowzero", "axis", "end", "hidden_size", "input_forget", "is_test", "keepdims", "layout",
        "linear_before_reset",
        "output_sequence", "saturate", "seed", "start", "to", "transA", "transB", "value_int"),
    3: ("direction", "round_mode"),
    4: ("value",),
    6: ("activation_alpha", "activation_beta", "value_floats"),
    7: ("axes", "ends", "perm", "split", "starts", "value_ints"),
    8: ("activations",),
}  # fmt: skip
_TYPES = {name: kind for kind, names in _NAMES_OF_TYPES.items() for name in names}
_OF_CELLS = "activation_alpha activation_beta activations clip direction hidden_size"
_OF_LSTM = f"{_OF_CELLS} input_forget"
_UNDERSTOOD = {  # attributes that the readers act on, or that change nothing they read
    "Cast": "round_mode saturate to",  # the first two are of types of 8 bits
    "Concat": "axis",
    "Constant": "value value_float value_floats value_int value_ints",
    "ConstantOfShape": "value",
    "DequantizeLinear": "axis",
    "Dropout": "is_test ratio seed",
    "DynamicQuantizeLSTM": _OF_LSTM,
    "Elu": "alpha",
    "Flatten": "axis",
    "Gather": "axis",
    "GRU": f"{_OF_CELLS} layout linear_before_reset output_sequence",
    "Gemm": "alpha beta transA transB",
    "HardSigmoid": "alpha beta",
    "LSTM": f"{_OF_LSTM} layout output_sequence",
    "LeakyRelu": "alpha",
    "LogSoftmax": "axis",
    "RNN": f"{_OF_CELLS} layout output_sequence",
    "Reshape": "allowzero",
    "ReduceProd": "axes keepdims",
    "Shape": "end start",
    "Slice": "axes ends starts",
    "Softmax": "axis",
    "Split": "axis split",
    "Squeeze": "axes",
    "Transpose": "perm",
    "Unsqueeze": "axes",
}


def attributes(node: Any, array: Callable[[Any], Array]) -> Attributes:
    """Return a node's attributes, in Python's types and NumPy's arrays.

    Parameters
    ----------
    node : NodeProto
    array : callable
        What reads a TensorProto.

    Raises
    ------
    ValueError
        If one is of another type than ONNX says, or there twice, or not understood.
    """
    kinds: dict[int, Callable[[Any], Any]] = {
        1: lambda a: a.f,
        2: lambda a: a.i,
        3: lambda a: a.s.decode("utf-8"),
        4: lambda a: array(a.t),
        6: lambda a: list(a.floats),
        7: lambda a: list(a.ints),
        8: lambda a: [s.decode("utf-8") for s in a.strings],
    }
    understood = _UNDERSTOOD.get(node.op_type, "").split()
    found: Attributes = {}
    for a in node.attribute:
        if a.name not in understood or a.ref_attr_name or a.name in found:
            raise ValueError(f"attribute {short(a.name)} of {short(node.op_type)}: not understood")
        if a.type != _TYPES[a.name]:
            raise ValueError(f"{a.name}: expected ONNX's type {_TYPES[a.name]}, got {a.type}")
        found[a.name] = kinds[a.type](a)
    return found


def flat(values: Any) -> list[int]:
    """Return whole numbers, given as an array or a list."""
    return [int(value) for value in np.ravel(values)]


def axes_of(given: Attributes, axes: Any, rank: int) -> tuple[int, ...]:
    """Return axes from 0 on, which are an attribute or, since opset 13, an input."""
    found = flat(given["axes"] if axes is None and "axes" in given else axes)
    if not all(-rank <= axis < rank for axis in found) or len(found) > rank:
        raise ValueError(f"axes: expected those of {rank}, got {found[:8]}")
    return tuple(axis % rank for axis in found)


def reshape(x: Array, shape: list[int], allowzero: bool = False) -> Array:
    """Reshape as ONNX does: 0 keeps a size, -1 is whatever is left."""
    kept = [
        x.shape[k] if size == 0 and not allowzero and k < x.ndim else size
        for k, size in enumerate(shape)
    ]
    return x.reshape(kept)


def slices(given: Attributes, rank: int, *inputs: Any) -> tuple[slice, ...]:
    """Return the index that a Slice takes, from attributes or, since opset 10, inputs."""
    names = ("starts", "ends", "axes", "steps")
    found = dict(zip(names, inputs, strict=False))
    found = {n: given.get(n) if found.get(n) is None else found[n] for n in names}
    starts, ends = flat(found["starts"]), flat(found["ends"])
    axes = range(len(starts)) if found["axes"] is None else axes_of({}, found["axes"], rank)
    steps = [1] * len(starts) if found["steps"] is None else flat(found["steps"])
    index = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Backwards, the end is exclusive too: one before the first is said by a very small number.
        past = end if step > 0 or end > -(2**31) else None
        index[axis] = slice(start, past, step)
    return tuple(index)


def _constant(given: Attributes) -> Array:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in given:
            kind = np.float32 if "float" in name else np.int64
            return given[name] if name == "value" else np.array(given[name], kind)
    raise ValueError(f"expected a value, got {sorted(given)}")


def _split(given: Attributes, x: Array, sizes: Any = None) -> list[Array]:
    axis = given.get("axis", 0)
    sizes = given.get("split") if sizes is None else sizes
    if sizes is None:
        raise ValueError("split: expected the parts' sizes, got none")
    return np.split(x, np.cumsum(flat(sizes))[:-1], axis)


def dequantize(given: Attributes, x: Array, scale: Array, zero: Any = None) -> Array:
    """Return the numbers that integers stand for: of one scale, or of one for each channel."""
    shape = [1] * x.ndim
    if scale.ndim == 1:
        shape[given.get("axis", 1)] = -1
    shift = np.zeros((), x.dtype) if zero is None else zero
    shift = shift.reshape(shape) if scale.ndim == 1 and np.ndim(shift) else shift
    return (x.astype(np.float32) - shift) * (scale.reshape(shape) if scale.ndim == 1 else scale)


def _gather(given: Attributes, x: Array, index: Array) -> Array:
    axis = given.get("axis", 0)
    if index.size > x.size + 1:  # rows that repeat could take any memory
        raise ValueError(f"expected an index within {x.size} numbers, got {index.size}")
    if index.size * (x.size // max(x.shape[axis], 1)) > 64 * x.size + 64:
        raise ValueError("expected rows of a matrix, got far more than it has")
    return np.take(x, index, axis)


VIEWS = {"Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
FOLDED: dict[str, Callable[..., Any]] = {
    "Cast": lambda given, x: x.astype(_CASTS[given["to"]]),
    "Concat": lambda given, *parts: np.concatenate(parts, given["axis"]),
    "Constant": _constant,
    "DequantizeLinear": dequantize,
    "Gather": _gather,
    "Identity": lambda given, x: x,
    "Reshape": lambda given, x, shape: reshape(x, flat(shape), bool(given.get("allowzero"))),
    "Slice": lambda given, x, *inputs: x[slices(given, x.ndim, *inputs)],
    "Split": _split,
    "Squeeze": lambda given, x, axes=None: x.squeeze(axes_of(given, axes, x.ndim)),
    "Transpose": lambda given, x: x.transpose(given.get("perm")),
    "Unsqueeze": lambda given, x, axes=None: np.expand_dims(
        x, axes_of(given, axes, x.ndim + np.size(given.get("axes", axes)))
    ),
}
