"""LSTMs and chains that Keras made, of version 1, 2 or 3, without Keras.

What is read: ``.keras`` archives, ``.weights.h5`` and a configuration, and the legacy ``.h5`` of a
model or of its weights. All keep the arrays in HDF5, which h5py reads.

The formats: ``keras/src/saving/saving_lib.py`` and ``legacy/saving/legacy_h5_format.py`` of Keras
3; of Keras 1's LSTM ``keras/layers/recurrent.py`` of Keras 1.2.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.io import hdf5
from cylstm.io.chain import Apply, Chain, Embedding, Mask, Scoring, activation
from cylstm.io.files import (
    Budget,
    is_path,
    naming,
    opened,
    parse_object,
    pick,
    read_beside,
    read_member,
)
from cylstm.io.hdf5 import Hdf5
from cylstm.io.parts import Cell, assemble, gates, real
from cylstm.lstm import LSTM
from cylstm.train.layers import Linear

__all__ = ["from_keras", "load_keras", "weights_for_keras"]

_CELLS = ("LSTM", "CuDNNLSTM")
_MODELS = ("Sequential", "Functional", "Model")
_DEEPEST = 8  # of models within models
_LONGEST = 256  # name of a layer

Arrays = list[np.ndarray]


@dataclass
class Entry:
    """A layer, or a model: its configuration, and how to have its arrays."""

    name: str
    kind: str
    config: dict[str, Any]
    version: str  # of the Keras that wrote it
    inbound: Any  # what a functional model feeds it with
    weights: Callable[[Sequence[str]], list[Arrays]]  # of its parts, given as the paths of Keras 3
    layers: list[Entry]  # of a model

    @property
    def major(self) -> int:
        """1, 2 or 3."""
        return int(self.version.partition(".")[0])


def from_keras(
    source: Any,
    layer: str | None = None,
    *,
    config: Any = None,
    forget_bias: float = 0.0,
) -> LSTM:
    """Make an LSTM of a Keras one. Keras need not be installed; a file needs h5py.

    Parameters
    ----------
    source : layer, model or path-like
        An ``LSTM`` or ``Bidirectional(LSTM)`` layer, a model that holds some, or a file:
        ``.keras``, ``.weights.h5``, or the legacy ``.h5`` of any Keras.
    layer : str, optional
        Which LSTM of several: the layer's name, after the names of the models around it and ``/``.
    config : mapping, JSON text or path-like, optional
        The model's configuration (``model.to_json()``), for a file of weights alone; by default
        the file's name with ``.json``, or ``config.json``, in the same folder.
    forget_bias : float, default 0
        Added to the forget gates' biases: 1 for weights of TensorFlow 1's cells, which add it
        whenever they run. Keras has its own (``unit_forget_bias``) in the stored weights.

    Returns
    -------
    LSTM
        With `batch_first`, as Keras. Its y holds all steps, in the order of the input, those of a
        layer that goes backwards too; of a Bidirectional it holds both halves side by side, first
        the one that reads forwards, whatever the ``merge_mode``. A mask is given as `lengths`.
        `load_model` returns what Keras returns.

    Raises
    ------
    ValueError
        If there is no LSTM, or several and no `layer` (the message lists them), or it has options
        that cylstm's has not, or the file is damaged.
    ModuleNotFoundError
        If h5py is not installed.
    OSError
        If the file cannot be read.

    See Also
    --------
    load_model : The whole model.
    LSTM.to_keras_weights : The way back.

    Examples
    --------
    >>> class LSTM:  # or Keras's
    ...     name = "lstm"
    ...     def get_config(self):
    ...         return {"units": 1, "go_backwards": True, "recurrent_activation": "sigmoid"}
    ...     def get_weights(self):
    ...         return [np.ones((2, 4)), np.ones((1, 4)), np.ones(4)]
    >>> cylstm.from_keras(LSTM())
    LSTM(2, 1, batch_first=True, reverse=True, dtype='float64')
    """
    if is_path(source):
        with _opened(source, config) as model:
            return _pick(model, layer, forget_bias)
    if not hasattr(source, "get_config"):
        raise TypeError(f"source: expected a layer or a path, got {type(source).__name__}")
    return _pick(_live(source), layer, forget_bias)


def _pick(model: Entry, layer: str | None, forget_bias: float) -> LSTM:
    """Make the LSTM of that name."""
    found = {name: entry for name, entry in _all(model, "") if _is_lstm(entry)}
    return _lstm(found[pick("layer", layer, found)], forget_bias)


def _all(entry: Entry, before: str) -> Iterator[tuple[str, Entry]]:
    """Iterate over the layers, under their names."""
    if entry.kind not in _MODELS:
        yield before + entry.name, entry
    for layer in entry.layers:
        yield from _all(layer, f"{before}{layer.name}/" if layer.kind in _MODELS else before)


def _is_lstm(entry: Entry) -> bool:
    inner = entry.config.get("layer")
    if entry.kind == "Bidirectional" and isinstance(inner, dict):
        return inner.get("class_name") in _CELLS
    return entry.kind in _CELLS


# An LSTM ---------------------------------------------------------------------------------------


def _lstm(entry: Entry, forget_bias: float = 0.0) -> LSTM:
    """Make the LSTM of an ``LSTM`` or ``Bidirectional`` layer."""
    halves = _halves(entry)
    parts = ["forward_layer/cell", "backward_layer/cell"] if len(halves) == 2 else ["cell"]
    cells = [
        _cell(arrays, config)
        for arrays, (_, config) in zip(entry.weights(parts), halves, strict=True)
    ]
    triples = [_activations(config, entry.major) for _, config in halves]
    backwards = [bool(config.get("go_backwards", False)) for _, config in halves]
    if backwards == [True, False]:  # the half that reads forwards comes first
        cells, triples = cells[::-1], triples[::-1]
    return assemble(
        cells,
        forget_bias,
        batch_first=not halves[0][1].get("time_major", False),
        bidirectional=len(halves) == 2,
        reverse=backwards == [True],
        activations=triples[0] if triples[0] == triples[-1] else tuple(triples),
    )


def _halves(entry: Entry) -> list[tuple[str, dict[str, Any]]]:
    """Return the kind and configuration of the layer, or of both layers that it wraps."""
    if entry.kind != "Bidirectional":
        return [(entry.kind, entry.config)]
    forward = _described(entry.config.get("layer"), "layer")
    if forward[0] not in _CELLS:
        raise ValueError(f"expected a Bidirectional of an LSTM, got one of {short(forward[0])}")
    if entry.config.get("backward_layer") is None:
        flipped = not forward[1].get("go_backwards", False)
        return [forward, (forward[0], forward[1] | {"go_backwards": flipped})]
    backward = _described(entry.config["backward_layer"], "backward_layer")
    if bool(forward[1].get("go_backwards")) == bool(backward[1].get("go_backwards")):
        raise ValueError(f"{entry.name}: expected one half that goes backwards")
    return [forward, backward]


def _cell(arrays: Arrays, config: Mapping[str, Any]) -> Cell:
    """Bring the arrays of an LSTM layer, in the order in which Keras keeps them, into ours."""
    if len(arrays) == 12:  # Keras 1: three arrays for each of i, c, f, o
        arrays = [gates(np.concatenate(arrays[k::3], axis=-1).T, "igfo").T for k in range(3)]
    if len(arrays) != 2 + bool(config.get("use_bias", True)):
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


def _activations(config: Mapping[str, Any], major: int) -> tuple[Any, Any, Any]:
    """Return (gates, candidate, output)."""
    name = "inner_activation" if "inner_activation" in config else "recurrent_activation"
    gate = _activation(config.get(name, "sigmoid"))
    cell = _activation(config.get("activation", "tanh"))
    meant = {"hard_sigmoid": _hard_sigmoid(major)}
    return meant.get(gate, gate), meant.get(cell, cell), meant.get(cell, cell)


def _activation(value: Any) -> str:
    """Return an activation's name, however the configuration says it."""
    if isinstance(value, dict):
        value = value.get("config") if value.get("class_name") == "function" else value
    return _text(value, "activation")


