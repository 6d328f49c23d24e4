"""Long runs at flat memory, with the same answers at the end as at the beginning."""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import cylstm
from cylstm import train
from tools.soak.common import Check, Flat, expect, models, same, times


def steps(scale: float) -> str:
    """10^6 steps of streams, whose state must be that of one call in the end."""
    count = times(1_000_000, scale)
    lstm = cylstm.LSTM(4, 16, num_layers=2, seed=0)
    x = np.random.default_rng(0).normal(size=(1000, 1, 4)).astype(np.float32)
    stream, flat = lstm.stream(), Flat(count)
    state = None
    for done in range(1, count + 1):
        y = stream.step(x[(done - 1) % 1000])
        if done % 1000 == 0:
            whole, state = lstm(x, state)
            expect(same(whole[-1], y), f"step {done:,} is not that of the call")
        flat.after(done)
    return f"{count:,} steps, each thousandth that of a call"


def shapes(scale: float) -> str:
    """10^5 shapes of calls and passes, some of them again at the end."""
    count, found = times(100_000, scale), models()
    rng, flat, kept = np.random.default_rng(0), Flat(count, 16_000_000), []
    for done in range(1, count + 1):
        name = list(found)[done % len(found)]
        model, (length, size) = found[name], rng.integers(1, (60, 12))
        dtype = "f8" if name == "float64" else "f4"
        x = rng.normal(size=(length, size, 6)).astype(dtype)
        lengths = rng.integers(0, length + 1, size) if rng.random() < 0.5 else None
        y = model(x, lengths=lengths)
        if name in ("lstm", "gru", "model") and done % 7 == 0:
            passed = model.forward(x, lengths=lengths)
            model.backward(passed[-1], np.ones_like(passed[0]))
        if done % (count // 50 + 1) == 0:
            kept.append((name, x, lengths, y))
        flat.after(done)
    for name, x, lengths, y in kept:
        expect(same(found[name](x, lengths=lengths), y), f"{name} {x.shape} has other bits now")
    return f"{count:,} shapes of {len(found)} models, {len(kept)} again with the same bits"


def loads(scale: float) -> str:
    """10^3 saves and loads of each kind of model, with and without a test of itself."""
    count, found = times(1000, scale), models()
    flat = Flat(count)
    with tempfile.TemporaryDirectory() as folder:
        for done in range(1, count + 1):
            name = list(found)[done % len(found)]
            path = Path(folder) / f"{name}.safetensors"
            found[name].save(path, check=done % 3 == 0)
            again = cylstm.load(path)
            expect(same(again.state_dict(), found[name].state_dict()), f"{name} came back changed")
            flat.after(done)
        left = sorted(path.name for path in Path(folder).iterdir())
        expect(all(name.endswith(".safetensors") for name in left), f"files are left: {left}")
    return f"{count:,} saves and loads of {len(found)} kinds"


def fits(scale: float) -> str:
    """500 fits, each to the same bits."""
    count = times(500, scale)
    flat, first = Flat(count, 8_000_000), None
    series = np.sin(np.arange(120, dtype=np.float32))
    with tempfile.TemporaryDirectory() as folder:
        for done in range(1, count + 1):
            model = train.Sequential(
                cylstm.LSTM(1, 8, seed=0), train.Last(), train.Linear(8, 1, seed=0)
            )
            path = Path(folder) / "run"
            path.unlink(missing_ok=True)
            train.fit(
                model, train.windows(series, steps=10), train.mse_loss, train.Adam(model),
                epochs=2, seed=0, metrics=["mae"], checkpoint=path,
            )  # fmt: skip
            state = model.state_dict()
            first = state if first is None else first
            expect(same(state, first), f"fit {done} came to other bits")
            flat.after(done)
    return f"{count:,} fits with checkpoints, to the same bits"


def streams(scale: float) -> str:
    """1,000 streams on 8 threads: each thread steps its own, and one pool that all share."""
    count, rounds = 1000, times(100, scale)
    lstm = cylstm.LSTM(8, 32, seed=0)
    x = np.random.default_rng(0).normal(size=(rounds, count, 8)).astype(np.float32)
    expected = lstm(x)[0]
    own, got = [lstm.stream() for _ in range(count)], np.empty_like(expected)
    pool, pooled = cylstm.StreamPool(lstm, count), np.empty_like(expected)
    barrier = threading.Barrier(8)

    def work(thread: int) -> None:
        barrier.wait()
        rows = np.arange(thread, count, 8)
        for t in range(rounds):
            for n in rows:
                got[t, n] = own[n].step(x[t, n : n + 1])[0]
            pooled[t, rows] = pool.step(rows, x[t, rows])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    expect(same(got, expected), "a stream's step is not that of the call")
    expect(same(pooled, expected), "a pool's step is not that of the call")
    return f"{count:,} streams and a pool of as many, {rounds} steps each, 8 threads"


CHECKS = {
    "steps": Check(steps),
    "shapes": Check(shapes),
    "loads": Check(loads),
    "fits": Check(fits),
    "streams": Check(streams),
}
