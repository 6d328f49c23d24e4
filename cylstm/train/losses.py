"""Losses: each returns its value and its gradient with respect to the prediction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["mse_loss"]


def mse_loss(
    prediction: npt.NDArray[np.floating], target: npt.ArrayLike
) -> tuple[float, npt.NDArray[np.floating]]:
    """Return the mean squared error over all elements, and its gradient.

    Parameters
    ----------
    prediction : ndarray of float32 or float64
        What the model said, of any shape that is not empty.
    target : array_like
        What it should have said, of the same shape: nothing is broadcast.

    Returns
    -------
    loss : float
        ``mean((prediction - target)**2)``, summed in float64.
    gradient : ndarray
        ``2 * (prediction - target) / prediction.size``, of the prediction's shape and dtype.

    Raises
    ------
    TypeError
        If `prediction` is not float32 or float64.
    ValueError
        If the shapes differ or are empty.

    Examples
    --------
    >>> loss, gradient = mse_loss(np.array([1.0, 4.0]), [1.0, 2.0])
    >>> loss, gradient
    (2.0, array([0., 2.]))
    """
    prediction = np.asarray(prediction)
    if prediction.dtype not in (np.float32, np.float64):
        raise TypeError(f"prediction must be float32 or float64, not {prediction.dtype}")
    target = np.asarray(target, dtype=prediction.dtype)
    if target.shape != prediction.shape:
        raise ValueError(
            f"target must have the prediction's shape {prediction.shape}, not {target.shape}"
        )
    if prediction.size == 0:
        raise ValueError(f"prediction must not be empty, but has shape {prediction.shape}")
    error = prediction - target
    loss = float(np.mean(np.square(error), dtype=np.float64))
    error *= 2 / error.size
    return loss, error