def _hard_sigmoid(major: int) -> tuple[str, float, float]:
    """Return what Keras meant by the name: Keras 3 has changed it."""
    return ("hard_sigmoid", 1 / 6, 0.5) if major >= 3 else ("hard_sigmoid", 0.2, 0.5)


def weights_for_keras(lstm: LSTM) -> Arrays:
    """Return what `LSTM.to_keras_weights` does."""
    missing = [name for name in ("proj_size", "peephole", "coupled", "clip") if lstm.config[name]]
    if missing:
        raise ValueError(f"{', '.join(missing)}: expected an LSTM as Keras has it, got {lstm}")
    arrays = []
    for ending in lstm._options.endings:
        arrays += [getattr(lstm, f"weight_ih{ending}").T.copy()]
        arrays += [getattr(lstm, f"weight_hh{ending}").T.copy()]
        arrays += [getattr(lstm, f"bias{ending}").copy()] if lstm.bias else []
    return arrays


# A model ---------------------------------------------------------------------------------------


def load_keras(path: Any, config: Any = None) -> Chain:
    """Return what `load_model` does, of a Keras file."""
    with _opened(path, config) as model:
        return Chain(*_scoring(model))


def _scoring(entry: Entry) -> Iterator[Any]:
    """Yield what scores a layer, or the layers of a model."""
    if entry.kind in _MODELS:
        for layer in _in_order(entry):
            yield from _scoring(layer)
    elif entry.kind in _SCORED:
        try:
            yield from _SCORED[entry.kind](entry)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"layer {entry.name!r}: {error}") from error
    elif entry.kind not in _PASSED_OVER:
        raise ValueError(
            f"layer {entry.name!r}: expected one of {', '.join([*_SCORED, *_PASSED_OVER])}, "
            f"got {short(entry.kind)}; from_keras takes the LSTMs alone"
        )


