"""Input files: which they are, what tells that they changed, and their rows, block by block."""

from __future__ import annotations

import glob
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

__all__ = ["Block", "InputFile", "inputs_of"]

BLOCK_BYTES = 2**23  # of values, about, that are read at once
LEAST_ROWS, MOST_ROWS = 16, 65_536  # of a block
_TICK = 20_000_000  # nanoseconds, more than the clock of files takes for a step
_ENDS = 2**16  # bytes of a file's begin and end, where Parquet has its statistics


@dataclass(frozen=True)
class Block:
    """Rows of one file that were read together."""

    batch: pa.RecordBatch
    file: int
    row_group: int | None
    first_row: int


@dataclass(frozen=True)
class InputFile:
    """One file of rows.

    Attributes
    ----------
    path : str
    name : str
        Its path within the input.
    kind : {"parquet", "arrow", "stream", "csv"}
    """

    path: str
    name: str
    kind: str

    def identity(self) -> dict[str, Any]:
        """Return what changes with the file: size, times of change, and a digest of its ends.

        Programs can set the time of the last writing, but not that of the last change (ctime),
        which the system moves on at any change of content. So none goes unseen, and the file need
        not be read twice. The digest is for file systems that keep no such time.
        """
        _await_tick(self.path)
        with open(self.path, "rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.sha256(file.read(_ENDS))
            file.seek(max(0, status.st_size - _ENDS))
            digest.update(file.read())
        return {
            "name": self.name,
            **_times(status),
            "ends": digest.hexdigest()[:32],
        }

    def is_still(self, identity: dict[str, Any]) -> bool:
        """Whether it has not changed since it was identified, as far as the system tells."""
        return _times(os.stat(self.path)).items() <= identity.items()

    def schema(self) -> pa.Schema:
        """Return the columns and their types."""
        with reading(self.path):
            with self._opened() as file:
                schema = file.schema_arrow if self.kind == "parquet" else file.schema
            schema.names  # noqa: B018 - raises where they are no text
            return schema

    def _opened(self) -> Any:
        if self.kind == "parquet":
            return pq.ParquetFile(self.path)
        return pacsv.open_csv(self.path) if self.kind == "csv" else _opened_ipc(self)

    def rows(self) -> int | None:
        """Return how many there are, if that is known without reading them."""
        if self.kind != "parquet":
            return None
        with reading(self.path), pq.ParquetFile(self.path) as file:
            return file.metadata.num_rows

    def blocks(
        self, index: int, columns: Sequence[str], types: pa.Schema, start: int = 0
    ) -> Iterator[Block]:
        """Read columns, from a row on.

        Parameters
        ----------
        index : int
            The file's number.
        columns : sequence of str
        types : Schema
            What the columns must be.
        start : int
            The first row.
        """
        made = {"parquet": _of_parquet, "csv": _of_csv}.get(self.kind, _of_ipc)
        blocks = made(self, columns, types)
        row = 0
        while True:
            with reading(self.path, f" from row {row} on"):
                found = next(blocks, None)
            if found is None:
                return
            batch, group, skipped = found
            row += skipped
            if row + len(batch) > start:
                begin = max(0, start - row)
                self._check(batch.schema, types)
                yield Block(batch.slice(begin), index, group, row + begin)
            row += len(batch)

    def _check(self, found: pa.Schema, types: pa.Schema) -> None:
        for field in found:
            if field.type != types.field(field.name).type:
                raise ValueError(
                    f"{self.path}: column {field.name!r}: expected {types.field(field.name).type}, "
                    f"as in the first file, got {field.type}"
                )


def _times(status: os.stat_result) -> dict[str, int]:
    return {
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "changed": status.st_ctime_ns,
    }


def _await_tick(path: str) -> None:
    """Wait until a change would have a later time than the file's."""
    age = time.time_ns() - os.stat(path).st_ctime_ns
    if 0 <= age < _TICK:
        time.sleep((_TICK - age) / 1e9)


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


# Which files -------------------------------------------------------------------------------------


def inputs_of(source: Any) -> list[InputFile]:
    """Return the files of a path, a folder, a glob or a list of paths, in the order of names."""
    if isinstance(source, (list, tuple)):
        paths = [os.fspath(path) for path in source]
        names = [os.path.basename(path) for path in paths]
    else:
        root = os.fspath(source)
        if not isinstance(root, str):
            raise TypeError(f"source: expected a path, got {source!r}")
        paths, names = _found(root)
    if not paths:
        raise ValueError(f"source: expected files, got none in {source!r}")
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise ValueError(f"source: expected different files, got one twice in {source!r}")
    return [InputFile(path, name, _kind(path)) for path, name in zip(paths, names, strict=True)]


def _found(root: str) -> tuple[list[str], list[str]]:
    if os.path.isdir(root):
        paths = sorted(_within(root))
        return paths, [os.path.relpath(path, root) for path in paths]
    if not os.path.exists(root) and glob.has_magic(root):
        paths = sorted(path for path in glob.glob(root, recursive=True) if os.path.isfile(path))
        return paths, [os.path.basename(path) for path in paths]
    return [root], [os.path.basename(root)]


def _within(root: str) -> Iterator[str]:
    """Iterate over a folder's files, but those whose names say that they are no data."""

    def stop(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        named = next((name for name in folders if "=" in name), None)
        if named is not None:
            raise ValueError(
                f"source: expected a folder of files, got one with columns in its folders' names, "
                f"{os.path.join(folder, named)}; score each of these"
            )
        for name in files:
            if not name.startswith(("_", ".")):
                yield os.path.join(folder, name)


def _kind(path: str) -> str:
    """Tell what a file is, by its content, or for text by its name."""
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise ValueError(f"{path}: expected a file")
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"ARROW1"):
        return "arrow"
    if path.endswith(".arrows") and start.startswith(b"\xff\xff\xff\xff"):
        return "stream"
    if path.lower().endswith((".csv", ".csv.gz", ".csv.bz2")):
        return "csv"
    raise ValueError(
        f"{path}: expected Parquet, Arrow IPC, or CSV with a name that ends in .csv, got "
        f"{'an empty file' if not start else 'another kind of file'}"
    )


# Their rows --------------------------------------------------------------------------------------

Read = tuple[pa.RecordBatch, int | None, int]  # rows, their row group, rows left out before them


def _of_parquet(file: InputFile, columns: Sequence[str], types: pa.Schema) -> Iterator[Read]:
    # Buffered: a row group is read page by page, however large it is.
    with pq.ParquetFile(
        file.path, pre_buffer=False, buffer_size=2**20, page_checksum_verification=True
    ) as opened:
        metadata = opened.metadata
        groups = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
        if sum(groups) != metadata.num_rows:
            raise ValueError(f"expected {metadata.num_rows} rows, got {sum(groups)} in row groups")
        names = list(columns)
        for group, expected in enumerate(groups):
            with reading_within(f"row group {group}"):
                rows = _rows_at_once(opened, group, names)
                count = 0
                for batch in opened.iter_batches(rows, [group], columns=names, use_threads=False):
                    batch.validate(full=True)  # text too, which else could not be read again
                    count += len(batch)
                    yield batch.select(names), group, 0
                if count != expected:
                    raise ValueError(f"expected {expected} rows, got {count}")


def _rows_at_once(opened: pq.ParquetFile, group: int, names: Sequence[str]) -> int:
    """So many that their values take about `BLOCK_BYTES`."""
    metadata = opened.metadata
    found, schema = metadata.row_group(group), metadata.schema
    if found.num_rows <= LEAST_ROWS:
        return LEAST_ROWS
    # pyarrow ends the process where it is asked about a column that is damaged in the footer, but
    # raises an error where it is to read it.
    next(opened.iter_batches(1, [group], columns=names, use_threads=False), None)
    taken, chosen = 0, set(names)
    for k in range(found.num_columns):
        path = schema.column(k).path
        if path in chosen or path.split(".")[0] in chosen:
            column = found.column(k)
            taken += max(column.num_values * 8, column.total_uncompressed_size)
    rows = BLOCK_BYTES * found.num_rows // max(1, taken)
    return int(min(MOST_ROWS, max(LEAST_ROWS, rows)))


def _of_ipc(file: InputFile, columns: Sequence[str], types: pa.Schema) -> Iterator[Read]:
    with _opened_ipc(file) as reader:
        if file.kind == "stream":
            batches = iter(reader)
        else:
            batches = (reader.get_batch(k) for k in range(reader.num_record_batches))
        for number, batch in enumerate(batches):
            batch.validate(full=True)  # its offsets may be a stranger's
            yield batch.select(list(columns)), number, 0


@contextmanager
def _opened_ipc(file: InputFile) -> Iterator[Any]:
    opener = pa.ipc.open_stream if file.kind == "stream" else pa.ipc.open_file
    with pa.OSFile(file.path) as source, opener(source) as reader:
        yield reader


def _of_csv(file: InputFile, columns: Sequence[str], types: pa.Schema) -> Iterator[Read]:
    options = pacsv.ConvertOptions(
        column_types={name: types.field(name).type for name in columns},
        include_columns=list(columns),
    )
    with pacsv.open_csv(file.path, convert_options=options) as reader:
        for batch in reader:
            yield batch, None, 0
