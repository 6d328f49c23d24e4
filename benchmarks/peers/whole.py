"""`python -m benchmarks.peers.whole`: whole programs, trained and scored, beside PyTorch.

The losses of the first steps must agree. The libraries are timed in turns, each in a process of its
own, which is stopped while the other has its turn.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path

import numpy as np

from benchmarks.benchmarks.programs import PROGRAMS
from benchmarks.peers.contest import Peer, peers_of
from benchmarks.peers.environment import default_folder, python_of
from benchmarks.peers.libraries import OURS
from benchmarks.peers.tables import add_output, as_text, keep

PEER = "pytorch"
STEPS = 3  # whose losses are compared
TOLERANCE = 1e-4  # relative
KINDS = ("step", "score")
Times = list[tuple[float, float]]  # minimum and median of each turn


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.peers.whole", description=__doc__)
    add = parser.add_argument
    add("--threads", type=int, nargs="+", default=[1, 2], help="one run for each (default: 1 2)")
    add("--rounds", type=int, default=9, help="turns of each library (default: 9)")
    add("--seconds", type=float, default=0.4, help="of a turn (default: 0.4)")
    add("--environment", type=Path, default=default_folder(), metavar="FOLDER",
        help="the peers' virtual environment, made if missing (default: %(default)s)")  # fmt: skip
    add_output(parser)
    given = parser.parse_args()
    kept = []
    pythons = {OURS: sys.executable, PEER: python_of(given.environment)}
    for threads in given.threads:
        with peers_of(pythons, threads) as (peers, absent):
            if absent:
                sys.exit(f"nothing to compare: {absent}")
            found = [measure(number, peers, given) for number in range(len(PROGRAMS))]
        tables = [table([times[kind] for times in found], threads) for kind in KINDS]
        for kind, rows in zip(KINDS, tables, strict=True):
            head = [kind, "threads", "cylstm, ms", "PyTorch, ms", "ratio", "of the least"]
            print(as_text(head, rows), "\n")
        kept += [side_by_side(*rows) for rows in zip(*tables, strict=True)]
    head = ["program", "threads"]
    for kind in ("step", "scoring"):
        head += [f"{kind}, cylstm", f"{kind}, PyTorch", "ratio"]
    keep(given.output, "whole", head, kept)


def measure(
    number: int, peers: list[Peer], given: argparse.Namespace
) -> dict[str, dict[str, Times]]:
    """The turns of each kind and library, for one program."""
    losses = {peer.library: peer.ask("prepare_program", number, STEPS) for peer in peers}
    if not np.allclose(losses[OURS], losses[PEER], rtol=TOLERANCE):
        sys.exit(f"{PROGRAMS[number]}: the losses differ: {losses}")
    times: dict[str, dict[str, Times]] = {
        kind: {peer.library: [] for peer in peers} for kind in KINDS
    }
    for _ in range(given.rounds):
        for kind in KINDS:
            for peer in peers:
                times[kind][peer.library].append(peer.ask("round", kind, given.seconds))
    return times


def table(found: list[dict[str, Times]], threads: int) -> list[list[str]]:
    """Least and median times; their ratios, and in the last row the geometric means of these."""
    rows, ratios = [], []
    for program, times in zip(PROGRAMS, found, strict=True):
        least, usual = (
            [1e3 * of(turn[j] for turn in times[library]) for library in (OURS, PEER)]
            for j, of in enumerate((min, statistics.median))
        )
        ratios.append((usual[1] / usual[0], least[1] / least[0]))
        cells = [f"{low:.2f} / {median:.2f}" for low, median in zip(least, usual, strict=True)]
        rows.append([program.name, threads, *cells, *(f"{ratio:.2f}" for ratio in ratios[-1])])
    means = [math.exp(statistics.fmean(map(math.log, part))) for part in zip(*ratios, strict=True)]
    return [*rows, ["geometric mean", threads, "", "", *(f"{mean:.2f}" for mean in means)]]


def side_by_side(step: list, score: list) -> list[str]:
    """A row of both kinds, as the documentation has it."""
    times = [[*row[2:4], f"{row[4]} / {row[5]}"] for row in (step, score)]
    return [str(step[0]), str(step[1]), *times[0], *times[1]]


if __name__ == "__main__":
    main()