def _in_order(model: Entry) -> list[Entry]:
    """Return the layers of a chain from its input to its output."""
    if model.kind == "Sequential":
        return model.layers
    rest = {layer.name: layer for layer in model.layers}
    chain: list[Entry] = []
    names = _names(model.config.get("output_layers"))
    while names:
        if len(names) > 1 or names[0] not in rest:
            place = f"layer {chain[-1].name!r}" if chain else "model"
            raise ValueError(
                f"{place}: expected a chain, got {short(names)} there; "
                "from_keras takes the LSTMs alone"
            )
        chain.append(rest.pop(names[0]))
        names = _names(chain[-1].inbound)
    if rest:
        raise ValueError(f"layer {short(next(iter(rest)))}: expected it in the chain")
    return chain[::-1]


def _names(value: Any) -> list[str]:
    """Find the layers to which a configuration refers, in the ways of Keras 1 to 3."""
    found: list[str] = []
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, dict) and part.get("class_name") == "__keras_tensor__":
            part = _object(part.get("config"), "tensor").get("keras_history")
        if isinstance(part, list) and len(part) >= 3 and isinstance(part[0], str):
            found.append(part[0])
        elif isinstance(part, (list, dict)):
            todo.extend(part.values() if isinstance(part, dict) else part)
    return found


