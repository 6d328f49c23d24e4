"""Parts to files: aside, flushed, renamed, and then noted in the manifest."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cylstm.io.writing import replacing
from cylstm.jobs.manifest import Done, Manifest
from cylstm.jobs.options import Columns
from cylstm.jobs.parts import Part
from cylstm.jobs.results import schema_of, table_of

__all__ = ["Encoded", "Writer", "encoded"]

SKIPPED = "_skipped"
VALUES_AT_ONCE = 2**16  # that Arrow encodes; by default 1024, a tenth slower for lists


@dataclass(frozen=True)
class Encoded:
    """A part as the bytes of its file."""

    part: Part
    content: Any
    digest: str


def encoded(part: Part, arrays: dict[str, np.ndarray], columns: Columns) -> Encoded:
    """Return what a part's file is to hold."""
    content = _as_parquet(table_of(part, arrays, columns), columns)
    return Encoded(part, content, hashlib.sha256(content).hexdigest())


def _as_parquet(table: pa.Table, columns: Columns) -> Any:
    sink = pa.BufferOutputStream()
    # A row group a part: its bytes then follow from its rows alone. Numbers that a model gives
    # hardly come twice: to look for those that do takes longer than to write them.
    keys = list(columns.keys)
    pq.write_table(
        table, sink, row_group_size=max(1, len(table)), compression="snappy",
        use_dictionary=keys + ["prediction"] * (columns.options.labels is not None),
        write_statistics=keys, write_page_checksum=True, write_batch_size=VALUES_AT_ONCE,
    )  # fmt: skip
    return sink.getvalue()


class Writer:
    """Writes parts.

    Parameters
    ----------
    manifest : Manifest
    columns : Columns
    """

    def __init__(self, manifest: Manifest, columns: Columns) -> None:
        self.manifest, self.columns = manifest, columns
        self.folder = manifest.folder

    def write(self, number: int, given: Encoded) -> None:
        """Write a part, what was left out of it, and the manifest."""
        part = given.part
        self._write_skipped(number, part)
        name = _name(number)
        with replacing(os.path.join(self.folder, name)) as file:
            file.write(given.content)
        done = Done(
            name, list(part.start), list(part.stop), part.rows,
            predictions=len(part.ragged), skipped=len(part.skipped),
            size=given.content.size, digest=given.digest,
        )  # fmt: skip
        self.manifest.add(number, done)

    def write_empty(self) -> None:
        """Write a part of no row, so that readers find the columns."""
        content = _as_parquet(schema_of(self.columns).empty_table(), self.columns)
        with replacing(os.path.join(self.folder, _name(0))) as file:
            file.write(content)
        digest = hashlib.sha256(content).hexdigest()
        self.manifest.add(0, Done(_name(0), [0, 0], [0, 0], 0, 0, 0, content.size, digest))

    def _write_skipped(self, number: int, part: Part) -> None:
        if not part.skipped:
            return
        folder = os.path.join(self.folder, SKIPPED)
        os.makedirs(folder, exist_ok=True)
        text = "".join(row.as_json() + "\n" for row in part.skipped)
        with replacing(os.path.join(folder, f"part-{number:06d}.jsonl")) as file:
            file.write(text.encode())


def _name(number: int) -> str:
    return f"part-{number:06d}.parquet"
