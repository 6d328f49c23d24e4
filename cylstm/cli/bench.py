"""`cylstm bench`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cylstm.cli.info import leaves_of, work_of
from cylstm.core.team import get_num_threads, limit_threads_here
from cylstm.layers import Linear
from cylstm.predict.model import Predictor

__all__ = ["run"]

SECONDS = 0.3  # that a time is taken from
ROWS, WIDTH = 480, 256  # of the product that the machine's speed is measured with


def run(given: argparse.Namespace) -> int:
    """Time a model."""
    from cylstm.opening import load_to_score

    predictor = Predictor(load_to_score(given.file, given.batch_first), given.batch_first)
    threads = given.threads or sorted({1, get_num_threads()})
    flops = sum(work_of(layer).flops for layer in leaves_of(predictor.model))
    rows = []
    for count in threads:
        limit_threads_here(count)
        speed = machine_speed()
        rows += [_row(count, name, took, flops * steps, steps, speed)
                 for name, took, steps in _times(predictor, given)]  # fmt: skip
    limit_threads_here(0)
    print(json.dumps({"file": given.file, "flops_per_step": flops, "times": rows}) if given.json
          else _text(rows))  # fmt: skip
    return 0


def _row(
    threads: int, name: str, took: float, flops: int, steps: int, speed: float
) -> dict[str, Any]:
    return {
        "threads": threads,
        "what": name,
        "microseconds": took * 1e6,
        "steps_per_second": steps / took,
        "gflops": flops / took / 1e9,
        "share": flops / took / speed,
    }


def _times(predictor: Predictor, given: argparse.Namespace) -> list[tuple[str, float, int]]:
    """Return what was timed, the seconds that it takes, and how many steps these are."""
    found = []
    for batch in given.batches:
        step = _stream(predictor, batch)
        if step is not None:
            found.append((f"a stream's step, N={batch}", best(step), batch))
        x = _input(predictor, batch, given.steps)
        took = best(lambda x=x: predictor.run(x, None))  # type: ignore[misc]
        found.append((f"a call, T={given.steps} N={batch}", took, batch * given.steps))
    return found


def _input(predictor: Predictor, batch: int, steps: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (batch, steps) if predictor.batch_first else (steps, batch)
    if predictor.tokens:
        return rng.integers(0, predictor.size or 2, shape)
    return rng.standard_normal((*shape, predictor.size or 1)).astype(predictor.dtype)


def _stream(predictor: Predictor, batch: int) -> Callable[[], Any] | None:
    """Return what advances a stream, for models that have one."""
    try:
        stream = predictor.model.stream(batch)
        x = _input(predictor, batch, 1)
        x = x[:, 0] if predictor.batch_first else x[0]
        stream.step(x)
    except (AttributeError, TypeError, ValueError):
        return None
    return lambda: stream.step(x)


def best(work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of many runs."""
    work()
    least, begin = float("inf"), time.perf_counter()
    while (now := time.perf_counter()) - begin < SECONDS:
        work()
        least = min(least, time.perf_counter() - now)
    return least


def machine_speed() -> float:
    """Return the multiplications and additions a second of one large product in the cache."""
    linear = Linear(WIDTH, WIDTH, seed=0)
    x = np.ones((ROWS, WIDTH), np.float32)
    return 2 * ROWS * WIDTH * WIDTH / best(lambda: linear(x))


def _text(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'threads':>7}  {'what':24}  {'us':>12}  {'steps/s':>12}  {'GFLOP/s':>8}  share"]
    lines += [
        f"{row['threads']:7}  {row['what']:24}  {row['microseconds']:12,.1f}  "
        f"{row['steps_per_second']:12,.0f}  {row['gflops']:8.1f}  {row['share']:5.0%}"
        for row in rows
    ]
    lines.append(
        f"share: of the speed of a product of {ROWS}x{WIDTH} and {WIDTH}x{WIDTH} on as many threads"
    )
    return "\n".join(lines)
