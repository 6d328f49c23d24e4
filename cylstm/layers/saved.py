"""Layers by name, as files have them: the library's own, and those that were registered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from reprlib import repr as short
from typing import Any, TypeVar

from cylstm.family import Trainable
from cylstm.gru import GRU
from cylstm.layers.activations import GELU, ReLU, Sigmoid, Softmax, Tanh
from cylstm.layers.attention import Attention
from cylstm.layers.base import Array, Layer
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.linear import Linear
from cylstm.layers.norm import LayerNorm
from cylstm.layers.pooling import Last, MaxPool, MeanPool
from cylstm.layers.quantized import QuantizedLinear
from cylstm.lstm import LSTM
from cylstm.quantized import QUANTIZED, quantized_from_file
from cylstm.recurrent import Recurrent
from cylstm.rnn import RNN

Own = TypeVar("Own", bound=type[Layer])
Kinds = Mapping[str, type[Layer]]

OWN: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        *(LSTM, Linear, Last, Embedding, Dropout, GRU, RNN, Attention, QuantizedLinear, LayerNorm),
        *(MeanPool, MaxPool, ReLU, Sigmoid, Tanh, Softmax, GELU),
    )
} | QUANTIZED

_registered: dict[str, type[Layer]] = {}


def register(cls: Own) -> Own:
    """Let models with layers of this class be saved, and loaded again; a decorator of classes.

    A file holds the class's name, the layer's `config` and its parameters, and no code: the
    program that loads it registers the class too, or gives it to `cylstm.load`.

    Parameters
    ----------
    cls : type
        A `Layer`, which ``cls(**config)`` makes anew from the `config` of another, and whose
        parameters, if it has any, are those of ``named_parameters()`` and ``edit()``.

    Raises
    ------
    TypeError
        If it is no class of layers.
    ValueError
        If another class has this name.

    Examples
    --------
    >>> import cylstm, os, tempfile
    >>> @register
    ... class Square(Layer):
    ...     config = {}
    ...     def forward(self, x):
    ...         return x * x, x
    ...     def backward(self, tape, grad_y):
    ...         return 2 * tape * grad_y, {}
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> cylstm.layers.Sequential(Linear(3, 2), Square()).save(path)
    >>> cylstm.load(path)[1]
    Square()
    """
    _registered.update(_checked({getattr(cls, "__name__", ""): cls}, "cls"))
    return cls


def kinds_of(given: Mapping[str, Any] | None) -> Kinds:
    """Return the classes of layers that are none of the library's: those registered, those given.

    Raises
    ------
    TypeError, ValueError
        If what is given is no mapping of names to such classes.
    """
    if given is None:
        return _registered
    if not isinstance(given, Mapping):
        raise TypeError(f"layers: expected classes by name, got {short(given)}")
    return _registered | _checked(given, "layers")


def _checked(given: Mapping[str, Any], argument: str) -> dict[str, type[Layer]]:
    for name, cls in given.items():
        if not isinstance(cls, type) or not issubclass(cls, Layer):
            raise TypeError(f"{argument}: expected a class of layers, got {short(cls)}")
        if name in OWN:
            raise ValueError(f"{argument}: expected another name than the library's own {name}")
        before = _registered.get(name, cls)
        same = (before.__module__, before.__qualname__) == (cls.__module__, cls.__qualname__)
        if argument == "cls" and not same:  # a class that is defined anew, as in a notebook, is
            raise ValueError(f"cls: expected one class called {name}, got {before} and {cls}")
    return dict(given)


def check_saved(layers: Iterable[Any]) -> None:
    """Refuse to save what could not be loaded.

    Raises
    ------
    TypeError, ValueError
        If a layer is none that files can hold, or its class does not make it anew.
    """
    for i, layer in enumerate(layers):
        name = type(layer).__name__
        if type(layer) is OWN.get(name):
            continue
        if type(layer) is not _registered.get(name):
            raise TypeError(
                f"layers[{i}]: expected one of {', '.join(OWN)}, or of a class given to "
                f"cylstm.layers.register, got {layer!r}"
            )
        try:
            _own_from_saved(type(layer), _as_json(layer.config), layer.state_dict())
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"layers[{i}]: expected a {name} that its config and parameters make anew, "
                f"{short(layer)}: {error}"
            ) from error


def load_layers(
    config: Mapping[str, Any], tensors: Mapping[str, Array], kinds: Kinds
) -> list[Layer | Recurrent[Any]]:
    """Make a Sequential's layers from its configuration, which may be any JSON object."""
    if config.keys() != {"layers"} or not isinstance(config["layers"], list):
        raise ValueError(f"config: expected a list of layers, got {short(config)}")
    states: dict[str, dict[str, Array]] = {str(i): {} for i in range(len(config["layers"]))}
    for name, tensor in tensors.items():
        index, _, own = name.partition(".")
        if index not in states:
            raise ValueError(f"{short(name)}: expected the parameters of its layers alone")
        states[index][own] = tensor
    return [
        _load_layer(f"layers[{i}]", layer, states[str(i)], kinds)
        for i, layer in enumerate(config["layers"])
    ]


def _load_layer(
    where: str, described: Any, state: Mapping[str, Array], kinds: Kinds
) -> Layer | Recurrent[Any]:
    """Make one of them."""
    if not isinstance(described, dict) or described.keys() != {"kind", "config"}:
        raise ValueError(f"{where}: expected a kind and a config, got {short(described)}")
    kind, config = described["kind"], described["config"]
    if not isinstance(kind, str) or kind not in OWN | kinds:
        raise ValueError(
            f"{where}: expected one of {', '.join(OWN | kinds)}, got {short(kind)}; a class of "
            "one's own is given to cylstm.load, layers={name: class}"
        )
    if not isinstance(config, dict):
        raise ValueError(f"{where}: expected a config by names, got {short(config)}")
    if kind in QUANTIZED:
        return quantized_from_file(where, kind, config, state)
    cls = OWN.get(kind) or kinds[kind]
    if issubclass(cls, Trainable):
        return cls._from_file(where, config, state)
    try:
        if kind in OWN:
            return cls.from_saved(config, state)
        return _own_from_saved(cls, config, state)
    except (KeyError, TypeError, ValueError) as error:
        said = error.args[0] if error.args else type(error).__name__
        raise ValueError(f"{where}: {said}") from error


def _own_from_saved(cls: type[Layer], config: Any, state: Mapping[str, Array]) -> Layer:
    """Make a layer of a class that was registered or given."""
    layer = cls.from_saved(config, state)
    if not isinstance(layer, cls):
        raise TypeError(f"from_saved: expected a {cls.__name__}, got {short(layer)}")
    return layer


def _as_json(config: Any) -> Any:
    return json.loads(json.dumps(config, allow_nan=False))
