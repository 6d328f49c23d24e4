"""The functions of ``keras.ops`` in Keras 3's models: ``x + y``, ``x[:, -1]``, a mean over time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm.formats.chain import Mask, relu, sigmoid, silu, softmax
from cylstm.formats.keras_config import Entry, as_object
from cylstm.formats.keras_joins import Joining

__all__ = ["OPERATIONS", "Operation", "is_tensor", "operation_of", "tensors_of"]

_TENSOR, _SLICE = "__keras_tensor__", "__slice__"
_DEEPEST = 4  # of lists in an argument


class _Value(int):
    """The place of a value among the inputs, in the arguments."""


class Operation(Joining):
    """A function of arrays and constants.

    Parameters
    ----------
    function : callable
    arguments : sequence
        In which a `_Value` stands for an input.
    count : int
        Of the inputs.
    options : mapping
        Keyword arguments.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        count: int,
        options: Mapping[str, Any],
    ) -> None:
        self.function, self.arguments = function, arguments
        self.count, self.options = count, options

    @property
    def config(self) -> dict[str, Any]:
        """The function's name, and its options."""
        return {"function": self.function.__name__, **self.options}

    def takes_inputs(self, count: int) -> bool:
        """Tell whether it has this many inputs."""
        return count == self.count

    def join(self, inputs: Sequence[np.ndarray], masks: Sequence[Mask]) -> tuple[np.ndarray, Mask]:
        """Return what the function makes of them, where all steps count."""
        if any(mask is not None for mask in masks):
            name = self.function.__name__
            raise ValueError(f"{name}: expected inputs all of whose steps count, got a mask")
        return self.function(*_filled(self.arguments, inputs), **self.options), None


def _filled(argument: Any, inputs: Sequence[np.ndarray]) -> Any:
    """Put the inputs in their places."""
    if isinstance(argument, list):
        return [_filled(part, inputs) for part in argument]
    return inputs[argument] if isinstance(argument, _Value) else argument


def taken(x: np.ndarray, index: Any) -> np.ndarray:
    """Return x[index]."""
    return x[tuple(index) if isinstance(index, list) else index]


def reshaped(x: np.ndarray, newshape: tuple[int | None, ...]) -> np.ndarray:
    """Return x in another shape, of which one size may be unknown."""
    return x.reshape([-1 if size is None else size for size in newshape])


_AXES = ("axis", "keepdims")
OPERATIONS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {  # and what options they have
    "ops.Absolute": (np.abs, ()),
    "ops.Add": (np.add, ()),
    "ops.Concatenate": (np.concatenate, ("axis",)),
    "ops.Divide": (np.divide, ()),
    "ops.Exp": (np.exp, ()),
    "ops.ExpandDims": (np.expand_dims, ("axis",)),
    "ops.GetItem": (taken, ()),
    "ops.Matmul": (np.matmul, ()),
    "ops.Max": (np.max, _AXES),
    "ops.Maximum": (np.maximum, ()),
    "ops.Mean": (np.mean, _AXES),
    "ops.Min": (np.min, _AXES),
    "ops.Minimum": (np.minimum, ()),
    "ops.Multiply": (np.multiply, ()),
    "ops.Negative": (np.negative, ()),
    "ops.Relu": (relu, ()),
    "ops.Reshape": (reshaped, ("newshape",)),
    "ops.Sigmoid": (sigmoid, ()),
    "ops.Silu": (silu, ()),
    "ops.Softmax": (softmax, ("axis",)),
    "ops.Sqrt": (np.sqrt, ()),
    "ops.Square": (np.square, ()),
    "ops.Squeeze": (np.squeeze, ("axis",)),
    "ops.Stack": (np.stack, ("axis",)),
    "ops.Subtract": (np.subtract, ()),
    "ops.Sum": (np.sum, _AXES),
    "ops.Tanh": (np.tanh, ()),
    "ops.Transpose": (np.transpose, ("axes",)),
    "ops.TrueDivide": (np.divide, ()),
}


def operation_of(entry: Entry) -> Operation:
    """Make the function of an operation, which is called once.

    Raises
    ------
    ValueError
        If it has options or arguments that are not read, or is called more than once.
    """
    function, known = OPERATIONS[entry.kind]
    options = {}
    for name, value in entry.config.items():
        if name in known:
            options[name] = _axes(name, value)
        elif name not in ("name", "dtype") and value is not None:
            raise ValueError(f"{short(name)}: expected no such option, got {short(value)}")
    if not isinstance(entry.inbound, list) or len(entry.inbound) != 1:
        raise ValueError(f"inbound_nodes: expected one call, got {short(entry.inbound)}")
    arguments = as_object(entry.inbound[0], "inbound_nodes").get("args")
    count = len(tensors_of(arguments))
    return Operation(function, _template(arguments, itertools.count()), count, options)


def _axes(name: str, value: Any) -> Any:
    """Return an option: a number, a flag, None, or a tuple of numbers."""
    parts = value if isinstance(value, list) else [value]
    if not all(part is None or type(part) in (int, bool) for part in parts):
        raise ValueError(f"{name}: expected whole numbers, got {short(value)}")
    return tuple(parts) if isinstance(value, list) else value


def _template(argument: Any, count: Iterator[int]) -> Any:
    """Return the arguments with the places of the tensors, numbers and slices."""
    if isinstance(argument, list):
        return [_template(part, count) for part in argument]
    if is_tensor(argument):
        return _Value(next(count))
    if isinstance(argument, dict) and argument.get("class_name") == _SLICE:
        ends = as_object(argument.get("config"), "slice")
        return slice(*(_axes("slice", ends.get(name)) for name in ("start", "stop", "step")))
    if argument is None or type(argument) in (int, float):
        return argument
    raise ValueError(f"args: expected tensors, numbers and slices, got {short(argument)}")


def is_tensor(value: Any) -> bool:
    """Tell whether an argument is a tensor of the model."""
    return isinstance(value, dict) and value.get("class_name") == _TENSOR


def tensors_of(argument: Any, depth: int = 0) -> list[Any]:
    """Return the tensors in the arguments of a call, in order, as ``keras_history`` names them."""
    if isinstance(argument, list):
        if depth > _DEEPEST:
            raise ValueError(f"args: expected at most {_DEEPEST} lists within lists")
        return [found for part in argument for found in tensors_of(part, depth + 1)]
    if not is_tensor(argument):
        return []
    return [as_object(argument.get("config"), "tensor").get("keras_history")]
