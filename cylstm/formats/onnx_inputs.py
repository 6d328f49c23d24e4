"""What an ONNX model takes, as the file declares it."""

from __future__ import annotations

from typing import Any

import numpy as np

from cylstm.formats.onnx_file import Graph

__all__ = ["as_declared", "declared"]

_TYPES = {  # of TensorProto.DataType
    1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64",
}  # fmt: skip


def declared(graph: Graph) -> dict[str, dict[str, Any]]:
    """Return the type and the shape of each input, by its name; None stands for any size."""
    found: dict[str, dict[str, Any]] = {}
    for value in graph.proto.input:
        if value.name in graph.tensors or value.name in found:
            continue  # a default is not to be changed
        tensor = value.type.tensor_type
        if tensor.elem_type not in _TYPES:
            raise ValueError(f"input {value.name!r}: expected an array of numbers, got another")
        sizes = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
        shape = sizes if tensor.HasField("shape") else None
        found[value.name] = {"dtype": _TYPES[tensor.elem_type], "shape": shape}
    return found


def as_declared(x: Any, name: str, dtype: str, shape: tuple[int | None, ...] | None) -> np.ndarray:
    """Return an input in the type that the model declares.

    Raises
    ------
    TypeError
        If its numbers are of another kind.
    ValueError
        If it has another shape: the model may have been made for this one alone.

    Examples
    --------
    >>> as_declared([[1, 2]], "x", "float32", (None, 2))
    array([[1., 2.]], dtype=float32)
    """
    array = np.asarray(x)
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}: expected {dtype}, got {array.dtype}")
    if shape is not None and (
        array.ndim != len(shape)
        or any(size not in (None, own) for size, own in zip(shape, array.shape, strict=True))
    ):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected the shape ({sizes}), got {array.shape}")
    return array.astype(dtype, copy=False)
