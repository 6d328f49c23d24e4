"""Chains that were read from files, advanced a step at a time.

A step goes through the layers as a sequence of that step alone, so each layer must say where the
axis of time is after it, or refuse because it needs all steps at once. A layer that leaves one step
of all has, until now, seen the last one.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import numpy as np

from cylstm.core.workspace import Workspace
from cylstm.formats.fold import reshape
from cylstm.formats.onnx_inputs import as_declared

if TYPE_CHECKING:
    from cylstm.family import Trainable
    from cylstm.formats.chain import Mask

__all__ = [
    "Advancing",
    "Axes",
    "ChainStream",
    "after_function",
    "axes_of_chain",
    "axes_of_output",
    "parts_of",
]


@dataclass(frozen=True)
class Axes:
    """How many axes an array has, and which is that of time: None after the last step was taken.

    The length is how many steps the file says that there are, if it does.
    """

    rank: int
    time: int | None
    length: int | None = None

    def to(self, rank: int, time: int | None) -> Axes:
        """Return others, of as many steps."""
        return replace(self, rank=rank, time=time)

    def along(self, axis: int) -> bool:
        """Tell whether an axis, which may count from the end, is that of time."""
        return self.time is not None and axis % self.rank == self.time

    def without(self, gone: Iterable[int]) -> Axes:
        """Return those left."""
        places = {axis % self.rank for axis in gone}
        if self.time is None:
            return self.to(self.rank - len(places), None)
        if self.time in places:
            raise ValueError("which leaves out the axis of time")
        before = sum(place < self.time for place in places)
        return self.to(self.rank - len(places), self.time - before)


class ChainStream:
    """A chain's state over N sequences that come step by step; made by `Chain.stream`.

    It is for one thread, as a `cylstm.Stream` is. A copy, as `copy.copy` makes it, goes on from the
    same state.

    Parameters
    ----------
    layers : sequence
        The chain's.
    batch_size : int
        N.

    Raises
    ------
    ValueError
        If one of them needs all steps at once.
    """

    def __init__(self, layers: Sequence[Any], batch_size: int) -> None:
        if not any(hasattr(layer, "advancing") for layer in layers):
            raise ValueError("stream: expected a model with an LSTM that is read, got none")
        self._axes, *before, after = _first_that_fit(layers)
        self._time_after = after.time
        self._workspace = Workspace()  # of all: two steps at once could pass each other by
        self._steps = [
            _step_of(layer, axes, batch_size)
            for layer, axes in zip(layers, (self._axes, *before), strict=True)
        ]

    def step(self, x: Any) -> np.ndarray:
        """Advance by one step.

        Parameters
        ----------
        x : ndarray, (N, ...)
            The step of each sequence: what the model takes, without the axis of time.

        Returns
        -------
        y : ndarray
            The model's output at this step, without the axis of time.

        Raises
        ------
        ValueError
            If x is not one step of N sequences.
        RuntimeError
            If another thread uses the stream now, or did when this process was forked.
        """
        x = np.asarray(x)
        if x.ndim != self._axes.rank - 1:
            raise ValueError(
                f"x: expected one step, which has {self._axes.rank - 1} axes, got shape {x.shape}"
            )
        x, mask = np.expand_dims(x, self._axes.time or 0), None
        with self._workspace:
            for step in self._steps:
                x, mask = step(x, mask)
        return x if self._time_after is None else x.take(0, self._time_after)

    def reset(self, rows: Any = None) -> None:
        """Begin anew: all sequences, or those chosen, as `cylstm.Stream.reset` does."""
        if rows is None:
            self._workspace.forget_fork()
        with self._workspace:
            for step in self._steps:
                if isinstance(step, Advancing):
                    step.reset(rows)

    def __copy__(self) -> ChainStream:
        stream = ChainStream.__new__(ChainStream)
        vars(stream).update(vars(self), _workspace=Workspace())
        with self._workspace:
            stream._steps = [
                copy.copy(step) if isinstance(step, Advancing) else step for step in self._steps
            ]
        return stream


class Advancing(ABC):
    """What a recurrent layer is in a stream of its chain.

    Parameters
    ----------
    lstm : LSTM, GRU or RNN
    batch_size : int
    state : (h_0, c_0) or (h_0,), optional
        With which sequences begin, (L, N, R) and (L, N, H); zero by default.
    """

    def __init__(self, lstm: Trainable[Any], batch_size: int, state: Any = None) -> None:
        self.stream = lstm.stream(batch_size)
        self._begin = state
        self.reset()

    @abstractmethod
    def __call__(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return the output at this step, and whether it counts."""

    def reset(self, rows: Any = None) -> None:
        """Begin anew."""
        self.stream.reset(rows)
        if self._begin is not None:
            chosen = slice(None) if rows is None else rows
            state = self.stream.state
            for own, first in zip(parts_of(state), self._begin, strict=True):
                own[:, chosen] = first[:, chosen]
            self.stream.state = state

    def __copy__(self) -> Advancing:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.stream = copy.copy(self.stream)
        return other


