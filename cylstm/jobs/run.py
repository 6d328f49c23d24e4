"""A job from beginning to end: reading, scoring and writing side by side."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from cylstm.core import kernels
from cylstm.digest import digest_of
from cylstm.jobs.files import InputFile, check_local, inputs_of
from cylstm.jobs.manifest import Manifest, locked
from cylstm.jobs.memory import Budget, as_bytes
from cylstm.jobs.options import Columns, Options
from cylstm.jobs.parts import Part, Place, parts_of
from cylstm.jobs.progress import Progress
from cylstm.jobs.readers import with_features
from cylstm.jobs.summary import Summary
from cylstm.jobs.threads import Consumer, ahead
from cylstm.jobs.writing import Encoded, Writer, encoded
from cylstm.opening import load_to_score
from cylstm.predict.batches import LEAST_TOKENS, Pending, Scorers, scorers_for
from cylstm.predict.model import Predictor
from cylstm.predict.outputs import Outputs

__all__ = ["Job", "Running", "run", "scorers_of"]

IN_FLIGHT = 2  # parts that are scored at once, so that no thread waits for a part's last batch


@dataclass(frozen=True)
class Running:
    """How a job runs, which its output does not depend on."""

    memory: Any
    threads: int | None
    batch_tokens: int | None
    progress: bool | None


class Job:
    """What is to be scored with what, checked.

    Parameters
    ----------
    model : LSTM, Layer or path
    source, target : path
    options : Options
    """

    def __init__(self, model: Any, source: Any, target: Any, options: Options) -> None:
        self.files = inputs_of(source)
        self.target = os.fspath(target)
        self.options = options
        check_apart(source, self.files, self.target)
        if isinstance(model, (str, bytes, os.PathLike)):
            model = load_to_score(model, options.batch_first)
        self.predictor = Predictor(model, options.batch_first)
        self.outputs = Outputs(self.predictor, options.output, options.steps)
        schema = self._schema()
        if self.files[0].kind == "csv":
            schema = with_features(schema, options.features or (), self.predictor.tokens)
        self.columns = Columns(options, self.outputs, schema)

    def _schema(self) -> pa.Schema:
        """Return the columns, which all files must have."""
        first, *others = self.files
        schema = first.schema()
        for file in others:
            own = set(file.schema().names)
            missing = [name for name in schema.names if name not in own]
            if missing:
                raise ValueError(
                    f"{file.path}: expected the columns of {first.path}, without {missing[0]!r}"
                )
        return schema.remove_metadata()

    def fingerprint(self, scorers: Scorers) -> dict[str, Any]:
        """Return what the output's bytes follow from."""
        options = self.options.as_dict()
        if not self.predictor.is_exact:  # then a batch has an effect on the last bits
            options["batch_tokens"] = scorers.batch_tokens
        return {
            "model": digest_of(self.predictor.model),
            "option": options,
            "input": [file.identity() for file in self.files],
            "program": {
                "cylstm": version("cylstm"),
                "pyarrow": pa.__version__,
                "CYLSTM_ISA": kernels.ISA,
                "CYLSTM_PRODUCT": kernels.PRODUCT,
            },
        }

    def check_unchanged(self, part: Part, fingerprint: dict[str, Any]) -> None:
        """Refuse what was read of files of which one has changed since the job began."""
        for k in range(part.start[0], part.stop[0] + 1):
            if not self.files[k].is_still(fingerprint["input"][k]):
                raise ValueError(f"{self.files[k].path}: it changed while it was read")

    def total(self) -> int | None:
        """Return how many rows there are, if that is known."""
        counts = [file.rows() for file in self.files]
        known = None if None in counts else sum(n for n in counts if n is not None)
        if known is not None and self.columns.is_whole and self.options.limit is not None:
            return min(known, self.options.limit)
        return known if self.options.limit is None else None


def check_apart(source: Any, files: Sequence[InputFile], target: str) -> None:
    """Refuse to write where the input is."""
    if not target:
        raise ValueError("target: expected a folder, got an empty path")
    check_local("target", target, "a folder")
    own = os.path.realpath(target)
    if os.path.exists(target) and not os.path.isdir(target):
        raise ValueError(f"target: expected a folder, got the file {target}")
    for file in files:
        if os.path.commonpath([own, os.path.realpath(file.path)]) == own:
            raise ValueError(f"target: expected another folder than the input's, got {target}")
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        root = os.path.realpath(os.fspath(source))
        if os.path.commonpath([own, root]) == root:
            raise ValueError(f"target: expected a folder outside of the input's, got {target}")


