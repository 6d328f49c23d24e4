"""A training run as one file, from which it goes on as if it had never stopped.

The file is a safetensors file: parameters, what the optimizer keeps, the best parameters and the
carried state are its tensors; numbers are JSON in its metadata, which gives each float64 back
exactly. It is written whole or not at all, so a kill at any moment leaves the one before.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from reprlib import repr as short  # a hostile value must not fill the screen
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.io.files import naming, parse_object
from cylstm.io.safetensors import check, read, write

__all__ = ["check_checkpoint", "check_tensors", "read_checkpoint", "write_checkpoint"]

Tensors = dict[str, npt.NDArray[np.floating[Any]]]
Groups = Mapping[str, Mapping[str, npt.NDArray[np.floating[Any]]]]

_FORMAT, _VERSION = "cylstm-checkpoint", "1"
_GROUPS = ("model", "optimizer", "best", "carried")


def write_checkpoint(
    path: str | os.PathLike[str], numbers: Mapping[str, Any], groups: Groups, carried: Any
) -> None:
    """Write a run.

    Parameters
    ----------
    path : path-like
        The file; one that is there is replaced.
    numbers : mapping
        Those of `_EXPECTED`; floats may be NaN or infinite.
    groups : mapping of str to mapping of str to ndarray
        Tensors by group, ``model``, ``optimizer`` and, where there is one, ``best``, and by name.
    carried : None, ndarray, or list or tuple of such
        The state that goes on in the next batch.
    """
    write(path, *_encode(numbers, groups, carried))


def check_checkpoint(
    path: str | os.PathLike[str], numbers: Mapping[str, Any], groups: Groups
) -> None:
    """Raise what `write_checkpoint` would, as far as it can be known before; change nothing."""
    for name, value in numbers["settings"].items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            article = "an" if name == "optimizer" else "a"
            raise TypeError(
                f"checkpoint: expected {article} {name} of which JSON can hold the configuration: "
                f"{error}"
            ) from None
    check(path, *_encode(numbers, groups, None), "checkpoint")


def read_checkpoint(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, Tensors], Any]:
    """Read what `write_checkpoint` wrote; tuples in `carried` come back as lists.

    Raises
    ------
    ValueError
        If the file is no checkpoint, or of another version, or lacks something, or holds something
        else than was expected; the message names it.
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
    with naming(path):
        if "run" not in metadata:
            raise ValueError("expected the metadata of a run, got none")
        numbers = parse_object(metadata["run"], "the run", nan=True)
        _without_metrics(numbers)
        if "carried" not in numbers:
            raise ValueError("expected 'carried' in the run, got none")
        described = numbers.pop("carried")
        _check_numbers("run", numbers, _EXPECTED)
        _check_history(numbers["history"])
        try:
            carried = _unflatten(described, tensors)
        except RecursionError:
            raise ValueError("carried: nested too deeply") from None
        return numbers, _grouped(tensors), carried


def check_tensors(path: str | os.PathLike[str], found: Groups, expected: Groups) -> None:
    """Check that a checkpoint's tensors are those that a run would have written.

    Raises
    ------
    ValueError
        If one is missing or unexpected, or of another shape or dtype; the message names the file.
    """
    with naming(path):
        for group, own in expected.items():
            there = found.get(group, {})
            for name in own | there:
                wanted, got = (_described(tensors.get(name)) for tensors in (own, there))
                if wanted != got:
                    raise ValueError(f"{group}.{short(name)}: expected {wanted}, got {got}")


def _described(tensor: npt.NDArray[Any] | None) -> str:
    return "none" if tensor is None else f"{tensor.dtype} of shape {tensor.shape}"


