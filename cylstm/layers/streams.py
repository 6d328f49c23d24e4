"""A model's state between steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from cylstm.core.access import reading
from cylstm.core.workspace import Workspace
from cylstm.layers.base import Array, Input, Layer
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
            for step in self._steps:
                if isinstance(step, Stream) and getattr(x, "ndim", 0) > 2:
                    raise ValueError(f"x: expected one step (N, I), got shape {np.shape(x)}")
                x = step.step(x)
        return x

    def reset(self, rows: Any = None) -> None:
        """Set the state to zero: of all sequences, or of those chosen, as `Stream.reset` does."""
        if rows is None:
            self._workspace.forget_fork()
        with self._workspace:
            for step in self._steps:
                step.reset(rows)

    def __copy__(self) -> SequentialStream:
        stream = SequentialStream.__new__(SequentialStream)
        stream._turn, stream._workspace = reading(self._turn.stores), Workspace()
        with self._workspace:
            stream._steps = [copy.copy(step) for step in self._steps]
        return stream


def named(where: str, function: Callable[..., Any], *given: Any) -> Any:
    """Call a function; a ValueError says where."""
    try:
        return function(*given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
