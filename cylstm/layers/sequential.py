"""Layers one after the other, for inference, streams and training; and how they are saved."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from reprlib import repr as short
from typing import Any
from warnings import warn

import numpy as np

from cylstm import checks
from cylstm.core.access import reading
from cylstm.family import Trainable
from cylstm.gru import GRU
from cylstm.io.safetensors import write_model
from cylstm.layers.attention import Attention
from cylstm.layers.base import Array, Layer, changing
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.gradients import Gradient
from cylstm.layers.last import Last
from cylstm.layers.linear import Linear
from cylstm.layers.quantized import QuantizedLinear
from cylstm.lstm import LSTM
from cylstm.parameters import Lent, Parameters, checked
from cylstm.quantized import QUANTIZED, Quantized, quantized_from_file
from cylstm.recurrent import Recurrent
from cylstm.rnn import RNN
from cylstm.stream import Stream


class Sequential(Layer):
    """Layers one after the other, each fed with the output of the one before it.

    Parameters
    ----------
    *layers : Layer, cylstm.LSTM, cylstm.GRU or cylstm.RNN
        The layers. Of an LSTM the output `y` is passed on; its state begins at zero.

    Raises
    ------
    TypeError
        If one of them is not a layer.
    ValueError
        If there is none, or one stands twice.

    Notes
    -----
    The parameters are called as PyTorch calls them: ``"0.weight_ih_l0"``, ``"1.bias"``.

    Examples
    --------
    >>> import cylstm
    >>> model = Sequential(cylstm.LSTM(1, 8, seed=0), Last(), Linear(8, 1, seed=0))
    >>> model(np.zeros((20, 5, 1), np.float32)).shape
    (5, 1)
    >>> model[2]
    Linear(in_features=8, out_features=1, bias=True, dtype='float32')
    """

    def __init__(self, *layers: Layer | Trainable[Any]) -> None:
        if not layers:
            raise ValueError("layers: expected at least one, got none")
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError("layers: expected objects of their own, got one twice")
        self._layers = tuple(as_layer(layer, f"layers[{i}]") for i, layer in enumerate(layers))

    @cached_property
    def _stores(self) -> frozenset[Parameters]:  # type: ignore[override]
        return frozenset().union(*(layer._stores for layer in self._layers))

    def _leaves(self) -> Iterator[tuple[str, Layer]]:
        for i, layer in enumerate(self._layers):
            for prefix, leaf in layer._leaves():
                yield f"{i}.{prefix}", leaf

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._layers)

    def __getitem__(self, index: int) -> Layer | Trainable[Any]:
        """Return one layer as it was given."""
        layer = self._layers[index]
        return layer.lstm if isinstance(layer, _OutputOf) else layer

    @property
    def config(self) -> dict[str, Any]:
        """The kind and the configuration of each layer."""
        return {
            "layers": [{"kind": type(layer).__name__, "config": layer.config} for layer in self]
        }

    def __repr__(self) -> str:
        """Show the call that builds this model."""
        return f"Sequential({', '.join(map(repr, self))})"

    @property
    def takes(self) -> frozenset[str]:  # type: ignore[override]
        """What the layers take, all together."""
        return frozenset().union(*(layer.takes for layer in self._layers))

    @property
    def keeps_time(self) -> bool:  # type: ignore[override]
        """Whether the output has a step for each of the input's."""
        return all(layer.keeps_time for layer in self._layers)

    @property
    def batch_first(self) -> bool | None:  # type: ignore[override]
        """Whether sequences are (N, T, ...); None if it matters to no layer."""
        said = {layer.batch_first for layer in self._layers} - {None}
        if len(said) > 1:
            raise ValueError("batch_first: expected the same of all layers, got both")
        return said.pop() if said else None

    def quantize(self, weights: str = "int8") -> Sequential:
        """Return a copy for inference, whose recurrent and linear layers have smaller weights.

        Parameters
        ----------
        weights : {"int8", "bfloat16"}

        Raises
        ------
        ValueError
            If no layer has such weights, or one's are of float64 or not finite.

        Examples
        --------
        >>> model = Sequential(LSTM(4, 8, seed=0), Linear(8, 9, seed=0))
        >>> model.quantize("int8")[0]
        QuantizedLSTM(4, 8, weights='int8')
        """
        made: list[Layer | Recurrent[Any]] = []
        for i, layer in enumerate(self):
            if isinstance(layer, Trainable):
                made.append(_named(f"layers[{i}]", layer.quantize, weights))
            elif type(layer) is Linear:
                made.append(_named(f"layers[{i}]", QuantizedLinear.of, layer, weights))
            else:
                made.append(copy.deepcopy(layer))
        if not any(isinstance(layer, (Quantized, QuantizedLinear)) for layer in made):
            raise ValueError("layers: expected an LSTM or a Linear to quantize")
        return Sequential(*made)

    def run(
        self, x: Array, state: list[Any] | None = None, lengths: Any = None, resets: Any = None
    ) -> tuple[Array, list[Any]]:
        """Return the output, and the state after the last step; the layers keep nothing.

        The parameters of all layers are those of one moment.

        Parameters
        ----------
        x : ndarray
            The first layer's input.
        state : list, optional
            What an earlier run over the same sequences returned, to go on from there.
        lengths : array of int, (N,), optional
            Each sequence's own length, for the layers up to one that does not keep time.
        resets : array of bool, (T, N) or (N, T), optional
            Where new sequences begin within rows, for the same layers; see `cylstm.LSTM`.
        """
        states = []
        with reading(self._stores):
            for layer, own in zip(self._layers, self._states(state), strict=True):
                given = taken(layer, state=own, lengths=lengths, **_resets(layer, resets))
                x, after = layer.run(x, **given)
                states.append(after)
                lengths, resets = (lengths, resets) if layer.keeps_time else (None, None)
        return x, states

    def forward(
        self,
        x: Array,
        state: list[Any] | None = None,
        lengths: Any = None,
        rng: np.random.Generator | None = None,
        segment: int | None = None,
        resets: Any = None,
    ) -> tuple[Array, list[Any]]:
        """Return the output, and a tape: those of the layers.

        Parameters
        ----------
        x, state, lengths, resets
            As for `run`; a state from `state_after` does as well.
        rng : numpy.random.Generator, optional
            Source of dropout; each layer's own by default.
        segment : int, optional
            As for `cylstm.LSTM.forward`.
        """
        tapes = []
        with reading(self._stores):
            for layer, own in zip(self._layers, self._states(state), strict=True):
                more = _resets(layer, resets)
                given = taken(layer, state=own, lengths=lengths, rng=rng, segment=segment, **more)
                x, tape = layer.forward(x, **given)
                tapes.append(tape)
                lengths, resets = (lengths, resets) if layer.keeps_time else (None, None)
        return x, tapes

    def state_after(self, tape: list[Any]) -> list[Any]:
        """Return the state after the last step of `forward`, to give to the next."""
        return [layer.state_after(own) for layer, own in zip(self._layers, tape, strict=True)]

    def _states(self, state: Any) -> list[Any]:
        """Return one state a layer."""
        if state is None:
            return [None] * len(self)
        if not isinstance(state, list) or len(state) != len(self):
            raise ValueError(f"state: expected a list, one for each of {len(self)} layers")
        return state

    def stream(self, batch_size: int = 1) -> SequentialStream:
        """Make a stream: the model with its state, to be advanced step by step.

        Parameters
        ----------
        batch_size : int, default 1
            N, how many sequences it advances together.

        Raises
        ------
        ValueError
            If a layer does not say how it takes a step at a time, or reads from the end, or needs
            steps after a layer that keeps one of them.

        Examples
        --------
        >>> model = Sequential(Embedding(9, 4, seed=0), LSTM(4, 8, seed=0), Linear(8, 9, seed=0))
        >>> stream = model.stream()
        >>> logits = [stream.step(np.array([word])) for word in (3, 1, 4)]
        >>> logits[0].shape
        (1, 9)
        """
        return SequentialStream(self._layers, checks.whole("batch_size", batch_size))

    def backward(self, tape: list[Any], grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradient of the input, and the parameters' gradients by name."""
        grads = {}
        with reading(self._stores):
            for i, layer in reversed(list(enumerate(self._layers))):
                grad_y, layer_grads = layer.backward(tape[i], grad_y)
                grads.update(_prefixed(i, layer_grads))
        return grad_y, grads

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Iterate over pairs of name and array, the array read-only."""
        for i, layer in enumerate(self._layers):
            yield from _prefixed(i, dict(layer.named_parameters())).items()

    @contextmanager
    def edit(self) -> Iterator[Lent]:
        """Lend copies of the parameters by name; see `Layer.edit`. All layers change, or none."""
        for _, leaf in self._leaves():
            if leaf._store is not None:
                leaf._store.memory()  # or it refuses
        lent = Lent(self.state_dict())
        try:
            yield lent
        finally:
            values = lent.returned()
        like = dict(self.named_parameters())
        values = {name: checked(name, values[name], like[name]) for name in like}
        with self._in_place() as parameters:
            for name, value in values.items():
                parameters[name][...] = value

    @contextmanager
    def _in_place(self) -> Iterator[Mapping[str, Array]]:
        with changing(list(self._leaves())) as parameters:
            yield parameters

    def __getstate__(self) -> dict[str, Any]:
        with reading(self._stores):  # between layers pickled one by one a step could come
            return {"_layers": copy.deepcopy(self._layers)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the whole model as one safetensors file.

        Parameters
        ----------
        path : path-like
            The file; one that is there is replaced, whole or not at all.

        Raises
        ------
        TypeError
            If a layer is not one of the library's own, which alone `cylstm.load` can build.

        Examples
        --------
        >>> import cylstm, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> Sequential(Last(), Linear(2, 3)).save(path)
        >>> cylstm.load(path)[1]
        Linear(in_features=2, out_features=3, bias=True, dtype='float32')
        """
        for i, layer in enumerate(self):
            if type(layer) not in _SAVED.values():
                raise TypeError(f"layers[{i}]: expected one of {', '.join(_SAVED)}, got {layer!r}")
        write_model(path, "Sequential", self.config, self.state_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Any:
        """Call `cylstm.load`, which is the name to use."""
        from cylstm.opening import load

        warn("Sequential.load: it is called cylstm.load now", DeprecationWarning, stacklevel=2)
        return load(path)

    @classmethod
    def _from_file(
        cls, path: Any, config: Mapping[str, Any], tensors: Mapping[str, Array]
    ) -> Sequential:
        """Make the model that a file's configuration and tensors describe."""
        try:
            return cls(*_load_layers(config, tensors))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)}: {error.args[0]}") from error


