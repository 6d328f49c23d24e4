"""The rows of Parquet, Arrow IPC and CSV files, in blocks of a size that is bounded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cylstm.jobs.stored import longest_text, plain_batches, plain_schema

__all__ = [
    "BLOCK_BYTES",
    "reading",
    "rows_of",
    "schema_of",
    "total_of",
    "with_features",
]

BLOCK_BYTES = 2**23  # of values, about, that are read at once
LEAST_ROWS, MOST_ROWS = 16, 65_536  # of a block
FEW_ROWS = 1024  # where text may take any number of times what it takes in the file
CSV_BYTES = 2**20  # of lines that are read at once
_SHARED = "DELTA_BYTE_ARRAY"  # an encoding of text by what it shares with the text before

Read = tuple[pa.RecordBatch, int | None]  # rows, and their row group


@contextmanager
def reading(path: str, place: str = "") -> Iterator[None]:
    """Let what a reader raises name the file, and the place in it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from None
        raise ValueError(f"{path}: cannot be read{place}: {first_line(error)}") from None
    except MemoryError as error:
        raise MemoryError(f"{path}: cannot be read{place}: {first_line(error)}") from None
    except (pa.ArrowException, ValueError, LookupError) as error:
        raise ValueError(f"{path}: cannot be read{place}: {first_line(error)}") from None


@contextmanager
def reading_within(place: str) -> Iterator[None]:
    """Let what a reader raises name a part of the file."""
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise ValueError(f"{place}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line, of which a stranger's file may have a share."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)


def schema_of(path: str, kind: str) -> pa.Schema:
    """Return a file's columns and their types, as `rows_of` gives them."""
    with reading(path):
        if kind == "csv":
            return _schema_of_csv(path)
        with _opened_parquet(path) if kind == "parquet" else _opened_ipc(path, kind) as file:
            schema = file.schema_arrow if kind == "parquet" else file.schema
        schema.names  # noqa: B018 - raises where they are no text
        return plain_schema(schema)


def total_of(path: str, kind: str) -> int | None:
    """Return how many rows there are, if that is known without reading them."""
    if kind != "parquet":
        return None
    with reading(path), _opened_parquet(path) as file:
        return file.metadata.num_rows


def rows_of(path: str, kind: str, columns: Sequence[str], types: pa.Schema) -> Iterator[Read]:
    """Read columns of a file."""
    if kind == "parquet":
        return _of_parquet(path, columns)
    if kind == "csv":
        return _of_csv(path, columns, types)
    return _of_ipc(path, kind, columns)


# Parquet -----------------------------------------------------------------------------------------


def _opened_parquet(path: str, **options: Any) -> pq.ParquetFile:
    """Open a file, whose name may look like an address: pyarrow would go there."""
    return pq.ParquetFile(os.path.abspath(path), pre_buffer=False, **options)


def _of_parquet(path: str, columns: Sequence[str]) -> Iterator[Read]:
    # Buffered: a row group is read page by page, however large it is.
    options = {"buffer_size": 2**20, "page_checksum_verification": True}
    with _opened_parquet(path, **options) as opened:
        metadata = opened.metadata
        groups = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
        if sum(groups) != metadata.num_rows:
            raise ValueError(f"expected {metadata.num_rows} rows, got {sum(groups)} in row groups")
        names = list(columns)
        for group, expected in enumerate(groups):
            with reading_within(f"row group {group}"):
                rows = _rows_at_once(path, opened, group, names)
                count = 0
                for batch in opened.iter_batches(rows, [group], columns=names, use_threads=False):
                    batch.validate(full=True)  # text too, which else could not be read again
                    count += len(batch)
                    for part in plain_batches(batch.select(names), BLOCK_BYTES):
                        yield part, group
                if count != expected:
                    raise ValueError(f"expected {expected} rows, got {count}")


def _rows_at_once(path: str, opened: pq.ParquetFile, group: int, names: list[str]) -> int:
    """So many that their values take about `BLOCK_BYTES`."""
    metadata = opened.metadata
    found, schema = metadata.row_group(group), metadata.schema
    if found.num_rows <= LEAST_ROWS:
        return LEAST_ROWS
    # pyarrow ends the process where it is asked about a column that is damaged in the footer, but
    # raises an error where it is to read it.
    next(opened.iter_batches(1, [group], columns=names, use_threads=False), None)
    taken, most, texts = 0, MOST_ROWS, 0
    coded: dict[str, int] = {}  # columns of text from dictionaries, and how many values they have
    for k in range(found.num_columns):
        described = schema.column(k)
        if described.path not in names and described.path.split(".")[0] not in names:
            continue
        column = found.column(k)  # of no other, which may be damaged
        taken += max(column.num_values * max(8, described.length), column.total_uncompressed_size)
        if described.physical_type == "BYTE_ARRAY":
            if _SHARED in column.encodings:
                most = FEW_ROWS
            elif any("DICTIONARY" in encoding for encoding in column.encodings):
                coded[described.path] = column.num_values
                texts += column.num_values * column.total_uncompressed_size
    if texts > BLOCK_BYTES:  # they have that many bytes at most; their dictionaries tell better
        taken += max(coded.values()) * _longest_text(path, metadata, group, list(coded))
    rows = BLOCK_BYTES * found.num_rows // max(1, taken)
    return int(min(most, max(1, rows)))


