"""The LSTM, GRU or RNN of a layer of Keras 1, 2 or 3.

Of Keras 1's LSTM: ``keras/layers/recurrent.py`` of Keras 1.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm.formats.keras_config import Arrays, Entry, check_keys, described, flag, text
from cylstm.formats.parts import GRU_ORDER, Cell, assemble, gates, gru_cell

__all__ = [
    "Half",
    "activation_name",
    "halves_of",
    "hard_sigmoid",
    "is_lstm",
    "kind_of",
    "lstm_of",
    "lstms_of",
]

_LAYERS = {  # and what they become
    "LSTM": "LSTM", "CuDNNLSTM": "LSTM", "GRU": "GRU", "CuDNNGRU": "GRU", "SimpleRNN": "RNN",
}  # fmt: skip
_OF_CELLS = (
    *("units", "output_dim", "use_bias", "activation", "recurrent_activation"),
    *("inner_activation", "reset_after"),
)
_OF_LAYERS = (
    *("return_sequences", "return_state", "go_backwards", "stateful", "time_major"),
    *("zero_output_for_mask", "cell"),
)
_CELLS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "RNN"}  # and what of them
_NAMES_OF_CELLS = {"LSTM": "lstm_cell", "GRU": "gru_cell", "RNN": "simple_rnn_cell"}


@dataclass
class Half:
    """A layer that reads in one direction."""

    options: dict[str, Any]
    cells: list[dict[str, Any]]
    parts: list[str]  # where the cells' arrays lie
    kind: str = "LSTM"

    @property
    def backwards(self) -> bool:
        """Whether it reads from the end."""
        return flag(self.options, "go_backwards")


def is_lstm(entry: Entry) -> bool:
    """Tell whether an LSTM can be made of a layer."""
    kind, config = entry.kind, entry.config
    if kind == "Bidirectional" and isinstance(config.get("layer"), dict):
        kind, config = config["layer"].get("class_name"), config["layer"].get("config")
    if kind != "RNN" or not isinstance(config, dict):
        return kind in _LAYERS
    try:
        return bool(_cells_of(config))
    except ValueError:
        return False


def kind_of(entry: Entry) -> str:
    """Return what such a layer becomes: an LSTM, a GRU or an RNN."""
    return halves_of(entry)[0].kind


def lstm_of(entry: Entry, forget_bias: float = 0.0) -> Any:
    """Make the LSTM of a layer, or of the two that a Bidirectional wraps."""
    lstms = lstms_of(entry, forget_bias)
    if len(lstms) > 1:
        raise ValueError(
            f"cells: expected the same units and activations in all, got {short(lstms)}; "
            "cylstm.load takes them one after the other"
        )
    return lstms[0]


def lstms_of(entry: Entry, forget_bias: float = 0.0) -> list[Any]:
    """Make the LSTM of a layer; or several that feed each other, of cells that differ."""
    halves = halves_of(entry)
    sides = ["forward_layer/", "backward_layer/"] if len(halves) == 2 else [""]
    parts = [side + part for side, half in zip(sides, halves, strict=True) for part in half.parts]
    configs = [config for half in halves for config in half.cells]
    kind = halves[0].kind
    if {half.kind for half in halves} != {kind}:
        raise ValueError(f"{entry.name}: expected halves of one kind")
    cells = [_MADE[kind](*pair) for pair in zip(entry.weights(parts), configs, strict=True)]
    triples = [_activations(config, entry.major, kind) for config in configs]
    options = {
        "batch_first": not flag(halves[0].options, "time_major"),
        "bidirectional": len(halves) == 2,
        "reverse": [half.backwards for half in halves] == [True],
    }
    kinds = {(c.weight_hh.shape, c.bias is None, t) for c, t in zip(cells, triples, strict=True)}
    if len(halves) == 2:
        if halves[0].backwards:  # the half that reads forwards comes first
            cells, triples = cells[::-1], triples[::-1]
        both = triples[0] if triples[0] == triples[1] else tuple(triples)
        return [assemble(cells, forget_bias, kind, **{_NAMED[kind]: both}, **options)]
    if len(kinds) == 1:
        return [assemble(cells, forget_bias, kind, **{_NAMED[kind]: triples[0]}, **options)]
    if options["reverse"]:
        raise ValueError("go_backwards: expected False for cells that differ, got True")
    return [
        assemble([cell], forget_bias, kind, **{_NAMED[kind]: triple}, **options)
        for cell, triple in zip(cells, triples, strict=True)
    ]


def halves_of(entry: Entry) -> list[Half]:
    """Return the layer, or both layers that it wraps."""
    if entry.kind != "Bidirectional":
        return [_half(entry.kind, entry.config)]
    check_keys(entry.config, ("layer", "backward_layer", "merge_mode"))
    forward = _half(*described(entry.config.get("layer"), "layer"))
    if entry.config.get("backward_layer") is None:
        flipped = forward.options | {"go_backwards": not forward.backwards}
        backward = Half(flipped, forward.cells, forward.parts, forward.kind)
    else:
        backward = _half(*described(entry.config["backward_layer"], "backward_layer"))
    if forward.backwards == backward.backwards:
        raise ValueError(f"{entry.name}: expected one half that goes backwards")
    if len(forward.cells) > 1 or len(backward.cells) > 1:
        raise ValueError(f"{entry.name}: expected a Bidirectional of one cell each, got a stack")
    for name in ("return_sequences", "return_state", "stateful", "time_major"):
        if flag(forward.options, name) != flag(backward.options, name):
            raise ValueError(f"{name}: expected the same in both directions")
    return [forward, backward]


def _half(kind: str, config: dict[str, Any]) -> Half:
    """Describe an LSTM, GRU or SimpleRNN, or an RNN of such cells."""
    if kind == "RNN":
        check_keys(config, _OF_LAYERS)
        of, cells = _cells_of(config)
        name = _NAMES_OF_CELLS[of]
        stacked = [f"cell/cells/{name}{f'_{k}' if k else ''}" for k in range(len(cells))]
        alone = config["cell"].get("class_name") in _CELLS
        half = Half(config, cells, ["cell"] if alone else stacked, of)
    elif kind in _LAYERS:
        check_keys(config, _OF_CELLS + _OF_LAYERS)
        half = Half(config, [config], ["cell"], _LAYERS[kind])
    else:
        raise ValueError(f"layer: expected an LSTM, GRU or SimpleRNN, got {short(kind)}")
    for cell in half.cells:
        if half.kind == "GRU" and kind != "CuDNNGRU" and not flag(cell, "reset_after"):
            raise ValueError(
                "reset_after: expected True, since r acts on W_h h here, got False, where it acts "
                "on h: a product more a step"
            )
    return half


def _cells_of(config: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Return what an RNN's cells become, and their configurations."""
    kind, cell = described(config.get("cell"), "cell")
    found = [config["cell"]]
    if kind == "StackedRNNCells":
        check_keys(cell, ("cells", "reverse_state_order"))
        found = cell.get("cells")
        if not isinstance(found, list) or not found:
            raise ValueError(f"cells: expected a list of cells, got {short(found)}")
    kinds, cells = set(), []
    for inner in found:
        kind, own = described(inner, "cell")
        if kind not in _CELLS:
            raise ValueError(f"cell: expected one of {', '.join(_CELLS)}, got {short(kind)}")
        check_keys(own, _OF_CELLS)
        kinds.add(kind)
        cells.append(own)
    if len(kinds) > 1:
        raise ValueError(f"cells: expected cells of one kind, got {', '.join(sorted(kinds))}")
    return _CELLS[kinds.pop()], cells


