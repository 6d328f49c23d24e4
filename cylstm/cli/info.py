"""`cylstm info`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cylstm.layers import Embedding, Linear, QuantizedLinear, Sequential
from cylstm.recurrent import Recurrent

__all__ = ["Work", "leaves_of", "parameters_of", "run", "work_of"]


@dataclass(frozen=True)
class Work:
    """What a step of one sequence takes.

    Attributes
    ----------
    flops : int
        Multiplications and additions in products of matrices.
    bytes : int
        Of the parameters that are read.
    """

    flops: int
    bytes: int


@dataclass(frozen=True)
class Part:
    """A layer: what it is, and how many numbers it has."""

    layer: str
    parameters: int
    dtype: str
    flops: int
    bytes: int


def run(given: argparse.Namespace) -> int:
    """Print what a model is made of."""
    from cylstm.opening import kind_of_file, load_to_score
    from cylstm.selfcheck import is_kept

    kind = kind_of_file(given.file)
    model = load_to_score(given.file)
    parts = [_part(layer) for layer in leaves_of(model)]
    found = {
        "file": given.file,
        "format": kind,
        "size": os.path.getsize(given.file),
        "tests_itself": is_kept(given.file),  # and was as it should be, or it would not be open
        "model": type(model).__name__,
        "layers": [asdict(part) for part in parts],
        "parameters": sum(part.parameters for part in parts),
        "flops_per_step": sum(part.flops for part in parts),
        "bytes_per_step": sum(part.bytes for part in parts),
    } | _takes(model)
    print(json.dumps(found) if given.json else _text(found, parts))
    return 0


def leaves_of(model: Any) -> Iterator[Any]:
    """Iterate over the layers of a model, whatever it is."""
    if isinstance(model, Sequential):
        for layer in model:
            yield from leaves_of(layer)
    elif hasattr(model, "steps") and isinstance(model.steps, list):  # of a graph, each once
        yield from {id(step.layer): step.layer for step in model.steps}.values()
    elif hasattr(model, "lstms"):
        yield from model.lstms
    else:
        yield model


def work_of(layer: Any) -> Work:
    """Return what a layer takes for a step of one sequence, as far as its parameters tell."""
    lstm = layer if isinstance(layer, Recurrent) else getattr(layer, "lstm", None)
    arrays = [array for _, array in parameters_of(layer)]
    if isinstance(lstm, Recurrent) or isinstance(layer, (Linear, QuantizedLinear)):
        matrices = sum(array.size for array in arrays if array.ndim == 2)
        return Work(2 * matrices, sum(array.nbytes for array in arrays))
    if isinstance(layer, Embedding) or hasattr(layer, "mask_zero"):
        weight = arrays[0]
        return Work(0, weight.shape[1] * weight.itemsize)
    return Work(0, sum(array.nbytes for array in arrays))


def parameters_of(layer: Any) -> list[tuple[str, np.ndarray]]:
    """Return a layer's names and parameters, those of layers that were read too."""
    own = list(layer.named_parameters())
    if own:
        return own
    lstm = getattr(layer, "lstm", None)
    if isinstance(lstm, Recurrent):
        return list(lstm.named_parameters())
    if isinstance(layer, Recurrent):
        return []
    return [
        (name, value)
        for name, value in vars(layer).items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    ]


def _part(layer: Any) -> Part:
    arrays = [array for _, array in parameters_of(layer)]
    work = work_of(layer)
    lstm = getattr(layer, "lstm", None)
    shown = repr(lstm if isinstance(lstm, Recurrent) else layer)
    dtypes = sorted({array.dtype.name for array in arrays})
    return Part(
        shown if len(shown) <= 100 else shown[:97] + "...",
        sum(array.size for array in arrays),
        ", ".join(dtypes),
        work.flops,
        work.bytes,
    )


def _takes(model: Any) -> dict[str, Any]:
    """Return what the model takes and returns, or why that is not known."""
    from cylstm.predict.model import Predictor

    try:
        found = Predictor(model)
    except (TypeError, ValueError) as error:
        return {"takes": f"unknown: {' '.join(str(error).split())}", "returns": "unknown"}
    size = "any number of" if found.size is None else f"{found.size:,}"
    takes = f"{size} tokens" if found.tokens else f"steps of {size} features"
    axes = "(N, T)" if found.batch_first else "(T, N)"
    when = "a step" if found.keeps_time else "a sequence"
    numbers = "1 number" if found.width == 1 else f"{found.width} numbers"
    return {"takes": f"{takes}, {axes} first", "returns": f"{numbers} {when}"}


def _text(found: dict[str, Any], parts: list[Part]) -> str:
    header = ("layer", "parameters", "dtype", "flops a step", "bytes a step")
    rows = [header]
    for part in parts:
        numbers = [f"{n:,}" for n in (part.parameters, part.flops, part.bytes)]
        rows.append((part.layer, numbers[0], part.dtype, numbers[1], numbers[2]))
    sums = [f"{found[n]:,}" for n in ("parameters", "flops_per_step", "bytes_per_step")]
    rows.append(("total", sums[0], "", sums[1], sums[2]))
    widths = [max(len(row[k]) for row in rows) for k in range(len(header))]
    lines = [
        f"{found['file']}: {found['format']}, {found['size']:,} bytes, {found['model']}",
        f"takes {found['takes']}; returns {found['returns']}",
        *(["tests itself: gives the output that it keeps"] if found["tests_itself"] else []),
        "",
    ]
    for row in rows:
        cells = [
            text.ljust(width) if k in (0, 2) else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
