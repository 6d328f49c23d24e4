"""Activations: functions of each number, or of each step's features, without parameters."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.core.kernels import activate
from cylstm.layers.base import Array, Input, Layer, check_gradient
from cylstm.layers.gradients import Gradient

# The functions, of float32 and float64 ----------------------------------------------------------


def relu(x: np.ndarray) -> np.ndarray:
    """Return max(x, 0)."""
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    return _by_kernel("sigmoid", x)


def tanh(x: np.ndarray) -> np.ndarray:
    """Return the hyperbolic tangent."""
    return _by_kernel("tanh", x)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return exp(x) over its sum along the axis."""
    x = np.ascontiguousarray(np.moveaxis(x, axis, -1))  # each row's sum is then in one order
    with np.errstate(invalid="ignore"):  # of infinities, as anywhere
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        y = powers / powers.sum(axis=-1, keepdims=True)
    return np.moveaxis(y, -1, axis)


def gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """Return x times the probability that a standard normal number is less."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        if approximate == "none":
            from scipy.special import ndtr

            return x * ndtr(x)
        return x * (0.5 * (1 + tanh(_inner(x))))


_SLOPE, _CUBE = math.sqrt(2 / math.pi), 0.044715  # of GELU's approximation


def _inner(x: np.ndarray) -> np.ndarray:
    return _SLOPE * (x + _CUBE * x * x * x)


def _by_kernel(name: str, x: np.ndarray) -> np.ndarray:
    """Let the recurrent layers' own function do it."""
    if x.dtype not in (np.float32, np.float64):  # of models that were read
        dtype = x.dtype if x.dtype.kind == "f" else np.float32
        return _by_kernel(name, x.astype(np.float32)).astype(dtype)
    return activate((name, 0.0, 0.0), x.ravel()).reshape(x.shape) if x.size else x.copy()


# The layers ---------------------------------------------------------------------------------------


class Activation(Layer):
    """What `ReLU`, `Sigmoid`, `Tanh`, `Softmax` and `GELU` share; results are of x's own dtype."""

    steps_alone = True
    function: Callable[..., np.ndarray]  # from the input to the output

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer."""
        return {}

    def run(self, x: Input) -> tuple[Array, None]:
        """Return the function of `x`, and no state."""
        return self._output(self._checked(x)), None

    def forward(self, x: Input) -> tuple[Array, Array]:
        """Return the function of `x`, and the tape.

        Parameters
        ----------
        x : ndarray of float32 or float64
            Of any shape; for a softmax of at least one axis.

        Raises
        ------
        TypeError, ValueError
            If `x` is none.
        """
        x = self._checked(x)
        y = self._output(x)
        return y, self._kept(x, y).copy()

    def backward(self, tape: Array, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradient of the input, and no others."""
        grad_y = checks.is_array("grad_y", grad_y)
        if grad_y.dtype != tape.dtype:
            raise TypeError(f"grad_y: expected dtype {tape.dtype}, got {grad_y.dtype}")
        check_gradient(grad_y, tape.shape)
        return self._gradient(tape, grad_y), {}

    def _checked(self, x: Input) -> Array:
        x = checks.is_array("x", x)
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"x: expected float32 or float64, got {x.dtype}")
        return x

    def _output(self, x: Array) -> Array:
        return type(self).function(x)

    def _kept(self, x: Array, y: Array) -> Array:
        """Return what the gradient follows from."""
        return y

    @abstractmethod
    def _gradient(self, kept: Array, grad_y: Array) -> Array:
        """Return the gradient of the input."""


class ReLU(Activation):
    """``max(x, 0)``.

    Examples
    --------
    >>> ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    function = staticmethod(relu)

    def _gradient(self, kept: Array, grad_y: Array) -> Array:
        return np.where(kept > 0, grad_y, grad_y.dtype.type(0))


class Sigmoid(Activation):
    """``1 / (1 + exp(-x))``.

    Examples
    --------
    >>> Sigmoid()(np.array([0.0]))
    array([0.5])
    """

    function = staticmethod(sigmoid)

    def _gradient(self, kept: Array, grad_y: Array) -> Array:
        return grad_y * (kept * (1 - kept))


class Tanh(Activation):
    """The hyperbolic tangent.

    Examples
    --------
    >>> Tanh()(np.array([0.0, 1e9]))
    array([0., 1.])
    """

    function = staticmethod(tanh)

    def _gradient(self, kept: Array, grad_y: Array) -> Array:
        return grad_y * (1 - kept * kept)


class Softmax(Activation):
    """Probabilities over the last axis: ``exp(x) / sum(exp(x))``.

    For training with `cylstm.train.cross_entropy_loss` a model ends without it: the loss takes
    logits.

    Parameters
    ----------
    dim : int, default -1
        The axis; no other than the last.

    Examples
    --------
    >>> Softmax()(np.zeros((1, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    """

    function = staticmethod(softmax)

    def __init__(self, dim: int = -1) -> None:
        if dim != -1 or isinstance(dim, bool):
            raise ValueError(f"dim: expected -1, the last axis, got {dim!r}")
        self.dim = -1

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer."""
        return {"dim": self.dim}

    def _checked(self, x: Input) -> Array:
        x = super()._checked(x)
        if x.ndim == 0 or x.shape[-1] == 0:
            raise ValueError(f"x: expected shape (..., C), got {x.shape}")
        return x

    def _gradient(self, kept: Array, grad_y: Array) -> Array:
        products = np.ascontiguousarray(grad_y * kept)
        return products - kept * products.sum(axis=-1, keepdims=True)


class GELU(Activation):
    """``x`` times the probability that a standard normal number is less [1]_.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        The second is ``x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``.

    References
    ----------
    .. [1] D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016.
       https://arxiv.org/abs/1606.08415

    Examples
    --------
    >>> GELU()(np.array([-1.0, 0.0, 1.0])).round(3)
    array([-0.159,  0.   ,  0.841])
    """

    function = staticmethod(gelu)

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer."""
        return {"approximate": self.approximate}

    def _output(self, x: Array) -> Array:
        return gelu(x, self.approximate)

    def _kept(self, x: Array, y: Array) -> Array:
        return x

    def _gradient(self, kept: Array, grad_y: Array) -> Array:
        x = kept
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            if self.approximate == "none":
                from scipy.special import ndtr

                density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
                return grad_y * (ndtr(x) + x * density)
            t = tanh(_inner(x))
            slope = _SLOPE * (1 + 3 * _CUBE * x * x)
            return grad_y * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)
