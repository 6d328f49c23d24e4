"""Losses: each returns its value and its gradient with respect to the prediction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cylstm import checks

__all__ = ["mse_loss"]


def mse_loss(
    prediction: npt.NDArray[np.floating], target: npt.NDArray[np.floating]
) -> tuple[float, npt.NDArray[np.floating]]:
    """Return the mean squared error over all elements, and its gradient.

    Parameters
    ----------
    prediction : ndarray of float32 or float64
        What the model said, of any shape that is not empty.
    target : ndarray
        What it should have said, of the same shape and dtype: nothing is broadcast or converted.

    Returns
    -------
    loss : float
        ``mean((prediction - target)**2)``, summed in float64.
    gradient : ndarray
        ``2 * (prediction - target) / prediction.size``, of the prediction's shape and dtype.

    Raises
    ------
    TypeError
        If an argument is not an array, or not of such a dtype.
    ValueError
        If the shapes differ or are empty.

    Examples
    --------
    >>> loss, gradient = mse_loss(np.array([1.0, 4.0]), np.array([1.0, 2.0]))
    >>> loss, gradient
    (2.0, array([0., 2.]))
    """
    prediction = checks.is_array("prediction", prediction)
    target = checks.is_array("target", target)
    if prediction.dtype not in (np.float32, np.float64):
        raise TypeError(f"prediction: expected float32 or float64, got {prediction.dtype}")
    if target.dtype != prediction.dtype:
        raise TypeError(f"target: expected dtype {prediction.dtype}, got {target.dtype}")
    if target.shape != prediction.shape:
        raise ValueError(f"target: expected shape {prediction.shape}, got {target.shape}")
    if prediction.size == 0:
        raise ValueError(f"prediction: expected at least one element, got shape {prediction.shape}")
    error = prediction - target
    loss = float(np.mean(np.square(error), dtype=np.float64))
    error *= 2 / error.size
    return loss, error
