"""Columns of Arrow as ragged arrays, and what in them cannot be scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cylstm.jobs.arrays import as_arrow, as_numpy, is_missing
from cylstm.jobs.stored import is_list, list_parts
from cylstm.predict.ragged import Ragged, any_within

__all__ = ["Problems", "is_number", "lengths_of", "lists_of", "plain", "scalars_of"]


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is of integers or floating-point numbers."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


@dataclass
class Problems:
    """What is wrong with sequences, the first thing found of each.

    Attributes
    ----------
    bad : array of bool, (N,)
    found : dict
        By sequence: the step, or None for all of it, the column, and the reason.
    """

    bad: np.ndarray
    found: dict[int, tuple[int | None, str, str]] = field(default_factory=dict)

    def of_sequences(self, flags: np.ndarray | None, column: str, reason: str) -> None:
        """Note sequences (N,)."""
        if flags is None or not flags.any():
            return
        for n in np.flatnonzero(flags & ~self.bad).tolist():
            self.found[n] = None, column, reason
        self.bad |= flags

    def of_steps(
        self,
        flags: np.ndarray,
        offsets: np.ndarray,
        column: str | Sequence[str],
        reason: Callable[[int], str],
    ) -> None:
        """Note steps (S,), or features of steps (S, F), where a column is each feature's."""
        steps = flags.any(axis=1) if flags.ndim == 2 else flags
        if not steps.any():
            return
        hit = any_within(steps, offsets)
        for n in np.flatnonzero(hit & ~self.bad).tolist():
            first = int(offsets[n] - offsets[0])
            step = first + int(steps[first:].argmax())
            name = column
            if not isinstance(column, str):
                name = column[int(flags[step].argmax())]
            self.found[n] = step - first, str(name), reason(step)
        self.bad |= hit

    def join(self, other: Problems, bounds: np.ndarray, order: np.ndarray | None) -> None:
        """Add what was found in steps that had been put in another order."""
        for n, (step, column, reason) in other.found.items():
            if not self.bad[n]:
                if step is not None and order is not None:
                    step = int(order[bounds[n] + step] - bounds[n])
                self.found[n] = step, column, reason
        self.bad |= other.bad


# Arrow to NumPy ----------------------------------------------------------------------------------


def lengths_of(array: pa.Array) -> np.ndarray:
    """Return how long each list is; what is null has no step."""
    lengths = np.diff(list_parts(array)[0])
    missing = is_missing(array)
    if missing is not None:
        lengths[missing] = 0
    return lengths


def numbers(array: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """Return numbers, 0 where there is none, and where that is."""
    if not array.null_count:
        return as_numpy(array), None
    filled = pc.fill_null(array, pa.scalar(0, array.type))
    return as_numpy(filled), is_missing(array)


def plain(array: pa.Array, row: int) -> Any:
    """Return a value as Python has it, or its text."""
    try:
        return array[row].as_py()
    except ValueError:  # of nanoseconds, for which Python has no type
        return str(array[row].cast(pa.string()))


def lists_of(
    arrays: Sequence[pa.Array], names: Sequence[str], what: Any
) -> tuple[Ragged, Problems]:
    """Return list columns as sequences: one column of all features, or one for each.

    Parameters
    ----------
    arrays : sequence of Array
    names : sequence of str
    what : Columns
        Of which `tokens`, `size` and `dtype` say what the model takes.

    Returns
    -------
    ragged : Ragged
        With rows of no meaning where there are problems.
    problems : Problems
    """
    problems = Problems(np.zeros(len(arrays[0]), bool))
    for array, name in zip(arrays, names, strict=True):
        problems.of_sequences(is_missing(array), name, "expected a list, got null")
    offsets, values = list_parts(arrays[0])
    lengths = np.diff(offsets)
    columns = [values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))]
    for array, name in zip(arrays[1:], names[1:], strict=True):
        own, values = list_parts(array)
        differs = np.diff(own) != lengths
        problems.of_sequences(differs, name, f"expected as many steps as in {names[0]!r}")
        columns.append(_aligned(values, own, lengths, differs))
    problems.of_sequences(lengths == 0, names[0], "expected a step at least, got an empty list")
    ragged = Ragged(_values(columns, names, offsets, what, problems), offsets - offsets[0])
    return ragged, problems


