"""LSTMs written as ONNX files, with the onnx package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cylstm.formats.onnx_file import library
from cylstm.formats.parts import ordered
from cylstm.io.writing import replacing
from cylstm.lstm import LSTM
from cylstm.options import STANDARD

__all__ = ["write_onnx"]

_ORDER = "iofg"  # of the gates' rows, and of the peepholes without g
_NAMES = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "hard_sigmoid": "HardSigmoid"}
_OPSET, _IR_VERSION = 14, 8  # of 2021, which every runtime in use reads


def write_onnx(lstm: LSTM, path: Any, state: bool) -> None:
    """Do what `LSTM.to_onnx` does."""
    onnx = library()
    if lstm.proj_size:
        raise ValueError(f"proj_size: expected 0, since ONNX has no projection, got {lstm}")
    writer = _Writer(onnx, lstm)
    x = writer.add("Transpose", ["x"], perm=[1, 0, 2]) if lstm.batch_first else "x"
    ends = []
    for layer in range(lstm.num_layers):
        y, *end = writer.layer(layer, x, state)
        ends.append(end)
        x = writer.side_by_side(y)
    writer.add("Transpose" if lstm.batch_first else "Identity", [x], ["y"],
               **({"perm": [1, 0, 2]} if lstm.batch_first else {}))  # fmt: skip
    for name, parts in zip(("h_n", "c_n"), zip(*ends, strict=True), strict=True):
        writer.add("Concat", parts, [name], axis=0)
    model = writer.model(state)
    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as file:
        file.write(model.SerializeToString())


class _Writer:
    """The nodes and the weights of a model, as they are made."""

    def __init__(self, onnx: Any, lstm: LSTM) -> None:
        self.onnx, self.lstm = onnx, lstm
        self.directions = 2 if lstm.bidirectional else 1
        self.kind = onnx.helper.np_dtype_to_tensor_dtype(lstm.dtype)
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def add(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Add a node, and return the name of its first output."""
        name = f"{kind}_{len(self.nodes)}"
        outputs = outputs or [name]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, outputs, name, **attributes))
        return outputs[0]

    def tensor(self, name: str, array: np.ndarray) -> str:
        """Add weights, and return their name."""
        self.tensors.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def layer(self, layer: int, x: str, state: bool) -> tuple[str, str, str]:
        """Add a layer, and return the names of Y, Y_h and Y_c."""
        lstm, count = self.lstm, self.directions
        endings = [f"_l{layer}", f"_l{layer}_reverse"][:count]

        def stacked(name: str, order: str) -> np.ndarray:
            own = (getattr(lstm, name + ending) for ending in endings)
            return np.stack([ordered(array, order) for array in own])

        inputs = [x, *(self.tensor(f"{name}_l{layer}", stacked(weight, _ORDER))
                       for name, weight in (("W", "weight_ih"), ("R", "weight_hh")))]  # fmt: skip
        bias = ""
        if lstm.bias:
            first = stacked("bias", _ORDER)
            bias = self.tensor(f"B_l{layer}", np.concatenate([first, np.zeros_like(first)], 1))
        inputs += [bias, "", *(self.part(name, layer) if state else "" for name in ("h_0", "c_0"))]
        if lstm.peephole:
            inputs.append(self.tensor(f"P_l{layer}", stacked("weight_p", _ORDER[:3])))
        names = [f"{name}_l{layer}" for name in ("Y", "Y_h", "Y_c")]
        self.add("LSTM", inputs, names, **self.attributes())
        return names[0], names[1], names[2]

    def attributes(self) -> dict[str, Any]:
        """Return those of each LSTM node."""
        lstm = self.lstm
        flags = {"bidirectional": lstm.bidirectional, "reverse": lstm.reverse}
        given: dict[str, Any] = {
            "direction": next((name for name, on in flags.items() if on), "forward"),
            "hidden_size": lstm.hidden_size,
        }
        used = [a for d in range(self.directions) for a in lstm._options.activations_of(d)]
        if any(name != standard for (name, *_), standard in zip(used, STANDARD * 2, strict=False)):
            given["activations"] = [_NAMES[name] for name, _, _ in used]
            numbers = [(slope, offset) for name, slope, offset in used if name == "hard_sigmoid"]
            if numbers:
                given["activation_alpha"], given["activation_beta"] = map(
                    list, zip(*numbers, strict=True)
                )
        return given | {
            name: value
            for name, value in (("clip", lstm.clip), ("input_forget", int(lstm.coupled)))
            if value
        }

    def part(self, name: str, layer: int) -> str:
        """Return a layer's part of the initial state."""
        bounds = [layer * self.directions, (layer + 1) * self.directions]
        at = [self.tensor(f"{name}_{k}_l{layer}", np.array([n])) for k, n in enumerate(bounds)]
        return self.add("Slice", [name, *at])

    def side_by_side(self, y: str) -> str:
        """Bring Y (T, D, N, H) to (T, N, D H)."""
        swapped = self.add("Transpose", [y], perm=[0, 2, 1, 3])
        width = self.directions * self.lstm.hidden_size
        shape = self.tensor(f"shape_{y}", np.array([0, 0, width]))
        return self.add("Reshape", [swapped, shape])

    def model(self, state: bool) -> Any:
        """Return all of it."""
        lstm, helper = self.lstm, self.onnx.helper
        rows = lstm.num_layers * self.directions
        steps = ["N", "T"] if lstm.batch_first else ["T", "N"]
        wide = {
            "x": [*steps, lstm.input_size],
            "y": [*steps, self.directions * lstm.hidden_size],
        } | {name: [rows, "N", lstm.hidden_size] for name in ("h_0", "c_0", "h_n", "c_n")}

        def values(*names: str) -> list[Any]:
            return [helper.make_tensor_value_info(n, self.kind, wide[n]) for n in names]

        given = values("x", *(("h_0", "c_0") if state else ()))
        graph = helper.make_graph(
            self.nodes, "lstm", given, values("y", "h_n", "c_n"), self.tensors
        )
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(
            graph, producer_name="cylstm", ir_version=_IR_VERSION, opset_imports=opset
        )
