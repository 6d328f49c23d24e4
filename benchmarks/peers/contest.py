"""The contest of one cell: all libraries agree, then they are timed in turns."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.benchmarks import reference
from benchmarks.benchmarks.common import Problem, Shape, make_problem
from benchmarks.peers.worker import STREAMED_STEPS

ROOT = Path(__file__).parents[2]
# Last in the path, so that the cylstm that is installed is found, not its source folder.
START = f"""
import sys
sys.path[:1] = []
sys.path.append({str(ROOT)!r})
from benchmarks.peers.worker import main
main()
"""
# Of the largest value of each array: float32's rounding over hundreds of steps keeps well below it;
# bfloat16, another order of gates or a forgotten mask do not.
TOLERANCE = 1e-4
CPU_ALONE = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


class Absent(Exception):
    """The library is not there, or does not start."""


class Peer:
    """A library in a process of its own, which is stopped while it is not asked anything."""

    def __init__(self, library: str, python: str, threads: int) -> None:
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
        ours, theirs = Pipe()
        counts = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
        environment = os.environ | CPU_ALONE | {f"{n}_NUM_THREADS": str(threads) for n in counts}
        command = ["taskset", "-c", cpus, python, "-c", START, library, str(threads)]
        self.library = library
        self.process = subprocess.Popen(
            [*command, str(theirs.fileno())],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()
        self.connection = ours
        self.versions = self._answer()
        if isinstance(self.versions, str):
            self.close()
            raise Absent(self.versions)
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Wake it, have it do a method of `Worker`, stop it."""
        if self.process.poll() is not None:
            raise Absent("its process has ended")
        self.process.send_signal(signal.SIGCONT)
        self.connection.send((method, arguments))
        answer = self._answer()
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def _answer(self) -> Any:
        try:
            return self.connection.recv()
        except EOFError:
            self.close()
            raise Absent("its process has ended") from None

    def close(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def peers_of(pythons: dict[str, str], threads: int) -> Iterator[tuple[list[Peer], dict[str, str]]]:
    """The libraries that start, each by its Python; and why the others do not."""
    peers, absent = [], {}
    try:
        for library, python in pythons.items():
            try:
                peers.append(Peer(library, python, threads))
            except Absent as error:
                absent[library] = str(error)
        yield peers, absent
    finally:
        for peer in peers:
            peer.close()


@dataclass
class Entry:
    """What one library did in a cell."""

    way: str
    trials: dict[str, float]  # seconds of a call, of each way that agreed
    refused: dict[str, str]  # the other ways, and why
    rounds: list[tuple[float, float]] = field(default_factory=list)  # minimum, median

    @property
    def minimum(self) -> float:
        return min(minimum for minimum, _ in self.rounds)

    @property
    def median(self) -> float:
        return statistics.median(median for _, median in self.rounds)


def expected_results(problem: Problem, training: bool) -> dict[str, np.ndarray]:
    """What every library must give: of a stream, y of its first steps."""
    if training:
        return reference.gradients(problem)
    if problem.shape.steps > 1:
        return reference.outputs(problem)
    steps = Shape(STREAMED_STEPS, *list(vars(problem.shape).values())[1:])
    x = np.repeat(problem.x, STREAMED_STEPS, axis=0)
    several = Problem(**{**vars(problem), "shape": steps, "x": x})
    return {"y": reference.outputs(several)["y"]}


def disagreement(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> str | None:
    """What is wrong with the results, if anything is."""
    if actual.keys() != expected.keys():
        return f"gives {sorted(actual)}, not {sorted(expected)}"
    for name, right in expected.items():
        if actual[name].shape != right.shape:
            return f"{name} has shape {actual[name].shape}, not {right.shape}"
        error, most = np.abs(actual[name] - right).max(), TOLERANCE * np.abs(right).max()
        if not error <= most:  # NaN is wrong, too
            return f"{name} is off by {error:.1e}, more than {most:.1e}"
    return None


def enter(
    peer: Peer, problem: Problem, training: bool, expected: dict, seconds: float
) -> Entry | str:
    """Have a library prepare a problem; only ways that agree with `expected` may be timed."""
    refused, trials = {}, {}
    for way, result in peer.ask("prepare", problem, training).items():
        wrong = result if isinstance(result, str) else disagreement(result, expected)
        if wrong:
            refused[way] = wrong
        else:
            trials[way] = peer.ask("trial", way, seconds)
    if not trials:
        return "; ".join(f"{way}: {why}" for way, why in refused.items())
    best = min(trials, key=trials.get)
    peer.ask("keep", best)
    return Entry(best, trials, refused)


def contest(
    shape: Shape, training: bool, peers: list[Peer], rounds: int, seconds: float
) -> tuple[dict[str, Entry], dict[str, str]]:
    """The entries of the libraries that can run the cell; and why the others cannot."""
    problem = make_problem(shape, training=training)
    expected = expected_results(problem, training)
    entries, failed = {}, {}
    for peer in peers:
        try:
            entry = enter(peer, problem, training, expected, seconds)
        except Absent as error:
            entry = str(error)
        (failed if isinstance(entry, str) else entries)[peer.library] = entry
    running = [peer for peer in peers if peer.library in entries]
    for _ in range(rounds):
        for peer in running:
            entry = entries[peer.library]
            entry.rounds.append(peer.ask("round", entry.way, seconds))
    return entries, failed
