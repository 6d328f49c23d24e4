"""Input files: which they are, what tells that they changed, and their rows, block by block."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cylstm.jobs.readers import reading, rows_of, schema_of, total_of

__all__ = ["Block", "InputFile", "check_local", "inputs_of"]

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
        return schema_of(self.path, self.kind)

    def rows(self) -> int | None:
        """Return how many there are, if that is known without reading them."""
        return total_of(self.path, self.kind)

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
        blocks = rows_of(self.path, self.kind, columns, types)
        row = 0
        while True:
            with reading(self.path, f" from row {row} on"):
                found = next(blocks, None)
            if found is None:
                return
            batch, group = found
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


# Which files -------------------------------------------------------------------------------------


def inputs_of(source: Any) -> list[InputFile]:
    """Return the files of a path, a folder, a glob or a list of paths, in the order of names."""
    if isinstance(source, (list, tuple)):
        paths = [os.fspath(path) for path in source]
        names = [os.path.basename(path) for path in paths]
    else:
        root = os.fspath(source)
        if not isinstance(root, str) or not root:
            raise TypeError(f"source: expected a path, got {source!r}")
        paths, names = _found(root)
    if not paths:
        raise ValueError(f"source: expected files, got none in {source!r}")
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise ValueError(f"source: expected different files, got one twice in {source!r}")
    return [InputFile(path, name, _kind(path)) for path, name in zip(paths, names, strict=True)]


def check_local(name: str, path: str, expected: str) -> None:
    """Refuse an address such as s3://bucket/in."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise ValueError(
            f"{name}: expected {expected} of this machine, got {path}; copy there and back, or use "
            "cylstm.Scorer on an engine that reads and writes such addresses"
        )


def _found(root: str) -> tuple[list[str], list[str]]:
    if os.path.isdir(root):
        paths = sorted(_within(root))
        return paths, [os.path.relpath(path, root) for path in paths]
    if not os.path.exists(root) and glob.has_magic(root):
        check_local("source", root, "files")
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
    if not os.path.exists(path):
        check_local("source", path, "files")
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
