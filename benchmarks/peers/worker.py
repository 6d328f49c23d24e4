"""A process that runs one library; its arguments are LIBRARY THREADS SOCKET.

It answers requests, each a method of `Worker` and its arguments, until the other end is closed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import platform
import re
import signal
import statistics
import sys
import timeit
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.benchmarks.common import Problem, Shape, make_problem
from benchmarks.benchmarks.programs import PROGRAMS
from benchmarks.peers.libraries import OURS, Way

SAMPLE_SECONDS = 5e-4  # shorter calls are timed several at once
STREAMED_STEPS = 3  # of a stream that are compared
TINY = Shape(2, 1, 4, 4)
PR_SET_PDEATHSIG = 1


class Worker:
    """One library with the ways to run the problem at hand."""

    def __init__(self, library: str, threads: int) -> None:
        self.library = importlib.import_module(f"benchmarks.peers.libraries.{library}")
        self.library.set_threads(threads)
        self.ways: dict[str, Way] = {}
        self.numbers: dict[str, int] = {}  # of calls in a sample

    def describe(self) -> dict[str, Any]:
        """The versions; of cylstm also what it computes with."""
        told = {name: version(name) for name in self.library.DISTRIBUTIONS}
        told["Python"] = platform.python_version()
        if self.library.__name__.endswith("." + OURS):
            from cylstm.core import kernels as _kernels

            told["ISA"] = _kernels.ISA
        return told

    def prepare(self, problem: Problem, training: bool) -> dict[str, Any]:
        """Make each way and run it once: its arrays, or why it cannot be made."""
        self.ways = {}
        gc.collect()
        found: dict[str, Any] = {}
        makers = self.library.training if training else self.library.inference
        for name, maker in makers(problem).items():
            try:
                self.ways[name] = way = maker()
                found[name] = results(way, problem.shape.steps == 1 and not training)
            except Exception as error:  # whatever a library may raise: it is told, not hidden
                found[name] = f"{type(error).__name__}: {error}"
        return found

    def trial(self, name: str, seconds: float) -> float:
        """The least time of a call, found in a short trial."""
        with self.ways[name].within():
            timer = timeit.Timer(self.ways[name].call)
            once = min(timer.repeat(3, 1))
        self.numbers[name] = max(1, round(SAMPLE_SECONDS / once))
        return min(self.burst(name, seconds))

    def keep(self, name: str) -> None:
        """Free the other ways."""
        self.ways = {name: self.ways[name]}
        gc.collect()

    def burst(self, name: str, seconds: float) -> list[float]:
        """Call for that long: the seconds of a call, for each sample."""
        number = self.numbers[name]
        with self.ways[name].within():
            timer = timeit.Timer(self.ways[name].call)
            timer.timeit(number)  # wakes caches and threads up
            samples, end = [], perf_counter() + seconds
            while len(samples) < 2 or perf_counter() < end:
                samples.append(timer.timeit(number) / number)
        return samples

    def round(self, name: str, seconds: float) -> tuple[float, float]:
        """Minimum and median of a burst."""
        samples = self.burst(name, seconds)
        return min(samples), statistics.median(samples)

    def prepare_program(self, number: int, steps: int) -> list[float]:
        """Make the two ways of a whole program; return the losses of its first steps."""
        gc.collect()
        step, score = self.library.program(PROGRAMS[number])
        losses = [step() for _ in range(steps)]
        self.ways = {"step": Way(step, dict), "score": Way(score, dict)}
        for name in self.ways:
            self.trial(name, 0)
        return losses

    def peak(self, problem: Problem) -> int:
        """The most bytes that the process grows by in its first training step of these sizes."""
        self.prepare(make_problem(TINY, training=True), True)  # what a library sets up once for all
        (maker,) = self.library.training(problem).values()
        way = maker()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size
        before = status_bytes("VmRSS")
        with way.within():
            way.call()
        return status_bytes("VmHWM") - before


def status_bytes(name: str) -> int:
    """A size of this process, as Linux tells."""
    (line,) = re.findall(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    return 1024 * int(line)


def results(way: Way, streamed: bool) -> dict[str, np.ndarray]:
    """What a way computes; of a stream, the first steps from its initial state on."""
    with way.within():
        calls = []
        for _ in range(STREAMED_STEPS if streamed else 1):
            arrays = way.arrays(way.call())
            calls.append({name: np.array(array) for name, array in arrays.items()})
    return {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # also while it is stopped
    library, threads, socket = sys.argv[1:]
    requests = Connection(int(socket))
    try:
        worker = Worker(library, int(threads))
        requests.send(worker.describe())
    except Exception as error:
        requests.send(f"{type(error).__name__}: {error}")
        return
    while True:
        try:
            method, arguments = requests.recv()
        except EOFError:
            return
        requests.send(getattr(worker, method)(*arguments))
