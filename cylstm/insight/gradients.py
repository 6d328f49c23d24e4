"""The gradient's way back: how much of a loss comes to each step before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cylstm.family import Trainable
from cylstm.insight.back import Cell
from cylstm.insight.models import Loss, Parts, cells_of, loss_of, name_of_cell, time_first
from cylstm.layers import Layer

VANISHES, EXPLODES = 1e-2, 1e2  # of the gradient at lag 0, at the greatest lag


@dataclass(frozen=True, eq=False)
class GradientWay:
    """The gradients of a loss by the states of one layer and direction, at each step.

    Attributes
    ----------
    name : str
        Of the layer and direction.
    h, c : array, (T, N)
        The norms of dL/dh_t and of dL/dc_t: total ones, through all that follows from h_t, or from
        c_t, at that step and later ones, and in the layers above. Of a GRU and an RNN c is None.
    lengths : array of int, (N,)
    """

    name: str
    h: np.ndarray
    c: np.ndarray | None
    lengths: np.ndarray

    @property
    def states(self) -> list[str]:
        """Which there are, the one that is meant where none is named first."""
        return ["h"] if self.c is None else ["c", "h"]

    def by_lag(self, state: str | None = None) -> np.ndarray:
        """The mean norm over the sequences at each distance from their last step."""
        which = self.states[0] if state is None else state
        norms = {"h": self.h, "c": self.c}.get(which)
        if norms is None:
            raise ValueError(f"state: expected one of {', '.join(self.states)}, got {state!r}")
        steps = int(self.lengths.max())
        lags = [norms[self.lengths - 1 - k, range(len(self.lengths))] for k in range(steps)]
        longer = self.lengths > np.arange(steps)[:, None]
        return np.array([lag[is_there].mean() for lag, is_there in zip(lags, longer, strict=True)])

    def halving(self, state: str | None = None) -> int | None:
        """The first lag at which less than half is left of lag 0's; None if there is none.

        Where lag 0 has no gradient, that of the first lag which has one stands in its place.
        """
        norms = self.by_lag(state)
        first = _first(norms)
        under = first + np.flatnonzero(norms[first:] < norms[first] / 2)
        return int(under[0]) if len(under) else None

    def left(self, state: str | None = None) -> float:
        """The share of lag 0's (see `halving`) that is left at the greatest lag."""
        norms = self.by_lag(state)
        return float(norms[-1] / norms[_first(norms)]) if norms.any() else 0.0

    def factor(self, state: str | None = None) -> float:
        """By how much the norm changes in a step back, on average from lag 0 to the greatest."""
        steps = int(self.lengths.max()) - 1 - _first(self.by_lag(state))
        return self.left(state) ** (1 / steps) if steps else 1.0

    @property
    def verdict(self) -> str:
        """``vanishes``, ``explodes`` or ``holds``; ``does not reach`` where there is none."""
        left = self.left()
        if not self.by_lag()[1:].any():
            return "does not reach"
        return "vanishes" if left < VANISHES else "explodes" if left > EXPLODES else "holds"