class SequentialStream:
    """A model's state over N sequences that come step by step; made by `Sequential.stream`.

    A copy, as `copy.copy` makes it, goes on from the same state.
    """

    def __init__(self, layers: tuple[Layer, ...], batch_size: int) -> None:
        keeps_time = True
        for i, layer in enumerate(layers):
            if not keeps_time and not layer.steps_alone:
                raise ValueError(
                    f"layers[{i}]: {type(layer).__name__} cannot be streamed after a layer that "
                    "keeps one step of all"
                )
            keeps_time = keeps_time and layer.keeps_time
        self._stores = frozenset().union(*(layer._stores for layer in layers))
        self._steps = [
            _named(f"layers[{i}]", layer.stream, batch_size) for i, layer in enumerate(layers)
        ]

    def step(self, x: Array) -> Array:
        """Advance by one step.

        Parameters
        ----------
        x : ndarray, (N, ...)
            The step of each sequence: what the model takes, without the axis of time.

        Returns
        -------
        y : ndarray, (N, ...)
            The model's output at this step.

        Raises
        ------
        ValueError
            If x is not one step.
        """
        with reading(self._stores):
            for step in self._steps:
                if isinstance(step, Stream) and getattr(x, "ndim", 0) > 2:
                    raise ValueError(f"x: expected one step (N, I), got shape {np.shape(x)}")
                x = step.step(x)
        return x

    def reset(self, rows: Any = None) -> None:
        """Set the state to zero: of all sequences, or of those chosen, as `Stream.reset` does."""
        for step in self._steps:
            step.reset(rows)

    def __copy__(self) -> SequentialStream:
        stream = SequentialStream.__new__(SequentialStream)
        stream._stores, stream._steps = self._stores, [copy.copy(step) for step in self._steps]
        return stream