class Recurrent(Scoring):
    """An LSTM, or two that read in both directions, with what Keras makes of masks.

    Parameters
    ----------
    lstm : LSTM
        With `batch_first`.
    sequences : bool
        Whether all steps are returned, not only the last.
    backwards : bool
        Whether these come in the order in which they were processed, from the end on.
    merge_mode : {"concat", "sum", "mul", "ave"}
        How both directions are joined, where there are two; of a swapped pair the direction that
        reads from the end comes first.
    zero_output : bool
        Whether steps that do not count give zeros, not the output before them.
    """

    def __init__(
        self, lstm: LSTM, sequences: bool, backwards: bool, merge_mode: str, zero_output: bool
    ) -> None:
        self.lstm = lstm
        self.sequences = sequences
        self.backwards = backwards
        self.merge_mode = merge_mode
        self.zero_output = zero_output

    @property
    def config(self) -> dict[str, Any]:
        """The arguments."""
        return {name: value for name, value in vars(self).items() if name != "lstm"} | {
            "lstm": self.lstm
        }

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output for x (N, T, I), all of whose steps count."""
        return self.follow(x, None)[0]

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return the output, and the mask as it came: Keras does not turn it round."""
        x = np.asarray(x, self.lstm.dtype)
        mask = np.ones(x.shape[:2], bool) if mask is None else mask
        # Steps that do not count leave the state as it was: they are left out, and put back.
        order = np.argsort(~mask, axis=1, kind="stable")
        y, (h_n, _) = self.lstm(
            np.take_along_axis(x, order[:, :, None], axis=1), lengths=mask.sum(axis=1)
        )
        halves = [self.lstm.reverse, True][: 1 + self.lstm.bidirectional]
        parts = np.split(y, len(halves), axis=2)
        if not self.sequences:
            last = mask[:, 0 if self.lstm.reverse else -1, None]
            ends = np.where(last, h_n, 0) if self.zero_output else h_n
            return self._merged(list(ends)), None
        spread = [self._spread(part, mask, half) for part, half in zip(parts, halves, strict=True)]
        merged = self._merged(spread)
        return (merged[:, ::-1] if self.backwards else merged), mask

    def _spread(self, y: np.ndarray, mask: np.ndarray, from_end: bool) -> np.ndarray:
        """Put a direction's outputs, which stand side by side, to the steps that count."""
        if from_end:  # the output before a step is that of a later one
            flipped = np.flip(mask, 1)
            place = mask.sum(axis=1, keepdims=True) - np.flip(flipped.cumsum(axis=1), 1)
        else:
            place = mask.cumsum(axis=1) - 1
        steps = mask.shape[1]
        known = (place >= 0) & (place < mask.sum(axis=1, keepdims=True))
        known &= mask if self.zero_output else True
        taken = np.take_along_axis(y, place.clip(0, max(steps - 1, 0))[:, :, None], axis=1)
        return np.where(known[:, :, None], taken, np.zeros((), y.dtype))

    def _merged(self, parts: list[np.ndarray]) -> np.ndarray:
        """Join the directions."""
        if len(parts) == 1:
            return parts[0]
        first, second = parts[::-1] if self.backwards else parts
        return {
            "concat": lambda: np.concatenate([first, second], axis=-1),
            "sum": lambda: first + second,
            "mul": lambda: first * second,
            "ave": lambda: (first + second) / 2,
        }[self.merge_mode]()


class Masking(Scoring):
    """Steps of which all features have one value do not count."""

    def __init__(self, value: float) -> None:
        self.value = np.float32(value)

    @property
    def config(self) -> dict[str, Any]:
        """The value."""
        return {"value": float(self.value)}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return x with zeros for those steps."""
        return self.follow(x, None)[0]

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return x with zeros for those steps, and which count."""
        x = np.asarray(x)
        counts = np.any(x != self.value, axis=-1)
        return x * counts[..., None].astype(x.dtype), counts