def gradient_way(
    model: Trainable[Any] | Layer,
    x: np.ndarray,
    target: np.ndarray,
    loss: Loss | None = None,
    *,
    lengths: Any = None,
    steps: str = "last",
) -> list[GradientWay]:
    """Follow a loss's gradient back through each layer and direction of a model.

    Parameters
    ----------
    model : LSTM, GRU, RNN or Sequential
        Dropout is off.
    x, target : array
        A batch, as `cylstm.train.fit` takes it: (T, N, ...), or (N, T, ...) with `batch_first`.
    loss : callable, optional
        As of `cylstm.train`: by default cross entropy where the target is integers, else the mean
        square. It must take ``where``, as those do, where the output has steps.
    lengths : array of int, (N,), optional
    steps : {"last", "all"}
        Where the output has a step for each of the input's: whether the loss of each sequence's
        last step alone is followed, whose way is the longest, or that of all steps together.

    Returns
    -------
    list of GradientWay
        One for each layer and direction.

    Notes
    -----
    The recurrence is gone through step by step with the kernels of the training, in float64: a
    gradient that vanishes is seen to vanish, and does not become zero at 1e-45.

    Examples
    --------
    >>> lstm = cylstm.LSTM(3, 4, forget_bias=0.0, seed=0)
    >>> x = np.random.default_rng(0).normal(size=(50, 8, 3)).astype("f4")
    >>> way = gradient_way(lstm, x, np.ones((50, 8, 4), "f4"))[0]
    >>> way.verdict, way.halving()
    ('vanishes', 1)
    """
    if steps not in ("last", "all"):
        raise ValueError(f"steps: expected 'last' or 'all', got {steps!r}")
    parts = Parts(model)
    own = parts.lengths_of(x, lengths)
    if not own.size or own.min() < 1:
        raise ValueError(
            f"lengths: expected at least one step in each sequence, got {own.tolist()}"
        )
    prediction, tapes = parts.forward(x, lengths)
    where = None
    if parts.keeps_time:
        t = np.arange(parts.shape_of(x)[0])[:, None]
        where = time_first(t == own - 1 if steps == "last" else t < own, parts.batch_first)
    grad = loss_of(loss, prediction, target, where)[1]
    ways: list[GradientWay] = []
    for (name, layer), (given, tape) in zip(parts.named[::-1], tapes[::-1], strict=True):
        if isinstance(layer, Trainable):
            grad, found = _through(layer, parts.called(name), given, own, grad)
            ways = found + ways
        else:
            grad = layer.backward(tape, grad)[0]
    return ways


def _first(norms: np.ndarray) -> int:
    """The first lag that has a gradient; 0 where none has."""
    return int(np.argmax(norms > 0))


def _through(
    lstm: Trainable[Any], part: str, x: np.ndarray, lengths: np.ndarray, grad_y: np.ndarray
) -> tuple[np.ndarray, list[GradientWay]]:
    """The gradient of a network's input, and of its states, from that of its output."""
    trace = lstm.trace(x, lengths=lengths)
    grad = time_first(grad_y, lstm.batch_first).astype(np.float64)
    directions = 2 if lstm.bidirectional else 1
    ways: list[GradientWay] = []
    for ending, layer, direction in reversed(cells_of(lstm)):
        if direction == directions - 1:
            grad_above, grad = grad, np.zeros(())
        below = inputs_of(lstm, trace, x, layer)
        cell = Cell(lstm, ending, below, lengths)
        width = grad_above.shape[2] // directions
        own = grad_above[..., direction * width : (direction + 1) * width]
        grad_x, states = _states(cell, cell.turned(own))
        grad = grad + cell.turned(grad_x)
        norms = {n: cell.turned(np.linalg.norm(g, axis=2)) for n, g in states.items()}
        found = GradientWay(name_of_cell(part, ending), norms["h"], norms.get("c"), lengths)
        ways.insert(0, found)
    return time_first(grad.astype(x.dtype), lstm.batch_first), ways


def _states(cell: Cell, grad_y: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The gradients of x, and of the states, at each step."""
    running = np.arange(len(grad_y))[:, None, None] < cell.lengths[:, None]
    grad_y = np.where(running, grad_y, 0.0)
    grad_x, size = np.zeros_like(cell.x), len(cell.lengths)
    # Of step t: what comes from the steps after it, and of h what its own output gives.
    at: dict[str, np.ndarray] = {name: np.zeros_like(cell.at[name]) for name in cell.states}
    at["h"] += grad_y
    carried: dict[str, np.ndarray] = {name: np.zeros((size, g.shape[2])) for name, g in at.items()}
    for t, of_x in cell.back(grad_y, carried):
        grad_x[t] = of_x
        for name in cell.states if t else ():
            at[name][t - 1] += carried[name]
    at = {name: np.where(running, g, 0.0) for name, g in at.items()}
    if "c" in at:
        at["c"] += cell.through_the_output(at["h"])
    return grad_x, at


def inputs_of(lstm: Trainable[Any], trace: Any, x: np.ndarray, layer: int) -> np.ndarray:
    """What a layer of a network reads, (T, N, F)."""
    if layer == 0:
        return time_first(x, lstm.batch_first)
    below = [trace.of(layer - 1, d)["h"] for d in range(2 if lstm.bidirectional else 1)]
    return time_first(np.concatenate(below, axis=-1), lstm.batch_first)
