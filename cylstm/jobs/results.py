"""Outputs as columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cylstm.jobs.arrays import as_arrow
from cylstm.jobs.options import Columns
from cylstm.jobs.parts import Part

__all__ = ["schema_of", "table_of"]


def schema_of(columns: Columns) -> pa.Schema:
    """Return the columns of the output."""
    keys = [
        pa.field(name, columns.schema.field(name).type, columns.schema.field(name).nullable)
        for name in columns.keys
    ]
    return pa.schema(keys + [pa.field(name, _type(columns, n)) for name, n in _widths(columns)])


def table_of(part: Part, arrays: dict[str, np.ndarray], columns: Columns) -> pa.Table:
    """Return a part's output: the keys, and what the model gave."""
    schema = schema_of(columns)
    made = []
    for name in columns.keys:
        column = part.keys.column(name)
        made.append(column.cast(schema.field(name).type).combine_chunks())
    for name, width in _widths(columns):
        made.append(_column(part, arrays[name], width, columns))
    return pa.Table.from_arrays(made, schema=schema)


def _widths(columns: Columns) -> list[tuple[str, int]]:
    return list(columns.outputs.widths.items())


def _type(columns: Columns, width: int) -> pa.DataType:
    """Of one prediction."""
    outputs = columns.outputs
    if columns.options.labels is not None:
        kind = pa.string()
    else:
        kind = pa.from_numpy_dtype(outputs.dtype)
        kind = pa.list_(kind, width) if width > 1 else kind
    return pa.list_(kind) if outputs.per_step and columns.is_whole else kind


def _column(part: Part, array: np.ndarray, width: int, columns: Columns) -> pa.Array:
    if part.places is not None:
        ordered = np.empty_like(array)
        ordered[part.places] = array
        array = ordered
    values = as_arrow(array.reshape(-1))
    if columns.options.labels is not None:
        values = pa.array(columns.options.labels, pa.string()).take(values)
    elif width > 1:
        values = pa.FixedSizeListArray.from_arrays(values, width)
    if columns.outputs.per_step and columns.is_whole:
        return pa.ListArray.from_arrays(as_arrow(part.ragged.offsets.astype(np.int32)), values)
    return values
