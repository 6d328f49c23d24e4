"""What is done to gradients between the backward pass and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm.core import training
from cylstm.layers.gradients import Gradient, RowGradient, checked_gradient

__all__ = ["clip_grad_norm", "clip_grad_value"]

Array = npt.NDArray[np.floating[Any]]


def values_of(gradient: Gradient) -> Array:
    """Return the numbers of a gradient that may differ from zero: the array that holds them."""
    return gradient.values if isinstance(gradient, RowGradient) else gradient


def norm_of(grads: Mapping[str, Gradient]) -> float:
    """Return the root of the sum of all squares, summed in float64."""
    return math.sqrt(training.sum_of_squares([_plain(values_of(one)) for one in grads.values()]))


def clip_grad_norm(
    grads: Mapping[str, Gradient],
    max_norm: float,
    *,
    error_if_nonfinite: bool = True,
) -> float:
    """Scale gradients in place so that their norm, all taken together, is at most `max_norm`.

    Exploding gradients are what makes the training of recurrent networks diverge [1]_.

    Parameters
    ----------
    grads : mapping of str to ndarray or RowGradient
        The parameters' gradients, as `Layer.backward` returns them; changed in place.
    max_norm : float
        The largest norm to leave; infinite to measure only.
    error_if_nonfinite : bool, default True
        Whether a norm that is infinite or NaN is an error. If not, such gradients are left as
        they are.

    Returns
    -------
    float
        The norm before clipping: the root of the sum of all squares, summed in float64.

    Raises
    ------
    TypeError
        If a gradient is not an array of float32 or float64.
    ValueError
        If `max_norm` is not a positive number, a gradient is read-only, or the norm is infinite or
        NaN. No gradient is changed then.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural
       networks", ICML 2013. https://arxiv.org/abs/1211.5063

    Examples
    --------
    >>> grads = {"weight": np.array([3.0, 0.0]), "bias": np.array([4.0])}
    >>> clip_grad_norm(grads, max_norm=1.0)
    5.0
    >>> grads["weight"].round(3), grads["bias"].round(3)
    (array([0.6, 0. ]), array([0.8]))
    """
    max_norm = positive("max_norm", max_norm)
    arrays = _to_change(grads)
    norm = norm_of(grads)
    if not math.isfinite(norm):
        if error_if_nonfinite:
            raise ValueError(f"grads: {first_nonfinite(grads)}; a smaller learning rate may help")
        return norm
    scale = max_norm / (norm + 1e-6)  # PyTorch's formula, its 1e-6 included
    if scale < 1:
        training.scale([gradient for gradient in arrays if is_plain(gradient)], scale)
        for gradient in arrays:
            if not is_plain(gradient):
                np.multiply(gradient, scale, out=gradient)
    return norm


def clip_grad_value(grads: Mapping[str, Gradient], max_value: float) -> None:
    """Bound each number of the gradients, in place, to [-max_value, max_value].

    Parameters
    ----------
    grads : mapping of str to ndarray or RowGradient
        The parameters' gradients, as `Layer.backward` returns them; changed in place. NaN stays.
    max_value : float
        The largest magnitude to leave.

    Raises
    ------
    TypeError
        If a gradient is not an array of float32 or float64.
    ValueError
        If `max_value` is not a positive number, or a gradient is read-only.

    Examples
    --------
    >>> grads = {"weight": np.array([3.0, -0.5])}
    >>> clip_grad_value(grads, 1.0)
    >>> grads["weight"]
    array([ 1. , -0.5])
    """
    max_value = positive("max_value", max_value)
    for gradient in _to_change(grads):
        np.clip(gradient, -max_value, max_value, out=gradient)


def _to_change(grads: Mapping[str, Gradient]) -> list[Array]:
    """Return the arrays of all gradients, which can be changed in place."""
    arrays = []
    for name, gradient in grads.items():
        where = f"grads[{name!r}]"
        values = values_of(gradient)
        if not isinstance(values, np.ndarray):
            raise TypeError(f"{where}: expected an array, got {type(values).__name__}")
        if not checked_gradient(where, values).flags.writeable:
            raise ValueError(f"{where}: expected a writable array, got a read-only one")
        arrays.append(values)
    return arrays


def positive(name: str, value: float) -> float:
    """Return an argument as a float if it is a number above 0."""
    if not (isinstance(value, Real) and value > 0):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)


def is_plain(array: Array) -> bool:
    """Return whether the kernels take it as it is."""
    return array.flags.c_contiguous and array.dtype.isnative


def _plain(array: Array) -> Array:
    if is_plain(array):
        return array
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def first_nonfinite(grads: Mapping[str, Gradient]) -> str:
    """Say why the norm is not finite."""
    for name, gradient in grads.items():
        if not np.isfinite(values_of(gradient)).all():
            return f"the gradient of {name} is not finite"
    return "the gradients are finite, but their norm overflows float64"
