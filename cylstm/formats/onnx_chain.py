"""ONNX models that are chains of operators, from the input to the output, as layers that score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm.formats.chain import Apply, Chain, Embedding, Scoring, activation, log_softmax, softmax
from cylstm.formats.chain_stream import Advancing, Axes, axes_of_output, parts_of
from cylstm.formats.fold import attributes, axes_of, flat, reshape, slices
from cylstm.formats.onnx_file import Graph, opened
from cylstm.formats.onnx_inputs import as_declared, declared
from cylstm.formats.onnx_lstm import Stack, acts, outputs_of, stacks
from cylstm.formats.onnx_shapes import kind
from cylstm.io.files import naming, real
from cylstm.layers import GELU, Layer, LayerNorm, Linear

__all__ = ["chain", "load_onnx"]

_OUTPUTS = ("Y", "Y_h", "Y_c")
_DEEPEST = 64  # of operators behind an initial state
_OF_ZEROS = (  # what makes zeros of zeros, whatever the shape
    *("Cast", "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"),
    *("Tile", "Transpose", "Unsqueeze"),
)


def load_onnx(path: Any) -> Layer:
    """Return what `cylstm.load` does, of an ONNX file."""
    with naming(path):
        graph = opened(path)
        try:
            return chain(graph)
        except ValueError:  # then it is no chain, or has a defect, which the other finds again
            from cylstm.formats.onnx_network import network

            return network(graph)


def chain(graph: Graph) -> Chain:
    """Return the model as a chain of layers.

    Raises
    ------
    ValueError
        If it is none.
    """
    layers = reversed(list(_backwards(graph)))
    ((name, given),) = declared(graph).items()
    return Chain(Apply(as_declared, name=name, **given), *layers)


class Recurrent(Scoring):
    """LSTM, GRU or RNN nodes of which each feeds the next, as one; its output is one of theirs.

    Parameters
    ----------
    lstm : LSTM, GRU or RNN
    output : {"Y", "Y_h", "Y_c"}
        Which: Y (T, D, N, H) of the last node, Y_h or Y_c (D, N, H); with `batch_first` Y is
        (N, T, D, H) and the others are (N, D, H).
    whole : bool
        Whether Y_h and Y_c are those of all nodes, (L D, N, H).
    lengths : array, (N,), optional
    state : (h_0, c_0), optional
        Of all nodes, (L D, N, H), or with `batch_first` (N, L D, H).
    """

    def __init__(
        self, lstm: Any, output: str, whole: bool, lengths: Any = None, state: Any = None
    ) -> None:
        self.lstm, self.output, self.whole = lstm, output, whole
        self.lengths, self.state = lengths, state

    @property
    def config(self) -> dict[str, Any]:
        """The LSTM, and which output."""
        return {"lstm": self.lstm, "output": self.output, "whole": self.whole}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output."""
        found = outputs_of(self.lstm, x, self.lengths, *(self.state or ()))
        if self.output == "Y":
            return found[0]
        last = found[_OUTPUTS.index(self.output)]
        own = slice(None) if self.whole else slice(-2 if self.lstm.bidirectional else -1, None)
        return last[:, own] if self.lstm.batch_first else last[own]

    def axes_after(self, axes: Axes) -> Axes:
        """Return those of all steps, or of one."""
        time = int(self.lstm.batch_first)
        after = axes_of_output(axes, time, time if self.output == "Y" else None)
        return after.to(3 + (self.output == "Y"), after.time)

    def advancing(self, batch_size: int) -> Advancing:
        """Return what it is in a stream.

        Raises
        ------
        ValueError
            If the file says where sequences end, or has initial states of another number of them.
        """
        if self.lengths is not None:
            raise ValueError("sequence_lens: expected none, since a stream has no end")
        if self.state is not None:
            _check_batch(self.state[0].shape[0 if self.lstm.batch_first else 1], batch_size)
        return _Steps(self, batch_size)


def _check_batch(stored: int, batch_size: int) -> None:
    if stored != batch_size:
        raise ValueError(f"batch_size: expected {stored}, of the initial state, got {batch_size}")


