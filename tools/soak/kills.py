"""Processes that are killed, forked and spawned at any moment."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cylstm
import cylstm.layers
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
import json
import random
import sys
import cylstm

folder = sys.argv[1]
model = cylstm.load(folder + "/model.safetensors")
options = json.load(open(folder + "/options.json"))
print(flush=True)
cylstm.score(
    model, folder + "/in.parquet", folder + "/out", part_rows=100, **options,
    threads=random.choice((1, 2, 3)), batch_tokens=random.choice((64, 1000, 4096)),
)
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


def timed(program: str, folder: Path, writes: str) -> tuple[float, float]:
    """Let a program end; return when it had written the first of its files, and when it ended."""
    process, begin, first = begun(program, folder), time.monotonic(), None
    while process.poll() is None:
        if first is None and any(folder.glob(writes)):
            first = time.monotonic() - begin
        time.sleep(0.005)
    expect(process.returncode == 0, "the program failed")
    whole = time.monotonic() - begin
    return whole if first is None else first, whole


@dataclass
class Kills:
    """How many there were, and what they met."""

    done: int = 0
    amid: int = 0  # after something was written, since the program had begun
    left: int = 0  # with a temporary file
    late: int = 0

    def __str__(self) -> str:
        return (
            f"{self.done} kills, {self.amid} amid what it writes, {self.left} left a temporary"
            f" file, {self.late} came too late; the same bytes"
        )


def killed(
    program: str,
    folder: Path,
    moments: tuple[float, float],
    kills: int,
    met: Kills,
    run: int,
    ended: Callable[[], None],
) -> None:
    """Kill a program so often, a quarter before it writes, then let it end.

    ``ended`` looks at what it wrote, and takes that away.
    """
    first, whole = moments
    chance, until = random.Random(run), met.done + kills
    while met.done < until:
        process, before = begun(program, folder), written(folder)
        amid, fraction = chance.random() < 0.75, chance.random()
        moment = first + fraction * (whole - first) / 4 if amid else fraction * first
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if process.returncode == -signal.SIGKILL:
            met.done += 1
            met.left += bool(temporaries(folder))
            met.amid += written(folder) != before
        else:
            expect(process.returncode == 0, f"the program failed: {process.returncode}")
            met.late += 1
            ended()
    process = begun(program, folder)
    expect(process.wait() == 0, f"the program failed: {process.returncode}")
    ended()


def written(folder: Path) -> dict[str, int]:
    """When each whole file was last written."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path): path.stat().st_mtime_ns for path in paths}


def temporaries(folder: Path) -> list[str]:
    """What was being written."""
    return sorted(str(path) for path in folder.rglob(".*.part"))


def training(scale: float) -> str:
    """Kill a training run that writes a checkpoint after each batch."""
    each = times(10, scale)  # kills of a run
    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name) / "whole", Path(name) / "broken"
        whole.mkdir()
        broken.mkdir()
        moments, met = timed(TRAINING, whole, "run"), Kills()

        def ended() -> None:
            expect(contents(broken) == contents(whole), "the model or the checkpoint differs")
            for path in broken.iterdir():
                path.unlink()

        for run in range(RUNS):
            killed(TRAINING, broken, moments, each, met, run, ended)
    expect(met.amid > 0, "no kill came amid what it writes")
    return str(met)


def job_of(shape: str, rng: np.random.Generator) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A model, the columns of an input, and the options of `cylstm.score`."""
    lengths = rng.integers(1, 40, 6000)
    if shape == "tokens":
        layers = cylstm.layers
        model = layers.Sequential(
            layers.Embedding(50, 16, seed=0), cylstm.LSTM(16, 48, bidirectional=True, seed=1)
        )
        return model, {"x": [rng.integers(0, 50, n).tolist() for n in lengths]}, {}
    features = rng.normal(size=(int(lengths.sum()), 3)).astype("f4")
    if shape == "features":
        ends = np.cumsum(lengths)[:-1]
        lists = [part.tolist() for part in np.split(features, ends)]
        return cylstm.LSTM(3, 64, seed=0), {"x": lists}, {}
    columns = {"id": np.repeat(np.arange(6000), lengths)} | dict(
        zip("abc", features.T, strict=True)
    )
    return cylstm.LSTM(3, 64, seed=0), columns, {"by": "id", "features": ["a", "b", "c"]}


def scoring(shape: str, scale: float) -> str:
    """Kill a batch job; each start has other threads and batches."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise Skipped("pyarrow is not installed") from None
    each = times(10, scale)  # kills of a run
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, columns, options = job_of(shape, np.random.default_rng(0))
        model.save(folder / "model.safetensors", check=True)
        (folder / "options.json").write_text(json.dumps(options))
        parquet.write_table(pyarrow.table(columns), folder / "in.parquet", row_group_size=500)
        moments, met = timed(SCORING, folder, "out/part*"), Kills()
        (folder / "out").rename(folder / "whole")

        def ended() -> None:
            expect(contents(folder / "out") == contents(folder / "whole"), "the output differs")
            shutil.rmtree(folder / "out")

        for run in range(RUNS):
            killed(SCORING, folder, moments, each, met, run, ended)
    expect(met.amid > 0, "no kill came amid what it writes")
    return str(met)


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
            context: Any = multiprocessing.get_context(method)
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
    **{
        f"kill scoring, {shape}": Check(functools.partial(scoring, shape))
        for shape in ("tokens", "features", "steps")
    },
    "fork and spawn": Check(processes) if hasattr(os, "fork") else Check(lambda _: "no fork"),
}
