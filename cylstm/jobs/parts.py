"""The input cut into parts: by its own rows alone, never by when and by whom they are read.

So a part's bytes are the same whatever the number of threads, the batch size and the memory, and a
job that goes on cuts where the one before would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cylstm.jobs.arrays import as_arrow, is_missing
from cylstm.jobs.columns import Problems, lengths_of, lists_of, plain, scalars_of
from cylstm.jobs.files import Block, InputFile
from cylstm.jobs.groups import Seen, boundaries, in_order
from cylstm.jobs.options import Columns
from cylstm.jobs.rows import BadRow, RowError
from cylstm.jobs.stored import sizes_of, width_of
from cylstm.predict.ragged import Ragged

__all__ = ["PART_BYTES", "Part", "Place", "parts_of"]

PART_BYTES = 2**24  # of a part's steps, or of its outputs
ROW_BYTES = 16  # that a row takes beside, about

Place = tuple[int, int]  # a file's number, and a row in it


@dataclass
class Piece:
    """Whole sequences, in order, of rows that were read together or that join over an edge.

    Attributes
    ----------
    batch : RecordBatch
    bounds : array of int, (N + 1,)
        Where each sequence's rows begin.
    spans : list of (int, int, int or None, int)
        From which row of the batch on rows are of which file, row group, and row there.
    """

    batch: pa.RecordBatch
    bounds: np.ndarray
    spans: list[tuple[int, int, int | None, int]]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def slice(self, first: int, last: int) -> Piece:
        """Return the sequences from first to last."""
        begin, end = int(self.bounds[first]), int(self.bounds[last])
        spans = [
            (max(0, at - begin), file, group, row + max(0, begin - at))
            for (at, file, group, row), stop in zip(
                self.spans, [*(at for at, *_ in self.spans[1:]), len(self.batch)], strict=True
            )
            if at < end and stop > begin
        ]
        bounds = self.bounds[first : last + 1] - begin
        return Piece(self.batch.slice(begin, end - begin), bounds, spans)

    def place(self, row: int) -> tuple[int, int | None, int]:
        """Return the file, row group and row of a row of the batch."""
        at, file, group, first = next(span for span in reversed(self.spans) if span[0] <= row)
        return file, group, first + row - at

    @property
    def end(self) -> Place:
        """The place after its last row."""
        file, _, row = self.place(len(self.batch) - 1)
        return file, row + 1


@dataclass
class Part:
    """What becomes one file of the output.

    Attributes
    ----------
    start, stop : (int, int)
        Where its rows begin and end in the input.
    rows : int
        Of the input.
    ragged : Ragged
        The sequences that are scored, N of them.
    keys : Table
        A row for each, or for each step, as the output has them.
    places : array of int or None
        Where each step's output belongs, if steps were put in order.
    skipped : list of BadRow
    """

    start: Place
    stop: Place
    rows: int
    ragged: Ragged
    keys: pa.Table
    places: np.ndarray | None
    skipped: list[BadRow]


def parts_of(
    files: Sequence[InputFile],
    columns: Columns,
    start: Place = (0, 0),
    limit: int | None = None,
) -> Iterator[Part]:
    """Read up to so many sequences of the input from a part's begin on, part by part."""
    pieces = _whole_rows(_blocks(files, columns, start))
    if not columns.is_whole:
        seen = Seen(columns.by)
        for block in _blocks(files, columns, (0, 0), columns.by) if start > (0, 0) else ():
            if (block.file, block.first_row) >= start:
                break
            over = block.first_row + len(block.batch) - start[1] if block.file == start[0] else 0
            seen.note(block.batch.slice(0, len(block.batch) - max(0, over)))
        pieces = _whole_groups(_blocks(files, columns, start), columns, seen, files)
    for chosen in _cut(_limited(pieces, limit), columns):
        yield _part(chosen, columns, files, start)
        start = chosen[-1].end


def _blocks(
    files: Sequence[InputFile], columns: Columns, start: Place, names: Sequence[str] | None = None
) -> Iterator[Block]:
    for k in range(start[0], len(files)):
        first = start[1] if k == start[0] else 0
        yield from files[k].blocks(
            k, columns.read if names is None else names, columns.schema, first
        )


