"""A training run as one file, from which it goes on as if it had never stopped.

The file is a safetensors file: parameters, what the optimizer keeps, the best parameters and the
carried state are its tensors; numbers are JSON in its metadata, which gives each float64 back
exactly. It is written whole or not at all, so a kill at any moment leaves the one before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm.io.safetensors import read, write

__all__ = ["read_checkpoint", "write_checkpoint"]

Tensors = dict[str, npt.NDArray[np.floating[Any]]]

_FORMAT, _VERSION = "cylstm-checkpoint", "1"


def write_checkpoint(
    path: str | os.PathLike[str],
    numbers: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, npt.NDArray[np.floating[Any]]]],
    carried: Any,
) -> None:
    """Write a run.

    Parameters
    ----------
    path : path-like
        The file; one that is there is replaced.
    numbers : mapping
        What JSON can hold.
    groups : mapping of str to mapping of str to ndarray
        Tensors by group and name; no group's name has a dot, or is ``carried``.
    carried : None, ndarray, or list or tuple of such
        The state that goes on in the next batch.
    """
    tensors = {f"{group}.{name}": t for group, own in groups.items() for name, t in own.items()}
    said = dict(numbers) | {"carried": _flatten(carried, "carried", tensors)}
    metadata = {"format": _FORMAT, "version": _VERSION, "run": json.dumps(said, allow_nan=False)}
    write(path, tensors, metadata)


def read_checkpoint(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, Tensors], Any]:
    """Read what `write_checkpoint` wrote; tuples in `carried` come back as lists.

    Raises
    ------
    ValueError
        If the file is no checkpoint, or of another version; the message names it.
    OSError
        If it cannot be read.
    """
    tensors, metadata = read(path)
    kind = metadata.get("format"), metadata.get("version")
    if kind != (_FORMAT, _VERSION):
        raise ValueError(
            f"{os.fspath(path)}: expected a checkpoint ({_FORMAT} {_VERSION}), "
            f"got format {kind[0]!r}, version {kind[1]!r}"
        )
    numbers = json.loads(metadata["run"])
    groups: dict[str, Tensors] = {}
    for full, tensor in tensors.items():
        group, _, name = full.partition(".")
        groups.setdefault(group, {})[name] = tensor
    carried = _unflatten(numbers.pop("carried"), tensors)
    return numbers, groups, carried


def _flatten(carried: Any, name: str, tensors: Tensors) -> Any:
    """Put the arrays among the tensors; return the same structure with their names."""
    if carried is None:
        return None
    if isinstance(carried, np.ndarray):
        tensors[name] = carried
        return name
    return [_flatten(part, f"{name}.{i}", tensors) for i, part in enumerate(carried)]


def _unflatten(described: Any, tensors: Mapping[str, Any]) -> Any:
    """Return the inverse of `_flatten`."""
    if isinstance(described, list):
        return [_unflatten(part, tensors) for part in described]
    return None if described is None else tensors[described]
