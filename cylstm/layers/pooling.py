"""One step of a sequence's steps: the last, their mean, the largest of each feature."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.core.workspace import Workspace
from cylstm.layers.base import Array, Input, Layer, StepsAlone, check_gradient
from cylstm.layers.gradients import Gradient

Counts = npt.NDArray[np.intp]


class Pooling(Layer):
    """What `Last`, `MeanPool` and `MaxPool` share: (T, N, F) to (N, F), or (T, F) to (F,)."""

    takes = frozenset({"lengths"})
    keeps_time = False

    def __init__(self, batch_first: bool = False) -> None:
        self.batch_first = checks.is_true_or_false("batch_first", batch_first)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer."""
        return {"batch_first": self.batch_first}

    def _given(self, x: Input, lengths: Any) -> tuple[Array, Counts]:
        """Return the steps, time first, and how many each sequence has: (N,), or () of one."""
        x = checks.is_array("x", x)
        if x.ndim not in (2, 3):
            raise ValueError(f"x: expected two or three axes, got shape {x.shape}")
        steps = self._by_time(x)
        if len(steps) == 0:
            raise ValueError(f"x: expected at least one step, got shape {x.shape}")
        counts = np.full(steps.shape[1:-1], len(steps))
        if lengths is not None:
            size = math.prod(counts.shape)
            counts = checks.lengths(np.atleast_1d(lengths), len(steps), size).reshape(counts.shape)
        return steps, counts

    def _by_time(self, x: Array) -> Array:
        """Return a view with the axis of time first."""
        return x.swapaxes(0, 1) if self.batch_first and x.ndim == 3 else x