def _cell(arrays: Arrays, config: Mapping[str, Any]) -> Cell:
    """Bring the arrays of an LSTM layer, in the order in which Keras keeps them, into ours."""
    if len(arrays) == 12:  # Keras 1: three arrays for each of i, c, f, o
        arrays = [gates(np.concatenate(arrays[k::3], axis=-1).T, "igfo").T for k in range(3)]
    if len(arrays) != 2 + flag(config, "use_bias", True):
        raise ValueError(f"expected a kernel, a recurrent kernel and a bias, got {len(arrays)}")
    kernel, recurrent, *bias = arrays
    units = config.get("units", config.get("output_dim"))
    if kernel.ndim != 2 or recurrent.shape != (units, 4 * len(recurrent)):
        raise ValueError(
            f"expected the kernels of {short(units)} units, got {kernel.shape}, {recurrent.shape}"
        )
    if bias and bias[0].shape == (8 * units,):  # CuDNNLSTM's: each gate's memory is transposed
        inputs = [gate.reshape(units, -1) for gate in np.split(kernel, 4, axis=1)]
        return Cell(
            np.concatenate(inputs),
            np.concatenate(np.split(recurrent, 4, axis=1)),
            np.sum(np.split(bias[0], 2), axis=0),
        )
    return Cell(kernel.T, recurrent.T, *bias)  # the gates' order, i f c o, is ours


