"""A job's work on tables in memory, for engines that divide data among processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from warnings import warn

import numpy as np
import pyarrow as pa

from cylstm.jobs.files import Block
from cylstm.jobs.options import Columns, Options
from cylstm.jobs.parts import parts_of
from cylstm.jobs.readers import BLOCK_BYTES
from cylstm.jobs.results import schema_of, table_of
from cylstm.jobs.stored import is_list, plain_batches, plain_schema
from cylstm.opening import load_to_score
from cylstm.predict.batches import scorers_for
from cylstm.predict.model import Predictor
from cylstm.predict.outputs import Outputs

__all__ = ["as_given", "predictor_of", "scored"]

_lock = threading.Lock()
_loaded: dict[Any, Predictor] = {}  # of this process


def predictor_of(model: Any, batch_first: bool | None) -> Predictor:
    """Return a model's predictor; a file is read once in a process, and again if it changed."""
    if not isinstance(model, (str, bytes, os.PathLike)):
        return Predictor(model, batch_first)
    status = os.stat(model)
    key = os.path.realpath(model), status.st_size, status.st_mtime_ns, batch_first
    with _lock:
        if key not in _loaded:
            for old in [known for known in _loaded if known[0] == key[0]]:
                del _loaded[old]
            _loaded[key] = Predictor(load_to_score(model, batch_first), batch_first)
        return _loaded[key]


@dataclass(frozen=True)
class _Table:
    """A table as a file of rows."""

    batches: list[pa.RecordBatch]
    path: str = "data"

    def blocks(
        self, index: int, columns: Sequence[str], types: pa.Schema, start: int = 0
    ) -> Iterator[Block]:
        row = 0
        for whole in self.batches:
            for batch in plain_batches(whole.select(list(columns)), BLOCK_BYTES):
                if row + len(batch) > start:
                    begin = max(0, start - row)
                    yield Block(batch.slice(begin), index, None, row + begin)
                row += len(batch)


def scored(
    data: Any, predictor: Predictor, options: Options, threads: int | None, batch_tokens: int | None
) -> pa.Table:
    """Return the predictions for a table, a batch, a frame or a dict of arrays."""
    table = _as_table(data)
    outputs = Outputs(predictor, options.output, options.steps)
    columns = Columns(options, outputs, plain_schema(table.schema.remove_metadata()))
    source: Any = _Table(table.to_batches())
    found = []
    with scorers_for(predictor, threads, batch_tokens) as scorers:
        for part in parts_of([source], columns):
            if part.skipped:
                warn(f"{len(part.skipped)} skipped, the first: {part.skipped[0]}", stacklevel=3)
            arrays = scorers.submit(part.ragged, outputs).result()
            found.append(table_of(part, arrays, columns))
    return pa.concat_tables(found) if found else schema_of(columns).empty_table()


def _as_table(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, dict):
        return pa.table({name: _as_column(name, values) for name, values in data.items()})
    if type(data).__name__ == "DataFrame" and hasattr(data, "iloc"):
        return pa.Table.from_pandas(data, preserve_index=False)
    raise TypeError(
        "data: expected a table or batch of Arrow, a frame of pandas or a dict of arrays, "
        f"got {type(data).__name__}"
    )


def _as_column(name: str, values: Any) -> pa.Array:
    """Return an array (N,), (N, T) or (N, T, F), or N arrays, as a column."""
    array = values if isinstance(values, np.ndarray) else None
    if array is None or array.dtype == object:
        return pa.array([v if v is None or np.ndim(v) < 2 else list(v) for v in values])
    if array.ndim > 3:
        raise ValueError(f"{name}: expected up to three axes, got shape {array.shape}")
    column = pa.array(np.ascontiguousarray(array).reshape(-1))  # of numbers, text or times
    for size in array.shape[:0:-1]:
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def as_given(table: pa.Table, data: Any, fixed_size: bool) -> Any:
    """Return a table as the kind of thing that was given."""
    if not fixed_size:
        table = table.cast(pa.schema([pa.field(f.name, _free(f.type)) for f in table.schema]))
    if isinstance(data, pa.Table):
        return table
    if isinstance(data, pa.RecordBatch):
        arrays = [column.combine_chunks() for column in table.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=table.schema)
    if isinstance(data, dict):
        return {name: _as_numpy(table.column(name).combine_chunks()) for name in table.column_names}
    frame = table.to_pandas(types_mapper=_mapper(data))
    if len(frame) == len(data):
        frame.index = data.index
    return frame


def _free(kind: pa.DataType) -> pa.DataType:
    """Return a type with lists of any size in place of those of a fixed one."""
    if not is_list(kind):
        return kind
    return pa.list_(_free(kind.value_type))


def _mapper(frame: Any) -> Any:
    """Return what makes pandas' types of Arrow's: Arrow's own, if the frame has such."""
    own = [kind for kind in frame.dtypes if type(kind).__name__ == "ArrowDtype"]
    return type(own[0]) if own else None


def _as_numpy(column: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        return _as_numpy(column.flatten()).reshape(len(column), column.type.list_size)
    if not is_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    made = np.empty(len(column), object)
    values, offsets = _as_numpy(column.values), column.offsets.to_numpy()
    for n in range(len(column)):
        made[n] = values[offsets[n] : offsets[n + 1]]
    return made
