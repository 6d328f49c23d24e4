"""`cylstm score`."""

from __future__ import annotations

import argparse
import json
from typing import Any

__all__ = ["run"]


def run(given: argparse.Namespace) -> int:
    """Score, or say what would be scored."""
    from cylstm.cli.main import DONE, SKIPPED, USAGE, as_option, say
    from cylstm.jobs.api import need_pyarrow

    need_pyarrow("score")
    from cylstm.jobs.options import Options
    from cylstm.jobs.plan import plan
    from cylstm.jobs.run import Job, Running
    from cylstm.jobs.run import run as run_job

    try:
        options = Options.checked(
            features=given.features, by=given.by, order=given.order, keys=given.keys,
            output=given.output, steps=given.steps, labels=labels_of(given.labels),
            on_error=given.on_error, limit=given.limit, part_rows=given.part_rows,
            batch_first=given.batch_first,
        )  # fmt: skip
    except ValueError as error:
        say("score", as_option(str(error), given))
        return USAGE
    source = given.source[0] if len(given.source) == 1 else given.source
    job = Job(given.model, source, given.target, options)
    running = Running(given.memory, given.threads, given.batch_tokens, not given.quiet)
    if given.dry_run:
        found: Any = plan(job, running)
        print(json.dumps(found.as_dict(), default=str) if given.json else found)
        return DONE
    summary = run_job(job, running)
    print(json.dumps(summary.as_dict()) if given.json else summary)
    return SKIPPED if summary.skipped else DONE


def labels_of(path: str | None) -> list[str] | None:
    """Read labels: a line each, or a JSON list."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError:
        raise ValueError(f"labels: expected text in UTF-8, got other bytes in {path}") from None
    if text.lstrip().startswith("["):
        try:
            labels = json.loads(text)
        except ValueError as error:
            raise ValueError(f"labels: expected a JSON list in {path}, got {error}") from None
        if not all(isinstance(label, str) for label in labels):
            raise ValueError(f"labels: expected a JSON list of strings in {path}")
        return labels
    return text.splitlines()
