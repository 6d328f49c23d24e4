"""How far two models' outputs are from each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Difference:
    """How far outputs are from others, the reference.

    Attributes
    ----------
    largest : float
        The largest absolute difference.
    rms : float
        The root of the mean square of the differences.
    relative : float
        That, as a share of the root of the reference's mean square.
    """

    largest: float
    rms: float
    relative: float

    def __str__(self) -> str:
        return (
            f"largest difference {self.largest:.2e}, root of the mean square {self.rms:.2e}, "
            f"{self.relative:.2%} of the reference's"
        )


def compare(
    reference: Callable[..., Any], other: Callable[..., Any], x: Any, **given: Any
) -> Difference:
    """Run two models on one input, and tell how far the second's output is from the first's.

    Parameters
    ----------
    reference, other : LSTM, layer, or what is called as such
    x : array
        Input of both.
    **given
        To be given to both: ``lengths``, ``state``.

    Raises
    ------
    ValueError
        If the outputs differ in shape, or the reference's has no numbers, or not all are finite.

    Examples
    --------
    >>> lstm = cylstm.LSTM(3, 8, seed=0)
    >>> difference = cylstm.compare(lstm, lstm.quantize("int8"), np.ones((5, 2, 3), np.float32))
    >>> difference.relative < 0.01
    True
    """
    expected, got = (_output(model(x, **given)) for model in (reference, other))
    if expected.shape != got.shape:
        raise ValueError(f"other: expected outputs of shape {expected.shape}, got {got.shape}")
    if not expected.size or not np.isfinite(expected).all():
        raise ValueError("reference: expected outputs that are finite numbers, and some of them")
    differences = got - expected
    rms = float(np.sqrt(np.mean(differences**2)))
    scale = float(np.sqrt(np.mean(expected**2)))
    relative = rms / scale if scale else float("inf") if rms else 0.0
    return Difference(float(np.abs(differences).max()), rms, relative)


def _output(returned: Any) -> np.ndarray:
    """Leave out the state that a recurrent network returns."""
    y = returned[0] if isinstance(returned, tuple) else returned
    return np.asarray(y, np.float64)
