"""Models of layers written as ONNX files, with the onnx package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cylstm.family import Trainable
from cylstm.formats.onnx_write import Writer, Written, save
from cylstm.layers import (
    GELU,
    Dropout,
    Embedding,
    Last,
    Layer,
    LayerNorm,
    Linear,
    MaxPool,
    MeanPool,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)

__all__ = ["write_layers"]


def write_layers(model: Sequential, path: Any) -> None:
    """Do what `Sequential.to_onnx` does."""
    layers = list(_leaves(model))
    for where, layer in layers:
        if not isinstance(layer, Trainable) and type(layer) not in _ADD:
            known = ", ".join(kind.__name__ for kind in _ADD)
            raise ValueError(
                f"{where}: expected an LSTM, GRU or RNN, or one of {known}, which ONNX has, "
                f"got {layer!r}"
            )
    _check_dtypes(layers)
    written = _Layers(layers, model.batch_first)
    given, made = written.values(model.keeps_time)
    written.add()
    save(written.writer.model("sequential", [given], [made]), path)


def _leaves(model: Sequential, before: str = "layers") -> Any:
    """Iterate over pairs of where a layer is and the layer."""
    for i, layer in enumerate(model):
        if type(layer) is Sequential:
            yield from _leaves(layer, f"{before}[{i}]")
        else:
            yield f"{before}[{i}]", layer


def _check_dtypes(layers: list[tuple[str, Any]]) -> None:
    """Refuse what could not run: layers of float32 beside others of float64."""
    found = {layer.dtype: where for where, layer in layers if hasattr(layer, "dtype")}
    if len(found) > 1:
        (first, one), (second, other), *_ = found.items()
        raise ValueError(f"{other}: expected {first}, as {one} has it, got {second}")


class _Layers:
    """The layers of a model as nodes: a method for each kind that is not recurrent."""

    def __init__(self, layers: list[tuple[str, Any]], batch_first: bool | None) -> None:
        self.layers = [layer for _, layer in layers]
        dtypes = [layer.dtype for layer in self.layers if hasattr(layer, "dtype")]
        self.writer = Writer(dtypes[0] if dtypes else "float32")
        for kind, opset in _SINCE.items():
            if any(type(layer) is kind for layer in self.layers):
                self.writer.opset = max(self.writer.opset, opset)
        self.axes = {None: ["N"], False: ["T", "N"], True: ["N", "T"]}[batch_first]
        self.time = int(bool(batch_first))

    def add(self) -> None:
        """Add all layers."""
        x = "x"
        for k, layer in enumerate(self.layers):
            if isinstance(layer, Trainable):
                x = Written(self.writer, layer, f"{k}.").add(x)[0]
            else:
                x = _ADD[type(layer)](self, f"{k}.", layer, x)
        self.writer.add("Identity", [x], ["y"])

    def values(self, keeps_time: bool) -> tuple[Any, Any]:
        """Return what tells of the input and of the output."""
        widths = [width for width in map(_widths, self.layers) if width is not None]
        first, last = (widths[0][0], widths[-1][1]) if widths else ("F", "F")
        after = self.axes if keeps_time else ["N"]
        if first is None:
            given = self.writer.value("x", self.axes, self.writer.onnx.TensorProto.INT64)
        else:
            given = self.writer.value("x", [*self.axes, first])
        return given, self.writer.value("y", [*after, last])

    def linear(self, name: str, layer: Linear, x: str) -> str:
        """Add a product, and a bias."""
        state = layer.state_dict()
        y = self.writer.add("MatMul", [x, self.writer.tensor(name + "weight", state["weight"].T)])
        if not layer.bias:
            return y
        return self.writer.add("Add", [y, self.writer.tensor(name + "bias", state["bias"])])

    def embedding(self, name: str, layer: Embedding, x: str) -> str:
        """Add the rows of a table."""
        weight = self.writer.tensor(name + "weight", layer.state_dict()["weight"])
        return self.writer.add("Gather", [weight, x])

    def norm(self, name: str, layer: LayerNorm, x: str) -> str:
        """Add a normalisation, whose scale there must be."""
        state = {"weight": np.ones(layer.normalized_shape, layer.dtype)} | layer.state_dict()
        inputs = [x, *(self.writer.tensor(name + part, array) for part, array in state.items())]
        return self.writer.add("LayerNormalization", inputs, epsilon=layer.eps)

    def last(self, name: str, layer: Last, x: str) -> str:
        """Add what takes the last step."""
        at = self.writer.tensor(name + "at", np.array(-1))
        return self.writer.add("Gather", [x, at], axis=self.time)

    def reduced(self, name: str, layer: Layer, x: str) -> str:
        """Add a mean, or what is largest, over the steps."""
        kind = "ReduceMean" if type(layer) is MeanPool else "ReduceMax"
        if self.writer.opset < 18:
            return self.writer.add(kind, [x], axes=[self.time], keepdims=0)
        axes = self.writer.tensor(name + "axes", np.array([self.time]))
        return self.writer.add(kind, [x, axes], keepdims=0)

    def function(self, name: str, layer: Layer, x: str) -> str:
        """Add an activation."""
        given = {"axis": -1} if type(layer) is Softmax else {}
        given |= {"approximate": layer.approximate} if type(layer) is GELU else {}
        return self.writer.add(_FUNCTIONS[type(layer)], [x], **given)


def _widths(layer: Any) -> tuple[int | None, int] | None:
    """Return how many features a layer takes, None for integers, and gives, where it tells."""
    if isinstance(layer, Trainable):
        return layer.input_size, layer._width
    if isinstance(layer, Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, Embedding):
        return None, layer.embedding_dim
    if isinstance(layer, LayerNorm):
        return layer.normalized_shape, layer.normalized_shape
    return None


_FUNCTIONS = {GELU: "Gelu", ReLU: "Relu", Sigmoid: "Sigmoid", Softmax: "Softmax", Tanh: "Tanh"}
_SINCE = {LayerNorm: 17, GELU: 20}  # of ONNX's versions
_ADD: dict[type[Layer], Callable[[_Layers, str, Any, str], str]] = {
    Dropout: lambda layers, name, layer, x: x,
    Embedding: _Layers.embedding,
    Last: _Layers.last,
    LayerNorm: _Layers.norm,
    Linear: _Layers.linear,
    MaxPool: _Layers.reduced,
    MeanPool: _Layers.reduced,
    **dict.fromkeys(_FUNCTIONS, _Layers.function),
}