def parts_of(state: Any) -> tuple[np.ndarray, ...]:
    """Return h and c of an LSTM's state, h of another's."""
    return state if isinstance(state, tuple) else (state,)


def _first_that_fit(layers: Sequence[Any]) -> list[Axes]:
    """Return the axes of what each layer takes, and of what the last returns."""
    furthest: list[Axes] = []
    for begin in (Axes(rank, time) for rank in (2, 3) for time in (1, 0)):
        found = [begin]
        try:
            for layer in layers:
                found.append(_after(layer, found[-1]))
        except (ArithmeticError, LookupError, TypeError, ValueError) as problem:  # of bad axes too
            if len(found) > len(furthest):
                furthest, error = found, problem
        else:
            return found
    k = len(furthest) - 1
    raise ValueError(f"stream: layers[{k}], {short(layers[k])}, {error}") from None


def axes_of_chain(layers: Sequence[Any]) -> bool | None:
    """Whether what a chain takes has the batch's axis before that of time; None if unknown."""
    if not any(hasattr(layer, "advancing") for layer in layers):
        return None
    try:
        return _first_that_fit(layers)[0].time == 1
    except ValueError:
        return None


def _after(layer: Any, axes: Axes) -> Axes:
    """Return the axes of a layer's output."""
    follow = getattr(layer, "axes_after", None)
    if follow is not None:
        return follow(axes)
    if not layer.steps_alone:
        raise ValueError("which does not say how it takes a step at a time")
    if axes.along(-1):
        raise ValueError("which mixes the steps")
    return axes


def _step_of(layer: Any, axes: Axes, batch_size: int) -> Callable[[np.ndarray, Mask], Any]:
    """Return what takes a step and its mask through a layer that is given these axes."""
    own = _OF_ONE_STEP.get(getattr(layer, "function", None))
    if own is not None and axes.time is not None:
        layer = type(layer)(layer.function, **own(layer.arguments, axes.time))
    if hasattr(layer, "advancing"):
        return layer.advancing(batch_size)
    if hasattr(layer, "follow"):
        return layer.follow
    return lambda x, mask: (layer(x), mask)


def axes_of_output(axes: Axes, time: int, after: int | None) -> Axes:
    """Return the axes of an LSTM's output, whose input has that of time at this place."""
    if axes.time is None:
        raise ValueError("which comes after a layer that keeps one step of all")
    if (axes.rank, axes.time) != (3, time):
        raise ValueError("which does not take the steps along their axis")
    return axes.to(3 if after is not None else 2, after)


# Functions -------------------------------------------------------------------------------------


def after_function(name: str, given: Mapping[str, Any], axes: Axes) -> Axes:
    """Return the axes of the output of a function of this name, with these arguments.

    Raises
    ------
    ValueError
        If it needs all steps, or may.
    """
    if axes.time is None:
        return axes
    if name not in _AFTER:
        raise ValueError("which needs all steps at once")
    return _AFTER[name](axes, axes.time, given)


Rule = Callable[[Axes, int, Mapping[str, Any]], Axes]  # of the axes, that of time, the arguments


