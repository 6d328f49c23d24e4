"""What a job is asked to do, checked; and what that means for the columns that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from cylstm import checks
from cylstm.jobs.columns import is_number
from cylstm.jobs.rows import ON_ERROR
from cylstm.jobs.stored import has_text, is_list
from cylstm.predict.outputs import Outputs

__all__ = ["Columns", "Options"]

PART_ROWS = 65_536
NAME = "prediction"


@dataclass(frozen=True)
class Options:
    """What changes the output's bytes; `cylstm.score` says what each is."""

    features: tuple[str, ...] | None = None
    by: tuple[str, ...] = ()
    order: str | None = None
    keys: tuple[str, ...] | None = None
    output: str = "raw"
    steps: str | None = None
    labels: tuple[str, ...] | None = None
    on_error: str = "fail"
    limit: int | None = None
    part_rows: int = PART_ROWS
    batch_first: bool | None = None

    @staticmethod
    def checked(**given: Any) -> Options:
        """Return options, every value checked and in its plain type."""
        for name in ("features", "by", "keys", "labels"):
            given[name] = _names(name, given[name])
        given["by"] = given["by"] or ()
        if given["order"] is not None:
            if not isinstance(given["order"], str):
                raise TypeError(f"order: expected a column's name, got {given['order']!r}")
            if not given["by"]:
                raise ValueError("order: expected `by` beside it, since it is of a step a row")
        if given["by"] and not given["features"]:
            raise ValueError("features: expected the columns of a step's features, got none")
        if given["on_error"] not in ON_ERROR:
            raise ValueError(
                f"on_error: expected one of {', '.join(ON_ERROR)}, got {given['on_error']!r}"
            )
        if given["limit"] is not None:
            given["limit"] = checks.whole("limit", given["limit"], 1)
        given["part_rows"] = checks.whole("part_rows", given["part_rows"], 1)
        if given["labels"] is not None and given["output"] != "argmax":
            raise ValueError(f"labels: expected output='argmax', got {given['output']!r}")
        return Options(**given)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(self).items()}


def _names(name: str, given: Any) -> tuple[str, ...] | None:
    if given is None:
        return None
    listed = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(one, str) for one in listed):
        raise TypeError(f"{name}: expected names, got {given!r}")
    if name != "labels" and len(set(listed)) < len(listed):
        raise ValueError(f"{name}: expected different names, got {', '.join(listed)}")
    return listed


