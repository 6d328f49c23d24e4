"""The libraries compared, a module each.

Each has `DISTRIBUTIONS`, whose versions are told, and

    set_threads(threads)        before anything is computed
    inference(problem)          the ways to run it, by name, each a function that prepares one
    training(problem)           the same for forward and backward, where the library can
    program(program)            a whole program's step and scoring, where it is compared with it

A way that cannot be prepared, or that gives other numbers, is left out; the fastest of the others
stands for the library.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

OURS = "cylstm"
NAMES = {
    OURS: "cylstm",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "pytorch": "PyTorch",
    "jax": "JAX",
    "keras": "Keras",
}
TRAINERS = [OURS, "pytorch", "jax"]


@dataclass(frozen=True)
class Way:
    """One way to have a library run a problem."""

    call: Callable[[], Any]  # what is timed
    arrays: Callable[[Any], dict[str, Any]]  # its result, named and ordered as the reference's
    within: Callable[[], AbstractContextManager] = nullcontext  # where it is called


def reordered(weights: np.ndarray, gates: str) -> np.ndarray:
    """Weights of the gates i, f, g, o in the order of `gates`."""
    parts = dict(zip("ifgo", np.split(weights, 4), strict=True))
    return np.concatenate([parts[gate] for gate in gates])