def _whole_rows(blocks: Iterator[Block]) -> Iterator[Piece]:
    """Let each row be a sequence."""
    for block in blocks:
        if len(block.batch):
            spans = [(0, block.file, block.row_group, block.first_row)]
            yield Piece(block.batch, np.arange(len(block.batch) + 1), spans)


def _whole_groups(
    blocks: Iterator[Block], columns: Columns, seen: Seen, files: Sequence[InputFile]
) -> Iterator[Piece]:
    """Let rows that follow each other with the same key be a sequence, over all edges."""
    open_group: list[Block] = []  # its rows so far
    for block in blocks:
        if not len(block.batch):
            continue
        last = open_group[-1].batch if open_group else None
        starts = boundaries(block.batch, columns.by, last)
        if not len(starts):
            open_group.append(block)
            continue
        end = int(starts[-1])
        closed = [*open_group, Block(block.batch.slice(0, end), block.file, block.row_group,
                                     block.first_row)]  # fmt: skip
        before = sum(len(one.batch) for one in open_group)
        if before + end:
            bounds = np.concatenate(([0], starts + before))
            yield _joined(closed, np.unique(bounds), seen, files)
        rest = block.batch.slice(end)
        open_group = [Block(rest, block.file, block.row_group, block.first_row + end)]
    if open_group:
        rows = sum(len(one.batch) for one in open_group)
        yield _joined(open_group, np.array([0, rows]), seen, files)


def _joined(
    blocks: list[Block], bounds: np.ndarray, seen: Seen, files: Sequence[InputFile]
) -> Piece:
    """Return blocks as one piece, if none of its groups was there before."""
    blocks = [block for block in blocks if len(block.batch)]
    batch = blocks[0].batch
    if len(blocks) > 1:
        (batch,) = (
            pa.Table.from_batches([one.batch for one in blocks]).combine_chunks().to_batches()
        )
    starts = np.cumsum([0, *(len(block.batch) for block in blocks[:-1])]).tolist()
    spans = [
        (at, block.file, block.row_group, block.first_row)
        for at, block in zip(starts, blocks, strict=True)
    ]
    piece = Piece(batch, bounds, spans)
    again = seen.note(batch, bounds[:-1])
    if again is not None:
        file, _, row = piece.place(again)
        found = ", ".join(f"{n}={plain(batch.column(n), again)!r}" for n in seen.names)
        raise ValueError(
            f"{files[file].path}, row {row}: {found} comes again after other groups; expected "
            f"the rows of a group one after the other: sort the input by {', '.join(seen.names)}"
        )
    return piece


def _limited(pieces: Iterator[Piece], limit: int | None) -> Iterator[Piece]:
    for piece in pieces:
        if limit is None or len(piece) < limit:
            yield piece
            limit = None if limit is None else limit - len(piece)
        else:
            yield piece.slice(0, limit)
            return


def _cut(pieces: Iterator[Piece], columns: Columns) -> Iterator[list[Piece]]:
    """Put sequences together until they are a part."""
    most = columns.options.part_rows
    held: list[Piece] = []
    taken = rows = 0
    for piece in pieces:
        costs = np.cumsum(_costs(piece, columns))
        begin = 0
        while begin < len(piece):
            before = int(costs[begin - 1]) if begin else 0
            end = int(np.searchsorted(costs, PART_BYTES - taken + before, side="right"))
            end = min(max(end, begin), begin + most - rows)
            if end == begin and not held:
                end = begin + 1  # a sequence of more bytes is a part of its own
            if end > begin:
                held.append(piece.slice(begin, end))
                taken += int(costs[end - 1]) - before
                rows, begin = rows + held[-1].bounds.size - 1, end
            if begin < len(piece) or rows == most:
                yield held
                held, taken, rows = [], 0, 0
    if held:
        yield held


def _costs(piece: Piece, columns: Columns) -> np.ndarray:
    """How many bytes each sequence takes, about: as its rows alone tell."""
    steps = counts = np.diff(piece.bounds)
    rows = counts * ROW_BYTES
    if columns.is_whole:
        steps = lengths_of(piece.batch.column(columns.features[0]))
    for name in columns.keys:
        column = piece.batch.column(name)
        width = width_of(column.type)
        if width is None:
            rows = rows + np.add.reduceat(sizes_of(column), piece.bounds[:-1])
        elif width > ROW_BYTES:
            rows = rows + counts * width
    return steps * columns.step_bytes + rows


