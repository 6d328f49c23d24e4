"""Layers, and models made of them.

A layer keeps nothing between calls: what its backward pass needs is in the tape that its forward
pass returns, and where sequences go on in the next call, their state goes in and out as a value. So
one layer may serve many threads, and many sequences at once.
"""

from __future__ import annotations

import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from reprlib import repr as short
from typing import Any, ClassVar
from warnings import warn

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.core import training
from cylstm.core.access import reading, writing
from cylstm.core.affine import Affine
from cylstm.io.safetensors import write_model
from cylstm.lstm import LSTM, lstm_from_file
from cylstm.parameters import Lent, Parameters, checked
from cylstm.stream import Stream
from cylstm.train.gradients import Gradient, RowGradient

__all__ = ["Dropout", "Embedding", "Last", "Layer", "Linear", "Sequential", "SequentialStream"]

Array = npt.NDArray[np.floating[Any]]


class Layer(ABC):
    """The protocol of all layers and models; a new one gives at least the first three.

    ==========================  ==============================================================
    ``forward(x)``              The output, and a tape for `backward`.
    ``backward(tape, grad_y)``  The gradient of the input, and a dict of the parameters' gradients.
    ``config``                  The arguments that build it, which JSON can hold.
    ``layer(x)``                The output alone: inference.
    ``run(x)``                  The same beside the state; for layers that train otherwise.
    ``named_parameters()``      Pairs of name and array, the array read-only.
    ``edit()``                  A ``with`` block in which the parameters can be changed.
    ``stream(batch_size)``      What takes a step at a time; for layers with a state.
    ==========================  ==============================================================

    Attributes
    ----------
    takes : frozenset of str
        What `forward` and the call take beside `x`, by name: ``state`` (that sequences begin in),
        ``lengths`` (N,) of ragged sequences, and, in `forward` alone, ``rng``, the
        ``numpy.random.Generator`` of what is random, and ``segment``, as of `cylstm.LSTM.forward`.
        By default nothing.
    keeps_time : bool
        Whether the output has a step for each of the input's.
    steps_alone : bool
        Whether each step of the output follows from that step of the input alone, so that the layer
        can be given one step at a time. By default not.
    batch_first : bool, optional
        Whether sequences are (N, T, ...), not (T, N, ...), for layers to which it matters.
    """

    takes: ClassVar[frozenset[str]] = frozenset()
    keeps_time: bool = True
    steps_alone: bool = False
    batch_first: bool | None = None
    _store: Parameters | None = None  # of the library's own layers

    @abstractmethod
    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return the output, and the tape that `backward` needs."""

    @abstractmethod
    def backward(self, tape: Any, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
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

    def __call__(self, x: Array, **given: Any) -> Array:
        """Return the output alone."""
        return self.run(x, **given)[0]

    def run(self, x: Array, **given: Any) -> tuple[Array, Any]:
        """Return the output, and the state after the last step: None where there is none."""
        y, tape = self.forward(x, **given)
        return y, self.state_after(tape)

    def state_after(self, tape: Any) -> Any:
        """Return the state after the last step of `forward`, to give to the next: None if none."""
        return None

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Iterate over pairs of name and array, the array read-only; without override, none."""
        if self._store is not None:
            yield from self._store.views.items()

    def edit(self) -> AbstractContextManager[Any]:
        """Lend copies of the parameters by name, which take effect when the block ends.

        A name may be given another array instead. If the block ends by an exception, or an array is
        none of real numbers of the parameter's shape, nothing is changed.
        """
        return nullcontext({}) if self._store is None else self._store.edit()

    @contextmanager
    def _in_place(self) -> Iterator[Mapping[str, Array]]:
        """As `edit`, to code that keeps none of the arrays and leaves none half changed."""
        with _changing([("", self)]) as parameters:
            yield parameters

    def _leaves(self) -> Iterator[tuple[str, Layer]]:
        """Iterate over the layers that this one is made of, and what their names begin with."""
        yield "", self

    @property
    def _stores(self) -> frozenset[Parameters]:
        """Where the parameters are, but those of layers that have their own way."""
        return frozenset() if self._store is None else self._store.alone

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name, all of one moment."""
        with reading(self._stores):
            return {name: parameter.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Set all parameters, or none.

        Parameters
        ----------
        state : mapping of str to ndarray
            The parameters by name, in the shapes of `state_dict`.

        Raises
        ------
        KeyError
            If a parameter is missing, or unknown.
        TypeError
            If one is no array of real numbers.
        ValueError
            If one has another shape.
        """
        with self.edit() as parameters:
            missing = [name for name in parameters if name not in state]
            unexpected = [name for name in state if name not in parameters]
            if missing or unexpected:
                raise KeyError(f"state: missing {missing}, unexpected {unexpected}")
            values = {name: checked(name, state[name], parameters[name]) for name in parameters}
            for name, value in values.items():
                parameters[name][...] = value

    def stream(self, batch_size: int = 1) -> Any:
        """Return what advances sequences a step at a time: it has ``step(x)`` and ``reset(rows)``.

        Parameters
        ----------
        batch_size : int, default 1
            N, how many sequences it advances together.

        Raises
        ------
        ValueError
            If the layer does not say how: by `steps_alone`, or a method of its own.
        """
        checks.whole("batch_size", batch_size)
        if not self.steps_alone:
            raise ValueError(
                f"stream: {type(self).__name__} does not say how it takes a step at a time; "
                "it says so by steps_alone = True, or a method stream"
            )
        return _StepsAlone(self)

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


