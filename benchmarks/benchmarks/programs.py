"""Whole programs: small models as people train and score them, with their data.

Frozen, as the shapes are. cylstm is imported no sooner than it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_NORM = 1.0  # to which gradients are clipped


@dataclass(frozen=True, repr=False)
class Program:
    """Batches of N sequences of T steps through an LSTM of H units, and a linear layer.

    With `words` it takes integers, by way of an embedding, and gives a label for each step (cross
    entropy); else it forecasts one number from the last step (mean squared error).
    """

    name: str
    steps: int
    batch: int
    input_size: int  # of the LSTM
    hidden_size: int
    outputs: int
    words: int = 0
    layers: int = 1
    directions: int = 1

    def __repr__(self) -> str:
        return self.name

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """An input (T, N) or (T, N, I), and a target (T, N) or (N, 1)."""
        rng, shape = np.random.default_rng(1), (self.steps, self.batch)
        if self.words:
            return rng.integers(0, self.words, shape), rng.integers(0, self.outputs, shape)
        x = rng.standard_normal((*shape, self.input_size)).astype(np.float32)
        return x, rng.standard_normal((self.batch, 1)).astype(np.float32)

    def parameters(self) -> dict[str, np.ndarray]:
        """By their names in PyTorch, in modules ``embedding``, ``lstm`` and ``linear``."""
        rng, wide = np.random.default_rng(2), self.directions * self.hidden_size
        shapes = {"linear.weight": (self.outputs, wide), "linear.bias": (self.outputs,)}
        if self.words:
            shapes["embedding.weight"] = self.words, self.input_size
        for layer in range(self.layers):
            for ending in [f"_l{layer}", f"_l{layer}_reverse"][: self.directions]:
                inputs = wide if layer else self.input_size
                shapes[f"lstm.weight_ih{ending}"] = 4 * self.hidden_size, inputs
                shapes[f"lstm.weight_hh{ending}"] = 4 * self.hidden_size, self.hidden_size
                shapes[f"lstm.bias{ending}"] = (4 * self.hidden_size,)
        return {
            name: rng.uniform(-0.1, 0.1, shape).astype(np.float32) for name, shape in shapes.items()
        }


PROGRAMS = [
    Program("forecaster LSTM(1, 32)", 50, 32, 1, 32, 1),
    Program("forecaster LSTM(8, 128)", 50, 256, 8, 128, 1),
    Program("characters LSTM(48, 256)", 64, 24, 48, 256, 96, words=96),
    Program("words LSTM(64, 128)", 35, 20, 64, 128, 10000, words=10000),
    Program("tagger LSTM(64, 128)", 40, 32, 64, 128, 20, words=5000, layers=2, directions=2),
]


def ours(program: Program) -> tuple[Callable[[], float], Callable[[], np.ndarray]]:
    """A training step that returns its loss, and the scoring of the same data."""
    import cylstm
    from cylstm import train

    size, hidden = program.input_size, program.hidden_size
    parts: dict[str, Any] = {}
    if program.words:
        parts["embedding"] = train.Embedding(program.words, size)
    parts["lstm"] = cylstm.LSTM(size, hidden, program.layers, bidirectional=program.directions == 2)
    if not program.words:
        parts["last"] = train.Last()
    parts["linear"] = train.Linear(program.directions * hidden, program.outputs)
    for name, part in parts.items():
        own = {
            key.removeprefix(name + "."): value
            for key, value in program.parameters().items()
            if key.startswith(name + ".")
        }
        if own:
            part.load_state_dict(own)
    model = train.Sequential(*parts.values())
    optimizer = train.Adam(model)
    loss_of = train.cross_entropy_loss if program.words else train.mse_loss
    x, target = program.data()

    def step() -> float:
        y, tape = model.forward(x)
        loss, grad_y = loss_of(y, target)
        _, grads = model.backward(tape, grad_y)
        train.clip_grad_norm(grads, MAX_NORM)
        optimizer.step(grads)
        return loss

    return step, lambda: model(x)