def scorers_of(job: Job, running: Running) -> Scorers:
    """Return threads that score batches, of as many steps as the memory is enough for."""
    limit = as_bytes("memory", running.memory)
    scorers = scorers_for(job.predictor, running.threads, running.batch_tokens)
    if running.batch_tokens is None and Budget.least_of(job.predictor, scorers) > limit:
        scorers.batch_tokens = LEAST_TOKENS
    return scorers


def run(job: Job, running: Running) -> Summary:
    """Do what is not yet done."""
    began = time.monotonic()
    with scorers_of(job, running) as scorers:
        budget = Budget.of(as_bytes("memory", running.memory), job.predictor, scorers)
        fingerprint = job.fingerprint(scorers)
        made = not os.path.exists(job.target)
        os.makedirs(job.target, exist_ok=True)
        with locked(job.target):
            try:
                manifest = Manifest(job.target, fingerprint)
            except ValueError:
                if made:
                    os.rmdir(job.target)
                raise
            kept = sum(part.rows for part in manifest.parts)
            with Progress(running.progress, job.total(), kept) as progress:
                again = _Run(job, manifest, scorers, budget, progress).all()
    return Summary.of(manifest, kept - again, time.monotonic() - began)


class _Run:
    """One process's work on a job."""

    def __init__(
        self, job: Job, manifest: Manifest, scorers: Scorers, budget: Budget, progress: Progress
    ) -> None:
        self.job, self.manifest, self.scorers = job, manifest, scorers
        self.budget, self.progress = budget, progress
        self.writer = Writer(manifest, job.columns)

    def all(self) -> int:
        """Score what is missing; return of how many rows parts were there, but not as written."""
        manifest = self.manifest
        broken = [
            number
            for number, part in enumerate(manifest.parts)
            if not part.is_there(manifest.folder)
        ]
        again = sum(manifest.parts[number].rows for number in broken)
        if broken or not manifest.is_complete:
            if not os.path.exists(manifest.path):
                manifest.write()
            self._score(ahead(self._missing(broken), self.budget.depth))
            if not manifest.parts:
                self.writer.write_empty()
            manifest.complete()
        return again

    def _missing(self, broken: Sequence[int]) -> Iterator[tuple[int, Part]]:
        """Read the parts that are not on the disk, or not as they were written."""
        files, columns, done = self.job.files, self.job.columns, self.manifest.parts
        for number in broken:
            if done[number].rows:
                count = done[number].predictions + done[number].skipped
                start = _place(done[number].start)
                yield number, next(parts_of(files, columns, start, count))
        if self.manifest.is_complete:
            return
        limit, start = columns.options.limit, _place(done[-1].stop) if done else (0, 0)
        if limit is not None:
            limit -= sum(part.predictions + part.skipped for part in done)
        if limit is None or limit > 0:
            yield from enumerate(parts_of(files, columns, start, limit), len(done))

    def _score(self, parts: Iterator[tuple[int, Part]]) -> None:
        """Score and write parts in their order, those before an unreadable one too."""
        flying: deque[tuple[int, Part, Pending]] = deque()
        error: Exception | None = None
        with Consumer(self._write, self.budget.depth) as writer, closing(parts):  # type: ignore
            while True:
                try:
                    number, part = next(parts)
                except StopIteration:
                    break
                except Exception as caught:
                    error = caught
                    break
                flying.append((number, part, self.scorers.submit(part.ragged, self.job.outputs)))
                del part
                if len(flying) >= IN_FLIGHT:
                    self._finish(flying, writer)
            while flying:
                self._finish(flying, writer)
        if error is not None:
            raise error

    def _finish(self, flying: deque[tuple[int, Part, Pending]], writer: Consumer) -> None:
        """Wait for the oldest part's outputs, and pass them on."""
        number, part, pending = flying.popleft()
        arrays = pending.result()
        writer.put(number, self.scorers.run(encoded, part, arrays, self.job.columns))

    def _write(self, number: int, future: Future[Encoded]) -> None:
        given = future.result()
        self.job.check_unchanged(given.part, self.manifest.fingerprint)
        self.writer.write(number, given)
        self.progress.add(given.part.rows)


def _place(saved: list[int]) -> Place:
    file, row = saved
    return file, row