class Unmasked(Apply):
    """A function of whose output Keras does not know which steps count."""

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return the output without a mask."""
        return self(x), None


def _recurrent(entry: Entry) -> Iterator[Any]:
    halves = _halves(entry)
    config = halves[0][1]
    if config.get("return_state", False):
        raise ValueError("return_state: expected False in a chain, got True")
    two = len(halves) == 2
    merge_mode = entry.config.get("merge_mode", "concat") if two else "concat"
    if merge_mode not in ("concat", "sum", "mul", "ave"):
        raise ValueError(f"merge_mode: expected one output in a chain, got {short(merge_mode)}")
    lstm = _lstm(entry)
    if not lstm.batch_first:
        raise ValueError("time_major: expected False in a chain, got True")
    sequences = bool(config.get("return_sequences", False))
    # Only tf.keras, and Keras since 2.4, which is tf.keras, sets it within a Bidirectional.
    forced = two and (entry.major >= 3 or re.match(r"2\.([4-9]|\d\d)|.*-tf", entry.version))
    yield Recurrent(
        lstm,
        sequences,
        bool(config.get("go_backwards", False)),
        merge_mode,
        sequences if forced else bool(config.get("zero_output_for_mask", False)),
    )


def _dense(entry: Entry, part: str = "") -> Iterator[Any]:
    (arrays,) = entry.weights([part])
    bias = bool(entry.config.get("use_bias", True))
    if len(arrays) != 1 + bias or arrays[0].ndim != 2:
        raise ValueError(f"expected a kernel and a bias, got {short([a.shape for a in arrays])}")
    weight = arrays[0].T
    linear = Linear(weight.shape[1], weight.shape[0], bias, dtype=weight.dtype)
    linear.load_state_dict(dict(zip(["weight", "bias"], [weight, *arrays[1:]], strict=False)))
    yield linear
    yield from _activated(entry)


def _activated(entry: Entry) -> Iterator[Any]:
    value = entry.config.get("activation")
    name = "linear" if value is None else _activation(value)
    if name == "hard_sigmoid":
        _, slope, offset = _hard_sigmoid(entry.major)
        yield activation(name, slope=slope, offset=offset)
    elif name == "leaky_relu":
        yield activation(name, slope=0.2)
    elif name != "linear":
        yield activation(name)


def _embedding(entry: Entry) -> Iterator[Any]:
    (arrays,) = entry.weights([""])
    if [array.ndim for array in arrays] != [2]:
        raise ValueError(f"expected one matrix, got {short([array.shape for array in arrays])}")
    yield Embedding(arrays[0], bool(entry.config.get("mask_zero", False)))


def _batch_normalization(entry: Entry) -> Iterator[Any]:
    config, (arrays,) = entry.config, entry.weights([""])
    names = ["gamma"] * config.get("scale", True) + ["beta"] * config.get("center", True)
    known = dict(zip([*names, "mean", "variance"], arrays, strict=True))
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and axis else axis
    scale = known.get("gamma", 1) / np.sqrt(known["variance"] + _number(config, "epsilon", 1e-3))
    shift = known.get("beta", 0) - known["mean"] * scale
    yield Apply(affine, scale=scale, shift=shift, axis=checks.whole("axis", axis, -1))


def affine(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, axis: int) -> np.ndarray:
    """Return scale x + shift, along the last axis."""
    if axis not in (-1, x.ndim - 1):
        raise ValueError(f"axis: expected the last of {x.ndim}, got {axis}")
    return scale * x + shift


def _time_distributed(entry: Entry) -> Iterator[Any]:
    kind, config = _described(entry.config.get("layer"), "layer")
    inner = replace(entry, kind=kind, config=config)
    if kind == "Dense":
        yield from _dense(inner, "layer")
    elif kind in ("Activation", "Dropout"):
        yield from _scoring(inner)
    else:
        raise ValueError(f"layer: expected Dense, Activation or Dropout, got {short(kind)}")


def _relu(entry: Entry) -> Iterator[Any]:
    config = entry.config
    if config.get("max_value") is not None or config.get("threshold"):
        raise ValueError("expected no max_value and no threshold")
    yield activation("leaky_relu", slope=_number(config, "negative_slope", 0.0))


def _leaky_relu(entry: Entry) -> Iterator[Any]:
    name = "negative_slope" if "negative_slope" in entry.config else "alpha"
    yield activation("leaky_relu", slope=_number(entry.config, name, 0.3))


def _reshape(entry: Entry) -> Iterator[Any]:
    shape = entry.config.get("target_shape")
    if not isinstance(shape, list) or not all(type(n) is int for n in shape):
        raise ValueError(f"target_shape: expected whole numbers, got {short(shape)}")
    yield Unmasked(rows_reshaped, shape=tuple(shape))


def _permute(entry: Entry) -> Iterator[Any]:
    dims = entry.config.get("dims")
    if not isinstance(dims, list) or sorted(dims) != list(range(1, len(dims) + 1)):
        raise ValueError(f"dims: expected the axes from 1 on, got {short(dims)}")
    yield Unmasked(np.transpose, axes=(0, *dims))


def rows_reshaped(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give each sequence's numbers this shape."""
    return x.reshape(len(x), *shape)