def _encode(
    numbers: Mapping[str, Any], groups: Groups, carried: Any
) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors and the metadata of the file."""
    tensors = {f"{group}.{name}": t for group, own in groups.items() for name, t in own.items()}
    said = dict(numbers) | {"carried": _flatten(carried, "carried", tensors)}
    return tensors, {"format": _FORMAT, "version": _VERSION, "run": json.dumps(said)}


def _grouped(tensors: Tensors) -> dict[str, Tensors]:
    """Return the tensors by group and name."""
    groups: dict[str, Tensors] = {}
    for full, tensor in tensors.items():
        group, _, name = full.partition(".")
        if group not in _GROUPS:
            raise ValueError(f"{short(full)}: expected tensors of {', '.join(_GROUPS)} alone")
        groups.setdefault(group, {})[name] = tensor
    return groups


def _flatten(carried: Any, name: str, tensors: Tensors) -> Any:
    """Put the arrays among the tensors; return the same structure with their names."""
    if carried is None:
        return None
    if isinstance(carried, np.ndarray):
        tensors[name] = carried
        return name
    if not isinstance(carried, (list, tuple)):
        raise TypeError(
            f"checkpoint: expected a model whose state is of arrays, lists and tuples, "
            f"got {type(carried).__name__}"
        )
    return [_flatten(part, f"{name}.{i}", tensors) for i, part in enumerate(carried)]


def _unflatten(described: Any, tensors: Mapping[str, Any]) -> Any:
    """Return the inverse of `_flatten`."""
    if isinstance(described, list):
        return [_unflatten(part, tensors) for part in described]
    if described is None:
        return None
    if not isinstance(described, str) or described not in tensors:
        raise ValueError(f"carried: expected the name of a tensor, got {short(described)}")
    return tensors[described]


def _without_metrics(numbers: dict[str, Any]) -> None:
    """Let a checkpoint from before there were metrics have none."""
    history = numbers.get("history")
    if isinstance(history, dict) and "measures" not in numbers:
        numbers["measures"] = {}
        history.setdefault("metrics", {})
        history.setdefault("validation_metrics", {})


# The numbers -------------------------------------------------------------------------------------

Kind = tuple[str, Callable[[Any], bool]]  # what is expected, and whether a value is so


def _is_count(value: Any, largest: int = sys.maxsize) -> bool:
    return type(value) is int and 0 <= value <= largest


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


_COUNT: Kind = ("an integer from 0", _is_count)
_STEPS: Kind = ("an integer from 0 to 2**31 - 1", lambda v: _is_count(v, checks.LARGEST))
_NUMBER: Kind = ("a number", _is_number)
_RATE: Kind = ("a finite number from 0", lambda v: _is_number(v) and 0 <= v < float("inf"))
_NUMBERS: Kind = ("numbers", lambda v: isinstance(v, list) and all(map(_is_number, v)))
_FLAG: Kind = ("true or false", lambda v: isinstance(v, bool))
_SETTINGS: Kind = (
    "settings with a seed",
    lambda v: isinstance(v, dict) and _is_count(v.get("seed")),
)

_MEAN: dict[str, Kind] = {"total": _NUMBER, "weight": _COUNT}


def _are_means(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(mean, dict)
        and mean.keys() == _MEAN.keys()
        and all(fits(mean[name]) for name, (_, fits) in _MEAN.items())
        for mean in value.values()
    )


_LISTS: Kind = (
    "lists of numbers by name",
    lambda v: isinstance(v, dict) and all(map(_NUMBERS[1], v.values())),
)

_EXPECTED: dict[str, Any] = {
    "settings": _SETTINGS,
    "batch": _COUNT,
    "taken": _COUNT,
    "mean": _MEAN,
    "measures": ("means by name", _are_means),
    "largest_norm": _NUMBER,
    "history": {
        "loss": _NUMBERS,
        "validation": _NUMBERS,
        "lr": _NUMBERS,
        "grad_norm": _NUMBERS,
        "stopped": _FLAG,
        "metrics": _LISTS,
        "validation_metrics": _LISTS,
    },
    "optimizer_steps": _STEPS,
    "lr": _RATE,
}


def _check_numbers(where: str, found: Any, expected: Mapping[str, Any]) -> None:
    """Check that a JSON value is an object of what is expected, and nothing else."""
    if not isinstance(found, dict):
        raise ValueError(f"{where}: expected an object, got {short(found)}")
    for name in expected | found:
        if name not in found:
            raise ValueError(f"{where}: expected {name!r}, got none")
        if name not in expected:
            raise ValueError(f"{where}: expected {', '.join(expected)} alone, got {short(name)}")
        if isinstance(expected[name], dict):
            _check_numbers(name, found[name], expected[name])
            continue
        what, fits = expected[name]
        if not fits(found[name]):
            raise ValueError(f"{where}, {name}: expected {what}, got {short(found[name])}")


def _check_history(history: Mapping[str, list[float]]) -> None:
    """Check that it has one number an epoch in each list."""
    epochs = len(history["loss"])
    for kind, count in (("metrics", epochs), ("validation_metrics", len(history["validation"]))):
        for name, values in history[kind].items():
            if len(values) != count:
                raise ValueError(
                    f"history, {kind}, {short(name)}: expected {count} numbers, got {len(values)}"
                )
    for name in ("validation", "lr", "grad_norm"):
        count = len(history[name])
        if count != epochs and (name != "validation" or count):
            raise ValueError(f"history, {name}: expected {epochs} numbers, got {count}")
