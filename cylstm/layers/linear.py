"""An affine map of the last axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.core.affine import Affine
from cylstm.layers.base import Array, Layer, as_array, check_gradient, check_saved_weight
from cylstm.parameters import Parameters


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
        check_saved_weight(state, (config.get("out_features"), config.get("in_features")))
        return super().from_saved(config, state)

    def run(self, x: Array) -> tuple[Array, None]:
        """Return the map of `x`, and no state."""
        with self._store.reading():
            fast = self._affine.call(x)
            return (self._map(self._checked_input(x)) if fast is None else fast), None

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
        return self._forward_lent(x, is_lent=False)

    def _forward_lent(
        self, x: Array, *, is_lent: bool, lends: bool = False
    ) -> tuple[Array, tuple[Array, int]]:
        """As `forward`; an x that is lent nobody changes, and the tape needs no copy."""
        x = self._checked_input(x)
        kept = x if is_lent else x.copy(order="C")
        with self._store.reading():
            return self._map(x), (kept, self._store.version.changes)

    def _checked_input(self, x: Array) -> Array:
        x = as_array("x", x, self.dtype)
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
        grad_y = as_array("grad_y", grad_y, self.dtype)
        check_gradient(grad_y, (*x.shape[:-1], self.out_features))
        rows = np.ascontiguousarray(grad_y.reshape(-1, self.out_features))
        with self._store.reading():
            if changes != self._store.version.changes:
                raise ValueError("tape: the parameters have changed since forward; run it again")
            grad_x, weight, bias = self._affine.backward(x.reshape(-1, self.in_features), rows)
        grads = {"weight": weight}
        if self.bias:
            grads["bias"] = bias
        return grad_x.reshape(x.shape), grads