_SCORED: dict[str, Callable[[Entry], Iterator[Any]]] = {
    "Activation": _activated,
    "BatchNormalization": _batch_normalization,
    "Bidirectional": _recurrent,
    "CuDNNLSTM": _recurrent,
    "Dense": _dense,
    "ELU": lambda entry: iter([activation("elu", alpha=_number(entry.config, "alpha", 1.0))]),
    "Embedding": _embedding,
    "Flatten": lambda entry: iter([Unmasked(rows_reshaped, shape=(-1,))]),
    "LSTM": _recurrent,
    "LeakyReLU": _leaky_relu,
    "Masking": lambda entry: iter([Masking(_number(entry.config, "mask_value", 0.0))]),
    "Permute": _permute,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Softmax": lambda entry: iter([activation("softmax", axis=entry.config.get("axis", -1))]),
    "TimeDistributed": _time_distributed,
}
_PASSED_OVER = (
    *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"),
    *("Identity", "InputLayer", "SpatialDropout1D"),
)


# Sources ---------------------------------------------------------------------------------------


def _live(source: Any) -> Entry:
    """Describe a layer, or a model, of a Keras that runs."""
    library = type(source).__module__.partition(".")[0]
    version = getattr(sys.modules.get(library), "__version__", "3")

    def weights(parts: Sequence[str]) -> list[Arrays]:
        return _split([real(source.name, array) for array in source.get_weights()], len(parts))

    layers = [_live(layer) for layer in getattr(source, "layers", [])]
    kind = "Sequential" if layers else type(source).__name__  # the order of layers is all the same
    return Entry(source.name, kind, source.get_config(), version, None, weights, layers)


def _split(arrays: Arrays, count: int) -> list[Arrays]:
    """Divide a layer's arrays among its parts."""
    each, rest = divmod(len(arrays), count)
    if rest:
        raise ValueError(f"expected the arrays of {count} parts, got {len(arrays)}")
    return [arrays[k * each : (k + 1) * each] for k in range(count)]


@contextmanager
def _opened(path: Any, config: Any) -> Iterator[Entry]:
    """Open a file, and lend the model that it holds."""
    with open(path, "rb") as file, naming(path):
        size = os.fstat(file.fileno()).st_size
        budget = Budget(size)
        if file.read(4) != b"PK\x03\x04":
            with hdf5.opened(file, size, budget) as arrays:
                yield _of_hdf5(path, arrays, config, budget)
            return
        with opened(file) as archive, tempfile.TemporaryFile() as inner:
            described = _json(read_member(archive, "config.json", budget))
            about = _json(read_member(archive, "metadata.json", budget))
            inner.write(read_member(archive, "model.weights.h5", budget))
            inner.flush()
            version = _text(about.get("keras_version"), "keras_version")
            with hdf5.opened(inner, size, budget) as arrays:
                yield _new(described, version, arrays, "", 0)


def _of_hdf5(path: Any, arrays: Hdf5, config: Any, budget: Budget) -> Entry:
    """Tell the formats that are one HDF5 file from each other."""
    version = arrays.text("", "keras_version")
    described = arrays.text("", "model_config")
    model = _configuration(path, config, budget) if described is None else _json(described)
    version = version or model.get("keras_version", "3")
    if arrays.has("layers") or arrays.has("_layer_checkpoint_dependencies"):
        return _new(model, version, arrays, "", 0)
    return _legacy(model, version, arrays, "model_weights" if arrays.has("model_weights") else "")