class _Steps(Advancing):
    """A `Recurrent` that takes a step at a time."""

    def __init__(self, layer: Recurrent, batch_size: int) -> None:
        self._layer = layer
        super().__init__(
            layer.lstm, batch_size, layer.state and tuple(map(self._turned, layer.state))
        )

    def _turned(self, state: np.ndarray) -> np.ndarray:
        """Put the batch first, or back, where the node has it there."""
        return state.swapaxes(0, 1) if self._layer.lstm.batch_first else state

    def __call__(self, x: np.ndarray, mask: Any) -> tuple[np.ndarray, Any]:
        y = self.stream.step(x)
        if self._layer.output == "Y":
            return np.expand_dims(y, 2 if self._layer.lstm.batch_first else 1), mask
        state = parts_of(self.stream.state)[_OUTPUTS.index(self._layer.output) - 1]
        return self._turned(state if self._layer.whole else state[-1:]), mask


def _backwards(graph: Graph) -> Iterator[Any]:
    """Yield the layers from the output to the input."""
    outputs = [value.name for value in graph.proto.output]
    if len(outputs) != 1:
        raise ValueError(f"expected a model of one output, got {short(outputs)}; {_ALONE}")
    inputs = {value.name for value in graph.proto.input} - graph.tensors.keys()
    joined = {id(link.node): stack for stack in stacks(graph) for link in stack.links}
    name, steps = outputs[0], len(graph.nodes)
    while name not in inputs:
        node = graph.producers.get(name)
        steps -= 1
        if node is None or steps < 0:
            raise ValueError(f"expected {short(name)} to come from the model's input; {_ALONE}")
        try:
            layer, name = _layer(graph, node, name, joined)
        except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"node {node.name or name!r}: {error}; {_ALONE}") from error
        if layer is not None:
            yield layer


_ALONE = "from_onnx takes the LSTMs alone"


def _layer(graph: Graph, node: Any, name: str, found: Mapping[int, Stack]) -> tuple[Any, str]:
    """Return the layer of a node, or None, and the name of its input that is not constant."""
    joined = found.get(id(graph.producers.get(node.input[0]))) if node.input else None
    if kind(node) == "Concat" and joined and attributes(node, graph.array)["axis"] == 0:
        for k in (1, 2):  # the states of all layers
            if [link.output(k) for link in joined.links] == list(node.input):
                return _recurrent(graph, joined, _OUTPUTS[k], True), joined.links[0].given(0)
    stack = found.get(id(node))
    if stack is not None:
        if stack.links[-1].node is not node:
            raise ValueError("expected the last layer's output, got one between")
        output = _OUTPUTS[list(node.output).index(name)]
        return _recurrent(graph, stack, output, False), stack.links[0].given(0)
    if kind(node) not in _SCORED:
        raise ValueError(
            f"expected one of LSTM, GRU, RNN, {', '.join(_SCORED)}, got {short(kind(node))}"
        )
    if acts(graph, node):
        raise ValueError("expected a Dropout that passes all on, got one in training")
    constants = [graph.constant(given) if given else None for given in node.input]
    moving = [k for k, given in enumerate(node.input) if given and constants[k] is None]
    if len(moving) != 1:
        raise ValueError(f"expected one input that is not constant, got {len(moving)}")
    given = attributes(node, graph.array) | {"opset": graph.opset, "moving": moving[0]}
    return _SCORED[kind(node)](given, *constants), node.input[moving[0]]


def _recurrent(graph: Graph, stack: Stack, output: str, whole: bool) -> Recurrent:
    lstm = stack.lstm()
    lengths = stack.links[0].constant(4, "sequence_lens")
    return Recurrent(lstm, output, whole, lengths, _state(graph, stack, lstm))


def _state(graph: Graph, stack: Stack, lstm: Any) -> tuple[np.ndarray, ...] | None:
    """Return the stored (h_0, c_0) of all nodes, or (h_0,), or None where all are zero."""
    given = [
        [None if _is_zero(graph, link.given(k), 0) else link.constant(k, "the initial state")
         for link in stack.links]
        for k in ((5, 6) if lstm._network.has_c else (5,))
    ]  # fmt: skip
    known = next((array for part in given for array in part if array is not None), None)
    if known is None:
        return None
    zero = np.zeros(known.shape, known.dtype)
    return tuple(
        np.concatenate(
            [zero if array is None else array for array in part], 1 if lstm.batch_first else 0
        ).astype(lstm.dtype)
        for part in given
    )


