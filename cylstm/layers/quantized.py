"""A linear layer of int8 or bfloat16 weights, for inference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from cylstm import checks, quantization
from cylstm.core.affine import Affine
from cylstm.layers.base import Array, Layer, as_array, check_saved_weight
from cylstm.layers.linear import Linear
from cylstm.quantization import SCALE, Fixed


class QuantizedLinear(Layer):
    """A `Linear` of int8 or bfloat16 weights, made by `Sequential.quantize`; it does not train.

    Each row of x is rounded with a scale of its own, as `cylstm.QuantizedLSTM` does it.

    Examples
    --------
    >>> from cylstm.layers import Sequential
    >>> model = Sequential(Linear(3, 2, seed=0)).quantize("int8")
    >>> model[0]
    QuantizedLinear(in_features=3, out_features=2, bias=True, weights='int8')
    >>> model(np.ones((5, 3), np.float32)).shape
    (5, 2)
    """

    steps_alone = True

    def __init__(self, in_features: int, out_features: int, bias: bool, weights: str) -> None:
        self.in_features = checks.whole("in_features", in_features, 1)
        self.out_features = checks.whole("out_features", out_features, 1)
        self.bias = checks.is_true_or_false("bias", bias)
        self.weights = quantization.checked_format(weights)

    @classmethod
    def of(cls, linear: Linear, weights: str) -> QuantizedLinear:
        """Round a layer's weight."""
        if linear.dtype != np.float32:
            raise ValueError(f"dtype: expected float32 to quantize, got {linear.dtype}")
        made = cls(linear.in_features, linear.out_features, linear.bias, weights)
        made._keep(quantization.rounded(made.weights, linear.state_dict()))
        return made

    def _keep(self, stored: Mapping[str, np.ndarray]) -> None:
        self._store = Fixed(stored)  # type: ignore[assignment]

    @property
    def config(self) -> dict[str, Any]:
        """The sizes, whether there is a bias, and the format of the weight."""
        names = "in_features", "out_features", "bias", "weights"
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_saved(cls, config: dict[str, Any], state: Mapping[str, Array]) -> Layer:
        """Make the layer that a file describes; see `Layer.from_saved`."""
        shape = config.get("out_features"), config.get("in_features")
        check_saved_weight(state, shape)
        layer = cls(**config)
        if layer.config != config:
            raise ValueError(f"config: expected {layer.config}, got another")
        shapes: dict[str, tuple[int, ...]] = {"weight": (layer.out_features, layer.in_features)}
        if layer.bias:
            shapes["bias"] = (layer.out_features,)
        layer._keep(quantization.checked_tensors(layer.weights, shapes, state))
        return layer

    def forward(self, x: Array) -> NoReturn:
        """Refuse: weights of few bits do not train."""
        raise TypeError(f"forward: {self.weights} weights do not train; train, then quantize")

    def backward(self, tape: Any, grad_y: Array) -> NoReturn:
        """Refuse, as `forward` does."""
        raise TypeError(f"backward: {self.weights} weights do not train; train, then quantize")

    def run(self, x: Array, **given: Any) -> tuple[Array, None]:
        """Return the map of `x`, (..., in_features), and no state."""
        fast = self._affine.call(x)
        if fast is not None:
            return fast, None
        x = as_array("x", x, np.dtype(np.float32))
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), got {x.shape}")
        rows = np.ascontiguousarray(x.reshape(-1, self.in_features))
        return self._affine.run(rows).reshape(*x.shape[:-1], self.out_features), None

    @cached_property
    def _affine(self) -> Affine:
        views, version = self._store.views, self._store.version
        scale = views.get("weight" + SCALE)
        return Affine(views["weight"], views.get("bias"), version, scale=scale)

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "parameters": dict(self._store.views)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["config"])  # type: ignore[misc]
        self._keep(state["parameters"])