# A part ------------------------------------------------------------------------------------------


def _part(pieces: list[Piece], columns: Columns, files: Sequence[InputFile], start: Place) -> Part:
    """Return what is scored of some pieces, and what is not."""
    made = [_scored(piece, columns, files) for piece in pieces]
    values = [ragged.values[ragged.offsets[0] : ragged.offsets[-1]] for ragged, *_ in made]
    lengths = np.concatenate([ragged.lengths for ragged, *_ in made])
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    ragged = Ragged(np.concatenate(values), offsets)
    keys = pa.Table.from_batches([keys for _, keys, _, _ in made]).combine_chunks()
    places = None
    if any(order is not None for _, _, order, _ in made):
        sizes = np.cumsum([0, *(len(part) for part in values)]).tolist()
        places = np.concatenate(
            [
                at + (np.arange(len(part)) if order is None else order)
                for at, part, (_, _, order, _) in zip(sizes, values, made, strict=False)
            ]
        )
    skipped = [row for *_, rows in made for row in rows]
    rows = sum(len(piece.batch) for piece in pieces)
    return Part(start, pieces[-1].end, rows, ragged, keys, places, skipped)


Scored = tuple[Ragged, pa.RecordBatch, np.ndarray | None, list[BadRow]]


def _scored(piece: Piece, columns: Columns, files: Sequence[InputFile]) -> Scored:
    """Return the sequences of a piece, their keys, their steps' places, and what is left out."""
    order = None
    batch = piece.batch
    if columns.is_whole:
        arrays = [batch.column(name) for name in columns.features]
        ragged, problems = lists_of(arrays, columns.features, columns)
    else:
        problems = Problems(np.zeros(len(piece), bool))
        order = _sorted(piece, columns, problems)
        ordered = batch if order is None else batch.take(as_arrow(order))
        arrays = [ordered.column(name) for name in columns.features]
        ragged, found = scalars_of(arrays, columns.features, piece.bounds, columns)
        problems.join(found, piece.bounds, order)
    skipped = _left_out(piece, problems, columns, files)
    good = ~problems.bad
    if columns.is_whole or not columns.outputs.per_step:
        chosen = piece.bounds[:-1][good]
        order = None
    else:
        steps = np.repeat(good, np.diff(piece.bounds))
        chosen = np.flatnonzero(steps)
        if order is not None:
            order = (np.cumsum(steps) - 1)[order[steps]]
    keys = batch.select(list(columns.keys))
    if len(chosen) < len(batch):
        keys = keys.take(as_arrow(chosen))
    return ragged.chosen(good), keys, order, skipped


def _sorted(piece: Piece, columns: Columns, problems: Problems) -> np.ndarray | None:
    """Return the rows in the order of each group's steps; None where they are so."""
    for name in columns.by:
        missing = is_missing(piece.batch.column(name))
        if missing is not None:
            problems.of_steps(missing, piece.bounds, name, lambda step: "expected a key, got null")
    if columns.order is None:
        return None
    return in_order(piece.batch.column(columns.order), columns.order, piece.bounds, problems)


def _left_out(
    piece: Piece,
    problems: Problems,
    columns: Columns,
    files: Sequence[InputFile],
) -> list[BadRow]:
    """Return what is wrong, in the order of rows; raise the first of it if the job is to fail."""
    rows = []
    for n in sorted(problems.found):
        step, column, reason = problems.found[n]
        row = int(piece.bounds[n])
        if not columns.is_whole and step is not None:
            row += step
        file, group, own = piece.place(row)
        names = columns.by or columns.keys
        keys: dict[str, Any] = {name: plain(piece.batch.column(name), row) for name in names}
        if columns.is_whole and step is not None:
            reason = f"step {step}: {reason}"
        bad = BadRow(files[file].path, group, own, column, reason, keys)
        if columns.options.on_error == "fail":
            raise RowError(bad)
        rows.append(bad)
    return rows
