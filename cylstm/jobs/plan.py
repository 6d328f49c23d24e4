"""What a job would do: from the columns and a few rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from cylstm.jobs.columns import plain
from cylstm.jobs.memory import Budget, as_bytes
from cylstm.jobs.parts import parts_of
from cylstm.jobs.results import schema_of, table_of
from cylstm.jobs.run import Job, Running, scorers_of

__all__ = ["Plan", "plan"]

FEW = 3  # sequences that are looked at


@dataclass(frozen=True)
class Plan:
    """What a job would do.

    Attributes
    ----------
    files : int
    rows : int or None
        Of the input, if known.
    columns : dict of str to str
        The input's columns that are read, and their types.
    model, sequence, prediction : str
        The model, and the shapes of what it is given and of what is kept of what it returns.
    output : dict of str to str
        The columns of the output.
    threads, batch_tokens, part_rows : int
    memory : str
        What it takes at least, and the limit.
    lengths : list of int
        Of the first sequences.
    first : list of dict
        Their rows of the output.
    skipped : list of str
        Those of them that could not be scored, and why.
    """

    files: int
    rows: int | None
    columns: dict[str, str]
    model: str
    sequence: str
    prediction: str
    output: dict[str, str]
    threads: int
    batch_tokens: int
    part_rows: int
    memory: str
    lengths: list[int]
    first: list[dict[str, Any]]
    skipped: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        model = self.model if len(self.model) <= 200 else self.model[:197] + "..."
        rows = "rows not counted yet" if self.rows is None else f"{self.rows:,} rows"
        lines = [
            f"input     {self.files:,} files, {rows}",
            *(f"          {name}: {kind}" for name, kind in self.columns.items()),
            f"model     {model}",
            f"          a sequence is {self.sequence}, a prediction {self.prediction}",
            "output",
            *(f"          {name}: {kind}" for name, kind in self.output.items()),
            f"plan      {self.threads} threads, batches of {self.batch_tokens:,} steps, "
            f"parts of up to {self.part_rows:,} sequences, {self.memory}",
            f"first     lengths {', '.join(map(str, self.lengths)) or 'none'}",
            *(f"          {_short(row)}" for row in self.first),
            *(f"          cannot be scored: {text}" for text in self.skipped),
            "nothing was written",
        ]  # fmt: skip
        return "\n".join(lines)


def _short(row: dict[str, Any]) -> str:
    """Return a row in a line."""
    parts = []
    for name, value in row.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        parts.append(f"{name}={text if len(text) <= 60 else text[:57] + '...'}")
    return ", ".join(parts)


def plan(job: Job, running: Running) -> Plan:
    """Look at a job's columns and first rows; write nothing."""
    columns, predictor = job.columns, job.predictor
    few = min(FEW, columns.options.limit or FEW)
    first: list[dict[str, Any]] = []
    lengths, skipped = [], []
    with scorers_of(job, running) as scorers:
        budget = Budget.of(as_bytes("memory", running.memory), predictor, scorers)
        columns.options = replace(columns.options, on_error="skip")  # to be told of all
        for part in parts_of(job.files, columns, limit=few):
            table = table_of(part, scorers.submit(part.ragged, job.outputs).result(), columns)
            lengths += part.ragged.lengths.tolist()
            skipped += [str(row) for row in part.skipped]
            for row in range(min(few - len(first), len(table))):
                made = (table.column(name).combine_chunks() for name in table.column_names)
                first.append(
                    {n: plain(a, row) for n, a in zip(table.column_names, made, strict=True)}
                )
        threads, batch_tokens = scorers.threads, scorers.batch_tokens
    known = "" if columns.size is None else f" of {columns.size:,}"
    width = "number" if predictor.width == 1 else f"{predictor.width} numbers"
    when = "a step" if job.outputs.per_step else "a sequence"
    return Plan(
        files=len(job.files),
        rows=job.total(),
        columns={name: str(columns.schema.field(name).type) for name in columns.read},
        model=repr(predictor.model),
        sequence=f"tokens{known}" if columns.tokens else f"steps of {columns.size} features",
        prediction=f"{job.outputs.kind}, {width} {when}",
        output={field.name: str(field.type) for field in schema_of(columns)},
        threads=threads,
        batch_tokens=batch_tokens,
        part_rows=columns.options.part_rows,
        memory=f"at least {budget.least / 1e6:,.0f} MB of {budget.limit / 1e6:,.0f} MB",
        lengths=lengths,
        first=first,
        skipped=skipped,
    )
