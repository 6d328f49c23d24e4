"""Layers, and models made of them.

A layer keeps nothing between calls: what its backward pass needs is in the tape that its forward
pass returns. So one layer may serve many threads, and many sequences at once.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from reprlib import repr as short
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.io.safetensors import load_model, save_model
from cylstm.lstm import LSTM, lstm_from_file

__all__ = ["Last", "Layer", "Linear", "Sequential"]

Array = npt.NDArray[np.floating[Any]]


class Layer(ABC):
    """The protocol of all layers and models; a new one gives at least the first three.

    ==========================  ==============================================================
    ``forward(x)``              The output, and a tape for `backward`.
    ``backward(tape, grad_y)``  The gradient of the input, and a dict of the parameters' gradients.
    ``config``                  The arguments that build it, which JSON can hold.
    ``layer(x)``                The output alone: inference.
    ``named_parameters()``      Pairs of name and array, the array read-only.
    ``edit()``                  A ``with`` block in which the parameters can be changed.
    ==========================  ==============================================================
    """

    @abstractmethod
    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return the output, and the tape that `backward` needs."""

    @abstractmethod
    def backward(self, tape: Any, grad_y: Array) -> tuple[Array, dict[str, Array]]:
        """Return the gradient of the input, and the parameters' gradients by name.

        Parameters
        ----------
        tape : object
            What `forward` returned beside the output; it may be used more than once.
        grad_y : ndarray
            The gradient of the output, of the output's shape.
        """

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer, which JSON can hold."""

    def __call__(self, x: Array) -> Array:
        """Return the output alone."""
        return self.forward(x)[0]

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Iterate over pairs of name and array, the array read-only; without override, none."""
        yield from ()

    @contextmanager
    def edit(self) -> Iterator[dict[str, Array]]:
        """Lend the parameters by name as arrays to change in place, until the block's end."""
        yield {}

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name."""
        return {name: parameter.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Set all parameters.

        Parameters
        ----------
        state : mapping of str to ndarray
            The parameters by name, in the shapes of `state_dict`.

        Raises
        ------
        KeyError
            If a parameter is missing, or unknown. Nothing is changed then.
        ValueError
            If one has another shape. Nothing is changed then.
        """
        with self.edit() as parameters:
            _check_state(parameters, state)
            for name, parameter in parameters.items():
                parameter[...] = state[name]

    @classmethod
    def from_saved(cls, config: dict[str, Any], state: Mapping[str, Array]) -> Layer:
        """Make the layer that a file describes; it trusts neither argument.

        Parameters
        ----------
        config : dict
            The `config` of the saved layer.
        state : mapping of str to ndarray
            Its `state_dict`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If an argument or parameter is missing, unknown, or not such as it was saved.
        """
        layer = cls(**config)
        if layer.config != config:
            raise ValueError(f"config: expected {layer.config}, got {short(config)}")
        layer.load_state_dict(state)
        for name, parameter in layer.named_parameters():
            if parameter.dtype != state[name].dtype:
                raise ValueError(f"{name}: expected {parameter.dtype}, got {state[name].dtype}")
        return layer

    def __repr__(self) -> str:
        """Show the call that builds this layer."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config.items())
        return f"{type(self).__name__}({arguments})"


class Linear(Layer):
    """An affine map of the last axis: ``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
        The sizes of the last axis before and after.
    bias : bool, default True
        Whether there is a bias.
    dtype : {"float32", "float64"}
        The type of the parameters and of all that is computed.
    seed : int or numpy.random.Generator, optional
        Where the first weights are drawn from.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer, `bias` not a bool, or the dtype another.

    Notes
    -----
    The parameters are ``weight`` (out_features, in_features), at first Glorot-uniform [1]_, and
    ``bias`` (out_features,), at first zero: names and shapes are those of ``torch.nn.Linear``.

    References
    ----------
    .. [1] X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward
       neural networks", AISTATS 2010. https://proceedings.mlr.press/v9/glorot10a.html

    Examples
    --------
    >>> linear = Linear(3, 2, seed=0)
    >>> linear(np.ones((5, 4, 3), np.float32)).shape
    (5, 4, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.in_features = checks.whole("in_features", in_features, 1)
        self.out_features = checks.whole("out_features", out_features, 1)
        self.bias = checks.is_true_or_false("bias", bias)
        self.dtype = checks.floating("dtype", dtype)
        self._parameters = {"weight": self._glorot_uniform(np.random.default_rng(seed))}
        if self.bias:
            self._parameters["bias"] = np.zeros(self.out_features, self.dtype)

    def _glorot_uniform(self, rng: np.random.Generator) -> Array:
        limit = math.sqrt(6 / (self.in_features + self.out_features))
        shape = (self.out_features, self.in_features)
        return rng.uniform(-limit, limit, shape).astype(self.dtype)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer, without the seed."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "dtype": self.dtype.name,
        }

    @classmethod
    def from_saved(cls, config: dict[str, Any], state: Mapping[str, Array]) -> Layer:
        """Make the layer that a file describes; see `Layer.from_saved`."""
        # Before a size that the file claims takes memory that its tensors do not.
        sizes = config.get("out_features"), config.get("in_features")
        if "weight" not in state or state["weight"].shape != sizes:
            raise ValueError(f"weight: expected shape {short(sizes)}, got another or none")
        return super().from_saved(config, state)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Return the map of `x`, and the tape.

        Parameters
        ----------
        x : ndarray
            Of shape (..., in_features), with any number of axes before the last.

        Returns
        -------
        y : ndarray
            Of shape (..., out_features).
        tape : ndarray
            `x` itself: neither it nor the parameters may be changed before `backward`.

        Raises
        ------
        TypeError
            If `x` is not an array of the layer's dtype.
        ValueError
            If its last axis is not `in_features` long.
        """
        x = _as_array("x", x, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), got {x.shape}")
        # One product over all rows: NumPy would make one for each matrix of a stack.
        y = x.reshape(-1, self.in_features) @ self._parameters["weight"].T
        if self.bias:
            y += self._parameters["bias"]
        return y.reshape(*x.shape[:-1], self.out_features), x

    def backward(self, tape: Array, grad_y: Array) -> tuple[Array, dict[str, Array]]:
        """Return the gradients of the input and of the parameters.

        Parameters
        ----------
        tape : ndarray
            What `forward` returned.
        grad_y : ndarray
            The gradient of the output, of shape (..., out_features).

        Returns
        -------
        grad_x : ndarray
            Of shape (..., in_features).
        grads : dict of str to ndarray
            The gradients of ``weight`` and ``bias``.

        Raises
        ------
        TypeError, ValueError
            If `grad_y` does not have the output's dtype and shape.
        """
        grad_y = _as_array("grad_y", grad_y, self.dtype)
        _check_gradient(grad_y, (*tape.shape[:-1], self.out_features))
        rows = grad_y.reshape(-1, self.out_features)
        grads = {"weight": rows.T @ tape.reshape(-1, self.in_features)}
        if self.bias:
            grads["bias"] = rows.sum(axis=0)
        return (rows @ self._parameters["weight"]).reshape(tape.shape), grads

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Iterate over pairs of name and array, the array read-only."""
        for name, parameter in self._parameters.items():
            view = parameter.view()
            view.flags.writeable = False
            yield name, view

    @contextmanager
    def edit(self) -> Iterator[dict[str, Array]]:
        """Lend the parameters by name as arrays to change in place, until the block's end."""
        views = {name: parameter.view() for name, parameter in self._parameters.items()}
        try:
            yield views
        finally:
            for view in views.values():
                view.flags.writeable = False


