"""Whole models that were read from other frameworks' files: chains of layers that score.

Their layers follow the mask of Keras: which steps of which sequences count.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.formats.chain_stream import Axes, ChainStream, after_function
from cylstm.layers import Layer, Sequential
from cylstm.layers.activations import gelu, relu, sigmoid, softmax, tanh

__all__ = ["Apply", "Chain", "Embedding", "Scoring", "activation"]

Mask = np.ndarray | None  # (N, T) of bool


class Chain(Sequential):
    """A Sequential that passes on, beside each layer's output, which steps count.

    It takes no lengths and keeps no state: the model's own mask says where sequences end.
    """

    takes = frozenset()

    def __call__(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
        """Return the output."""
        return self.run(x)[0]

    def run(self, x: np.ndarray) -> tuple[np.ndarray, None]:  # type: ignore[override]
        """Return the output, and no state."""
        mask: Mask = None
        for layer in self:
            if isinstance(layer, Scoring):
                x, mask = layer.follow(x, mask)
            else:
                x = layer(x)
        return x, None

    def stream(self, batch_size: int = 1) -> Any:
        """Make a stream: the model with its state, to be advanced step by step.

        Parameters
        ----------
        batch_size : int, default 1
            N, how many sequences it advances together.

        Raises
        ------
        ValueError
            If a layer needs all steps at once.
        """
        return ChainStream(tuple(self), checks.whole("batch_size", batch_size))


class Scoring(Layer):
    """A layer that was read to score, not to be trained."""

    @abstractmethod
    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output."""

    def run(self, x: np.ndarray) -> tuple[np.ndarray, None]:
        """Return the output, and no state."""
        return self(x), None

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return the output, and the mask that goes on with it."""
        return self(x), mask

    @property
    def config(self) -> dict[str, Any]:
        """What tells this layer from others of its class."""
        return {}

    def axes_after(self, axes: Axes) -> Axes:
        """Return the axes of the output, if each of its steps follows from that step alone.

        Raises
        ------
        ValueError
            If it does not.
        """
        if axes.time is not None:
            raise ValueError("which needs all steps at once")
        return axes

    def stream(self, batch_size: int = 1) -> Any:
        """Refuse: the chain of which it is a layer does it."""
        raise ValueError(f"stream: expected a chain of layers, got {type(self).__name__}")

    def forward(self, x: np.ndarray) -> Any:
        """Refuse: there is no tape."""
        raise NotImplementedError(f"{self!r}: a model read by cylstm.load scores, without training")

    def backward(self, tape: Any, grad_y: np.ndarray) -> Any:
        """Refuse: there is no tape."""
        self.forward(grad_y)


class Apply(Scoring):
    """A function without parameters that are learned.

    Parameters
    ----------
    function : callable
        Of the input, and of the arguments.
    **arguments
        The same at each call.

    Examples
    --------
    >>> Apply(np.transpose, axes=(1, 0))(np.ones((2, 3))).shape
    (3, 2)
    """

    def __init__(self, function: Callable[..., np.ndarray], **arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    @property
    def config(self) -> dict[str, Any]:
        """The arguments."""
        return self.arguments

    def __repr__(self) -> str:
        """Show the call."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.function.__name__}({arguments})"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the function of x."""
        return self.function(x, **self.arguments)

    def axes_after(self, axes: Axes) -> Axes:
        """Return the axes of the function's output."""
        return after_function(self.function.__name__, self.arguments, axes)


class Embedding(Scoring):
    """Rows of a table, by number.

    Parameters
    ----------
    weight : array, (K, F)
    mask_zero : bool
        Whether the number 0 marks steps that do not count.

    Examples
    --------
    >>> Embedding(np.eye(3), mask_zero=False)(np.array([[2, 0]]))
    array([[[0., 0., 1.],
            [1., 0., 0.]]])
    """

    def __init__(self, weight: np.ndarray, mask_zero: bool) -> None:
        self.weight = weight
        self.mask_zero = mask_zero

    @property
    def config(self) -> dict[str, Any]:
        """The sizes, and whether 0 is a mask."""
        return {"shape": self.weight.shape, "mask_zero": self.mask_zero}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the rows: of x (N, T), an array (N, T, F)."""
        return self.weight[np.asarray(x).astype(np.intp)]

    def axes_after(self, axes: Axes) -> Axes:
        """Return those of x and one more."""
        return axes.to(axes.rank + 1, axes.time)

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return the rows, and the mask of the numbers other than 0."""
        return self(x), np.asarray(x) != 0 if self.mask_zero else None


# Activations -----------------------------------------------------------------------------------


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the logarithm of the softmax."""
    from scipy import special

    return special.log_softmax(x, axis)


def hard_sigmoid(x: np.ndarray, slope: float = 0.2, offset: float = 0.5) -> np.ndarray:
    """Return slope x + offset, within 0 and 1."""
    return np.clip(np.float32(slope) * x + np.float32(offset), 0, 1)


def leaky_relu(x: np.ndarray, slope: float = 0.01) -> np.ndarray:
    """Return x where it is positive, else slope x."""
    return np.where(x >= 0, x, np.float32(slope) * x)


def elu(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """Return x where it is positive, else alpha (exp(x) - 1)."""
    return np.where(x > 0, x, np.float32(alpha) * np.expm1(np.minimum(x, 0)))


def selu(x: np.ndarray) -> np.ndarray:
    """Return the self-normalising elu."""
    return np.float32(1.0507009873554805) * elu(x, 1.6732632423543772)


def softplus(x: np.ndarray) -> np.ndarray:
    """Return log(1 + exp(x))."""
    return np.logaddexp(x, np.zeros((), x.dtype))


def softsign(x: np.ndarray) -> np.ndarray:
    """Return x / (1 + abs(x))."""
    return x / (1 + np.abs(x))


def silu(x: np.ndarray) -> np.ndarray:
    """Return x times its sigmoid."""
    return x * sigmoid(x)


_ACTIVATIONS: Mapping[str, Callable[..., np.ndarray]] = {
    "elu": elu,
    "exponential": np.exp,
    "gelu": gelu,
    "hard_sigmoid": hard_sigmoid,
    "leaky_relu": leaky_relu,
    "log_softmax": log_softmax,
    "relu": relu,
    "selu": selu,
    "sigmoid": sigmoid,
    "silu": silu,
    "softmax": softmax,
    "softplus": softplus,
    "softsign": softsign,
    "swish": silu,
    "tanh": tanh,
}


def activation(name: str, **arguments: Any) -> Apply:
    """Return the layer of an activation.

    Raises
    ------
    ValueError
        If it is none of the usual ones.

    Examples
    --------
    >>> activation("relu")(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return Apply(_ACTIVATIONS[name], **arguments)
