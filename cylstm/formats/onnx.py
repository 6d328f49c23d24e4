"""LSTMs, GRUs and RNNs in ONNX files, read with the onnx package, without a runtime.

The operators: https://onnx.ai/onnx/operators/onnx__LSTM.html, and ``DynamicQuantizeLSTM`` of
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import warnings
from hashlib import sha256
from reprlib import repr as short
from typing import Any

from cylstm.formats.onnx_file import Graph, library, opened
from cylstm.formats.onnx_lstm import AFTER, Stack, stacks
from cylstm.formats.onnx_shapes import kind
from cylstm.io.files import is_path, naming, pick

__all__ = ["from_onnx"]


def from_onnx(source: Any, node: str | None = None, *, forget_bias: float = 0.0) -> Any:
    """Make an LSTM of the LSTM nodes in an ONNX model, which the onnx package reads.

    Where there is no LSTM, or `node` names another, a GRU or an RNN is made in the same way: a GRU
    of ``linear_before_reset=1``, as PyTorch and Keras 2 write it.

    Nodes of which each feeds the next, as PyTorch exports layers, become one LSTM. Weights may be
    initialisers, external data in the model's folder, or computed from these by operators such as
    Transpose, Slice and Concat. Those of ``com.microsoft.DynamicQuantizeLSTM`` become float32;
    `LSTM.quantize` makes them the same integers again.

    Parameters
    ----------
    source : path-like or ModelProto
    node : str, optional
        Which LSTM of several: the name of its first node, or of its first output where the node
        has no name. Of a later node of several layers it gives the layers from there on.
    forget_bias : float, default 0
        Added to the forget gates' biases.

    Returns
    -------
    LSTM, GRU or RNN
        With `batch_first` for ``layout=1``. ``initial_h``, ``initial_c`` and ``sequence_lens`` are
        arguments of its call; a warning tells of initial states that the file holds.

    Raises
    ------
    TypeError
        If `source` is neither.
    ValueError
        If there is no LSTM, or several and no `node` (the message lists them), or its weights are
        not constants, or an activation is not cylstm's, or the file is damaged.
    ModuleNotFoundError
        If onnx is not installed.
    OSError
        If the file cannot be read.

    See Also
    --------
    cylstm.load : The whole model.
    LSTM.to_onnx : The way back.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.onnx")
    ...     cylstm.LSTM(3, 4, num_layers=2, bidirectional=True).to_onnx(path)
    ...     cylstm.from_onnx(path)
    LSTM(3, 4, num_layers=2, bidirectional=True)
    """
    if not (is_path(source) or isinstance(source, library().ModelProto)):
        raise TypeError(f"source: expected a path or a ModelProto, got {type(source).__name__}")
    with naming(source if is_path(source) else "source"):
        graph = opened(source)
        found = {stack.name: stack for stack in stacks(graph)}
        if not found:
            raise ValueError(f"expected an LSTM, GRU or RNN, found {_others(graph)}")
        if node is None and any(stack.links[0].kind == "LSTM" for stack in found.values()):
            found = {name: one for name, one in found.items() if one.links[0].kind == "LSTM"}
        if node is None and len(found) > 1:
            found = _different(found)
        for stack in list(found.values()):
            if node in stack.names:
                found[node] = Stack(stack.links[stack.names.index(node) :])
        stack = found[pick("node", node, found)]
        lstm, states = stack.lstm(forget_bias), stack.states()
    if any(state is not None and state.any() for state in states):
        warnings.warn(
            f"{stack.name}: the model holds its initial state, which {lstm._options.kind} does "
            "not: give it to calls",
            stacklevel=2,
        )
    return lstm


def _others(graph: Graph) -> str:
    """Say which recurrent nodes there are, where none is an LSTM that can be read."""
    nodes = (node for inner in graph.graphs() for node in inner.nodes)
    kinds = {kind(node) for node in nodes if node.op_type in ("LSTM", "GRU", "RNN")}
    if kinds == {"GRU"}:
        return f"GRU, but linear_before_reset: {AFTER}"
    return f"{short(sorted(kinds))}, and cylstm reads ONNX's" if kinds else "none"


def _different(found: dict[str, Stack]) -> dict[str, Stack]:
    """Leave out LSTMs that are the same as others, as those of an If's two branches may be."""
    kept: dict[str, Stack] = {}
    seen = set()
    for name, stack in found.items():
        lstm = stack.lstm()
        numbers = (sha256(array.tobytes()).digest() for _, array in lstm.named_parameters())
        same = (repr(lstm), *numbers)
        if same not in seen:
            seen.add(same)
            kept[name] = stack
    return kept
