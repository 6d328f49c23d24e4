"""Losses: each returns its value and its gradient with respect to the prediction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.core import training

__all__ = ["IGNORED", "cross_entropy_loss", "huber_loss", "mae_loss", "mse_loss"]

Array = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

IGNORED = -100  # the label that does not count, unless told otherwise; PyTorch's


def mse_loss(prediction: Array, target: Array, *, where: Mask | None = None) -> tuple[float, Array]:
    """Return the mean squared error over all elements, and its gradient.

    Parameters
    ----------
    prediction : ndarray of float32 or float64
        What the model said, of any shape that is not empty.
    target : ndarray
        What it should have said, of the same shape and dtype: nothing is broadcast or converted.
    where : ndarray of bool, optional
        Which elements count, of the prediction's first axes: (T, N) for the steps of sequences.

    Returns
    -------
    loss : float
        ``mean((prediction - target)**2)``, summed in float64.
    gradient : ndarray
        ``2 * (prediction - target) / prediction.size``, of the prediction's shape and dtype; zero
        where `where` is not.

    Raises
    ------
    TypeError
        If an argument is not an array, or not of such a dtype.
    ValueError
        If the shapes differ, or nothing counts.

    Examples
    --------
    >>> loss, gradient = mse_loss(np.array([1.0, 4.0]), np.array([1.0, 2.0]))
    >>> loss, gradient
    (2.0, array([0., 2.]))
    """
    error, count = _error(prediction, target, where)
    loss = float(np.sum(np.square(error), dtype=np.float64)) / count
    error *= 2 / count
    return loss, error


def mae_loss(prediction: Array, target: Array, *, where: Mask | None = None) -> tuple[float, Array]:
    """Return the mean absolute error over all elements, and its gradient.

    Parameters
    ----------
    prediction, target, where
        As for `mse_loss`.

    Returns
    -------
    loss : float
        ``mean(abs(prediction - target))``, summed in float64.
    gradient : ndarray
        ``sign(prediction - target) / prediction.size``: zero where they are equal.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`.

    Examples
    --------
    >>> mae_loss(np.array([1.0, 4.0]), np.array([1.0, 2.0]))
    (1.0, array([0. , 0.5]))
    """
    error, count = _error(prediction, target, where)
    loss = float(np.sum(np.abs(error), dtype=np.float64)) / count
    np.sign(error, out=error)
    error /= count
    return loss, error


def huber_loss(
    prediction: Array, target: Array, *, delta: float = 1.0, where: Mask | None = None
) -> tuple[float, Array]:
    """Return Huber's loss [1]_, and its gradient: squared near the target, absolute far from it.

    Parameters
    ----------
    prediction, target, where
        As for `mse_loss`.
    delta : float, default 1
        The error at which the one goes over into the other.

    Returns
    -------
    loss : float
        The mean of ``error**2 / 2`` for errors up to `delta`, of
        ``delta * (abs(error) - delta / 2)`` beyond.
    gradient : ndarray
        ``clip(error, -delta, delta) / prediction.size``.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`, and for a `delta` that is not a positive number.

    References
    ----------
    .. [1] P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical
       Statistics 35(1), 1964.

    Examples
    --------
    >>> huber_loss(np.array([1.0, 4.0]), np.array([0.0, 0.0]))
    (2.0, array([0.5, 0.5]))
    """
    delta = checks.finite("delta", delta)
    if delta <= 0:
        raise ValueError(f"delta: expected a positive number, got {delta}")
    error, count = _error(prediction, target, where)
    near = np.clip(error, -delta, delta)
    error -= near / 2
    error *= near  # near (error - near / 2) is error^2 / 2 within, delta (|error| - delta / 2) out
    loss = float(np.sum(error, dtype=np.float64)) / count
    near /= count
    return loss, near


def cross_entropy_loss(
    prediction: Array,
    target: npt.NDArray[np.integer[Any]],
    *,
    ignore_index: int = IGNORED,
    where: Mask | None = None,
) -> tuple[float, Array]:
    """Return the mean of -log(probability of the label), and its gradient by the logits.

    Parameters
    ----------
    prediction : ndarray of float32 or float64, (..., C)
        The logits of C classes, of which the probabilities are the softmax. Any finite values.
    target : ndarray of integers, (...)
        The labels, from 0 to C - 1.
    ignore_index : int, default -100
        A label that stands for none: such an element does not count.
    where : ndarray of bool, optional
        Which elements count, of the target's first axes.

    Returns
    -------
    loss : float
        In nats; ``exp(loss)`` is the perplexity, ``loss / log(2)`` bits.
    gradient : ndarray, (..., C)
        ``(softmax(prediction) - one_hot(target)) / count``; zero for what does not count.

    Raises
    ------
    TypeError
        If an argument is not an array, or not of such a dtype.
    ValueError
        If the shapes do not fit, a label is no class, or nothing counts.

    Examples
    --------
    >>> loss, gradient = cross_entropy_loss(np.zeros((1, 4)), np.array([2]))
    >>> round(loss, 3), gradient
    (1.386, array([[ 0.25,  0.25, -0.75,  0.25]]))
    """
    prediction = _prediction(prediction)
    if prediction.ndim == 0:
        raise ValueError("prediction: expected logits of shape (..., C), got shape ()")
    labels, counts = _labels(prediction, target, ignore_index, where)
    rows = prediction.reshape(-1, prediction.shape[-1])
    labels[~counts] = -1
    count = int(np.count_nonzero(counts))
    losses, gradient = training.cross_entropy(
        np.ascontiguousarray(rows), labels.reshape(-1), 1 / count
    )
    return float(losses.sum()) / count, gradient.reshape(prediction.shape)


def _error(prediction: Array, target: Array, where: Mask | None) -> tuple[Array, int]:
    """Return the difference, zero where it does not count, and how many elements do."""
    prediction, target = _prediction(prediction), checks.is_array("target", target)
    if target.dtype != prediction.dtype:
        raise TypeError(f"target: expected dtype {prediction.dtype}, got {target.dtype}")
    if target.shape != prediction.shape:
        raise ValueError(f"target: expected shape {prediction.shape}, got {target.shape}")
    error = np.asarray(prediction - target)
    if where is None:
        return error, error.size
    where = _mask(where, prediction.shape)
    error[~where] = 0
    return error, int(np.count_nonzero(where)) * math.prod(prediction.shape[where.ndim :])


def _labels(
    prediction: Array, target: Any, ignore_index: int, where: Mask | None
) -> tuple[npt.NDArray[np.intp], Mask]:
    """Return the labels, 0 for those that do not count, and which do."""
    ignore_index = checks.whole("ignore_index", ignore_index, -checks.LARGEST)
    target = checks.is_array("target", target)
    if target.dtype.kind not in "iu":
        raise TypeError(f"target: expected integers, got {target.dtype}")
    if target.shape != prediction.shape[:-1]:
        raise ValueError(f"target: expected shape {prediction.shape[:-1]}, got {target.shape}")
    counts = np.asarray(target != ignore_index)
    if where is not None:
        where = _mask(where, target.shape)
        counts &= where.reshape(*where.shape, *(1,) * (target.ndim - where.ndim))
    if not counts.any():
        raise ValueError("target: expected at least one label that counts, got none")
    labels = np.where(counts, target, 0).astype(np.intp)
    classes = prediction.shape[-1]
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"target: expected labels from 0 to {classes - 1}, got {wrong}")
    return labels, counts


def _prediction(prediction: Any) -> Array:
    """Check the prediction."""
    prediction = checks.is_array("prediction", prediction)
    if prediction.dtype not in (np.float32, np.float64):
        raise TypeError(f"prediction: expected float32 or float64, got {prediction.dtype}")
    if prediction.size == 0:
        raise ValueError(f"prediction: expected at least one element, got shape {prediction.shape}")
    return prediction


def _mask(where: Any, shape: tuple[int, ...]) -> Mask:
    """Check which elements count."""
    where = checks.is_array("where", where)
    if where.dtype != np.bool_:
        raise TypeError(f"where: expected bool, got {where.dtype}")
    if where.shape != shape[: where.ndim]:
        raise ValueError(
            f"where: expected the first sizes of {checks.shape_text(shape)}, got {where.shape}"
        )
    if not where.any():
        raise ValueError("where: expected at least one element that counts, got none")
    return where
