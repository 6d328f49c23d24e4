"""Normalisation of each step's features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.layers.base import Array, Input, Layer, as_array, check_gradient
from cylstm.parameters import Parameters


class LayerNorm(Layer):
    """Each step's features with mean 0 and variance 1, then scaled and shifted [1]_.

    ``y = (x - mean) / sqrt(variance + eps) * weight + bias``, over the last axis.

    Parameters
    ----------
    normalized_shape : int
        F, the size of the last axis.
    eps : float, default 1e-5
        What is added to the variance, which is that of F numbers, not of F - 1.
    elementwise_affine : bool, default True
        Whether there are a weight and a bias.
    bias : bool, default True
        Whether there is a bias, where there is a weight.
    dtype : {"float32", "float64"}

    Raises
    ------
    TypeError, ValueError
        If the size is not a positive integer, or `eps` not a positive number.

    Notes
    -----
    The parameters are ``weight`` (F,), at first one, and ``bias`` (F,), at first zero: names,
    shapes and arguments are those of ``torch.nn.LayerNorm`` over one axis. Means are taken in
    float64. A row's result does not depend on the others.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016.
       https://arxiv.org/abs/1607.06450

    Examples
    --------
    >>> LayerNorm(3)(np.array([[1.0, 2.0, 3.0]], np.float32)).round(3)
    array([[-1.225,  0.   ,  1.225]], dtype=float32)
    """

    steps_alone = True

    def __init__(
        self,
        normalized_shape: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        self.normalized_shape = checks.whole("normalized_shape", normalized_shape, 1)
        self.eps = checks.finite("eps", eps)
        if self.eps <= 0:
            raise ValueError(f"eps: expected a positive number, got {eps!r}")
        self.elementwise_affine = checks.is_true_or_false("elementwise_affine", elementwise_affine)
        self.bias = checks.is_true_or_false("bias", bias)
        self.dtype = checks.floating("dtype", dtype)
        names = ("weight", "bias")[: self.elementwise_affine * (1 + self.bias)]
        self._store = Parameters(dict.fromkeys(names, (self.normalized_shape,)), self.dtype)
        for name, memory in self._store.memory().items():
            memory[...] = name == "weight"

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer."""
        return {
            "normalized_shape": self.normalized_shape,
            "eps": self.eps,
            "elementwise_affine": self.elementwise_affine,
            "bias": self.bias,
            "dtype": self.dtype.name,
        }

    @classmethod
    def from_saved(cls, config: dict[str, Any], state: Mapping[str, Array]) -> Layer:
        """Make the layer that a file describes; see `Layer.from_saved`."""
        if config.get("elementwise_affine") is True:  # before the size takes memory
            shape = (config.get("normalized_shape"),)
            if "weight" not in state or state["weight"].shape != shape:
                raise ValueError(f"weight: expected shape {shape}, got another or none")
        return super().from_saved(config, state)

    def run(self, x: Input) -> tuple[Array, None]:
        """Return `x` normalised, and no state."""
        return self.forward(x)[0], None

    def forward(self, x: Input) -> tuple[Array, tuple[Array, Array, int]]:
        """Return `x` normalised, and the tape.

        Parameters
        ----------
        x : ndarray
            Of shape (..., F), with any number of axes before the last.

        Raises
        ------
        TypeError, ValueError
            If `x` is not an array of the layer's dtype, or its last axis not F long.
        """
        x = as_array("x", x, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.normalized_shape:
            raise ValueError(f"x: expected shape (..., {self.normalized_shape}), got {x.shape}")
        with np.errstate(invalid="ignore", over="ignore"):  # of infinities comes NaN, as anywhere
            # A copy of its own, contiguous: a row's sum is then in one order, wherever it lies.
            centred = np.array(x, np.float64, order="C")
            centred -= centred.mean(axis=-1, keepdims=True)
            inverse = 1 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + self.eps)
            centred *= inverse
        with self._store.reading():
            views, changes = self._store.views, self._store.version.changes
            y = centred * views["weight"] if "weight" in views else centred
            y = y + views["bias"] if "bias" in views else y
        return y.astype(self.dtype), (centred, inverse, changes)

    def backward(
        self, tape: tuple[Array, Array, int], grad_y: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Return the gradients of the input and of the parameters.

        Parameters
        ----------
        tape : tuple
            What `forward` returned.
        grad_y : ndarray
            The gradient of the output, of its shape.

        Raises
        ------
        TypeError, ValueError
            If `grad_y` does not have the output's dtype and shape, or the parameters have changed
            since `forward`.
        """
        normal, inverse, changes = tape
        grad_y = as_array("grad_y", grad_y, self.dtype)
        check_gradient(grad_y, normal.shape)
        grad = np.array(grad_y, np.float64, order="C")
        with self._store.reading():
            if changes != self._store.version.changes:
                raise ValueError("tape: the parameters have changed since forward; run it again")
            rows = tuple(range(grad.ndim - 1))
            grads = {}
            if "weight" in self._store.views:
                grads["weight"] = (grad * normal).sum(axis=rows).astype(self.dtype)
            if "bias" in self._store.views:
                grads["bias"] = grad.sum(axis=rows).astype(self.dtype)
            if "weight" in self._store.views:
                grad *= self._store.views["weight"]
        mean = grad.mean(axis=-1, keepdims=True)
        along = (grad * normal).mean(axis=-1, keepdims=True)
        return ((grad - mean - normal * along) * inverse).astype(self.dtype), grads
