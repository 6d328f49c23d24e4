"""Batch jobs over files that were damaged: bytes changed, set, moved or lost."""

from __future__ import annotations

import functools
import gzip
import io
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import cylstm
from tools.soak.common import Check, Skipped, expect, times

COLUMNS: dict[str, Any] = {"by": "id", "features": ["a", "b"], "keys": ["id", "time", "text"]}
FILES = 600  # of each kind


def table() -> Any:
    """Rows of steps, with text beside the numbers."""
    import pyarrow

    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(80), rng.integers(1, 9, 80))
    size = len(ids)
    return pyarrow.table(
        {
            "id": ids,
            "time": np.arange(size),
            "a": rng.normal(size=size),
            "b": rng.normal(size=size).astype("f4"),
            "text": [f"kind {n % 7}" for n in range(size)],
        }
    )


def parquet(**options: Any) -> bytes:
    """The rows as Parquet."""
    from pyarrow import parquet as format

    sink = io.BytesIO()
    format.write_table(table(), sink, row_group_size=90, **options)
    return sink.getvalue()


def arrow(kind: str) -> bytes:
    """The rows as a file or a stream of Arrow IPC."""
    import pyarrow

    sink, rows = io.BytesIO(), table()
    opener = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
    with opener(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=90)
    return sink.getvalue()


def csv() -> bytes:
    """The rows as CSV."""
    from pyarrow import csv as format

    sink = io.BytesIO()
    format.write_csv(table(), sink)
    return sink.getvalue()


def damaged(good: bytes, chance: random.Random) -> bytes:
    """Change a file as disks, networks and strangers do."""
    data = bytearray(good)
    begin = chance.randrange(len(data))
    way = chance.randrange(7)
    if way == 0:  # the end is lost
        del data[begin:]
    elif way == 1:  # some of the middle
        del data[begin : begin + chance.randrange(1, 100)]
    elif way == 2:  # twice
        data[begin:begin] = data[begin : begin + chance.randrange(1, 100)]
    elif way == 3:  # a page of zeros
        data[begin : begin + 512] = bytes(len(data[begin : begin + 512]))
    elif way == 4:  # numbers of lengths
        word = chance.choice((2**31 - 1, 2**32 - 1, 2**24)).to_bytes(4, "little")
        data[begin : begin + 4] = word
    near = chance.choice((0, max(0, len(data) - 700)))  # the end has what tells of the rest
    for _ in range(chance.choice((0, 1, 8)) if way < 5 else chance.choice((1, 2, 30))):
        at = chance.randrange(near, max(near + 1, len(data)))
        if at < len(data):
            data[at] = chance.choice((chance.randrange(256), data[at] ^ 1 << chance.randrange(8)))
    return bytes(data)


def check(name: str, make: Callable[[], bytes], tells: bool, scale: float) -> str:
    """Score damaged files; of those that tell of damage, no row may be wrong."""
    try:
        import pyarrow  # noqa: F401
        from pyarrow import parquet as format
    except ImportError:
        raise Skipped("pyarrow is not installed") from None
    model, good = cylstm.LSTM(2, 5, seed=0), make()
    refused = whole = part = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, target = Path(temporary), Path(temporary) / "out"
        source = folder / name
        source.write_bytes(good)
        cylstm.score(model, source, folder / "whole", **COLUMNS)
        expected = format.read_table(folder / "whole")
        for number in range(times(FILES, scale)):
            source.write_bytes(damaged(good, random.Random(number)))
            said = ""
            try:
                cylstm.score(model, source, target, on_error="skip", part_rows=20, **COLUMNS)
            except (ValueError, OSError, MemoryError) as error:
                said, refused = str(error), refused + 1
                of_us = said.startswith(("features: ", "by: ", "keys: ", "source: "))
                expect(name in said or of_us, f"{name} {number}: the error names no file: {said}")
                expect(said.isprintable(), f"{name} {number}: the error is not a line: {said!r}")
            if list(target.glob("part*")):
                rows = format.read_table(target)
                whole, part = whole + (not said), part + bool(said)
                skipped = (target / "_skipped").exists()
                if tells and not skipped and rows.schema == expected.schema:
                    same = rows.equals(expected.slice(0, rows.num_rows))
                    expect(same, f"{name} {number}: other rows than those of the file")
            shutil.rmtree(target, ignore_errors=True)
    text = f"{times(FILES, scale)} files: {refused} refused ({part} of them after whole parts)"
    return f"{text}, {whole} read" + ", no row wrong" * tells


KINDS: dict[str, tuple[str, Callable[[], bytes], bool]] = {
    "parquet": ("in.parquet", functools.partial(parquet, compression="none"), False),
    "parquet, zstd": ("in.parquet", functools.partial(parquet, compression="zstd"), False),
    "parquet, checksums": (
        "in.parquet", functools.partial(parquet, write_page_checksum=True), True,
    ),
    "arrow": ("in.arrow", functools.partial(arrow, "file"), False),
    "arrow stream": ("in.arrows", functools.partial(arrow, "stream"), False),
    "csv": ("in.csv", csv, False),
    "csv, gzip": ("in.csv.gz", lambda: gzip.compress(csv(), mtime=0), True),
}  # fmt: skip

CHECKS = {
    f"damage {name}": Check(functools.partial(check, *given)) for name, given in KINDS.items()
}