def _aligned(
    values: pa.Array, own: np.ndarray, lengths: np.ndarray, differs: np.ndarray
) -> pa.Array:
    """Return values that lie as those of the first column do; of others nothing."""
    if not differs.any():
        return values.slice(int(own[0]), int(own[-1] - own[0]))
    first = np.repeat(np.where(differs, 0, own[:-1]), lengths)
    ends = np.cumsum(lengths)
    step = np.arange(int(ends[-1])) - np.repeat(ends - lengths, lengths)
    missing = np.repeat(differs, lengths)
    places = pc.if_else(pa.array(missing.tolist()), None, as_arrow(first + step))
    return values.take(places)


def scalars_of(
    arrays: Sequence[pa.Array], names: Sequence[str], offsets: np.ndarray, what: Any
) -> tuple[Ragged, Problems]:
    """Return columns with a step a row as sequences, as `lists_of` does."""
    problems = Problems(np.zeros(len(offsets) - 1, bool))
    return Ragged(_values(list(arrays), names, offsets, what, problems), offsets), problems


def _values(
    columns: list[pa.Array],
    names: Sequence[str],
    offsets: np.ndarray,
    what: Any,
    problems: Problems,
) -> np.ndarray:
    """Return all steps as the model takes them."""
    if what.tokens:
        return _tokens(columns[0], names[0], offsets, what.size, problems)
    if is_list(columns[0].type):
        values = _vectors(columns[0], names[0], offsets, what.size, problems)
        names = names[0]  # type: ignore[assignment]
    else:
        values = np.empty((len(columns[0]), len(columns)), what.dtype)
        missing = np.zeros(values.shape, bool)
        for k, (column, found) in enumerate(zip(columns, _numbers_of(columns), strict=True)):
            with np.errstate(over="ignore", invalid="ignore"):
                values[:, k] = found[0]
            if column.null_count:
                missing[:, k] = found[1]
        problems.of_steps(missing, offsets, names, lambda step: "expected a number, got null")
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(what.dtype, copy=False)
    infinite = ~np.isfinite(values)
    problems.of_steps(
        infinite,
        offsets,
        names,
        lambda step: f"expected finite {what.dtype}, got {values[step][infinite[step]][0]}",
    )
    return values


def _numbers_of(columns: list[pa.Array]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    for column in columns:
        yield numbers(column)


def _tokens(
    column: pa.Array, name: str, offsets: np.ndarray, size: int | None, problems: Problems
) -> np.ndarray:
    given, missing = numbers(column)
    if missing is not None:
        problems.of_steps(missing, offsets, name, lambda step: "expected a token, got null")
    if len(given) and (given.min() < 0 or (size is not None and given.max() >= size)):
        outside = given < 0
        if size is not None:
            outside |= given >= size
        known = "0 or more" if size is None else f"0 to {size - 1}"
        problems.of_steps(
            outside, offsets, name, lambda step: f"expected a token from {known}, got {given[step]}"
        )
    return given.astype(np.int64, copy=False)


def _vectors(
    column: pa.Array, name: str, offsets: np.ndarray, size: int, problems: Problems
) -> np.ndarray:
    """Return lists of `size` numbers, as an array (S, size)."""
    missing = is_missing(column)
    if missing is not None:
        problems.of_steps(missing, offsets, name, lambda step: "expected a step, got null")
    inner, values = list_parts(column)
    widths = np.diff(inner)
    if missing is not None:
        widths = np.where(missing, size, widths)  # noted already
    wrong = widths != size
    problems.of_steps(
        wrong, offsets, name, lambda step: f"expected {size} features, got {widths[step]}"
    )
    if missing is None and not wrong.any():
        flat = values.slice(int(inner[0]), int(inner[-1] - inner[0]))
        found, absent = numbers(flat)
        shape = len(column), size
        found, absent = found.reshape(shape), None if absent is None else absent.reshape(shape)
    else:
        usable = ~wrong if missing is None else ~(wrong | missing)
        everything, lacking = numbers(values)
        places = inner[:-1][usable][:, None] + np.arange(size)
        found = np.zeros((len(column), size), everything.dtype)
        found[usable] = everything[places]
        absent = None
        if lacking is not None:
            absent = np.zeros(found.shape, bool)
            absent[usable] = lacking[places]
    if absent is not None:
        problems.of_steps(
            absent.any(axis=1), offsets, name, lambda step: "expected a number, got null"
        )
    return found
