"""How often each gate stands open or shut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cylstm import checks
from cylstm.insight.models import name_of_cell, time_first
from cylstm.trace import Trace

GATES = ("i", "f", "o", "r", "z")


@dataclass(frozen=True, eq=False)
class Saturation:
    """The shares of the steps at which the gates of one layer and direction are saturated.

    Attributes
    ----------
    name : str
        Of the layer and direction.
    below, above : dict of str to array, (H,)
        For each gate and unit the share of steps at which it is below `low`, and above `high`.
    low, high : float
    """

    name: str
    below: dict[str, np.ndarray]
    above: dict[str, np.ndarray]
    low: float
    high: float


def saturation(
    trace: Trace, low: float = 0.1, high: float = 0.9, *, part: str = ""
) -> list[Saturation]:
    """Count at how many steps each unit's gates are below and above two bounds [1]_.

    Parameters
    ----------
    trace : Trace
        From `LSTM.trace`; the steps of all its sequences count alike.
    low, high : float
        The bounds.
    part : str, optional
        Of a model, to be named in the result.

    Returns
    -------
    list of Saturation
        One for each layer and direction.

    References
    ----------
    .. [1] A. Karpathy, J. Johnson, L. Fei-Fei, "Visualizing and understanding recurrent networks",
       2015. https://arxiv.org/abs/1506.02078

    Examples
    --------
    >>> trace = cylstm.LSTM(3, 4, forget_bias=6.0, seed=0).trace(np.ones((9, 2, 3), np.float32))
    >>> saturation(trace)[0].above["f"]
    array([1., 1., 1., 1.])
    """
    low, high = checks.finite("low", low), checks.finite("high", high)
    if low > high:
        raise ValueError(f"low: expected at most high, {high}, got {low}")
    given = []
    for ending in trace.endings:
        gates = {g: rows_of(trace, g + ending) for g in GATES if g + ending in trace}
        below = {gate: (rows < low).mean(0) for gate, rows in gates.items()}
        above = {gate: (rows > high).mean(0) for gate, rows in gates.items()}
        given.append(Saturation(name_of_cell(part, ending), below, above, low, high))
    return given


def rows_of(trace: Trace, name: str) -> np.ndarray:
    """The steps (S, H) of all sequences that are not past their end."""
    array = trace[name]
    if array.ndim == 2:
        array = array[:, None]
    array = time_first(array, trace.batch_first)
    lengths = trace.lengths
    if not lengths.sum():
        raise ValueError("trace: expected at least one step, got none")
    return array[np.arange(len(array))[:, None] < lengths]
