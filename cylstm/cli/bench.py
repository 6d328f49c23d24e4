"""`cylstm bench`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from cylstm.cli.info import Work, leaves_of, parameters_of, work_of
from cylstm.cli.limits import Limits, best
from cylstm.core.team import get_num_threads, limit_threads_here
from cylstm.predict.model import Predictor

__all__ = ["run"]


def run(given: argparse.Namespace) -> int:
    """Time a model."""
    from cylstm.opening import load_to_score

    predictor = Predictor(load_to_score(given.file, given.batch_first), given.batch_first)
    threads = given.threads or sorted({1, get_num_threads()})
    works = [work_of(layer) for layer in leaves_of(predictor.model)]
    step = Work(sum(work.flops for work in works), sum(work.bytes for work in works))
    recurrent = sum(
        array.nbytes
        for layer in leaves_of(predictor.model)
        for name, array in parameters_of(layer)
        if array.ndim == 2 and name.startswith(("weight_hh", "weight_hr"))
    )
    rows, limits = [], {}
    for count in threads:
        limit_threads_here(count)
        limits[count] = Limits.of(count, step.bytes)
        rows += [
            _row(count, timed, step, recurrent, limits[count]) for timed in _times(predictor, given)
        ]
    limit_threads_here(0)
    found = {
        "file": given.file,
        "flops_per_step": step.flops,
        "bytes_per_step": step.bytes,
        "limits": [{"threads": count} | vars(limit) for count, limit in limits.items()],
        "times": rows,
    }
    print(json.dumps(found) if given.json else _text(rows, limits))
    return 0


def _row(
    threads: int, timed: tuple[str, float, int, int], step: Work, recurrent: int, limits: Limits
) -> dict[str, Any]:
    """Return what a time is; of many steps each has to read the recurrent weights again."""
    name, took, steps, batch = timed
    flops = step.flops * steps * batch
    least, what = limits.least(flops, step.bytes if steps == 1 else recurrent * steps)
    return {
        "threads": threads,
        "what": name,
        "microseconds": took * 1e6,
        "steps_per_second": steps * batch / took,
        "gflops": flops / took / 1e9,
        "share": least / took,
        "limit": what,
    }


def _times(predictor: Predictor, given: argparse.Namespace) -> list[tuple[str, float, int, int]]:
    """Return what was timed, its seconds, and of how many steps of how many sequences it is."""
    found = []
    for batch in given.batches:
        step = _stream(predictor, batch)
        if step is not None:
            found.append((f"a stream's step, N={batch}", best(step), 1, batch))
        x = _input(predictor, batch, given.steps)
        took = best(lambda x=x: predictor.run(x, None))  # type: ignore[misc]
        found.append((f"a call, T={given.steps} N={batch}", took, given.steps, batch))
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


def _text(rows: list[dict[str, Any]], limits: dict[int, Limits]) -> str:
    lines = [
        f"{'threads':>7}  {'what':24}  {'us':>12}  {'steps/s':>12}  {'GFLOP/s':>8}  share of limit"
    ]
    lines += [
        f"{row['threads']:7}  {row['what']:24}  {row['microseconds']:12,.1f}  "
        f"{row['steps_per_second']:12,.0f}  {row['gflops']:8.1f}  "
        f"{row['share']:5.0%} {row['limit']}"
        for row in rows
    ]
    lines += [
        f"limit of {count} threads: arithmetic {limit.flops / 1e9:,.0f} GFLOP/s, "
        f"reading the weights {limit.bytes / 1e9:,.0f} GB/s, as measured here; "
        "which takes longer is named"
        for count, limit in limits.items()
    ]
    return "\n".join(lines)