def _gru(arrays: Arrays, config: Mapping[str, Any]) -> Cell:
    """Bring the arrays of a GRU into ours."""
    kernel, recurrent, bias, units = _of_three(arrays, config, 3)
    if bias is not None and bias.shape == (6 * units,):  # CuDNNGRU's, as CuDNNLSTM's
        inputs = [gate.reshape(units, -1) for gate in np.split(kernel, 3, axis=1)]
        own = [np.concatenate(inputs), np.concatenate(np.split(recurrent, 3, axis=1))]
    elif bias is None or bias.shape == (2, 3 * units):
        own = [kernel.T, recurrent.T]
    else:
        raise ValueError(f"expected a bias of shape {(2, 3 * units)}, got {bias.shape}")
    biases = [] if bias is None else list(bias.reshape(2, -1))
    first, second, *rest = (gates(array, "zrn", GRU_ORDER) for array in (*own, *biases))
    return gru_cell(first, second, *(rest or (None, None)))


def _rnn(arrays: Arrays, config: Mapping[str, Any]) -> Cell:
    """Bring the arrays of a SimpleRNN into ours."""
    kernel, recurrent, bias, _ = _of_three(arrays, config, 1)
    return Cell(kernel.T, recurrent.T, bias)


def _of_three(
    arrays: Arrays, config: Mapping[str, Any], each: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """Return kernel, recurrent kernel, bias and units of a layer with so many gates."""
    if len(arrays) != 2 + flag(config, "use_bias", True):
        raise ValueError(f"expected a kernel, a recurrent kernel and a bias, got {len(arrays)}")
    kernel, recurrent, *bias = arrays
    units = config.get("units", config.get("output_dim"))
    if kernel.ndim != 2 or recurrent.shape != (units, each * len(recurrent)):
        raise ValueError(
            f"expected the kernels of {short(units)} units, got {kernel.shape}, {recurrent.shape}"
        )
    return kernel, recurrent, bias[0] if bias else None, len(recurrent)


_MADE = {"LSTM": _cell, "GRU": _gru, "RNN": _rnn}
_NAMED = {"LSTM": "activations", "GRU": "activations", "RNN": "nonlinearity"}


def _activations(config: Mapping[str, Any], major: int, kind: str) -> Any:
    """Return (gates, candidate, output); without the output of a GRU, the candidate of an RNN."""
    name = "inner_activation" if "inner_activation" in config else "recurrent_activation"
    gate = activation_name(config.get(name, "sigmoid"), name)
    cell = activation_name(config.get("activation", "tanh"))
    meant = {"hard_sigmoid": hard_sigmoid(major)}
    gate, cell = meant.get(gate, gate), meant.get(cell, cell)
    return {"LSTM": (gate, cell, cell), "GRU": (gate, cell), "RNN": cell}[kind]


def activation_name(value: Any, name: str = "activation") -> str:
    """Return an activation's name, however the configuration says it."""
    if value is None:
        return "linear"
    if isinstance(value, dict) and value.get("class_name") == "function":
        function = value.get("config")
        value = function if value.get("registered_name") in (None, function) else value
    return text(value, name)


def hard_sigmoid(major: int) -> tuple[str, float, float]:
    """Return what Keras meant by the name: Keras 3 has changed it."""
    return ("hard_sigmoid", 1 / 6, 0.5) if major >= 3 else ("hard_sigmoid", 0.2, 0.5)
