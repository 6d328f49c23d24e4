"""Which product computes a layer, and how its work is divided among threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cylstm._inference import PRODUCT, Task, get_num_threads, run_each, run_together
from cylstm._sequence import Recurrence
from cylstm.batch import Batch

ENOUGH = 400_000  # multiply-adds that are worth another thread
ENOUGH_IN_A_STEP = 30_000  # that are worth meeting after every step
ROWS_OF_ONE = 12  # as many sequences keep a thread's kernel busy without sharing units


def run_layer(
    recurrences: list[Recurrence],
    batch: Batch,
    x: np.ndarray,
    ys: Sequence[np.ndarray],
    h: np.ndarray,
    c: np.ndarray,
) -> None:
    """One layer without a tape: x (T, N, I) to a y (T, N, R) for each direction.

    h (D, N, R) and c (D, N, H), in the order of `batch`, go from the initial state to the last.
    """
    if PRODUCT == "blas":
        for recurrence, y, h_d, c_d in zip(recurrences, ys, h, c, strict=True):
            recurrence.run(x, y, h_d, c_d, batch.sizes, batch.order)
        return
    threads, shares = division(recurrences, batch)
    tasks = [
        Task(recurrence, part, x, y, h_d[number::shares], c_d[number::shares])
        for recurrence, y, h_d, c_d in zip(recurrences, ys, h, c, strict=True)
        for number, part in enumerate(batch.part(n, shares) for n in range(shares))
    ]
    if threads > len(tasks):
        for task in tasks:
            run_together(task, threads)
    else:
        run_each(tasks, threads)


def division(recurrences: list[Recurrence], batch: Batch) -> tuple[int, int]:
    """How many threads, and into how many shares of rows; more threads than tasks share units."""
    directions = len(recurrences)
    rows = int(batch.offsets[-1]) if batch.ragged else batch.steps * batch.rows
    step = sum(p.size for p in recurrences[0].parameters.values())
    threads = min(get_num_threads(), max(1, directions * rows * step // ENOUGH))
    if threads <= directions:
        return threads, 1
    if batch.shape[1] >= ROWS_OF_ONE * threads or step < ENOUGH_IN_A_STEP:
        return threads, min(threads, max(1, batch.shape[1]))
    return threads, 1