class _OneStep(Pooling):
    """Of each feature the number of one step; the tape says of which."""

    def _taken(self, x: Input, at: Counts, counts: Counts) -> tuple[Array, Any]:
        """Return the numbers of the steps `at`, (N, 1) or (N, F), and the tape."""
        y = np.take_along_axis(self._by_time(x), at[None], axis=0)[0]
        y[counts == 0] = 0
        return y, (x.shape, at, counts)

    def backward(self, tape: Any, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradient of the input, zero but for the steps that were taken, and no others.

        Parameters
        ----------
        tape : tuple
            What `forward` returned.
        grad_y : ndarray
            The gradient of the output, of its shape.
        """
        shape, at, counts = tape
        grad_y = checks.is_array("grad_y", grad_y)
        check_gradient(grad_y, (*counts.shape, shape[-1]))
        grad_x = np.zeros(shape, grad_y.dtype)
        real = np.where((counts > 0)[..., None], grad_y, 0)
        np.put_along_axis(self._by_time(grad_x), at[None], real[None], axis=0)
        return grad_x, {}


class Last(_OneStep):
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

    def forward(self, x: Input, lengths: Any = None) -> tuple[Array, Any]:
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
        _, counts = self._given(x, lengths)
        return self._taken(x, np.maximum(counts, 1)[..., None] - 1, counts)

    def stream(self, batch_size: int = 1) -> StepsAlone:
        """Return what gives each step as it comes: until now it is the last."""
        checks.whole("batch_size", batch_size)
        return StepsAlone(lambda x: x)


class MaxPool(_OneStep):
    """The largest number of each feature over a sequence's steps: (T, N, F) to (N, F).

    Parameters
    ----------
    batch_first : bool, default False
        Whether a batch is (N, T, F) instead of (T, N, F).

    Notes
    -----
    What is past a sequence's end does not count; of no step it is zero. The gradient goes to the
    first of the steps that have the largest number. In a stream it is that of the steps until now.

    Examples
    --------
    >>> x = np.array([[[1.0, 5.0]], [[3.0, 2.0]]])
    >>> MaxPool()(x)
    array([[3., 5.]])
    """

    def forward(self, x: Input, lengths: Any = None) -> tuple[Array, Any]:
        """Return the largest numbers over the steps of `x`, and the tape; see `Last.forward`."""
        x = _floating(x)
        steps, counts = self._given(x, lengths)
        return self._taken(x, np.argmax(_masked(steps, counts, -np.inf), axis=0), counts)

    def stream(self, batch_size: int = 1) -> SoFar:
        """Return what gives the largest numbers of the steps until now."""
        return SoFar(checks.whole("batch_size", batch_size), _larger, -np.inf, lambda y, _: y)


class MeanPool(Pooling):
    """The mean over a sequence's steps: (T, N, F) to (N, F), or (T, F) to (F,).

    Parameters
    ----------
    batch_first : bool, default False
        Whether a batch is (N, T, F) instead of (T, N, F).

    Notes
    -----
    What is past a sequence's end does not count; the mean of no step is zero. Steps are summed in
    float64, one after the other, so that a sequence's mean is the same bits in any batch, with any
    padding, and in a stream, whose means are those of the steps until now.

    Examples
    --------
    >>> x = np.array([[[1.0]], [[2.0]], [[6.0]]])
    >>> MeanPool()(x), MeanPool()(x, lengths=[2])
    (array([[3.]]), array([[1.5]]))
    """

    def forward(self, x: Input, lengths: Any = None) -> tuple[Array, Any]:
        """Return the mean over the steps of `x`, and the tape; see `Last.forward`."""
        x = _floating(x)
        steps, counts = self._given(x, lengths)
        ragged = bool((counts < len(steps)).any())
        total = np.zeros(steps.shape[1:])
        for t, step in enumerate(steps):
            np.add(total, step, out=total, where=(counts > t)[..., None] if ragged else True)
        return _mean(total, counts, x.dtype), (x.shape, counts)

    def backward(self, tape: Any, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradient of the input, the same at each step that counts, and no others."""
        shape, counts = tape
        grad_y = checks.is_array("grad_y", grad_y)
        check_gradient(grad_y, (*counts.shape, shape[-1]))
        each = grad_y / np.maximum(counts, 1).astype(grad_y.dtype)[..., None]
        grad_x = np.empty(shape, grad_y.dtype)
        steps = self._by_time(grad_x)
        steps[...] = _masked(np.broadcast_to(each, steps.shape), counts, 0)
        return grad_x, {}

    def stream(self, batch_size: int = 1) -> SoFar:
        """Return what gives the mean of the steps until now."""
        return SoFar(checks.whole("batch_size", batch_size), np.add, 0.0, _mean)


class SoFar:
    """What N sequences have come to until now, a step at a time, for `MeanPool` and `MaxPool`.

    A copy, as `copy.copy` makes it, goes on from the same state.
    """

    def __init__(self, batch_size: int, join: Any, first: float, result: Any) -> None:
        self._join, self._first, self._result = join, first, result
        self._counts = np.zeros(batch_size, np.intp)
        self._total: Array | None = None  # until the number of features is known
        self._workspace = Workspace()

    def step(self, x: Input) -> Array:
        """Take a step (N, F); return the result of the steps until now."""
        x = _floating(x)
        size = len(self._counts)
        if x.ndim != 2 or len(x) != size:
            raise ValueError(f"x: expected one step ({size}, F), got shape {x.shape}")
        with self._workspace:
            total = np.full(x.shape, self._first) if self._total is None else self._total
            if x.shape != total.shape:
                raise ValueError(f"x: expected shape {total.shape}, got {x.shape}")
            self._total = self._join(total, x.astype(np.float64))
            self._counts = self._counts + 1
            return self._result(self._total, self._counts).astype(x.dtype, copy=False)

    def reset(self, rows: Any = None) -> None:
        """Begin anew: all sequences, or those chosen, as `cylstm.Stream.reset` does."""
        chosen = slice(None) if rows is None else checks.index("rows", rows)
        if rows is None:
            self._workspace.forget_fork()
        with self._workspace:
            self._counts[chosen] = 0
            if self._total is not None:
                self._total[chosen] = self._first

    def __copy__(self) -> SoFar:
        made = SoFar.__new__(SoFar)
        with self._workspace:
            state = {"_counts": self._counts.copy(), "_total": copy.copy(self._total)}
        vars(made).update(vars(self), **state, _workspace=Workspace())
        return made


def _floating(x: Input) -> Array:
    """Return an array of float32 or float64."""
    x = checks.is_array("x", x)
    if x.dtype not in (np.float32, np.float64):
        raise TypeError(f"x: expected float32 or float64, got {x.dtype}")
    return x


def _masked(steps: Array, counts: Counts, value: float) -> Array:
    """Return the steps (T, N, F), or (T, F), with this value past each sequence's end."""
    if not (counts < len(steps)).any():
        return steps
    times = np.arange(len(steps)).reshape(-1, *(1,) * counts.ndim)
    return np.where((times < counts)[..., None], steps, steps.dtype.type(value))


def _mean(total: Array, counts: Counts, dtype: Any = np.float64) -> Array:
    return (total / np.maximum(counts, 1)[..., None]).astype(dtype)


def _larger(best: Array, x: Array) -> Array:
    """Return the larger of each, or the first of equals; a NaN is larger than all else."""
    return np.where((x > best) | (np.isnan(x) & ~np.isnan(best)), x, best)