class Columns:
    """Which columns are read for what, and what the model's outputs become.

    Parameters
    ----------
    options : Options
    outputs : Outputs
    schema : Schema
        Of the input.

    Attributes
    ----------
    features, by, keys : tuple of str
    order : str or None
    tokens : bool
        Whether the features are tokens.
    size : int or None
        How many tokens there are, or how many features.
    dtype : dtype
        Of features.
    read : tuple of str
        All columns that are read.
    """

    def __init__(self, options: Options, outputs: Outputs, schema: pa.Schema) -> None:
        self.options, self.outputs, self.schema = options, outputs, schema
        predictor = outputs.predictor
        twice = next((n for n in schema.names if schema.names.count(n) > 1), None)
        if twice is not None:
            raise ValueError(f"source: expected columns of different names, got {twice!r} twice")
        self.by, self.order = options.by, options.order
        self.dtype = predictor.dtype
        self.features = options.features or self._one_list()
        order = () if self.order is None else (self.order,)
        for name, columns in (("features", self.features), ("by", self.by), ("order", order)):
            self._check_there(name, columns)
        self.tokens, self.size = self._input(predictor.tokens, predictor.size)
        if self.by:
            self._check_groups()
        self.keys = self._keys()
        self.read = tuple(dict.fromkeys((*self.by, *order, *self.features, *self.keys)))
        self._check_labels()

    @property
    def is_whole(self) -> bool:
        """Whether a row of the input is a whole sequence."""
        return not self.by

    @property
    def step_bytes(self) -> int:
        """What a step takes in memory, at least."""
        taken = 8 if self.tokens else (self.size or 1) * self.dtype.itemsize
        return max(taken, self.outputs.nbytes if self.outputs.per_step else 0)

    def _type(self, name: str) -> pa.DataType:
        return self.schema.field(name).type

    def _check_there(self, argument: str, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.schema.names:
                raise ValueError(
                    f"{argument}: expected columns of the input, {', '.join(self.schema.names)}; "
                    f"got {name!r}"
                )

    def _one_list(self) -> tuple[str, ...]:
        found = [field.name for field in self.schema if is_list(field.type)]
        if len(found) != 1:
            there = f"list columns {', '.join(found)}" if found else "no list column"
            if not found:
                there += next((_hint(f.type) for f in self.schema if has_text(f.type)), "")
            raise ValueError(
                "features: expected the column of sequences, or with `by` those of a step's "
                f"features; the input has {there}"
            )
        return tuple(found)

    def _input(self, tokens: bool | None, size: int | None) -> tuple[bool, int | None]:
        """Return whether the features are tokens, and how many of them there are."""
        kinds = [self._type(name) for name in self.features]
        if not self.by:
            for name, kind in zip(self.features, kinds, strict=True):
                if not is_list(kind):
                    raise ValueError(
                        f"features: expected list columns, a sequence a row (or `by`, for a step "
                        f"a row); {name!r} has {kind}{_hint(kind)}"
                    )
            kinds = [kind.value_type for kind in kinds]
        if tokens is None:
            tokens = len(kinds) == 1 and pa.types.is_integer(kinds[0])
        if tokens:
            if len(kinds) != 1 or not pa.types.is_integer(kinds[0]):
                got = ", ".join(f"{n} ({k})" for n, k in zip(self.features, kinds, strict=True))
                raise ValueError(
                    "features: expected one column of tokens, integers, which this model takes; "
                    f"got {got}"
                )
            return True, size
        nested = len(kinds) == 1 and is_list(kinds[0]) and not self.by
        width = self._width_of(kinds[0], size) if nested else len(kinds)
        leaves = [kinds[0].value_type] if nested else kinds
        for name, kind in zip(self.features, leaves, strict=True):
            if not is_number(kind):
                raise ValueError(f"features: expected numbers, got {kind} in column {name!r}")
        if size is not None and width != size:
            hint = ""
            if len(leaves) == 1 and pa.types.is_integer(leaves[0]):
                hint = (
                    "; tokens are for a model that begins with an Embedding (of a file of PyTorch "
                    "the LSTM alone is read)"
                )
            raise ValueError(
                f"features: expected {size} of a step, which this model takes, got {width}{hint}"
            )
        return False, width

    def _width_of(self, kind: pa.DataType, size: int | None) -> int:
        if pa.types.is_fixed_size_list(kind):
            return kind.list_size
        if size is None:
            raise ValueError(
                "features: expected a list of fixed size for each step, since the model does not "
                f"tell how many features it takes; got {kind}"
            )
        return size

    def _check_groups(self) -> None:
        for name in self.by:
            kind = self._type(name)
            if not _is_plain(kind) or pa.types.is_floating(kind):
                raise ValueError(f"by: expected integers, text or times, got {kind} in {name!r}")
        if self.order is not None and not _is_plain(self._type(self.order)):
            raise ValueError(
                f"order: expected numbers, text or times, got {self._type(self.order)}"
            )

    def _keys(self) -> tuple[str, ...]:
        """Return the columns that go on to the output."""
        keys, per_step = self.options.keys, self.outputs.per_step
        if self.by:
            own = (*self.by, *((self.order,) if self.order and per_step else ()))
            keys = own if keys is None else keys
            other = next((name for name in keys if name not in self.by), None)
            if other is not None and not per_step:
                raise ValueError(
                    "keys: expected columns of `by`, since a prediction is of a whole group; "
                    f"got {other!r}"
                )
        elif keys is None:
            keys = tuple(
                field.name
                for field in self.schema
                if field.name not in self.features and not pa.types.is_nested(field.type)
            )
        self._check_there("keys", keys)
        for name in keys:
            if pa.types.is_interval(self._type(name)):
                raise ValueError(
                    f"keys: expected what Parquet can hold, got {self._type(name)} in {name!r}"
                )
        taken = next((name for name in keys if name in self.outputs.widths), None)
        if taken is not None:
            raise ValueError(f"keys: expected other names than {taken!r}, which the output uses")
        return tuple(keys)

    def _check_labels(self) -> None:
        labels, width = self.options.labels, self.outputs.predictor.width
        if labels is not None and len(labels) != width:
            raise ValueError(f"labels: expected {width}, one for each output, got {len(labels)}")


def _hint(kind: pa.DataType) -> str:
    """Say what text is not, which a model of tokens is often given."""
    return "; text has to be made tokens before, as it was for training" if has_text(kind) else ""


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_float16(kind):  # which Arrow does not rank
        return False
    return (
        is_number(kind) or pa.types.is_temporal(kind) or pa.types.is_string(kind)
        or pa.types.is_large_string(kind) or pa.types.is_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )  # fmt: skip
