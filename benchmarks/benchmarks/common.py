"""The shapes that everything is measured at, and the random problems made of them.

The grids are frozen: results of years are compared by them. Append, never change.

cylstm is imported no sooner than it is used: the suite is read where it is not installed, and the
environment says which products it computes with.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np


@dataclass(frozen=True, repr=False)
class Shape:
    """T steps of N sequences of I features through an LSTM of H units.

    Of a `ragged` shape the lengths are uniform in 1..T; T = 1 stands for a stream, of which each
    step starts from the state that the one before left.
    """

    steps: int
    batch: int
    input_size: int
    hidden_size: int
    layers: int = 1
    directions: int = 1
    ragged: bool = False

    def __repr__(self) -> str:
        sizes = f"T={self.steps} N={self.batch} I={self.input_size} H={self.hidden_size}"
        if (self.layers, self.directions) != (1, 1):
            sizes += f" L={self.layers} D={self.directions}"
        return sizes + " ragged" * self.ragged

    @property
    def lengths(self) -> np.ndarray | None:
        """(N,), or None where all are T."""
        if not self.ragged:
            return None
        return np.random.default_rng(0).integers(1, self.steps + 1, self.batch)

    @property
    def cells(self) -> list[tuple[str, int]]:
        """For each layer and direction: the ending of its parameters' names, its inputs."""
        return [
            (f"_l{layer}" + "_reverse" * direction, self._inputs(layer))
            for layer in range(self.layers)
            for direction in range(self.directions)
        ]

    def _inputs(self, layer: int) -> int:
        return self.directions * self.hidden_size if layer else self.input_size


STREAMS = [Shape(1, 1, h, h) for h in (32, 128, 256, 512)]
SEQUENCES = [
    Shape(100, 1, 8, 32),
    Shape(100, 1, 64, 64),
    Shape(100, 1, 128, 128),
    Shape(100, 1, 256, 256),
    Shape(100, 1, 512, 512),
    Shape(100, 1, 1024, 1024),
]
BATCHES = [
    Shape(100, 4, 256, 256),
    Shape(100, 8, 128, 128),
    Shape(50, 16, 256, 256),
    Shape(50, 32, 16, 64),
    Shape(50, 32, 128, 128),
    Shape(50, 64, 256, 256),
    Shape(50, 64, 512, 512),
    Shape(50, 256, 64, 128),
]
STACKED = [Shape(100, 1, 128, 256, 2, 2), Shape(50, 16, 128, 256, 2, 2)]
RAGGED = [Shape(200, 32, 128, 128, ragged=True)]
INFERENCE = [*STREAMS, *SEQUENCES, *BATCHES, *STACKED, *RAGGED]
TRAINING = [
    *(Shape(100, 1, h, h) for h in (32, 128, 256, 512)),
    Shape(100, 4, 256, 256),
    Shape(100, 8, 128, 128),
    Shape(50, 16, 256, 256),
    Shape(50, 32, 16, 64),
    Shape(50, 32, 128, 128),
    Shape(50, 64, 256, 256),
    Shape(50, 64, 512, 512),
    Shape(50, 16, 128, 256, 2, 2),
]
DTYPES = ["float32", "float64"]
THREADS = [1, 2]
PRODUCTS = ["packed", "blas"]


@dataclass(frozen=True)
class Problem:
    """An LSTM's parameters, named and ordered as PyTorch's but with one bias, and what goes in."""

    shape: Shape
    weights: dict[str, np.ndarray]
    x: np.ndarray  # (T, N, I)
    lengths: np.ndarray | None  # (N,)
    h_0: np.ndarray  # (L D, N, H)
    c_0: np.ndarray
    grad_y: np.ndarray  # (T, N, D H), the loss's gradient by y


def make_problem(shape: Shape, dtype: str = "float32", training: bool = False) -> Problem:
    """Draw weights as PyTorch would, and inputs; the initial state is zero but in training."""
    rng = np.random.default_rng(0)
    hidden, bound = shape.hidden_size, shape.hidden_size**-0.5

    def draw(*size: int) -> np.ndarray:
        return rng.standard_normal(size).astype(dtype)

    weights = {}
    for ending, inputs in shape.cells:
        sizes = {"weight_ih": (4 * hidden, inputs), "weight_hh": (4 * hidden, hidden),
                 "bias": (4 * hidden,)}  # fmt: skip
        for name, size in sizes.items():
            weights[name + ending] = rng.uniform(-bound, bound, size).astype(dtype)
    state = len(shape.cells), shape.batch, hidden
    return Problem(
        shape=shape,
        weights=weights,
        x=draw(shape.steps, shape.batch, shape.input_size),
        lengths=shape.lengths,
        h_0=draw(*state) * training,
        c_0=draw(*state) * training,
        grad_y=draw(shape.steps, shape.batch, shape.directions * hidden),
    )


def make_lstm(problem: Problem) -> Any:
    """The problem's cylstm.LSTM."""
    import cylstm

    shape, dtype = problem.shape, problem.x.dtype.name
    lstm = cylstm.LSTM(shape.input_size, shape.hidden_size, shape.layers,
                       bidirectional=shape.directions == 2, dtype=dtype)  # fmt: skip
    lstm.load_state_dict(problem.weights)
    return lstm


def make_call(problem: Problem, training: bool = False) -> Callable[[], Any]:
    """The call that is timed, as a user would make it: a stream's step, or a whole batch."""
    lstm, x = make_lstm(problem), problem.x
    if training:
        return partial(forward_backward, lstm, problem)
    if problem.shape.steps == 1:
        out = np.full(problem.grad_y.shape[1:], 0, x.dtype)
        return partial(lstm.stream(problem.shape.batch).step, x[0], out=out)
    if problem.lengths is None:
        return partial(lstm, x)
    return partial(lstm, x, lengths=problem.lengths)


def forward_backward(lstm: Any, problem: Problem) -> Any:
    """What `backward` returns."""
    _, _, tape = lstm.forward(problem.x, (problem.h_0, problem.c_0), problem.lengths)
    return lstm.backward(tape, problem.grad_y)


def use(threads: int = 1, product: str = "packed") -> None:
    """Have cylstm compute so from now on; before its first import. Skip what is not there."""
    if threads > len(os.sched_getaffinity(0)):
        raise NotImplementedError("no CPUs for so many threads")
    os.environ["CYLSTM_PRODUCT"] = product
    import cylstm

    known = "blas"  # of the first commits
    for module in ("cylstm.core.kernels", "cylstm._inference"):
        try:
            known = importlib.import_module(module).PRODUCT
            break
        except (ImportError, AttributeError):
            continue
    if product != known or (threads > 1 and not hasattr(cylstm, "set_num_threads")):
        raise NotImplementedError("this commit cannot")
    if hasattr(cylstm, "set_num_threads"):
        cylstm.set_num_threads(threads)


class Call:
    """The base of benchmarks of a call; asv would run its own, so the subclasses have them."""

    param_names = ("shape", "dtype", "threads", "product")

    def setup(self, shape: Shape, dtype: str, threads: int, product: str) -> None:
        use(threads, product)
        self.call = make_call(make_problem(shape, dtype))
        self.call()
