"""GRU and RNN, whose weights are drawn by cylstm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .common import Shape

KINDS = ["GRU", "RNN"]
SHAPES = [
    *(Shape(1, 1, h, h) for h in (32, 128)),
    *(Shape(100, 1, h, h) for h in (64, 128, 256, 512)),
    Shape(50, 16, 256, 256),
    Shape(50, 64, 256, 256),
]
TRAINED = [Shape(50, n, 256, 256) for n in (1, 4, 16, 64)]


class Family:
    """Runs over whole sequences, or a stream's step; on one thread."""

    params: list[Any] = [KINDS, SHAPES]
    param_names = ("kind", "shape")

    def setup(self, kind: str, shape: Shape) -> None:
        """Draw the network and its input."""
        import cylstm

        cylstm.set_num_threads(1)
        network = getattr(cylstm, kind)(shape.input_size, shape.hidden_size, seed=0)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((shape.steps, shape.batch, shape.input_size), np.float32)
        self.call = (
            partial(network.stream().step, x[0]) if shape.steps == 1 else partial(network, x)
        )
        self.call()

    def time_call(self, *_: Any) -> None:
        """Time one."""
        self.call()


class TrainFamily(Family):
    """Forward and backward."""

    params: list[Any] = [KINDS, TRAINED]

    def setup(self, kind: str, shape: Shape) -> None:
        """Draw the network, its input and the gradient of its output."""
        import cylstm

        cylstm.set_num_threads(1)
        network = getattr(cylstm, kind)(shape.input_size, shape.hidden_size, seed=0)
        rng = np.random.default_rng(0)
        x, grad_y = rng.standard_normal(
            (2, shape.steps, shape.batch, shape.hidden_size), np.float32
        )

        def both() -> None:
            network.backward(network.forward(x)[2], grad_y)

        self.call = both
        self.call()