def _configuration(path: Any, config: Any, budget: Budget) -> dict[str, Any]:
    """Return the configuration that is given, or lies beside the file."""
    if isinstance(config, Mapping):
        return dict(config)
    if isinstance(config, str) and config.lstrip().startswith("{"):
        return _json(config)
    if config is not None:
        with open(config, "rb") as file:
            return _json(file.read())
    name = os.path.basename(path)
    stem = name.removesuffix(".h5").removesuffix(".hdf5").removesuffix(".weights")
    for beside in (f"{stem}.json", "config.json"):
        with suppress(FileNotFoundError):
            return _json(read_beside(path, beside, budget))
    raise ValueError(
        f"expected config=, or {stem}.json or config.json beside the file, since it holds weights "
        "alone; model.to_json() writes one"
    )


def _new(
    described: Any, version: str, arrays: Hdf5, place: str, depth: int, inbound: Any = None
) -> Entry:
    """Describe a model whose arrays lie where Keras 3 puts them: by class and order."""
    kind, config = _described(described, "model")
    name = _name(config.get("name", ""))

    def weights(parts: Sequence[str]) -> list[Arrays]:
        return [arrays.variables(f"{place}/{part}/vars") for part in parts]

    entry = Entry(name, kind, config, _checked_version(version), inbound, weights, [])
    if kind in _MODELS:
        folder = "layers" if arrays.has(f"{place}/layers") else "_layer_checkpoint_dependencies"
        counts: dict[str, int] = {}
        for layer in _inner(config, depth):
            snake = _snake(_text(layer.get("class_name"), "class_name"))
            number = counts[snake] = counts.get(snake, -1) + 1
            own = f"{place}/{folder}/{snake}" + (f"_{number}" if number else "")
            entry.layers.append(
                _new(layer, version, arrays, own, depth + 1, layer.get("inbound_nodes"))
            )
    return entry


def _legacy(described: Any, version: str, arrays: Hdf5, place: str) -> Entry:
    """Describe a model whose arrays lie under the layers' names."""
    kind, config = _described(described, "model")
    model = Entry("", kind, config, _checked_version(version), None, _no_weights, [])
    for layer in _inner(config, 0):
        inner_kind, inner = _described(layer, "layer")
        name = _name(layer.get("name", inner.get("name")))

        def weights(parts: Sequence[str], name: str = name) -> list[Arrays]:
            return _split(arrays.named(f"{place}/{name}"), len(parts))

        inbound = layer.get("inbound_nodes")
        model.layers.append(Entry(name, inner_kind, inner, model.version, inbound, weights, []))
    return model


def _no_weights(parts: Sequence[str]) -> list[Arrays]:
    return [[] for _ in parts]


def _inner(config: Mapping[str, Any], depth: int) -> list[dict[str, Any]]:
    """Return the layers in a model's configuration."""
    layers = config.get("layers")
    if not isinstance(layers, list) or depth > _DEEPEST:
        raise ValueError(f"layers: expected a list, in few models, got {short(layers)}")
    return [_object(layer, "layer") for layer in layers]


def _snake(name: str) -> str:
    """Return the name that Keras gives to layers of this class."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# Checked parts of configurations ---------------------------------------------------------------


def _json(text: str | bytes) -> dict[str, Any]:
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    return parse_object(text, "the configuration")


def _described(value: Any, name: str) -> tuple[str, dict[str, Any]]:
    """Return the class and the configuration of a layer or model."""
    layer = _object(value, name)
    config = layer.get("config")
    if isinstance(config, list):  # a Sequential of Keras 1 and 2.0
        config = {"layers": config}
    return _text(layer.get("class_name"), "class_name"), _object(config, "config")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object of JSON, got {short(value)}")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {short(value)}")
    return value


def _name(value: Any) -> str:
    name = _text(value, "name")
    if len(name) > _LONGEST:  # which all names within would begin with
        raise ValueError(f"name: expected at most {_LONGEST} characters, got {len(name)}")
    return name


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    return checks.finite(name, config.get(name, default))


def _checked_version(version: Any) -> str:
    if not re.match(r"[123](\.|$)", _text(version, "keras_version")):
        raise ValueError(f"keras_version: expected 1, 2 or 3, got {short(version)}")
    return version
