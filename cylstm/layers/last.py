"""The last step of each sequence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.layers.base import Array, Layer, StepsAlone, check_gradient
from cylstm.layers.gradients import Gradient


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
        check_gradient(grad_y, (*last.shape, shape[-1]))
        grad_x = np.zeros(shape, grad_y.dtype)
        real = np.where((last >= 0)[..., None], grad_y, 0)
        np.put_along_axis(self._by_time(grad_x), last[None, ..., None], real[None], axis=0)
        return grad_x, {}

    def stream(self, batch_size: int = 1) -> StepsAlone:
        """Return what gives each step as it comes: until now it is the last."""
        checks.whole("batch_size", batch_size)
        return StepsAlone(lambda x: x)

    def _by_time(self, x: Array) -> Array:
        """Return a view with the axis of time first."""
        return x.swapaxes(0, 1) if self.batch_first and x.ndim == 3 else x
