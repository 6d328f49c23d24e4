"""Processes that are killed, forked and spawned at any moment."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import cylstm
from tools.soak.common import Check, Skipped, expect, models, same, times

TRAINING = """
import sys
import numpy as np
import cylstm
from cylstm import train

model = train.Sequential(cylstm.LSTM(1, 48, seed=0), train.Last(), train.Linear(48, 1, seed=0))
data = train.windows(np.sin(np.arange(700, dtype=np.float32)), steps=30)
print(flush=True)
train.fit(
    model, data, train.mse_loss, train.Adam(model), epochs=12, seed=0, metrics=["mae"],
    checkpoint=sys.argv[1] + "/run", checkpoint_every=1,
)
model.save(sys.argv[1] + "/model.safetensors", check=True)
"""
SCORING = """
import sys
import cylstm

model = cylstm.load(sys.argv[1] + "/model.safetensors")
print(flush=True)
cylstm.score(model, sys.argv[1] + "/in.parquet", sys.argv[1] + "/out", part_rows=100, threads=2)
"""

RUNS = 5


def contents(folder: Path) -> dict[str, str]:
    """A digest of each file."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def begun(program: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a program, and wait until it has imported what it needs."""
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def killed(program: str, folder: Path, whole: float, kills: int) -> tuple[int, int]:
    """Kill a program so often, then let it end; return how often it came to its end before."""
    chance, done, ended, left = random.Random(0), 0, 0, 0
    while done < kills:
        process = begun(program, folder)
        try:
            process.wait(chance.random() * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if process.returncode == -signal.SIGKILL:
            done += 1
            left += bool(temporaries(folder))
        else:
            expect(process.returncode == 0, f"the program failed: {process.returncode}")
            ended += 1
    process = begun(program, folder)
    expect(process.wait() == 0, f"the program failed: {process.returncode}")
    return ended, left


def temporaries(folder: Path) -> list[str]:
    """What was being written."""
    return sorted(str(path) for path in folder.rglob(".*.part"))


def training(scale: float) -> str:
    """Kill a training run that writes a checkpoint after each batch."""
    each = times(10, scale)  # kills of a run
    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name) / "whole", Path(name) / "broken"
        whole.mkdir(), broken.mkdir()
        process = begun(TRAINING, whole)
        begin = time.monotonic()
        expect(process.wait() == 0, "the program failed")
        seconds = time.monotonic() - begin
        ended, left = 0, 0
        for _ in range(RUNS):
            for path in broken.iterdir():
                if not path.name.startswith("."):
                    path.unlink()
            more = killed(TRAINING, broken, seconds / 4, each)
            ended, left = ended + more[0], left + more[1]
            expect(contents(broken) == contents(whole), "the model or the checkpoint differs")
    return (
        f"{RUNS * each} kills, {left} left a temporary file, {ended} came too late; the same bytes"
    )


def scoring(scale: float) -> str:
    """Kill a batch job."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise Skipped("pyarrow is not installed") from None
    each, rng = times(10, scale), np.random.default_rng(0)  # kills of a run
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cylstm.LSTM(3, 64, seed=0).save(folder / "model.safetensors", check=True)
        lists = [rng.normal(size=(n, 3)).astype("f4").tolist() for n in rng.integers(1, 40, 6000)]
        parquet.write_table(pyarrow.table({"x": lists}), folder / "in.parquet", row_group_size=500)
        process = begun(SCORING, folder)
        begin = time.monotonic()
        expect(process.wait() == 0, "the program failed")
        seconds = time.monotonic() - begin
        (folder / "out").rename(folder / "whole")
        ended, left = 0, 0
        for _ in range(RUNS):
            if (folder / "out").exists():
                for path in (folder / "out").iterdir():
                    path.unlink()
                (folder / "out").rmdir()
            more = killed(SCORING, folder, seconds / 4, each)
            ended, left = ended + more[0], left + more[1]
            expect(contents(folder / "out") == contents(folder / "whole"), "the output differs")
    return (
        f"{RUNS * each} kills, {left} left a temporary file, {ended} came too late; the same bytes"
    )


def work(names: list[str]) -> list[Any]:
    """What a process computes, to be held against another's."""
    x = np.random.default_rng(0).normal(size=(40, 9, 6))
    found = models()
    results: list[Any] = []
    for name in names:
        own = x if name == "float64" else x.astype(np.float32)
        results.append(found[name](own))
    tape = found["lstm"].forward(x.astype(np.float32))
    results.append(found["lstm"].backward(tape[-1], np.ones_like(tape[0])))
    return results


def answer(connection: Any, names: list[str]) -> None:
    """Do the work in a child."""
    connection.send(work(names))


def processes(scale: float) -> str:
    """Fork, and spawn, while four threads call, train and stream."""
    import warnings

    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which we mean
    names, ended = list(models()), threading.Event()
    expected = work(names)
    wide = cylstm.LSTM(64, 160, num_layers=2, seed=0)
    x = np.ones((30, 16, 64), np.float32)

    def busy(kind: int) -> None:
        stream = wide.stream(16)
        while not ended.is_set():
            if kind == 0:
                wide(x)
            elif kind == 1:
                passed = wide.forward(x)
                wide.backward(passed[-1], passed[0])
            elif kind == 2:
                stream.step(x[0])
            else:
                with wide.edit() as parameters:
                    parameters["bias_l0"] *= 0.5

    threads = [threading.Thread(target=busy, args=(kind,)) for kind in range(4)]
    for thread in threads:
        thread.start()
    counts = {"fork": times(60, scale), "spawn": times(6, scale)}
    try:
        for method, count in counts.items():
            context = multiprocessing.get_context(method)
            for number in range(count):
                ours, theirs = context.Pipe(duplex=False)
                child = context.Process(target=answer, args=(theirs, names))
                child.start()
                theirs.close()
                try:
                    expect(ours.poll(120), f"{method} {number + 1}: the child hangs")
                    expect(same(ours.recv(), expected), f"{method} {number + 1}: other bits")
                except EOFError:
                    expect(False, f"{method} {number + 1}: the child ended without an answer")
                finally:
                    child.kill()
                    child.join()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    expect(same(work(names), expected), "the parent has other bits now")
    return f"{counts['fork']} forks, {counts['spawn']} spawns amid calls, the same bits in each"


CHECKS = {
    "kill training": Check(training),
    "kill scoring": Check(scoring),
    "fork and spawn": Check(processes) if hasattr(os, "fork") else Check(lambda _: "no fork"),
}
