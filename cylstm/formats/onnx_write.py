"""LSTMs, GRUs and RNNs written as ONNX files, with the onnx package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cylstm.formats.onnx_file import library
from cylstm.formats.parts import GRU_ORDER, ORDER, ordered
from cylstm.io.writing import replacing
from cylstm.options import STANDARD

__all__ = ["Writer", "Written", "save", "write_onnx"]

_ORDER = "iofg"  # of the gates' rows, and of the peepholes without g
_KINDS = {  # ONNX's order of gates, ours, and the activations that a node has without saying so
    "LSTM": (_ORDER, ORDER, STANDARD),
    "GRU": ("zrn", GRU_ORDER, STANDARD[:2]),
    "RNN": ("n", "n", STANDARD[1:2]),
}
_NAMES = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "hard_sigmoid": "HardSigmoid"}
_OPSET, _IR_VERSION = 14, 8  # of 2021, which every runtime in use reads


def write_onnx(lstm: Any, path: Any, state: bool) -> None:
    """Do what `LSTM.to_onnx` does."""
    writer = Writer(lstm.dtype)
    network = Written(writer, lstm)
    y, ends = network.add("x", state)
    writer.add("Identity", [y], ["y"])
    for name, parts in zip(network.ends("n"), zip(*ends, strict=True), strict=True):
        writer.add("Concat", parts, [name], axis=0)
    given, made = network.values(state)
    save(writer.model(lstm._options.kind.lower(), given, made), path)


def save(model: Any, path: Any) -> None:
    """Check a model, and write it whole or not at all."""
    library().checker.check_model(model, full_check=True)
    with replacing(path) as file:
        file.write(model.SerializeToString())


class Writer:
    """The nodes and the weights of a model, as they are made."""

    def __init__(self, dtype: Any) -> None:
        self.onnx = library()
        self.kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.opset = _OPSET
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
        self.tensors.append(self.onnx.numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def value(self, name: str, shape: Sequence[Any], kind: int | None = None) -> Any:
        """Return what tells of an input or an output."""
        return self.onnx.helper.make_tensor_value_info(name, kind or self.kind, shape)

    def model(self, name: str, given: Sequence[Any], made: Sequence[Any]) -> Any:
        """Return all of it."""
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, name, given, made, self.tensors)
        return helper.make_model(
            graph,
            producer_name="cylstm",
            ir_version=_IR_VERSION + (self.opset > 18),
            opset_imports=[helper.make_opsetid("", self.opset)],
        )


class Written:
    """A network among the nodes of a model; `before` begins the names of its weights."""

    def __init__(self, writer: Writer, lstm: Any, before: str = "") -> None:
        if lstm._options.output_size != lstm.hidden_size:
            raise ValueError(f"proj_size: expected 0, since ONNX has no projection, got {lstm}")
        self.writer, self.lstm, self.before = writer, lstm, before
        self.of = lstm._options.kind
        self.directions = 2 if lstm.bidirectional else 1

    def add(self, x: str, state: bool = False) -> tuple[str, list[list[str]]]:
        """Add all layers; return the names of y, and of each layer's last states."""
        turned = {"perm": [1, 0, 2]}
        x = self.writer.add("Transpose", [x], **turned) if self.lstm.batch_first else x
        ends = []
        for layer in range(self.lstm.num_layers):
            y, *end = self.layer(layer, x, state)
            ends.append(end)
            x = self.side_by_side(y)
        return self.writer.add("Transpose", [x], **turned) if self.lstm.batch_first else x, ends

    def tensor(self, name: str, array: np.ndarray) -> str:
        """Add weights of its own, and return their name."""
        return self.writer.tensor(self.before + name, array)

    def ends(self, at: str) -> list[str]:
        """Return the names of the state's parts."""
        return [f"h_{at}", f"c_{at}"][: 2 if self.of == "LSTM" else 1]

    def layer(self, layer: int, x: str, state: bool) -> list[str]:
        """Add a layer, and return the names of Y, Y_h and, of an LSTM, Y_c."""
        lstm, count, (order, own_order, _) = self.lstm, self.directions, _KINDS[self.of]
        endings = [f"_l{layer}", f"_l{layer}_reverse"][:count]

        def stacked(name: str, order: str) -> np.ndarray:
            own = (getattr(lstm, name + ending) for ending in endings)
            return np.stack([ordered(array, order, own_order) for array in own])

        inputs = [x, *(self.tensor(f"{name}_l{layer}", stacked(weight, order))
                       for name, weight in (("W", "weight_ih"), ("R", "weight_hh")))]  # fmt: skip
        bias = ""
        if lstm.bias:
            first = stacked("bias", order)
            second = np.zeros_like(first)
            if self.of == "GRU":
                own = [getattr(lstm, "bias_hn" + ending) for ending in endings]
                second[:, 2 * lstm.hidden_size :] = own
            bias = self.tensor(f"B_l{layer}", np.concatenate([first, second], 1))
        inputs += [bias, "", *(self.part(name, layer) if state else "" for name in self.ends("0"))]
        if self.of == "LSTM" and lstm.peephole:
            inputs.append(self.tensor(f"P_l{layer}", stacked("weight_p", _ORDER[:3])))
        names = [
            f"{self.before}{name}_l{layer}"
            for name in ("Y", "Y_h", "Y_c")[: 1 + len(self.ends("n"))]
        ]
        self.writer.add(self.of, inputs, names, **self.attributes())
        return names

    def attributes(self) -> dict[str, Any]:
        """Return those of each LSTM node."""
        lstm = self.lstm
        flags = {"bidirectional": lstm.bidirectional, "reverse": lstm.reverse}
        given: dict[str, Any] = {
            "direction": next((name for name, on in flags.items() if on), "forward"),
            "hidden_size": lstm.hidden_size,
        }
        standard = _KINDS[self.of][2]
        used = [
            activation
            for d in range(self.directions)
            for activation in lstm._options.activations_of(d)[: len(standard)]
        ]
        if any(name != usual for (name, *_), usual in zip(used, standard * 2, strict=False)):
            given["activations"] = [_NAMES[name] for name, _, _ in used]
            numbers = [(slope, offset) for name, slope, offset in used if name == "hard_sigmoid"]
            if numbers:
                given["activation_alpha"], given["activation_beta"] = map(
                    list, zip(*numbers, strict=True)
                )
        more = {
            "clip": lstm.clip,
            "input_forget": int(lstm.config.get("coupled", False)),
            "linear_before_reset": int(self.of == "GRU"),
        }
        return given | {name: value for name, value in more.items() if value}

    def part(self, name: str, layer: int) -> str:
        """Return a layer's part of the initial state."""
        bounds = [layer * self.directions, (layer + 1) * self.directions]
        at = [self.tensor(f"{name}_{k}_l{layer}", np.array([n])) for k, n in enumerate(bounds)]
        return self.writer.add("Slice", [name, *at])

    def side_by_side(self, y: str) -> str:
        """Bring Y (T, D, N, H) to (T, N, D H)."""
        swapped = self.writer.add("Transpose", [y], perm=[0, 2, 1, 3])
        width = self.directions * self.lstm.hidden_size
        shape = self.writer.tensor(f"shape_{y}", np.array([0, 0, width]))
        return self.writer.add("Reshape", [swapped, shape])

    def values(self, state: bool) -> tuple[list[Any], list[Any]]:
        """Return what tells of the inputs and the outputs of a model of this network alone."""
        lstm = self.lstm
        rows = lstm.num_layers * self.directions
        steps = ["N", "T"] if lstm.batch_first else ["T", "N"]
        wide = {
            "x": [*steps, lstm.input_size],
            "y": [*steps, self.directions * lstm.hidden_size],
        } | {name: [rows, "N", lstm.hidden_size] for name in ("h_0", "c_0", "h_n", "c_n")}

        def values(*names: str) -> list[Any]:
            return [self.writer.value(name, wide[name]) for name in names]

        given = values("x", *(self.ends("0") if state else ()))
        return given, values("y", *self.ends("n"))