def _is_zero(graph: Graph, name: str, depth: int) -> bool:
    """Tell whether a value is zero, though its shape may depend on the input."""
    if not name:
        return True
    constant = graph.constant(name)
    if constant is not None:
        return not constant.any()
    node = graph.producers.get(name)
    if node is None or depth > _DEEPEST:
        return False
    if kind(node) == "ConstantOfShape":
        value = attributes(node, graph.array).get("value")
        return value is None or not value.any()
    parts = node.input if kind(node) == "Concat" else node.input[:1]
    return kind(node) in _OF_ZEROS and all(_is_zero(graph, part, depth + 1) for part in parts)


# Operators -------------------------------------------------------------------------------------


def _linear(weight: np.ndarray, bias: np.ndarray | None) -> Linear:
    weight = real("weight", weight)
    linear = Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=weight.dtype)
    state = {"weight": weight} | ({} if bias is None else {"bias": np.ravel(real("bias", bias))})
    linear.load_state_dict(state)
    return linear


def _matmul(given: dict[str, Any], _: Any, weight: np.ndarray | None) -> Any:
    if weight is None or weight.ndim != 2:
        raise ValueError("expected a matrix of weights on the right")
    return _linear(weight.T, None)


def _gemm(given: dict[str, Any], a: Any, b: Any, c: Any = None) -> Any:
    if b is None or given.get("transA") or b.ndim != 2 or (c is not None and np.ndim(c) > 1):
        raise ValueError("expected x, a matrix of weights, and a bias")
    weight = b if given.get("transB") else b.T
    bias = None if c is None else np.broadcast_to(given.get("beta", 1.0) * c, len(weight))
    return _linear(given.get("alpha", 1.0) * real("weight", weight), bias)


def _gather(given: dict[str, Any], data: Any, index: Any) -> Any:
    axis = given.get("axis", 0)
    if given["moving"] == 0:
        return Apply(np.take, indices=index, axis=axis)
    if axis != 0 or data.ndim != 2:
        raise ValueError(f"expected rows of a matrix, got axis {axis} of shape {data.shape}")
    if data.dtype.kind in "iu":
        return Apply(rows_of, table=data)
    return Embedding(real("data", data), mask_zero=False)


