"""What is done to gradients between the backward pass and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

import numpy as np
import numpy.typing as npt

__all__ = ["clip_grad_norm"]


def clip_grad_norm(
    grads: Mapping[str, npt.NDArray[np.floating]],
    max_norm: float,
    *,
    error_if_nonfinite: bool = True,
) -> float:
    """Scale gradients in place so that their norm, all taken together, is at most `max_norm`.

    Exploding gradients are what makes the training of recurrent networks diverge [1]_.

    Parameters
    ----------
    grads : mapping of str to ndarray
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
    ValueError
        If `max_norm` is not a positive number, or the norm is infinite or NaN.

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
    if not (isinstance(max_norm, Real) and max_norm > 0):
        raise ValueError(f"max_norm: expected a positive number, got {max_norm!r}")
    norm = math.sqrt(sum(_sum_of_squares(gradient) for gradient in grads.values()))
    if not math.isfinite(norm):
        if error_if_nonfinite:
            raise ValueError(f"grads: {_first_nonfinite(grads)}; a smaller learning rate may help")
        return norm
    scale = max_norm / (norm + 1e-6)  # PyTorch's formula, its 1e-6 included
    if scale < 1:
        for gradient in grads.values():
            np.multiply(gradient, scale, out=gradient)
    return norm


def _sum_of_squares(gradient: npt.NDArray[np.floating]) -> float:
    """Return the sum of squares in float64; einsum converts piece by piece, without a copy."""
    flat = gradient.reshape(-1)
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))


def _first_nonfinite(grads: Mapping[str, npt.NDArray[np.floating]]) -> str:
    """Say why the norm is not finite."""
    for name, gradient in grads.items():
        if not np.isfinite(gradient).all():
            return f"the gradient of {name} is not finite"
    return "the gradients are finite, but their norm overflows float64"
