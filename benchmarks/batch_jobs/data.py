"""The job: its input, its model, and what the scripts have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORDS, EMBEDDED, UNITS, CLASSES = 5000, 32, 64, 5
SHORTEST, LONGEST = 3, 60
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of tokens (T, N) and lengths (N,)


def parameters() -> dict[str, np.ndarray]:
    """By PyTorch's names, in modules ``embedding``, ``lstm`` and ``linear``."""
    rng = np.random.default_rng(1)
    shapes = {"embedding.weight": (WORDS, EMBEDDED)}
    for ending in ("_l0", "_l0_reverse"):
        shapes[f"lstm.weight_ih{ending}"] = 4 * UNITS, EMBEDDED
        shapes[f"lstm.weight_hh{ending}"] = 4 * UNITS, UNITS
        shapes[f"lstm.bias{ending}"] = (4 * UNITS,)
    shapes |= {"linear.weight": (CLASSES, 2 * UNITS), "linear.bias": (CLASSES,)}
    return {name: rng.uniform(-0.2, 0.2, s).astype(np.float32) for name, s in shapes.items()}


def write_input(path: Path, rows: int) -> None:
    """Write ragged sequences of tokens, beside an id."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(SHORTEST, LONGEST + 1, rows)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    tokens = pa.array(rng.integers(0, WORDS, offsets[-1], np.int32))
    column = pa.ListArray.from_arrays(pa.array(offsets), tokens)
    pq.write_table(pa.table({"id": np.arange(rows), "tokens": column}), path)


def batches(lengths: np.ndarray, size: int, alike: bool) -> Iterator[np.ndarray]:
    """Divide rows into batches of up to so many, the longest first; `alike`, of one length."""
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        end = begin + size
        if alike:
            end = min(end, int(np.searchsorted(-lengths[order], -lengths[order[begin]], "right")))
        yield order[begin:end]
        begin = end


def run(score: Score, source: Path, target: Path, size: int, alike: bool, workers: int) -> float:
    """Read, score in sorted batches, side by side, and write; return the seconds."""
    began = time.perf_counter()
    table = pq.read_table(source)
    column = table.column("tokens").combine_chunks()
    offsets, tokens = column.offsets.to_numpy(), column.values.to_numpy()
    lengths = np.diff(offsets)
    found = np.empty((len(lengths), CLASSES), np.float32)

    def work(rows: np.ndarray) -> None:
        steps = np.arange(lengths[rows[0]])[:, None]
        places = np.minimum(offsets[rows] + steps, offsets[rows + 1] - 1)
        found[rows] = score(tokens[places].astype(np.int64), lengths[rows])

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(work, batches(lengths, size, alike)):
            pass
    values = pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), CLASSES)
    pq.write_table(pa.table({"id": table.column("id"), "prediction": values}), target)
    return time.perf_counter() - began
