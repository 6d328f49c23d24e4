"""Which steps of the input a loss, or a prediction, rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.family import Trainable
from cylstm.insight.models import Loss, Parts, loss_of, time_first
from cylstm.layers import Layer


@dataclass(frozen=True, eq=False)
class Saliency:
    """What each step of the input gives to a number that a model computes.

    Attributes
    ----------
    gradient : array, (T, N, F)
        The gradient times the input.
    integrated : array, (T, N, F)
        Integrated gradients: the mean gradient on the straight way from the baseline to the input,
        times the distance.
    value, baseline_value : float
        The number at the input, and at the baseline.
    """

    gradient: np.ndarray
    integrated: np.ndarray
    value: float
    baseline_value: float

    @property
    def steps(self) -> np.ndarray:
        """(T, N): the integrated gradients of each step, all its features together."""
        return self.integrated.sum(-1)

    @property
    def error(self) -> float:
        """By how much the integrated gradients miss ``value - baseline_value``, their exact sum.

        A share of the larger of that and of the sum of their sizes.
        """
        exact = self.value - self.baseline_value
        whole = max(abs(exact), float(np.abs(self.steps).sum()))
        return abs(float(self.integrated.sum()) - exact) / whole if whole else 0.0


def saliency(
    model: Trainable[Any] | Layer,
    x: np.ndarray,
    target: np.ndarray,
    loss: Loss | None = None,
    *,
    lengths: Any = None,
    baseline: Any = 0.0,
    points: int = 50,
) -> Saliency:
    """Attribute a loss to the steps of the input, by gradients and integrated gradients [1]_.

    Parameters
    ----------
    model : LSTM, GRU, RNN or Sequential
        Dropout is off. If its first layer is an embedding, the vectors that it gives are the input.
    x, target : array
        A batch, as `cylstm.train.fit` takes it.
    loss : callable, optional
        As of `cylstm.train`: by default cross entropy where the target is integers, else the mean
        square. Any function that returns a number and its gradient by the prediction does: one
        that returns the sum of a class's logits says what speaks for that class.
    lengths : array of int, (N,), optional
    baseline : array or float, default 0
        The input that says nothing, from which integrated gradients start; x's shape, or one that
        NumPy stretches to it.
    points : int, default 50
        How many gradients the integral is a mean of.

    Returns
    -------
    Saliency

    References
    ----------
    .. [1] M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks", ICML 2017.
       https://arxiv.org/abs/1703.01365

    Examples
    --------
    >>> lstm = cylstm.LSTM(3, 4, seed=0)
    >>> x = np.random.default_rng(0).normal(size=(9, 2, 3)).astype("f4")
    >>> found = saliency(lstm, x, np.zeros((9, 2, 4), "f4"))
    >>> found.steps.shape, found.error < 1e-3
    ((9, 2), True)
    """
    points = checks.whole("points", points, 1)
    parts = Parts(model)
    own = parts.lengths_of(x, lengths)
    given, first = parts.embedded(x)
    if given.dtype.kind != "f":
        raise TypeError(f"x: expected real numbers, or an embedding first, got {given.dtype}")
    where = None
    if parts.keeps_time and lengths is not None:
        running = np.arange(parts.shape_of(x)[0])[:, None] < own
        where = time_first(running, parts.batch_first)

    def value_at(point: np.ndarray) -> tuple[float, np.ndarray]:
        prediction, tapes = parts.forward(point, lengths, first)
        value, grad = loss_of(loss, prediction, target, where)
        return value, parts.backward(tapes, grad, first).astype(np.float64)

    try:
        start = np.broadcast_to(np.asarray(baseline, given.dtype), given.shape)
    except ValueError:
        raise ValueError(
            f"baseline: expected the shape {given.shape}, got {np.shape(baseline)}"
        ) from None
    value, grad = value_at(given)
    mean = np.zeros(given.shape)
    for k in range(points):
        share = given.dtype.type((k + 0.5) / points)
        mean += value_at(start + share * (given - start))[1] / points
    return Saliency(
        time_first(grad * given, parts.batch_first),
        time_first(mean * (given.astype(np.float64) - start), parts.batch_first),
        float(value),
        float(value_at(np.ascontiguousarray(start))[0]),
    )