def _longest_text(path: str, metadata: Any, group: int, names: list[str]) -> int:
    """Return the bytes of the longest text of a row, as the dictionaries tell.

    Each is what a column begins with, and has a text once that rows have any number of times.
    """
    with _opened_parquet(path, metadata=metadata, read_dictionary=names) as opened:
        batches = opened.iter_batches(FEW_ROWS, [group], columns=names, use_threads=False)
        batch = next(batches, None)
    return 0 if batch is None else sum(longest_text(column) for column in batch.columns)


# Arrow IPC ---------------------------------------------------------------------------------------


def _of_ipc(path: str, kind: str, columns: Sequence[str]) -> Iterator[Read]:
    with _opened_ipc(path, kind) as reader:
        if kind == "stream":
            batches = iter(reader)
        else:
            batches = (reader.get_batch(k) for k in range(reader.num_record_batches))
        for number, batch in enumerate(batches):
            batch.validate(full=True)  # its offsets may be a stranger's
            for part in plain_batches(batch.select(list(columns)), BLOCK_BYTES):
                yield part, number


@contextmanager
def _opened_ipc(path: str, kind: str) -> Iterator[Any]:
    opener = pa.ipc.open_stream if kind == "stream" else pa.ipc.open_file
    with pa.OSFile(path) as source, opener(source) as reader:
        yield reader


# CSV ---------------------------------------------------------------------------------------------

_UTF_16 = b"\xff\xfe", b"\xfe\xff"
_CONVERT = "convert the file, as `iconv -f {} -t utf-8` does"
_NO_UTF_8 = f"expected UTF-8, got other bytes: {_CONVERT.format('latin1')}"


def _opened_csv(path: str, **options: Any) -> pacsv.CSVStreamingReader:
    # With threads pyarrow loses count of the lines, which errors are to name.
    how = pacsv.ReadOptions(block_size=CSV_BYTES, use_threads=False)
    return pacsv.open_csv(os.path.abspath(path), read_options=how, **options)


def _schema_of_csv(path: str) -> pa.Schema:
    with open(path, "rb") as file:
        if file.read(2) in _UTF_16:
            raise ValueError(f"expected UTF-8, got UTF-16: {_CONVERT.format('utf-16')}")
    with _explained(lambda: []), _opened_csv(path) as reader:
        schema = reader.schema
        names = schema.names  # raises where they are no text
        if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
            raise ValueError(f"expected columns with commas between, got {names[0]!r}")
        # What is no UTF-8 pyarrow takes for bytes, if it comes early, and refuses, if late. As text
        # it is refused anywhere, if it is read at all.
        return pa.schema(
            [f.with_type(pa.string()) if pa.types.is_binary(f.type) else f for f in schema]
        )


def _of_csv(path: str, columns: Sequence[str], types: pa.Schema) -> Iterator[Read]:
    options = pacsv.ConvertOptions(
        column_types={name: types.field(name).type for name in columns},
        include_columns=list(columns),
    )
    with (
        _explained(lambda: schema_of(path, "csv").names),
        _opened_csv(path, convert_options=options) as reader,
    ):
        for batch in reader:
            yield batch, None


def with_features(schema: pa.Schema, names: Sequence[str], tokens: bool | None) -> pa.Schema:
    """Return a CSV file's columns with features as numbers, where its first lines show less.

    Parameters
    ----------
    schema : Schema
    names : sequence of str
        The features.
    tokens : bool or None
        Whether they are tokens, if that is known.
    """
    if tokens is None:
        return schema
    kind = pa.int64() if tokens else pa.float64()
    fields = []
    for field in schema:
        less = pa.types.is_null(field.type) or (pa.types.is_integer(field.type) and not tokens)
        fields.append(field.with_type(kind) if less and field.name in names else field)
    return pa.schema(fields)


_NOT_CONVERTED = re.compile(
    r"In CSV column #(?P<column>\d+): (?:Row #(?P<line>\d+): )?CSV conversion error to "
    r"(?P<type>.*?): invalid (?:UTF8 data|value '(?P<value>.*)')"
)


@contextmanager
def _explained(names: Callable[[], list[str]]) -> Iterator[None]:
    """Let pyarrow's errors say what to do."""
    try:
        yield
    except UnicodeDecodeError:  # of the columns' names
        raise ValueError(_NO_UTF_8) from None
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):
            raise ValueError(
                f"expected lines of up to {CSV_BYTES:,} bytes, got a longer one: is it CSV? "
                "Parquet holds text of any length"
            ) from None
        found = _NOT_CONVERTED.search(str(error))
        if found is None:
            raise
        place = f"column {names()[int(found['column'])]!r}"
        if found["line"]:
            place = f"line {found['line']}, {place}"
        if found["value"] is None:
            raise ValueError(f"{place}: {_NO_UTF_8}") from None
        raise ValueError(
            f"{place}: expected {found['type']}, got {found['value']!r}: a CSV column has the type "
            "that its first lines show; Parquet has types of its own"
        ) from None
