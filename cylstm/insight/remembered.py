"""How long each unit remembers: by its forget gate, as measured, and by Lyapunov's exponent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.family import Trainable
from cylstm.insight.back import Cell
from cylstm.insight.gradients import inputs_of
from cylstm.insight.models import cells_of, name_of_cell
from cylstm.insight.saturated import rows_of
from cylstm.trace import Trace

SMALL = 1e-6  # a change of a cell state, in float64


def time_scales(trace: Trace) -> dict[str, np.ndarray]:
    """The steps in which a unit's cell state falls to 1/e, were its forget gate at its mean [1]_.

    Parameters
    ----------
    trace : Trace
        From `LSTM.trace`.

    Returns
    -------
    dict of str to array, (H,)
        ``-1 / log(mean of f)`` by the ending of each layer and direction; infinite where the mean
        is 1 or more, zero where it is not above 0. Of a GRU z takes the place of f; an RNN has no
        such gate, and NaN.

    References
    ----------
    .. [1] C. Tallec, Y. Ollivier, "Can recurrent neural networks warp time?", ICLR 2018.
       https://arxiv.org/abs/1804.11188

    Examples
    --------
    >>> lstm = cylstm.LSTM(1, 1, seed=0)
    >>> lstm.load_state_dict({name: 0 * p for name, p in lstm.named_parameters()})
    >>> time_scales(lstm.trace(np.ones((9, 1, 1), np.float32)))["_l0"].round(3)  # f is 1/2
    array([1.443])
    """
    scales = {}
    for ending in trace.endings:
        kept = next((gate for gate in "fz" if gate + ending in trace), None)
        rows = rows_of(trace, (kept or "h") + ending).astype(np.float64)
        scales[ending] = _time_scale(rows.mean(0)) if kept else np.full(rows.shape[1], np.nan)
    return scales


def _time_scale(mean: np.ndarray) -> np.ndarray:
    inner = (mean > 0) & (mean < 1)
    scale = np.where(mean >= 1, np.inf, 0.0)
    scale[inner] = -1 / np.log(mean[inner])
    return scale


@dataclass(frozen=True, eq=False)
class Memory:
    """How long the units of one layer and direction remember.

    Attributes
    ----------
    name : str
        Of the layer and direction.
    by_gate : array, (H,)
        Steps, from the mean of the forget gate: see `time_scales`.
    influence : array, (K + 1, H)
        How far the layer's cell states (of a GRU and an RNN, outputs) are apart k steps after one
        unit's was changed a little, as a share of the change: the root of the mean square over the
        places where it was.
    lyapunov : float
        The layer's largest Lyapunov exponent, a step: below 0 it forgets where it began, above 0
        small changes grow.
    lyapunov_error : float
        The standard error of its mean over the sequences; NaN for one.
    """

    name: str
    by_gate: np.ndarray
    influence: np.ndarray
    lyapunov: float
    lyapunov_error: float

    @property
    def measured(self) -> np.ndarray:
        """(H,): the steps until the influence is below 1/e; infinite where it is never."""
        return np.array([_steps_until(decay, np.exp(-1)) for decay in self.influence.T])


def memory(
    lstm: Trainable[Any],
    x: np.ndarray,
    *,
    lengths: Any = None,
    reach: int = 50,
    places: int = 8,
    part: str = "",
) -> list[Memory]:
    """Measure how long each unit remembers, over given sequences.

    Parameters
    ----------
    lstm : LSTM, GRU or RNN
    x : array, (T, N, I), or (N, T, I) with `batch_first`
    lengths : array of int, (N,), optional
    reach : int
        K, for how many steps a change is followed, where the sequences are as long.
    places : int
        At how many steps, spread evenly over the sequences, cell states are changed.
    part : str, optional
        Of a model, to be named in the result.

    Returns
    -------
    list of Memory
        One for each layer and direction.

    Notes
    -----
    A layer is looked at with its input held as it is. Both measures are taken in float64; the
    change is 1e-6.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(60, 2, 3)).astype("f4")
    >>> found = memory(cylstm.LSTM(3, 4, forget_bias=2.0, seed=0), x)[0]
    >>> found.measured.shape, bool(found.lyapunov < 0)
    ((4,), True)
    """
    reach, places = checks.whole("reach", reach, 1), checks.whole("places", places, 1)
    x = checks.array("x", x, lstm.dtype, ("T", "N", lstm.input_size))
    trace = lstm.trace(x, lengths=lengths)
    own = trace.lengths
    reach = min(reach, int(own.max(initial=0)) - 1)
    if reach < 1:
        raise ValueError("x: expected a sequence of at least two steps, got none")
    by_gate, found = time_scales(trace), []
    for ending, layer, _ in cells_of(lstm):
        cell = Cell(lstm, ending, inputs_of(lstm, trace, x, layer), own)
        exponents = lyapunov(cell)
        spread = exponents.std(ddof=1) / np.sqrt(len(exponents)) if len(exponents) > 1 else np.nan
        found.append(
            Memory(
                name_of_cell(part, ending),
                by_gate[ending],
                _influence(cell, reach, places),
                float(exponents.mean()),
                float(spread),
            )
        )
    return found


def lyapunov(cell: Cell, skipped: float = 0.1) -> np.ndarray:
    """The largest exponent over each sequence (of two steps or more).

    Parameters
    ----------
    cell : Cell
    skipped : float
        Share of the steps, those gone through first, in which the vector finds its direction.

    Notes
    -----
    A vector goes back through the transposed Jacobians of the steps, whose product has the singular
    values of the product forward, and is brought to the length 1 after each (Benettin et al. 1980).
    """
    rng = np.random.default_rng(0)
    size = len(cell.lengths)
    grads: dict[str, np.ndarray] = {
        name: rng.standard_normal(cell.at[name].shape[1:]) for name in cell.states
    }
    sums, counts = np.zeros(size), np.zeros(size)
    first = np.floor((cell.lengths - 1) * (1 - skipped))
    for t, _ in cell.back(np.zeros_like(cell.at["h"]), grads):
        norms = np.linalg.norm(np.concatenate(list(grads.values()), axis=1), axis=1)
        counted = t <= first
        with np.errstate(divide="ignore"):
            sums[counted] += np.log(norms[counted])
        counts += counted
        scale = np.where(norms > 0, norms, 1)[:, None]
        for grad in grads.values():
            grad /= scale
    longer = cell.lengths > 1
    return sums[longer] / counts[longer]


def _influence(cell: Cell, reach: int, places: int) -> np.ndarray:
    """(K + 1, H): of a change of each unit's cell state."""
    longest = int(np.argmax(cell.lengths))
    last = int(cell.lengths[longest]) - 1 - reach
    starts = np.unique(np.linspace(0, last, places).round().astype(int))
    hidden, kept = cell.lstm.hidden_size, cell.states[-1]
    at = {name: cell.at[name][:, longest] for name in cell.states}
    squares = np.zeros((reach + 1, hidden))
    squares[0] = len(starts)
    for t in starts:
        x = np.repeat(cell.x[t + 1 : t + 1 + reach, longest, None], hidden, axis=1)
        states = {name: np.repeat(array[None, t, None], hidden, 1) for name, array in at.items()}
        states[kept] += SMALL * np.eye(hidden)
        given = tuple(states.values()) if len(states) > 1 else states[kept]
        changed = cell.lstm.trace(x, given)[f"{kept}_l0"]
        apart = changed - at[kept][t + 1 : t + 1 + reach, None]
        squares[1:] += np.square(apart / SMALL).sum(-1)
    return np.sqrt(squares / len(starts))


def _steps_until(decay: np.ndarray, level: float) -> float:
    """Where a curve first falls below a level, between two steps by a straight line."""
    under = np.flatnonzero(decay < level)
    if not len(under):
        return float("inf")
    k = int(under[0])
    return float(k - 1 + (decay[k - 1] - level) / (decay[k - 1] - decay[k]))
