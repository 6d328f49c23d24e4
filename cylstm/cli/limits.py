"""What this machine can do at most, in arithmetic and in reading, as far as NumPy and we show."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cylstm.core.team import limit_threads_here
from cylstm.layers import Linear

__all__ = ["Limits", "best"]

SECONDS = 0.3  # that a time is taken from
PRODUCTS = (
    (240, 64, 64),
    (480, 128, 256),
    (480, 256, 256),
    (960, 512, 512),
)  # rows, inputs, outputs
INPUTS = 256  # of the product that reads weights
LEAST_BYTES = 2**17  # that are read at once: of fewer the call itself would take longest


@dataclass(frozen=True)
class Limits:
    """Of so many threads.

    Attributes
    ----------
    flops : float
        Multiplications and additions a second, of the fastest product in the caches.
    bytes : float
        A second, read again and again from the cache that holds the model's weights. A stream's
        steps read to and fro, and find what was last nearer: of weights a little larger than a
        cache they may take somewhat less than that.
    """

    flops: float
    bytes: float

    @staticmethod
    def of(threads: int, weights: int) -> Limits:
        """Measure, for weights of so many bytes."""
        return Limits(flops_per_second(), bytes_per_second(threads, weights))

    def least(self, flops: float, read: float) -> tuple[float, str]:
        """Return the least seconds of so much work, and which of the two takes them."""
        return max((flops / self.flops, "arithmetic"), (read / self.bytes, "reading"))


def best(work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of many runs."""
    work()
    least, begin = float("inf"), time.perf_counter()
    while (now := time.perf_counter()) - begin < SECONDS:
        work()
        least = min(least, time.perf_counter() - now)
    return least


def flops_per_second() -> float:
    """On as many threads as are allowed here."""
    found = []
    for rows, inputs, outputs in PRODUCTS:
        linear, x = Linear(inputs, outputs, seed=0), np.ones((rows, inputs), np.float32)
        found.append(2 * rows * inputs * outputs / best(lambda x=x, f=linear: f(x)))  # type: ignore
    return max(found)


def bytes_per_second(threads: int, size: int) -> float:
    """Of so many threads together, each of which reads its share of so many bytes."""
    share = max(LEAST_BYTES, size // threads) // 4
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(_read, [share] * threads))


def _read(count: int) -> float:
    """A thread's, by the faster of two that read all: NumPy's maximum, a product with one row."""
    limit_threads_here(1)
    numbers = np.ones(count, np.float32)
    linear, x = Linear(INPUTS, count // INPUTS, seed=0), np.ones((1, INPUTS), np.float32)
    return numbers.nbytes / min(best(numbers.max), best(lambda: linear(x)))
