"""An LSTM, GRU or RNN as a layer among others, and what a layer takes beside its input."""

from __future__ import annotations

from reprlib import repr as short
from typing import Any

from cylstm.layers.base import Array, Layer
from cylstm.layers.embedding import Embedding
from cylstm.layers.gradients import Gradient
from cylstm.layers.linear import Linear
from cylstm.layers.pooling import Last, MaxPool, MeanPool
from cylstm.parameters import Parameters
from cylstm.passes import Passes
from cylstm.recurrent import Recurrent
from cylstm.stream import Stream


class OutputOf(Layer):
    """An LSTM, GRU or RNN as a layer among others: its output, with its state on the side."""

    def __init__(self, lstm: Recurrent[Any]) -> None:
        self.lstm = lstm
        self.batch_first = lstm.batch_first
        random = {"rng"} if lstm.dropout else set()
        self.takes = frozenset({"state", "lengths", "segment", "resets"} | random)  # type: ignore[misc]

    @property
    def config(self) -> dict[str, Any]:
        """The network's."""
        return self.lstm.config

    def run(
        self, x: Array, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[Array, Any]:
        """Return y, and the state."""
        return self.lstm(x, state, lengths, resets=resets)

    def forward(
        self, x: Array, state: Any = None, lengths: Any = None, **given: Any
    ) -> tuple[Array, Any]:
        """Return y, and the tape with the state after."""
        y, after, tape = self.lstm.forward(x, state, lengths, **given)
        return y, (tape, after)

    def _forward_lent(
        self, x: Array, *, is_lent: bool, lends: bool, **given: Any
    ) -> tuple[Array, Any]:
        """As `forward`; of an x that is lent, and of a y that is lent, the tape needs no copy."""
        y, after, tape = self.lstm._forward_lent(x, is_lent=is_lent, lends=lends, **given)
        return y, (tape, after)

    def state_after(self, tape: Any) -> Any:
        """Return the state after the last step."""
        return tape[1]

    def backward(self, tape: Any, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradients of the input and of the parameters."""
        grad_x, _, grads = self.lstm.backward(tape[0], grad_y)
        return grad_x, grads

    @property
    def _store(self) -> Parameters:  # type: ignore[override]
        return self.lstm._store

    def stream(self, batch_size: int = 1) -> Stream:
        """Return the network with its state."""
        return self.lstm.stream(batch_size)


def as_layer(model: Layer | Recurrent[Any], name: str = "model") -> Layer:
    """Return a layer, or an LSTM, GRU or RNN as one."""
    if isinstance(model, Recurrent):
        return OutputOf(model)
    if not isinstance(model, Layer):
        raise TypeError(f"{name}: expected a Layer or an LSTM, GRU or RNN, got {model!r}")
    return model


def looks_up(layer: Layer, after: Layer) -> bool:
    """Return whether `after` takes vectors of the layer, an embedding, as such."""
    return (
        type(layer) is Embedding
        and type(after) is OutputOf
        and after.lstm._network.may_look_up
        and (after.lstm.input_size, after.lstm.dtype) == (layer.embedding_dim, layer.dtype)
    )


def may_lend(layer: Layer, after: Layer) -> bool:
    """Return whether nothing that goes from a layer to the next need be copied.

    That is where the one gives what none but its tape may have, and the other reads it, and gives
    none of it on. Classes of a user's own do what they do.
    """
    return _is_ours(layer, _READERS | {Embedding}) and _is_ours(after, _READERS)


_READERS = {OutputOf, Linear, Last, MaxPool, MeanPool}


def _is_ours(layer: Layer, kinds: set[type[Layer]]) -> bool:
    own = isinstance(layer, OutputOf) and type(layer.lstm).forward is not Passes.forward
    return type(layer) in kinds and not own


def taken(layer: Layer, **given: Any) -> dict[str, Any]:
    """Return what the layer takes of what is given."""
    return {name: value for name, value in given.items() if name in layer.takes}


def resets_of(layer: Layer, resets: Any) -> dict[str, Any]:
    """As an argument, if there are any: a layer of a user's own need not take them."""
    if resets is None or layer.steps_alone:
        return {}
    for _, leaf in layer._leaves():
        if not (leaf.steps_alone or "resets" in leaf.takes or isinstance(leaf, Last)):
            raise ValueError(f"resets: expected none for a layer that takes none, {short(leaf)}")
    return {"resets": resets}
