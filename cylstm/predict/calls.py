"""`model.predict`: sequences in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.predict.batches import Pending, scorers_for
from cylstm.predict.model import Predictor
from cylstm.predict.outputs import Outputs
from cylstm.predict.ragged import Ragged, as_ragged, lists_as_ragged

__all__ = ["predict"]


def predict(
    model: Any,
    sequences: Any,
    offsets: Any = None,
    *,
    batch_tokens: int | None = None,
    threads: int | None = None,
    batch_first: bool | None = None,
    progress: bool = False,
) -> Any:
    """Do what `Layer.predict` says."""
    checks.is_true_or_false("progress", progress)
    predictor = Predictor(model, batch_first)
    if offsets is not None:
        given = as_ragged("sequences", sequences, offsets)
    elif isinstance(sequences, np.ndarray) and sequences.dtype != object:
        raise TypeError(
            "sequences: expected a list of arrays, or values and offsets, got one array; "
            "a batch of equal lengths is for the model's call"
        )
    else:
        given = lists_as_ragged("sequences", sequences)
    ragged = Ragged(as_input(predictor, "sequences", given), given.offsets)
    outputs = Outputs(predictor)
    with scorers_for(predictor, threads, batch_tokens) as scorers:
        pending = scorers.submit(ragged, outputs)
        with _bar(progress, len(ragged)) as bar:
            for future in pending.futures:
                bar(future.result())
        return _as_given(pending, offsets is not None)


def _as_given(pending: Pending, flat: bool) -> Any:
    """Return an array a sequence, or all in one."""
    y = pending.result()["prediction"]
    if flat or not pending.outputs.per_step:
        return y
    return np.split(y, pending.ragged.offsets[1:-1]) if len(pending.ragged) else []


def as_input(predictor: Predictor, name: str, ragged: Ragged) -> np.ndarray:
    """Return values as the model takes them."""
    values = ragged.values
    if not values.size and not len(values):  # of no step nothing is known
        shape = (0,) if predictor.tokens else (0, predictor.size or 1)
        return np.zeros(shape, np.int64 if predictor.tokens else predictor.dtype)
    tokens = values.dtype.kind in "iu" and values.ndim == 1
    tokens = predictor.tokens if predictor.tokens is not None else tokens
    if tokens:
        if values.dtype.kind not in "iu" or values.ndim != 1:
            raise TypeError(
                f"{name}: expected tokens, integers (T,), got {values.dtype} "
                f"{checks.shape_text(('T', *values.shape[1:]))}"
            )
        _check_vocabulary(name, values, predictor.size)
        return values.astype(np.int64, copy=False)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers, got {values.dtype}")
    if values.ndim != 2 or (predictor.size is not None and values.shape[1] != predictor.size):
        shape = checks.shape_text(("T", predictor.size or "F"))
        raise ValueError(
            f"{name}: expected shape {shape}, got {checks.shape_text(('T', *values.shape[1:]))}"
        )
    return values.astype(predictor.dtype, copy=False)


def _check_vocabulary(name: str, values: np.ndarray, size: int | None) -> None:
    low, high = int(values.min()), int(values.max())
    if low < 0 or (size is not None and high >= size):
        raise ValueError(
            f"{name}: expected tokens from 0{'' if size is None else f' to {size - 1}'}, "
            f"got {low} to {high}"
        )


@contextmanager
def _bar(wanted: bool, total: int) -> Iterator[Any]:
    """Show how many sequences are done, if that is wanted."""
    if not wanted:
        yield lambda count: None
        return
    with checks.progress_bar("score", total=total, desc="scoring", unit=" sequences") as bar:
        yield bar.update