class Last(Layer):
    """The last step of a sequence: (T, N, F) to (N, F), or (T, F) to (F,).

    Parameters
    ----------
    batch_first : bool, default False
        Whether a batch is (N, T, F) instead of (T, N, F).

    Examples
    --------
    >>> Last()(np.arange(6.0).reshape(3, 1, 2))
    array([[4., 5.]])
    """

    def __init__(self, batch_first: bool = False) -> None:
        self.batch_first = checks.is_true_or_false("batch_first", batch_first)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer."""
        return {"batch_first": self.batch_first}

    def forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        """Return the last step of `x`, and its shape as the tape.

        Raises
        ------
        ValueError
            If `x` does not have two or three axes, or no step.
        """
        x = checks.is_array("x", x)
        if x.ndim not in (2, 3):
            raise ValueError(f"x: expected two or three axes, got shape {x.shape}")
        if x.shape[self._axis(x.ndim)] == 0:
            raise ValueError(f"x: expected at least one step, got shape {x.shape}")
        return x[self._last(x.ndim)].copy(), x.shape

    def backward(self, tape: tuple[int, ...], grad_y: Array) -> tuple[Array, dict[str, Array]]:
        """Return the gradient of the input, zero but for the last step, and no others."""
        last = self._last(len(tape))
        grad_y = checks.is_array("grad_y", grad_y)
        grad_x = np.zeros(tape, grad_y.dtype)
        _check_gradient(grad_y, grad_x[last].shape)
        grad_x[last] = grad_y
        return grad_x, {}

    def _axis(self, ndim: int) -> int:
        """Return the axis of time."""
        return 1 if self.batch_first and ndim == 3 else 0

    def _last(self, ndim: int) -> tuple[slice | int, ...]:
        """Return the index of the last step."""
        return (*(slice(None),) * self._axis(ndim), -1)


class Sequential(Layer):
    """Layers one after the other, each fed with the output of the one before it.

    Parameters
    ----------
    *layers : Layer or cylstm.LSTM
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

    def __init__(self, *layers: Layer | LSTM) -> None:
        if not layers:
            raise ValueError("layers: expected at least one, got none")
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError("layers: expected objects of their own, got one twice")
        self._layers = tuple(_as_layer(i, layer) for i, layer in enumerate(layers))

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._layers)

    def __getitem__(self, index: int) -> Layer | LSTM:
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

    def __call__(self, x: Array) -> Array:
        """Return the output alone; the layers keep nothing."""
        for layer in self._layers:
            x = layer(x)
        return x

    def forward(self, x: Array) -> tuple[Array, list[Any]]:
        """Return the output, and a tape: those of the layers."""
        tapes = []
        for layer in self._layers:
            x, tape = layer.forward(x)
            tapes.append(tape)
        return x, tapes

    def backward(self, tape: list[Any], grad_y: Array) -> tuple[Array, dict[str, Array]]:
        """Return the gradient of the input, and the parameters' gradients by name."""
        grads = {}
        for i, layer in reversed(list(enumerate(self._layers))):
            grad_y, layer_grads = layer.backward(tape[i], grad_y)
            grads.update(_prefixed(i, layer_grads))
        return grad_y, grads

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Iterate over pairs of name and array, the array read-only."""
        for i, layer in enumerate(self._layers):
            yield from _prefixed(i, dict(layer.named_parameters())).items()

    @contextmanager
    def edit(self) -> Iterator[dict[str, Array]]:
        """Lend the parameters by name as arrays to change in place, until the block's end."""
        with ExitStack() as stack:
            parameters = {}
            for i, layer in enumerate(self._layers):
                parameters.update(_prefixed(i, stack.enter_context(layer.edit())))
            yield parameters

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the whole model as one safetensors file.

        Parameters
        ----------
        path : path-like
            The file; one that is there is replaced, whole or not at all.

        Raises
        ------
        TypeError
            If a layer is not one of the library's own, which alone `load` can build.
        """
        for i, layer in enumerate(self):
            if type(layer) not in _SAVED.values():
                raise TypeError(f"layers[{i}]: expected one of {', '.join(_SAVED)}, got {layer!r}")
        save_model(path, "Sequential", self.config, self.state_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sequential:
        """Load what `save` saved.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        Sequential
            A model whose outputs are, bit for bit, those of the saved one.

        Raises
        ------
        ValueError
            If the file does not hold a Sequential, or one whose parts do not fit together; the
            message names the file and what is wrong.

        Examples
        --------
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> Sequential(Last(), Linear(2, 3)).save(path)
        >>> Sequential.load(path)[1]
        Linear(in_features=2, out_features=3, bias=True, dtype='float32')
        """
        kind, config, tensors = load_model(path)
        try:
            if kind != "Sequential":
                raise ValueError(f"expected a model of kind Sequential, got {kind}")
            return cls(*_load_layers(config, tensors))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)}: {error.args[0]}") from error


class _OutputOf(Layer):
    """An LSTM as a layer among others: its output without its state."""

    def __init__(self, lstm: LSTM) -> None:
        self.lstm = lstm

    @property
    def config(self) -> dict[str, Any]:
        return self.lstm.config

    def __call__(self, x: Array) -> Array:
        y, _ = self.lstm(x)
        return y

    def forward(self, x: Array) -> tuple[Array, Any]:
        y, _, tape = self.lstm.forward(x)
        return y, tape

    def backward(self, tape: Any, grad_y: Array) -> tuple[Array, dict[str, Array]]:
        grad_x, _, grads = self.lstm.backward(tape, grad_y)
        return grad_x, grads

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        return self.lstm.named_parameters()

    def edit(self) -> AbstractContextManager[dict[str, Array]]:
        return self.lstm.edit()


_SAVED = {"LSTM": LSTM, "Linear": Linear, "Last": Last}


def _as_layer(index: int, layer: Layer | LSTM) -> Layer:
    """Return what a Sequential is given as a layer."""
    if isinstance(layer, LSTM):
        return _OutputOf(layer)
    if not isinstance(layer, Layer):
        raise TypeError(f"layers[{index}]: expected a Layer or an LSTM, got {layer!r}")
    return layer


def _load_layers(config: Mapping[str, Any], tensors: Mapping[str, Array]) -> list[Layer | LSTM]:
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


def _load_layer(where: str, described: Any, state: Mapping[str, Array]) -> Layer | LSTM:
    """Make one of them."""
    if not isinstance(described, dict) or described.keys() != {"kind", "config"}:
        raise ValueError(f"{where}: expected a kind and a config, got {short(described)}")
    kind, config = described["kind"], described["config"]
    if not isinstance(kind, str) or kind not in _SAVED:
        raise ValueError(f"{where}: expected one of {', '.join(_SAVED)}, got {short(kind)}")
    if not isinstance(config, dict):
        raise ValueError(f"{where}: expected a config by names, got {short(config)}")
    if kind == "LSTM":
        return lstm_from_file(where, config, state)
    try:
        return _SAVED[kind].from_saved(config, state)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error.args[0]}") from error


def _prefixed(index: int, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return a layer's arrays under their names in the model."""
    return {f"{index}.{name}": array for name, array in arrays.items()}


def _check_state(parameters: Mapping[str, Array], state: Mapping[str, Array]) -> None:
    """Check that a state has the parameters' names and shapes, and nothing else."""
    missing = [name for name in parameters if name not in state]
    unexpected = [name for name in state if name not in parameters]
    if missing or unexpected:
        raise KeyError(f"state: missing {missing}, unexpected {unexpected}")
    for name, parameter in parameters.items():
        if np.shape(state[name]) != parameter.shape:
            raise ValueError(
                f"{name}: expected shape {parameter.shape}, got {np.shape(state[name])}"
            )


def _as_array(name: str, value: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array of this dtype, in the machine's byte order."""
    array = checks.is_array(name, value)
    if array.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {array.dtype}")
    return array.astype(dtype, copy=False)


def _check_gradient(grad_y: Array, shape: tuple[int, ...]) -> None:
    """Check that the gradient of an output has the output's shape."""
    if grad_y.shape != shape:
        raise ValueError(f"grad_y: expected the output's shape {shape}, got {grad_y.shape}")