def _same(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    return axes


def _along_axis(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    """Of one axis, that must not be time's."""
    if axes.along(given.get("axis", -1)):
        raise ValueError("which mixes the steps")
    return axes


def _along_rest(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    """Of an axis and all after it."""
    if time >= given["axis"] % axes.rank:
        raise ValueError("which mixes the steps")
    return axes


def _with_constant(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    """Of an array that is the same at each step."""
    shape = np.shape(given["value"])
    if len(shape) > axes.rank:
        raise ValueError("which adds axes")
    if ((1,) * (axes.rank - len(shape)) + shape)[time] != 1:
        raise ValueError("which has a value of its own for each step")
    return axes


def _transposed(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    order = range(axes.rank)[::-1] if given["axes"] is None else given["axes"]
    return axes.to(axes.rank, [k % axes.rank for k in order].index(time))


def _squeezed(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    if given["axes"] is None:
        raise ValueError("which does not say which axes it leaves out")
    return axes.without(given["axes"])


def _unsqueezed(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    rank = axes.rank + len(given["axes"])
    added = {axis % rank for axis in given["axes"]}
    return axes.to(rank, [axis for axis in range(rank) if axis not in added][time])


def _taken(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    indices, axis = np.asarray(given["indices"]), given["axis"] % axes.rank
    added = indices.ndim - 1
    if time != axis:
        return axes.to(axes.rank + added, time if time < axis else time + added)
    if indices.size != 1 or indices.item() != -1:
        raise ValueError("which takes other steps than the last")
    return axes.to(axes.rank + added, None)


def _sliced(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    starts, ends, chosen, steps = (*given["inputs"], None, None)[:4]
    chosen = range(len(starts)) if chosen is None else chosen
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, chosen, steps, strict=True):
        if axes.along(axis):
            if (start, step) != (-1, 1) or end < 2**31 - 1:
                raise ValueError("which takes other steps than the last")
            return axes.to(axes.rank, None)
    return axes


def _reshaped(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    """Where the sizes up to time's stay as they are, which 0 says, or time's is the first."""
    sizes = given["shape"]
    kept = len(sizes) > time and not given["allowzero"] and not any(sizes[: time + 1])
    if not kept and (time > 0 or axes.length is None or sizes[:1] != [axes.length]):
        raise ValueError("which mixes the steps, or may")
    return axes.to(len(sizes), time)


def _reshaped_step(given: Mapping[str, Any], time: int) -> dict[str, Any]:
    return (
        {**given, "shape": [given["shape"][0] and 1, *given["shape"][1:]]} if time == 0 else given
    )


def _looked_up(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    """Of a table's rows, each a new axis at the end."""
    return axes.to(axes.rank + 1, axes.time)


def _declared(axes: Axes, time: int, given: Mapping[str, Any]) -> Axes:
    if given["shape"] is None or len(given["shape"]) != axes.rank:
        raise ValueError(f"which does not declare {axes.rank} axes")
    return replace(axes, length=given["shape"][time])


def _declared_step(given: Mapping[str, Any], time: int) -> dict[str, Any]:
    sizes = given["shape"]
    return {**given, "shape": (*sizes[:time], None, *sizes[time + 1 :])}


_OF_ONE_STEP: Mapping[Any, Callable[..., dict[str, Any]]] = {  # the arguments, for a step alone
    as_declared: _declared_step,
    reshape: _reshaped_step,
}
_AFTER: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("cast", "dequantised", "elu", "exp", "hard_sigmoid", "leaky_relu", "relu", "selu",
         "sigmoid", "silu", "softplus", "softsign", "tanh"), _same,
    ),
    **dict.fromkeys(("added", "scaled"), _with_constant),
    **dict.fromkeys(("affine", "log_softmax", "normalised", "softmax"), _along_axis),
    "as_declared": _declared,
    "over_rest": _along_rest,
    "reshape": _reshaped,
    "rows_of": _looked_up,
    "sliced": _sliced,
    "squeezed": _squeezed,
    "take": _taken,
    "transpose": _transposed,
    "unsqueezed": _unsqueezed,
}  # fmt: skip