def rows_of(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return rows of a table of integers, as an embedding does of one of real numbers."""
    return table[x]


def _softmax(function: Callable[..., np.ndarray]) -> Callable[..., Any]:
    def made(given: dict[str, Any], _: Any) -> Apply:
        if given["opset"] < 13:  # along all axes from this one on
            return Apply(over_rest, function=function, axis=given.get("axis", 1))
        return Apply(function, axis=given.get("axis", -1))

    return made


def over_rest(x: np.ndarray, function: Callable[..., np.ndarray], axis: int) -> np.ndarray:
    """Apply a function along this axis and all after it, taken as one."""
    return function(flattened(x, axis)).reshape(x.shape)


def flattened(x: np.ndarray, axis: int) -> np.ndarray:
    """Make a matrix: the axes before this one, and the rest."""
    axis = axis % x.ndim if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def cast(x: np.ndarray, dtype: str) -> np.ndarray:
    """Return x in another type."""
    return np.asarray(x).astype(dtype)


def squeezed(x: np.ndarray, axes: Any) -> np.ndarray:
    """Leave out axes of size 1, by default all."""
    return x.squeeze() if axes is None else x.squeeze(axes_of({}, axes, x.ndim))


def unsqueezed(x: np.ndarray, axes: Any) -> np.ndarray:
    """Put in axes of size 1."""
    return np.expand_dims(x, axes_of({}, axes, x.ndim + len(axes)))


def sliced(x: np.ndarray, inputs: Any) -> np.ndarray:
    """Take a part."""
    return x[slices({}, x.ndim, *inputs)]


def added(x: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return x + value."""
    return x + value


def scaled(x: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return x times value."""
    return x * value


def mean(x: np.ndarray, axes: Any, keepdims: bool) -> np.ndarray:
    """Return the mean over axes."""
    return x.mean(None if axes is None else axes_of({}, axes, x.ndim), keepdims=keepdims)


def largest(x: np.ndarray, axes: Any, keepdims: bool) -> np.ndarray:
    """Return the largest over axes."""
    return x.max(None if axes is None else axes_of({}, axes, x.ndim), keepdims=keepdims)


def _reduced(function: Callable[..., np.ndarray]) -> Callable[..., Any]:
    def made(given: dict[str, Any], _: Any, axes: Any = None) -> Apply | None:
        found = _axes(given, axes)
        if not found and given.get("noop_with_empty_axes"):
            return None
        return Apply(function, axes=found or None, keepdims=bool(given.get("keepdims", 1)))

    return made


def _layer_norm(given: dict[str, Any], _: Any, weight: Any, bias: Any = None) -> LayerNorm:
    if weight is None or weight.ndim != 1 or given.get("axis", -1) != -1:
        raise ValueError("expected the last axis to be normalised, with a scale of one axis")
    state = {"weight": real("scale", weight)}
    if bias is not None:
        state["bias"] = real("bias", bias)
    norm = LayerNorm(
        len(weight), given.get("epsilon", 1e-5), bias="bias" in state, dtype=state["weight"].dtype
    )
    norm.load_state_dict(state)
    return norm


def dequantised(x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return the numbers that 8-bit integers stand for."""
    return (x.astype(np.float32) - zero) * scale


def _dequantise(given: dict[str, Any], x: Any, scale: Any, zero: Any = None) -> Apply:
    if scale is None or scale.size != 1 or scale.dtype != np.float32:
        raise ValueError("expected one scale, of float32")
    zero = np.float32(0 if zero is None else np.ravel(zero)[0])
    return Apply(dequantised, scale=np.ravel(scale)[0], zero=zero)


def _axes(given: dict[str, Any], axes: Any) -> Any:
    found = given.get("axes") if axes is None else axes
    return None if found is None else flat(found)


def _reshape(given: dict[str, Any], _: Any, shape: Any) -> Apply:
    return Apply(reshape, shape=flat(shape), allowzero=bool(given.get("allowzero", 0)))


def _slice(given: dict[str, Any], _: Any, *inputs: Any) -> Apply:
    found = inputs or [given.get(name) for name in ("starts", "ends", "axes")]
    return Apply(sliced, inputs=[None if part is None else flat(part) for part in found])


def _elementwise(name: str, **defaults: float) -> Callable[..., Any]:
    """Return what makes an activation; defaults are ONNX's, by ONNX's names."""

    def made(given: dict[str, Any], _: Any) -> Apply:
        names = {"alpha": "alpha" if name == "elu" else "slope", "beta": "offset"}
        return activation(name, **{names[n]: given.get(n, v) for n, v in defaults.items()})

    return made


def _constant_operand(function: Callable[..., np.ndarray]) -> Callable[..., Any]:
    def made(given: dict[str, Any], a: Any, b: Any) -> Apply:
        return Apply(function, value=a if b is None else b)

    return made


def _nothing(given: dict[str, Any], *_: Any) -> None:
    """Pass over."""


_CASTS = {1: "float32", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}

_SCORED: dict[str, Callable[..., Any]] = {
    "Add": _constant_operand(added),
    "Cast": lambda given, _: Apply(cast, dtype=_CASTS[given["to"]]),
    "DequantizeLinear": _dequantise,
    "Dropout": _nothing,
    "Elu": _elementwise("elu", alpha=1.0),
    "Exp": _elementwise("exponential"),
    "Flatten": lambda given, _: Apply(flattened, axis=given.get("axis", 1)),
    "Gather": _gather,
    "Gelu": lambda given, _: GELU(given.get("approximate", "none")),
    "Gemm": _gemm,
    "HardSigmoid": _elementwise("hard_sigmoid", alpha=0.2, beta=0.5),
    "Identity": _nothing,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _elementwise("leaky_relu", alpha=0.01),
    "LogSoftmax": _softmax(log_softmax),
    "MatMul": _matmul,
    "Mul": _constant_operand(scaled),
    "ReduceMax": _reduced(largest),
    "ReduceMean": _reduced(mean),
    "Relu": _elementwise("relu"),
    "Reshape": _reshape,
    "Sigmoid": _elementwise("sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax(softmax),
    "Softplus": _elementwise("softplus"),
    "Softsign": _elementwise("softsign"),
    "Squeeze": lambda given, _, axes=None: Apply(squeezed, axes=_axes(given, axes)),
    "Tanh": _elementwise("tanh"),
    "Transpose": lambda given, _: Apply(np.transpose, axes=given.get("perm")),
    "Unsqueeze": lambda given, _, axes=None: Apply(unsqueezed, axes=_axes(given, axes)),
}
