"""Units whose state tells of something that can be named."""

from __future__ import annotations

import numpy as np

from cylstm import checks


def correlations(states: np.ndarray, property_: np.ndarray) -> np.ndarray:
    """The correlation of each unit's state with a property of the steps [1]_.

    Parameters
    ----------
    states : array, (..., H)
        Such as a trace's ``c`` or ``tanh_c``.
    property_ : array, (...)
        A number, or a truth, for each step: whether it is in quotes, the place in its line.

    Returns
    -------
    array, (H,)
        Pearson's coefficients, in float64; zero for a unit that does not change.

    Notes
    -----
    The unit that fits best of many fits by chance too: choose it on some steps, and judge it on
    others.

    References
    ----------
    .. [1] A. Karpathy, J. Johnson, L. Fei-Fei, "Visualizing and understanding recurrent networks",
       2015. https://arxiv.org/abs/1506.02078

    Examples
    --------
    >>> states = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    >>> correlations(states, np.array([5.0, 3.0, 1.0]))
    array([-1.,  0.])
    """
    states, wanted = checks.is_array("states", states), checks.is_array("property_", property_)
    if states.ndim == 0 or wanted.shape != states.shape[:-1]:
        raise ValueError(
            f"property_: expected a number for each step, shape {states.shape[:-1]}, "
            f"got {wanted.shape}"
        )
    if wanted.size < 2:
        raise ValueError(f"property_: expected at least two steps, got {wanted.size}")
    rows = states.reshape(-1, states.shape[-1]).astype(np.float64)
    about = wanted.reshape(-1).astype(np.float64)
    if np.ptp(about) == 0:
        raise ValueError("property_: expected one that changes, got the same at every step")
    rows -= rows.mean(0)
    about -= about.mean()
    sizes = np.sqrt(np.square(rows).sum(0) * np.square(about).sum())
    return np.divide(about @ rows, sizes, out=np.zeros_like(sizes), where=sizes > 0)
