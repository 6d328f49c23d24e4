"""Models as what they are made of, so that each layer can be looked at: without dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.family import Trainable
from cylstm.layers import Dropout, Embedding, Layer, Sequential
from cylstm.layers.outputs import taken
from cylstm.layers.quantized import QuantizedLinear
from cylstm.train import cross_entropy_loss, mse_loss

Loss = Callable[..., tuple[float, np.ndarray]]


class Parts:
    """The layers of a model, one after the other, with what is random turned off.

    Parameters
    ----------
    model : cylstm.LSTM, cylstm.GRU, cylstm.RNN or cylstm.layers.Sequential
    """

    def __init__(self, model: Trainable[Any] | Layer) -> None:
        if not isinstance(model, (Trainable, Sequential)):
            raise TypeError(f"model: expected an LSTM, GRU, RNN or a Sequential, got {model!r}")
        found = [("", model)] if isinstance(model, Trainable) else list(_leaves(model))
        self.named = [(name, _without_dropout(layer)) for name, layer in found]
        self.is_single = sum(isinstance(layer, Trainable) for _, layer in found) == 1
        for name, layer in self.named:
            if not isinstance(layer, (Trainable, Layer)) or isinstance(layer, QuantizedLinear):
                raise TypeError(
                    f"model: layer {name} has quantized weights, which give no gradients; "
                    "look at the model that was quantized"
                )
            if isinstance(layer, Layer) and "rng" in layer.takes:
                raise ValueError(f"model: layer {name} is random, and there is no way to see it so")
        self.keeps_time = all(isinstance(one, Trainable) or one.keeps_time for _, one in self.named)
        said = {layer.batch_first for _, layer in self.named} - {None}
        if len(said) > 1:
            raise ValueError("batch_first: expected the same of all layers, got both")
        self.batch_first = bool(said and said.pop())

    def called(self, name: str) -> str:
        """What a finding calls an LSTM among the layers: nothing, where it is the only one."""
        return "" if self.is_single else name

    def embedded(self, x: np.ndarray) -> tuple[np.ndarray, int]:
        """Numbers that a gradient can be taken by, and how many layers lead there."""
        first = self.named[0][1]
        return (first(x), 1) if isinstance(first, Embedding) else (x, 0)

    def forward(self, x: np.ndarray, lengths: Any, first: int = 0) -> tuple[np.ndarray, list[Any]]:
        """The output, and of each layer from one on its tape, the input first."""
        tapes = []
        for _, layer in self.named[first:]:
            if isinstance(layer, Trainable):
                y, _, tape = layer.forward(_side_by_side(x), None, lengths)
            else:
                y, tape = layer.forward(x, **taken(layer, lengths=lengths))
                lengths = lengths if layer.keeps_time else None
            tapes.append((x, tape))
            x = y
        return x, tapes

    def backward(self, tapes: list[Any], grad: np.ndarray, first: int = 0) -> np.ndarray:
        """The gradient of what `forward` was given."""
        for (_, layer), (_, tape) in zip(self.named[first:][::-1], tapes[::-1], strict=True):
            grad = layer.backward(tape, grad)[0]
        return grad

    def shape_of(self, x: np.ndarray) -> tuple[int, int]:
        """T and N of an input of sequences side by side."""
        x = checks.is_array("x", x)
        if x.ndim < 2:
            raise ValueError(f"x: expected sequences side by side, got shape {x.shape}")
        steps, size = x.shape[1::-1] if self.batch_first else x.shape[:2]
        return steps, size

    def lengths_of(self, x: np.ndarray, lengths: Any) -> np.ndarray:
        """Each sequence's own length."""
        steps, size = self.shape_of(x)
        return np.full(size, steps) if lengths is None else checks.lengths(lengths, steps, size)


def loss_of(
    loss: Loss | None, prediction: np.ndarray, target: np.ndarray, where: np.ndarray | None
) -> tuple[float, np.ndarray]:
    """The loss and its gradient: by default cross entropy of labels, else the mean square."""
    if loss is None:
        integers = checks.is_array("target", target).dtype.kind in "iu"
        loss = cross_entropy_loss if integers else mse_loss
    return loss(prediction, target) if where is None else loss(prediction, target, where=where)


def name_of_cell(part: str, ending: str) -> str:
    """What a layer's direction is called: ``layer 2, backward``, of the model's part ``3``."""
    number = int(ending.removeprefix("_l").removesuffix("_reverse")) + 1
    direction = ", backward" if ending.endswith("_reverse") else ""
    return (f"part {part}, " if part else "") + f"layer {number}{direction}"


def time_first(array: np.ndarray, batch_first: bool) -> np.ndarray:
    """A view (T, N, ...)."""
    return array.swapaxes(0, 1) if batch_first else array


def cells_of(lstm: Trainable[Any]) -> list[tuple[str, int, int]]:
    """The name's ending, layer and direction of each cell."""
    directions = 2 if lstm.bidirectional else 1
    return [
        (f"_l{layer}{'_reverse' if direction else ''}", layer, direction)
        for layer in range(lstm.num_layers)
        for direction in range(directions)
    ]


def alone(lstm: Trainable[Any], ending: str) -> Trainable[Any]:
    """One layer and direction as a network of its own, in float64, that reads forward."""
    own = {name: p for name, p in lstm.named_parameters() if name.endswith(ending)}
    direction = int(lstm.bidirectional and ending.endswith("_reverse"))
    changed = {
        "input_size": own["weight_ih" + ending].shape[1],
        "num_layers": 1,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "reverse": False,
        "dtype": "float64",
        **_activations(lstm, direction),
    }
    one = type(lstm)(**(lstm.config | changed))
    one.load_state_dict({name.removesuffix(ending) + "_l0": p for name, p in own.items()})
    return one


def flipped(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Each sequence of (T, N, ...) turned round, and what is past its end left where it is."""
    t = np.arange(len(x))[:, None]
    source = np.where(t < lengths, lengths - 1 - t, t)
    return np.take_along_axis(x, source.reshape(*source.shape, *[1] * (x.ndim - 2)), 0)


def _leaves(model: Sequential, before: str = "") -> Iterator[tuple[str, Any]]:
    for i, layer in enumerate(model):
        if isinstance(layer, Sequential):
            yield from _leaves(layer, f"{before}{i}.")
        elif not isinstance(layer, Dropout):
            yield f"{before}{i}", layer


def _activations(lstm: Trainable[Any], direction: int) -> dict[str, Any]:
    """Of one direction, as an argument."""
    own = [a if a[0] == "hard_sigmoid" else a[0] for a in lstm._options.activations_of(direction)]
    if "nonlinearity" in lstm.config:
        return {"nonlinearity": own[0]}
    return {"activations": tuple(own[: 3 if "coupled" in lstm.config else 2])}


def _without_dropout(layer: Any) -> Any:
    if not (isinstance(layer, Trainable) and layer.dropout):
        return layer
    same = type(layer)(**(layer.config | {"dropout": 0.0}))
    same.load_state_dict(layer.state_dict())
    return same


def _side_by_side(x: np.ndarray) -> np.ndarray:
    if np.ndim(x) != 3:
        raise ValueError(f"x: expected sequences side by side (T, N, ...), got shape {np.shape(x)}")
    return x