class Embedding(Layer):
    """A vector for each of a set of things, such as words or characters.

    Parameters
    ----------
    num_embeddings : int
        How many things there are.
    embedding_dim : int
        D, the size of a vector.
    padding_idx : int, optional
        A thing whose vector starts at zero and never learns.
    dtype : {"float32", "float64"}
        The type of the vectors.
    seed : int or numpy.random.Generator, optional
        Where the first vectors are drawn from.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer, `padding_idx` is none of the things, or the dtype is
        another.

    Notes
    -----
    The parameter is ``weight`` (num_embeddings, D), at first standard normal: name, shape and
    distribution are those of ``torch.nn.Embedding``. Its gradient is a `RowGradient` of the vectors
    that took part.

    Examples
    --------
    >>> embedding = Embedding(1000, 8, seed=0)
    >>> words = np.array([[5, 7], [2, 5]])
    >>> y, tape = embedding.forward(words)
    >>> y.shape
    (2, 2, 8)
    >>> _, grads = embedding.backward(tape, np.ones_like(y))
    >>> grads["weight"].rows, grads["weight"].values[:, 0]
    (array([2, 5, 7]), array([1., 2., 1.], dtype=float32))
    """

    steps_alone = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.num_embeddings = checks.whole("num_embeddings", num_embeddings, 1)
        self.embedding_dim = checks.whole("embedding_dim", embedding_dim, 1)
        self.padding_idx = None if padding_idx is None else checks.whole("padding_idx", padding_idx)
        if padding_idx is not None and self.padding_idx >= self.num_embeddings:
            raise ValueError(
                f"padding_idx: expected 0 to {num_embeddings - 1}, got {self.padding_idx}"
            )
        self.dtype = checks.floating("dtype", dtype)
        shape = self.num_embeddings, self.embedding_dim
        self._store = Parameters({"weight": shape}, self.dtype)
        weight = self._store.memory()["weight"]
        checks.seeded("seed", seed).standard_normal(dtype=self.dtype, out=weight)
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer, without the seed."""
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "padding_idx": self.padding_idx,
            "dtype": self.dtype.name,
        }

    @classmethod
    def from_saved(cls, config: dict[str, Any], state: Mapping[str, Array]) -> Layer:
        """Make the layer that a file describes; see `Layer.from_saved`."""
        _check_saved_weight(state, (config.get("num_embeddings"), config.get("embedding_dim")))
        return super().from_saved(config, state)

    def forward(self, x: npt.NDArray[np.integer[Any]]) -> tuple[Array, npt.NDArray[np.integer]]:
        """Return the vectors of `x`, and the tape.

        Parameters
        ----------
        x : ndarray of integers, (...)
            Which things, from 0 to num_embeddings - 1.

        Returns
        -------
        y : ndarray, (..., D)
            Their vectors.
        tape : ndarray
            A copy of `x`.

        Raises
        ------
        TypeError
            If `x` is not an array of integers.
        ValueError
            If one of them is out of range.
        """
        x = np.array(checks.is_array("x", x))  # the tape, which no one else may change
        if x.dtype.kind not in "iu":
            raise TypeError(f"x: expected integers, got {x.dtype}")
        if x.size and not (x.min() >= 0 and x.max() < self.num_embeddings):
            raise ValueError(
                f"x: expected 0 to {self.num_embeddings - 1}, got {x.min()} to {x.max()}"
            )
        x.flags.writeable = False
        with self._store.reading():
            return self._store.views["weight"][x], x

    def backward(
        self, tape: npt.NDArray[np.integer], grad_y: Array
    ) -> tuple[None, dict[str, RowGradient]]:
        """Return None, since integers have no gradient, and the vectors' gradient.

        Raises
        ------
        TypeError, ValueError
            If `grad_y` does not have the output's dtype and shape.
        """
        grad_y = _as_array("grad_y", grad_y, self.dtype)
        _check_gradient(grad_y, (*tape.shape, self.embedding_dim))
        values = np.ascontiguousarray(grad_y.reshape(-1, self.embedding_dim))
        ids = tape.reshape(-1).astype(np.intp)
        rows, sums = training.sums_by_id(ids, np.argsort(ids, kind="stable"), values)
        if self.padding_idx is not None:
            learns = rows != self.padding_idx
            rows, sums = rows[learns], sums[learns]
        shape = self.num_embeddings, self.embedding_dim
        return None, {"weight": RowGradient(rows, sums, shape)}


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

    steps_alone = True

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
        shape = self.out_features, self.in_features
        shapes = {"weight": shape, "bias": (self.out_features,)}
        if not self.bias:
            del shapes["bias"]
        self._store = Parameters(shapes, self.dtype)
        limit = math.sqrt(6 / sum(shape))  # Glorot's
        memory = self._store.memory()
        memory["weight"][...] = checks.seeded("seed", seed).uniform(-limit, limit, shape)
        if self.bias:
            memory["bias"][...] = 0

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
        _check_saved_weight(state, (config.get("out_features"), config.get("in_features")))
        return super().from_saved(config, state)

    def run(self, x: Array) -> tuple[Array, None]:
        """Return the map of `x`, and no state."""
        x = self._checked_input(x)
        with self._store.reading():
            return self._map(x), None

    def forward(self, x: Array) -> tuple[Array, tuple[Array, int]]:
        """Return the map of `x`, and the tape.

        Parameters
        ----------
        x : ndarray
            Of shape (..., in_features), with any number of axes before the last.

        Returns
        -------
        y : ndarray
            Of shape (..., out_features).
        tape : tuple
            A copy of `x`, and how often the parameters have changed until now.

        Raises
        ------
        TypeError
            If `x` is not an array of the layer's dtype.
        ValueError
            If its last axis is not `in_features` long.
        """
        x = self._checked_input(x)
        with self._store.reading():
            return self._map(x), (x.copy(order="C"), self._store.version.changes)

    def _checked_input(self, x: Array) -> Array:
        x = _as_array("x", x, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), got {x.shape}")
        return x

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_affine"}

    @cached_property
    def _affine(self) -> Affine:
        store = self._store
        return Affine(store.views["weight"], store.views.get("bias"), store.version)

    def _map(self, x: Array) -> Array:
        rows = np.ascontiguousarray(x.reshape(-1, self.in_features))
        return self._affine.run(rows).reshape(*x.shape[:-1], self.out_features)

    def backward(self, tape: tuple[Array, int], grad_y: Array) -> tuple[Array, dict[str, Array]]:
        """Return the gradients of the input and of the parameters.

        Parameters
        ----------
        tape : tuple
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
            If `grad_y` does not have the output's dtype and shape, or the parameters have changed
            since `forward`.
        """
        x, changes = tape
        grad_y = _as_array("grad_y", grad_y, self.dtype)
        _check_gradient(grad_y, (*x.shape[:-1], self.out_features))
        rows = np.ascontiguousarray(grad_y.reshape(-1, self.out_features))
        with self._store.reading():
            if changes != self._store.version.changes:
                raise ValueError("tape: the parameters have changed since forward; run it again")
            grad_x, weight, bias = self._affine.backward(x.reshape(-1, self.in_features), rows)
        grads = {"weight": weight}
        if self.bias:
            grads["bias"] = bias
        return grad_x.reshape(x.shape), grads


class Dropout(Layer):
    """Set a random share of the inputs to zero while training, and scale up the rest [1]_.

    Calling the layer, as in inference, gives `x` back as it is.

    Parameters
    ----------
    p : float, default 0.5
        The share.
    seed : int or numpy.random.Generator, optional
        Of the layer's own random numbers, used where `forward` is given no `rng`.

    Raises
    ------
    TypeError, ValueError
        If `p` is not a number from 0 to 1.

    References
    ----------
    .. [1] N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
       Overfitting", JMLR 15, 2014. https://jmlr.org/papers/v15/srivastava14a.html

    Examples
    --------
    >>> dropout = Dropout(0.5, seed=0)
    >>> dropout.forward(np.ones(4))[0]
    array([2., 2., 2., 0.])
    >>> dropout(np.ones(4))
    array([1., 1., 1., 1.])
    """

    takes = frozenset({"rng"})
    steps_alone = True

    def __init__(self, p: float = 0.5, *, seed: int | np.random.Generator | None = None) -> None:
        self.p = checks.finite("p", p)
        if not 0 <= self.p <= 1:
            raise ValueError(f"p: expected a number from 0 to 1, got {p!r}")
        self._rng = checks.seeded("seed", seed)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer, without the seed."""
        return {"p": self.p}

    def run(self, x: Array) -> tuple[Array, None]:
        """Return `x`, and no state."""
        return x, None

    def forward(self, x: Array, rng: np.random.Generator | None = None) -> tuple[Array, Array]:
        """Return `x` with a share `p` of it zero and the rest divided by ``1 - p``, and the tape.

        Parameters
        ----------
        x : ndarray of float32 or float64
            Of any shape.
        rng : numpy.random.Generator, optional
            Source of the random numbers; the layer's own by default.

        Raises
        ------
        TypeError
            If `x` or `rng` is of another type.
        """
        rng = self._rng if rng is None else checks.generator("rng", rng)
        x = checks.is_array("x", x)
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"x: expected float32 or float64, got {x.dtype}")
        kept = rng.random(x.shape, np.float32) >= np.float32(self.p)
        mask = kept * x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        return x * mask, mask

    def backward(self, tape: Array, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradient of the input, and no others."""
        grad_y = checks.is_array("grad_y", grad_y)
        _check_gradient(grad_y, tape.shape)
        return grad_y * tape, {}


class Last(Layer):
    """The last step of each sequence: (T, N, F) to (N, F), or (T, F) to (F,).

    Parameters
    ----------
    batch_first : bool, default False
        Whether a batch is (N, T, F) instead of (T, N, F).

    Examples
    --------
    >>> x = np.arange(6.0).reshape(3, 2, 1)
    >>> Last()(x)
    array([[4.],
           [5.]])
    >>> Last()(x, lengths=[3, 1])
    array([[4.],
           [1.]])
    """

    takes = frozenset({"lengths"})
    keeps_time = False

    def __init__(self, batch_first: bool = False) -> None:
        self.batch_first = checks.is_true_or_false("batch_first", batch_first)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer."""
        return {"batch_first": self.batch_first}

    def forward(self, x: Array, lengths: Any = None) -> tuple[Array, Any]:
        """Return the last step of `x`, and the tape.

        Parameters
        ----------
        x : ndarray, (T, N, F), (N, T, F) with `batch_first`, or (T, F)
            The sequences.
        lengths : array of int, (N,), optional
            Each sequence's own length, from 0 to T: the step before it is its last. The last step
            of none is zero.

        Raises
        ------
        TypeError, ValueError
            If `x` does not have two or three axes, or no step, or if `lengths` do not fit it.
        """
        x = checks.is_array("x", x)
        if x.ndim not in (2, 3):
            raise ValueError(f"x: expected two or three axes, got shape {x.shape}")
        steps = self._by_time(x)
        if len(steps) == 0:
            raise ValueError(f"x: expected at least one step, got shape {x.shape}")
        last = np.full(steps.shape[1:-1], len(steps) - 1)
        if lengths is not None:
            size = math.prod(last.shape)
            last = checks.lengths(np.atleast_1d(lengths), len(steps), size).reshape(last.shape) - 1
        # A sequence of no step takes the place -1, which is then made zero.
        y = np.take_along_axis(steps, last[None, ..., None], axis=0)[0]
        y[last < 0] = 0
        return y, (x.shape, last)

    def backward(self, tape: Any, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradient of the input, zero but for the last steps, and no others."""
        shape, last = tape
        grad_y = checks.is_array("grad_y", grad_y)
        _check_gradient(grad_y, (*last.shape, shape[-1]))
        grad_x = np.zeros(shape, grad_y.dtype)
        real = np.where((last >= 0)[..., None], grad_y, 0)
        np.put_along_axis(self._by_time(grad_x), last[None, ..., None], real[None], axis=0)
        return grad_x, {}

    def stream(self, batch_size: int = 1) -> _StepsAlone:
        """Return what gives each step as it comes: until now it is the last."""
        checks.whole("batch_size", batch_size)
        return _StepsAlone(lambda x: x)

    def _by_time(self, x: Array) -> Array:
        """Return a view with the axis of time first."""
        return x.swapaxes(0, 1) if self.batch_first and x.ndim == 3 else x


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

    def run(
        self, x: Array, state: list[Any] | None = None, lengths: Any = None
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
        """
        states = []
        with reading(self._stores):
            for layer, own in zip(self._layers, self._states(state), strict=True):
                x, after = layer.run(x, **taken(layer, state=own, lengths=lengths))
                states.append(after)
                lengths = lengths if layer.keeps_time else None
        return x, states

    def forward(
        self,
        x: Array,
        state: list[Any] | None = None,
        lengths: Any = None,
        rng: np.random.Generator | None = None,
        segment: int | None = None,
    ) -> tuple[Array, list[Any]]:
        """Return the output, and a tape: those of the layers.

        Parameters
        ----------
        x, state, lengths
            As for `run`; a state from `state_after` does as well.
        rng : numpy.random.Generator, optional
            Source of dropout; each layer's own by default.
        segment : int, optional
            As for `cylstm.LSTM.forward`.
        """
        tapes = []
        with reading(self._stores):
            for layer, own in zip(self._layers, self._states(state), strict=True):
                given = taken(layer, state=own, lengths=lengths, rng=rng, segment=segment)
                x, tape = layer.forward(x, **given)
                tapes.append(tape)
                lengths = lengths if layer.keeps_time else None
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
        with _changing(list(self._leaves())) as parameters:
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


class _StepsAlone:
    """The steps of a layer that knows no others: it has no state."""

    def __init__(self, step: Callable[[Array], Array]) -> None:
        self.step = step

    def reset(self, rows: Any = None) -> None:
        """Nothing to set."""


class _OutputOf(Layer):
    """An LSTM as a layer among others: its output, with its state on the side."""

    def __init__(self, lstm: LSTM) -> None:
        self.lstm = lstm
        self.batch_first = lstm.batch_first
        random = {"rng"} if lstm.dropout else set()
        self.takes = frozenset({"state", "lengths", "segment"} | random)  # type: ignore[misc]

    @property
    def config(self) -> dict[str, Any]:
        return self.lstm.config

    def run(self, x: Array, state: Any = None, lengths: Any = None) -> tuple[Array, Any]:
        return self.lstm(x, state, lengths)

    def forward(
        self, x: Array, state: Any = None, lengths: Any = None, rng: Any = None, segment: Any = None
    ) -> tuple[Array, Any]:
        y, after, tape = self.lstm.forward(x, state, lengths, rng=rng, segment=segment)
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
}


def as_layer(model: Layer | LSTM, name: str = "model") -> Layer:
    """Return a layer, or an LSTM as one."""
    if isinstance(model, LSTM):
        return _OutputOf(model)
    if not isinstance(model, Layer):
        raise TypeError(f"{name}: expected a Layer or an LSTM, got {model!r}")
    return model


def taken(layer: Layer, **given: Any) -> dict[str, Any]:
    """Return what the layer takes of what is given."""
    return {name: value for name, value in given.items() if name in layer.takes}


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


def _prefixed(index: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's arrays under their names in the model."""
    return {f"{index}.{name}": array for name, array in arrays.items()}


@contextmanager
def _changing(leaves: Sequence[tuple[str, Layer]]) -> Iterator[dict[str, Array]]:
    """Lend the parameters of layers, each with what its names begin with, to be changed in place.

    No other thread sees the half of it; those of layers with a way of their own, as these promise.
    """
    own = {prefix: leaf._store for prefix, leaf in leaves if leaf._store is not None}
    with ExitStack() as stack:
        lent = {
            prefix: stack.enter_context(leaf.edit())
            for prefix, leaf in leaves
            if leaf._store is None
        }
        stack.enter_context(writing(frozenset(own.values())))
        lent.update({prefix: store.memory() for prefix, store in own.items()})
        yield {prefix + name: array for prefix, _ in leaves for name, array in lent[prefix].items()}


def _named(where: str, function: Callable[..., Any], *given: Any) -> Any:
    """Call a function; a ValueError says where."""
    try:
        return function(*given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_saved_weight(state: Mapping[str, Array], shape: tuple[Any, Any]) -> None:
    """Before a size that a file claims takes memory that its tensors do not."""
    if "weight" not in state or state["weight"].shape != shape:
        raise ValueError(f"weight: expected shape {short(shape)}, got another or none")


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
