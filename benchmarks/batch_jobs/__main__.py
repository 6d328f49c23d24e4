"""`python -m benchmarks.batch_jobs`: `cylstm.score` beside scripts with PyTorch and ONNX Runtime.

Ragged sequences of 3 to 60 tokens of 5,000 in a Parquet file; an embedding of 32, an LSTM of 64
units in both directions, its last step, a linear layer to 5. Each library reads the file, sorts by
length, scores and writes; what they write must agree. They are timed in turns, each in a process
of its own, without the time to start and to import; the table has the least of each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tabulate import tabulate

from benchmarks.batch_jobs.data import write_input

OURS = "cylstm", "score", 0
WAYS = (  # library, way, sequences in a batch
    OURS,
    ("cylstm", "memory", 0),
    ("onnxruntime", "alike-beside", 256),
    ("onnxruntime", "alike-beside", 128),
    ("onnxruntime", "trimmed-beside", 256),
    ("pytorch", "packed-beside", 256),
    ("pytorch", "alike-beside", 128),
    ("pytorch", "trimmed-beside", 256),
)
TOLERANCE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.batch_jobs", description=__doc__)
    add = parser.add_argument
    add("--rows", type=int, default=300_000, help="sequences (default: 300000)")
    add("--rounds", type=int, default=3, help="turns of each (default: 3)")
    add("--threads", type=int, default=2, help="default: 2")
    add("--ways", type=int, nargs="+", default=range(len(WAYS)), help="numbers of some, from 0")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()) / "cylstm_batch_jobs",
        help="for the input and the outputs (default: %(default)s)")  # fmt: skip
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    source = given.folder / f"{given.rows}.parquet"
    if not source.exists():
        write_input(source, given.rows)
    ways = [WAYS[k] for k in given.ways]
    times: dict[tuple[str, str, int], list[float]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way in ways:
            times[way].append(_seconds(way, source, given))
    _check([_target(way, given) for way in ways if way[1] != "memory"])
    least = {way: min(found) for way, found in times.items()}
    rows = [
        [f"{library}, {way}", size or "", f"{t:.2f}", f"{given.rows / t:,.0f}",
         f"{t / least[OURS]:.2f}" if OURS in least else ""]
        for (library, way, size), t in least.items()
    ]  # fmt: skip
    head = ["script", "batch", "seconds", "sequences/s", "times ours"]
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))


def _target(way: tuple[str, str, int], given: argparse.Namespace) -> Path:
    return given.folder / f"{way[0]}-{way[1]}-{way[2]}-{given.rows}.parquet"


def _seconds(way: tuple[str, str, int], source: Path, given: argparse.Namespace) -> float:
    library, name, size = way
    command = [sys.executable, "-m", "benchmarks.batch_jobs.scripts", library, name, str(source),
               str(_target(way, given)), "--threads", str(given.threads)]  # fmt: skip
    command += ["--size", str(size)] if size else []
    # OpenMP's threads are each script's own affair.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)["seconds"]


def _check(paths: list[Path]) -> None:
    """Stop if the predictions differ."""
    first = None
    for path in paths:
        found = np.array(pq.read_table(path).column("prediction").to_pylist())
        first = found if first is None else first
        if not np.allclose(found, first, rtol=0, atol=TOLERANCE):
            sys.exit(f"{path}: other predictions than {paths[0]}")


if __name__ == "__main__":
    main()