class _OutputOf(Layer):
    """An LSTM, GRU or RNN as a layer among others: its output, with its state on the side."""

    def __init__(self, lstm: Recurrent[Any]) -> None:
        self.lstm = lstm
        self.batch_first = lstm.batch_first
        random = {"rng"} if lstm.dropout else set()
        self.takes = frozenset({"state", "lengths", "segment", "resets"} | random)  # type: ignore[misc]

    @property
    def config(self) -> dict[str, Any]:
        return self.lstm.config

    def run(
        self, x: Array, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[Array, Any]:
        return self.lstm(x, state, lengths, resets=resets)

    def forward(
        self, x: Array, state: Any = None, lengths: Any = None, **given: Any
    ) -> tuple[Array, Any]:
        y, after, tape = self.lstm.forward(x, state, lengths, **given)
        return y, (tape, after)

    def state_after(self, tape: Any) -> Any:
        return tape[1]

    def backward(self, tape: Any, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        grad_x, _, grads = self.lstm.backward(tape[0], grad_y)
        return grad_x, grads

    @property
    def _store(self) -> Parameters:  # type: ignore[override]
        return self.lstm._store

    def stream(self, batch_size: int = 1) -> Stream:
        return self.lstm.stream(batch_size)


_SAVED = {
    "LSTM": LSTM,
    "Linear": Linear,
    "Last": Last,
    "Embedding": Embedding,
    "Dropout": Dropout,
    "GRU": GRU,
    "RNN": RNN,
    "Attention": Attention,
    "QuantizedLinear": QuantizedLinear,
    **QUANTIZED,
}


def as_layer(model: Layer | Recurrent[Any], name: str = "model") -> Layer:
    """Return a layer, or an LSTM, GRU or RNN as one."""
    if isinstance(model, Recurrent):
        return _OutputOf(model)
    if not isinstance(model, Layer):
        raise TypeError(f"{name}: expected a Layer or an LSTM, GRU or RNN, got {model!r}")
    return model


def taken(layer: Layer, **given: Any) -> dict[str, Any]:
    """Return what the layer takes of what is given."""
    return {name: value for name, value in given.items() if name in layer.takes}


def _resets(layer: Layer, resets: Any) -> dict[str, Any]:
    """As an argument, if there are any: a layer of a user's own need not take them."""
    if resets is None or layer.steps_alone:
        return {}
    if "resets" not in layer.takes and layer.keeps_time:
        raise ValueError(f"resets: expected none for a layer that takes none, {short(layer)}")
    return {"resets": resets}


def _load_layers(
    config: Mapping[str, Any], tensors: Mapping[str, Array]
) -> list[Layer | Trainable[Any]]:
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
        _load_layer(f"layers[{i}]", layer, states[str(i)])
        for i, layer in enumerate(config["layers"])
    ]


def _load_layer(where: str, described: Any, state: Mapping[str, Array]) -> Layer | Trainable[Any]:
    """Make one of them."""
    if not isinstance(described, dict) or described.keys() != {"kind", "config"}:
        raise ValueError(f"{where}: expected a kind and a config, got {short(described)}")
    kind, config = described["kind"], described["config"]
    if not isinstance(kind, str) or kind not in _SAVED:
        raise ValueError(f"{where}: expected one of {', '.join(_SAVED)}, got {short(kind)}")
    if not isinstance(config, dict):
        raise ValueError(f"{where}: expected a config by names, got {short(config)}")
    if kind in QUANTIZED:
        return quantized_from_file(where, kind, config, state)
    cls = _SAVED[kind]
    if issubclass(cls, Trainable):
        return cls._from_file(where, config, state)
    try:
        return cls.from_saved(config, state)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error.args[0]}") from error


def _prefixed(index: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's arrays under their names in the model."""
    return {f"{index}.{name}": array for name, array in arrays.items()}


def _named(where: str, function: Callable[..., Any], *given: Any) -> Any:
    """Call a function; a ValueError says where."""
    try:
        return function(*given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
