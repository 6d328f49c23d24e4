"""A model's state between steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from cylstm.core.access import reading
from cylstm.core.workspace import Workspace
from cylstm.layers.base import Array, Input, Layer
from cylstm.layers.outputs import looks_up
from cylstm.stream import Stream


class SequentialStream:
    """A model's state over N sequences that come step by step; made by `Sequential.stream`.

    It is for one thread, as a `cylstm.Stream` is. A copy, as `copy.copy` makes it, goes on from the
    same state.
    """

    def __init__(self, layers: tuple[Layer, ...], batch_size: int) -> None:
        keeps_time = True
        for i, layer in enumerate(layers):
            if not keeps_time and not layer.steps_alone:
                raise ValueError(
                    f"layers[{i}]: {type(layer).__name__} cannot be streamed after a layer that "
                    "keeps one step of all"
                )
            keeps_time = keeps_time and layer.keeps_time
        self._turn = reading(frozenset().union(*(layer._stores for layer in layers)))
        self._layers = layers
        self._steps = [
            named(f"layers[{i}]", layer.stream, batch_size) for i, layer in enumerate(layers)
        ]
        self._workspace = Workspace()  # of all: two steps at once could pass each other by

    def step(self, x: Input) -> Array:
        """Advance by one step.

        Parameters
        ----------
        x : ndarray, (N, ...)
            The step of each sequence: what the model takes, without the axis of time.

        Returns
        -------
        y : ndarray, (N, ...)
            The model's output at this step.

        Raises
        ------
        ValueError
            If x is not one step.
        RuntimeError
            If another thread uses the stream now, or did when this process was forked.
        """
        with self._workspace, self._turn:
            for step in self._path:
                x = step(x)
        return x

    @cached_property
    def _path(self) -> list[Callable[[Any], Array]]:
        """What a step goes through."""
        path: list[Callable[[Any], Array]] = []
        embedding = None
        for layer, after, step in zip(
            self._layers, (*self._layers[1:], None), self._steps, strict=True
        ):
            if after is not None and looks_up(layer, after):
                embedding = layer
                continue
            own = _one_step(step) if isinstance(step, Stream) else step.step
            path.append(own if embedding is None else _looking_up(embedding, step, own))
            embedding = None
        return path

    def reset(self, rows: Any = None) -> None:
        """Set the state to zero: of all sequences, or of those chosen, as `Stream.reset` does."""
        if rows is None:
            self._workspace.forget_fork()
        with self._workspace:
            for step in self._steps:
                step.reset(rows)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_path"}

    def __copy__(self) -> SequentialStream:
        stream = SequentialStream.__new__(SequentialStream)
        stream._turn, stream._workspace = reading(self._turn.stores), Workspace()
        stream._layers = self._layers
        with self._workspace:
            stream._steps = [copy.copy(step) for step in self._steps]
        return stream


def _one_step(stream: Stream) -> Callable[[Any], Array]:
    """Return the step of a recurrent layer."""

    def step(x: Any) -> Array:
        if getattr(x, "ndim", 0) > 2:
            raise ValueError(f"x: expected one step (N, I), got shape {np.shape(x)}")
        return stream.step(x)

    return step


def _looking_up(
    embedding: Layer, stream: Stream, own: Callable[[Any], Array]
) -> Callable[[Any], Array]:
    """Return the step of an embedding and a recurrent layer, whose `own` it is."""

    def step(ids: Any) -> Array:
        if getattr(ids, "ndim", 0) > 1:
            return own(embedding(ids))
        return stream._step_looked_up(ids, embedding)

    return step


def named(where: str, function: Callable[..., Any], *given: Any) -> Any:
    """Call a function; a ValueError says where."""
    try:
        return function(*given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
