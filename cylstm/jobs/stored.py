"""How Arrow's arrays store values: what each row takes, and values in place of dictionaries."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cylstm.jobs.arrays import as_numpy

__all__ = [
    "has_text",
    "is_list",
    "list_parts",
    "longest_text",
    "plain_batches",
    "plain_schema",
    "sizes_of",
    "values_of",
    "width_of",
]


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is of lists that lie one after the other."""
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def list_parts(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Return the offsets (N + 1,) of lists, and the values that these count."""
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        return (array.offset + np.arange(len(array) + 1)) * width, array.values
    return as_numpy(array.offsets).astype(np.int64), array.values


# What rows take ----------------------------------------------------------------------------------


def has_text(kind: pa.DataType) -> bool:
    """Whether a type is of text or bytes, of any length."""
    types = pa.types
    return (
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        or types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    )  # fmt: skip


def width_of(kind: pa.DataType) -> int | None:
    """Return how many bytes each value takes, if that is the same for all."""
    if pa.types.is_null(kind):
        return 0
    if has_text(kind) or pa.types.is_dictionary(kind) or pa.types.is_nested(kind):
        return None
    return -(-kind.bit_width // 8)


def sizes_of(array: pa.Array) -> np.ndarray:
    """Return how many bytes the value of each row takes, (N,).

    Examples
    --------
    >>> sizes_of(pa.array(["abc", None, ""])).tolist(), sizes_of(pa.array([1, None])).tolist()
    ([3, 0, 0], [8, 8])
    >>> sizes_of(pa.array([["ab", "c"], [], ["d"]])).tolist()
    [3, 0, 1]
    >>> sizes_of(pa.array(["abc", "d", None, "d"]).dictionary_encode()).tolist()
    [3, 1, 0, 1]
    """
    kind = array.type
    width = width_of(kind)
    if width is not None:
        return np.full(len(array), width, np.int64)
    if has_text(kind):
        if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
            array = array.cast(pa.large_binary())
        return as_numpy(pc.fill_null(pc.binary_length(array), 0)).astype(np.int64)
    if pa.types.is_dictionary(kind):
        sizes = sizes_of(array.dictionary)
        codes = pc.fill_null(array.indices.cast(pa.int64()), len(sizes))
        return np.append(sizes, 0)[as_numpy(codes)]
    if is_list(kind):
        offsets, values = list_parts(array)
        return np.diff(np.concatenate(([0], np.cumsum(sizes_of(values))))[offsets])
    return np.array([array.slice(n, 1).nbytes for n in range(len(array))], np.int64)


def longest_text(array: pa.Array) -> int:
    """Return the bytes of the longest text in an array's dictionary, or in that of its values."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return int(sizes_of(array.dictionary).max(initial=0))
    if is_list(kind):
        return longest_text(array.values)
    if pa.types.is_struct(kind):
        return sum(longest_text(array.field(k)) for k in range(kind.num_fields))
    return 0


# In place of dictionaries ------------------------------------------------------------------------


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return columns of values, where some are of places in dictionaries."""
    return pa.schema([field.with_type(_type_of(field.type)) for field in schema])


def _type_of(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def plain_batches(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """Divide rows into batches of values, in place of dictionaries, of about so many bytes.

    A dictionary is small, whatever its values' length, and its values are a column's many times.
    """
    coded = [column for column in batch.columns if pa.types.is_dictionary(column.type)]
    if not coded:
        yield batch
        return
    ends = np.cumsum(sum(sizes_of(column) for column in coded))
    schema, begin = plain_schema(batch.schema), 0
    while begin < len(batch):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + most, side="right")))
        columns = [values_of(column.slice(begin, end - begin)) for column in batch.columns]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        begin = end


def values_of(array: pa.Array) -> pa.Array:
    """Return values, in place of places in a dictionary."""
    if not pa.types.is_dictionary(array.type):
        return array
    return array.dictionary.take(array.indices)
