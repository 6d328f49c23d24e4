"""The last step's output, without what it does not follow from.

At a sequence's last step the direction that reads from the end has only begun: of its steps one is
needed. And of a direction that reads from the begin only the last output is kept.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np

from cylstm.batch import Batch
from cylstm.core.access import reading
from cylstm.core.network import Network
from cylstm.layers import (
    Dropout,
    Embedding,
    Last,
    LayerNorm,
    Linear,
    QuantizedLinear,
    Sequential,
)
from cylstm.layers.activations import Activation
from cylstm.layers.outputs import as_layer, looks_up
from cylstm.lookup import LookedUp
from cylstm.recurrent import Recurrent

__all__ = ["LastStep", "last_step_of"]


class LastStep:
    """A model's output at the last step of each sequence, with the bits of the model's own.

    Parameters
    ----------
    layers : sequence
        The model's.
    place : int
        Of the last recurrent one, after which each step is mapped for itself.
    """

    def __init__(self, layers: list[Any], place: int) -> None:
        self._before, lstm = layers[:place], layers[place]
        self._after_each = [as_layer(layer) for layer in layers[1 : place + 1]]
        self._after = [layer for layer in layers[place + 1 :] if not isinstance(layer, Last)]
        self._top = _Top(lstm)
        self._stores = frozenset().union(*(_stores(layer) for layer in layers))

    def __call__(self, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """Return the output (N, F)."""
        with reading(self._stores):
            for layer, after in zip(self._before, self._after_each, strict=True):
                if isinstance(layer, Recurrent):
                    x = layer(x, None, lengths)[0]
                elif isinstance(layer, Embedding):
                    x = layer.looked_up(x)
                    x = x if looks_up(layer, after) else x.taken()
                else:
                    x = layer(x)
            y = self._top(x, lengths)
            for layer in self._after:
                y = layer(y)
        return y


class _Top:
    """An LSTM of which the last output alone is wanted."""

    def __init__(self, lstm: Recurrent[Any]) -> None:
        *below, top = lstm._layers
        self._lstm = lstm
        self._below = Network(below, False, lstm._store) if below else None
        self._directions = [(cell.reverse, Network([[cell]], False, lstm._store)) for cell in top]
        self._own = threading.local()

    def __call__(self, x: np.ndarray | LookedUp, lengths: np.ndarray | None) -> np.ndarray:
        lstm, looked = self._lstm, None
        if isinstance(x, LookedUp):
            looked, x = x, x.ids[..., None]
        x = x.swapaxes(0, 1) if lstm.batch_first else x
        steps, size = x.shape[:2]
        batch = Batch(steps, size, lengths)
        if self._below is not None:
            between = self._memory("between", (steps, size, lstm._width))
            self._run(self._below, x, between, batch, looked)
            x, looked = between, None
        found = [self._direction(*one, x, batch, lengths, looked) for one in self._directions]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def _direction(
        self, from_end: bool, network: Network, x: np.ndarray, batch: Batch, lengths: Any,
        looked: LookedUp | None,
    ) -> np.ndarray:  # fmt: skip
        if from_end:
            last = np.full(x.shape[1], len(x)) if lengths is None else lengths
            x = x[np.maximum(last, 1) - 1, np.arange(x.shape[1])][None] if len(x) else x
            batch = Batch(len(x), x.shape[1], np.minimum(last, 1))
        y = self._memory("y", (len(x), x.shape[1], self._lstm._options.output_size))
        (h,) = batch.unsort(self._run(network, x, y, batch, looked))
        return h

    def _run(
        self, network: Network, x: np.ndarray, y: np.ndarray, batch: Batch, looked: LookedUp | None
    ) -> np.ndarray:
        """Return the last h of each layer and direction, sorted as the batch is.

        With `looked` x is ids of that.
        """
        h, c = network.zero_state(x.shape[1])
        tables = None if looked is None else network.tables_for(looked)
        if looked is not None and tables is None:
            x = replace(looked, ids=x[..., 0]).taken()
        network.run(x, y, h, c, batch, None, tables)
        return h

    def _memory(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return memory of this thread's, which is there from call to call."""
        size = int(np.prod(shape))
        held = vars(self._own).get(name)
        if held is None or held.size < size:
            held = np.empty(size, self._lstm.dtype)
            setattr(self._own, name, held)
        return held[:size].reshape(shape)


def _stores(layer: Any) -> frozenset[Any]:
    return layer._store.alone if isinstance(layer, Recurrent) else layer._stores


def last_step_of(model: Any) -> LastStep | None:
    """Return what gives a model's last output, if that is all that is asked for; None if unknown.

    Parameters
    ----------
    model : LSTM or Layer
        One of the library's own layers.
    """
    layers = list(model) if type(model) is Sequential else [model]
    places = [k for k, layer in enumerate(layers) if isinstance(layer, Recurrent)]
    each = (Activation, Dropout, LayerNorm, Linear, QuantizedLinear)  # maps of a step
    before = (Recurrent, Embedding, *each)
    if not places or not all(isinstance(layer, before) for layer in layers[: places[-1]]):
        return None
    if not all(isinstance(layer, (Last, *each)) for layer in layers[places[-1] + 1 :]):
        return None
    return LastStep(layers, places[-1])
