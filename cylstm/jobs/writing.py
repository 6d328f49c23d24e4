"""Parts to files: aside, flushed, renamed, and then noted in the manifest."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cylstm.io.writing import replacing
from cylstm.jobs.manifest import Done, Manifest
from cylstm.jobs.options import Columns
from cylstm.jobs.parts import Part, Place
from cylstm.jobs.results import schema_of, table_of

__all__ = ["SKIPPED", "Writer"]

SKIPPED = "_skipped"


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

    def write(self, number: int, part: Part, arrays: dict[str, np.ndarray]) -> Done:
        """Write a part, what was left out of it, and the manifest; return what that notes."""
        self._write_skipped(number, part)
        table = table_of(part, arrays, self.columns)
        return self._note(number, table, part.start, part.stop, part.rows, part)

    def write_empty(self) -> None:
        """Write a part of no row, so that readers find the columns."""
        table = schema_of(self.columns).empty_table()
        self._note(0, table, (0, 0), (0, 0), 0, None)

    def _note(
        self, number: int, table: pa.Table, start: Place, stop: Place, rows: int, part: Part | None
    ) -> Done:
        name = f"part-{number:06d}.parquet"
        sink = pa.BufferOutputStream()
        # A row group a part: its bytes then follow from its rows alone.
        pq.write_table(table, sink, row_group_size=max(1, len(table)), compression="snappy")
        content = sink.getvalue()
        with replacing(os.path.join(self.folder, name)) as file:
            file.write(content)
        done = Done(
            name, list(start), list(stop), rows,
            predictions=0 if part is None else len(part.ragged),
            skipped=0 if part is None else len(part.skipped),
            size=content.size,
            digest=hashlib.sha256(content).hexdigest(),
        )  # fmt: skip
        self.manifest.add(number, done)
        return done

    def _write_skipped(self, number: int, part: Part) -> None:
        if not part.skipped:
            return
        folder = os.path.join(self.folder, SKIPPED)
        os.makedirs(folder, exist_ok=True)
        text = "".join(row.as_json() + "\n" for row in part.skipped)
        with replacing(os.path.join(folder, f"part-{number:06d}.jsonl")) as file:
            file.write(text.encode())
