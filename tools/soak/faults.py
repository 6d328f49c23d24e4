"""Memory that cannot be had, threads that cannot be made, and small stacks."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import resource
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import cylstm
from cylstm import train
from tools.soak.common import Check, Failed, Skipped, expect, models, same, times

# The k-th allocation of aligned memory fails, if k is not 0, and every thread of the team's.
SHIM = """
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
long fail_memory, fail_thread;
void *__libc_memalign(size_t, size_t);
int posix_memalign(void **memory, size_t alignment, size_t size) {
    if (fail_memory && !__atomic_sub_fetch(&fail_memory, 1, __ATOMIC_SEQ_CST)) return ENOMEM;
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}
#define _GNU_SOURCE 1
#include <dlfcn.h>
int pthread_create(pthread_t *thread, const pthread_attr_t *a, void *(*run)(void *), void *arg) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)&real = dlsym((void *)-1L, "pthread_create");
    if (fail_thread && !a) return EAGAIN; /* of the team; Python's have attributes */
    return real(thread, a, run, arg);
}
"""


@functools.cache
def shim() -> Path:
    """Compile what is preloaded."""
    if shutil.which("cc") is None:
        raise Skipped("there is no C compiler")
    folder = Path(tempfile.gettempdir()) / f"cylstm-soak-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM)
    command = ["cc", "-shared", "-fPIC", "-w", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def entries(size: int = 1) -> dict[str, Callable[[], Any]]:
    """Every door, with inputs that are so many times as large; each gives arrays."""
    found = models()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20 * size, 9, 6)).astype(np.float32)
    wide = cylstm.LSTM(64, 96, num_layers=2, seed=9)
    series = rng.normal(size=(20 * size, 33, 64)).astype(np.float32)
    linear = train.Linear(64, 96, seed=0)
    labels = rng.integers(0, 64, (20 * size, 33))
    stream, pool = wide.stream(33), cylstm.StreamPool(wide, 40)

    def call(name: str) -> Callable[[], Any]:
        own = x.astype("f8") if name == "float64" else x
        return lambda: found[name](own)

    def ragged() -> Any:
        return wide(series, lengths=np.arange(33) % (20 * size))

    def passes(model: Any, given: np.ndarray) -> Any:
        taken = model.forward(given)
        return model.backward(taken[-1], np.ones_like(taken[0]))

    def steps() -> Any:
        stream.reset()
        pool.reset()
        first = pool.step(np.arange(33), series[0])
        return [first, *(stream.step(x_t) for x_t in series[:3])]

    def step_of_adam() -> Any:
        model = cylstm.LSTM(6, 40, seed=3)
        adam = train.Adam(model, lr=1e-2)
        taken = model.forward(x)
        grads = model.backward(taken[-1], taken[0])[2]
        before = model.state_dict()
        try:
            adam.step(grads)
        except MemoryError:
            expect(same(model.state_dict(), before), "a step that failed changed parameters")
            raise
        return model.state_dict()

    def fit() -> Any:
        model = train.Sequential(cylstm.LSTM(6, 8, seed=0), train.Linear(8, 2, seed=0))
        target = np.zeros((*x.shape[:2], 2), np.float32)
        train.fit(model, (x, target), train.mse_loss, train.SGD(model), epochs=1, seed=0)
        return model.state_dict()

    def saved() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            wide.save(Path(folder) / "model", check=True)
            try:
                return cylstm.load(Path(folder) / "model").state_dict()
            finally:
                left = sorted(os.listdir(folder))
                expect(left == ["model"], f"files are left: {left}")

    return {
        **{f"call {name}": call(name) for name in found},
        "call ragged": ragged,
        "call wide": lambda: wide(series),
        "streams": steps,
        "trace": lambda: dict(wide.trace(series)),
        "forward, backward": lambda: passes(wide, series),
        "forward, backward of a model": lambda: passes(found["model"], x)[0],
        "linear": lambda: passes(linear, series),
        "cross entropy": lambda: train.cross_entropy_loss(series, labels),
        "predict": lambda: wide.predict([series[:, n] for n in range(33)]),
        "quantize": lambda: wide.quantize("int8").state_dict(),
        "step of Adam": step_of_adam,
        "fit": fit,
        "save, load": saved,
        "new": lambda: cylstm.LSTM(64, 96, seed=1).state_dict(),
    }


def denied(scale: float) -> str:
    """Let each allocation of the kernels' fail in turn, and the threads."""
    library = ctypes.CDLL(None)
    memory = ctypes.c_long.in_dll(library, "fail_memory")
    thread = ctypes.c_long.in_dll(library, "fail_thread")
    cylstm.set_num_threads(4)
    thread.value = 1  # before any is made
    doors = entries()
    expected = {name: door() for name, door in doors.items()}
    thread.value = 0
    for name, door in doors.items():
        expect(same(door(), expected[name]), f"{name}: other bits with threads than without")
    failures = 0
    for name, door in doors.items():
        for k in range(1, times(2000, scale) + 1):
            fresh = entries()[name] if k <= 3 else door  # packs its weights anew
            memory.value = k
            try:
                found = fresh()
                reached = memory.value > 0  # fewer were asked for
            except MemoryError:
                failures += 1
                found, reached = None, False
            except Exception as error:
                raise Failed(
                    f"{name}: {type(error).__name__} at allocation {k}: {error}"
                ) from error
            finally:
                memory.value = 0
            expect(found is None or same(found, expected[name]), f"{name}: other bits at {k}")
            expect(same(fresh(), expected[name]), f"{name}: other bits after {k} failed")
            if reached and k > 3:
                break
    return f"{failures} allocations denied in {len(doors)} entries, MemoryError in each; no threads"


def limited(scale: float) -> str:
    """Limit the address space to little more than there is, for inputs that want much more."""
    small, large = entries(), entries(30)
    for doors in (small, large):  # Python's own Thread.start waits for ever for one without memory
        del doors["predict"]
    expected = {name: door() for name, door in small.items()}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    refused: dict[str, int] = {}
    for name, door in large.items():
        for margin in (0, 4):
            gc.collect()
            used = int(Path("/proc/self/statm").read_text().split()[0])
            limit = used * os.sysconf("SC_PAGE_SIZE") + margin * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
            try:
                door()
            except MemoryError:
                refused[name] = refused.get(name, 0) + 1
            except (RuntimeError, OSError) as error:  # no thread, no mapping of a file
                if "thread" not in str(error) and "memory" not in str(error):
                    raise Failed(f"{name}: {type(error).__name__}: {error}") from error
                refused[name] = refused.get(name, 0) + 1
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            expect(same(small[name](), expected[name]), f"{name}: other bits after MemoryError")
    expect(len(refused) > len(large) // 2, f"{', '.join(refused)} alone were refused")
    return (
        f"{sum(refused.values())} calls refused, of {len(refused)} of {len(large)} entries (the "
        "others had enough), none half done"
    )


def stacks(scale: float) -> str:
    """Call everything in threads of small stacks."""
    doors = entries()
    expected = {name: door() for name, door in doors.items()}
    sizes = (64, 128, 256)
    for kib in sizes:
        threading.stack_size(kib * 1024)
        try:
            for name, door in doors.items():
                if kib < 128 and name in ("fit", "save, load", "predict"):
                    continue  # much Python within Python; it has its own needs
                got: list[Any] = []
                thread = threading.Thread(target=lambda door=door, got=got: got.append(door()))
                thread.start()
                thread.join()
                expect(bool(got) and same(got[0], expected[name]), f"{name} at {kib} KiB")
        finally:
            threading.stack_size(0)
    limit = resource.getrlimit(resource.RLIMIT_STACK)[0] // 1024
    return f"{len(doors)} entries in threads of {sizes} KiB, the team's of {limit} KiB"


def _small_stack() -> list[str]:
    return ["sh", "-c", 'ulimit -s 256 && exec "$@"', "sh"]


# What is freed goes back to the system, so that a limit is one.
_LEAST_KEPT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

CHECKS = {
    "memory denied": Check(denied, environment=lambda: {"LD_PRELOAD": str(shim())}),
    "memory limited": Check(limited, environment=lambda: _LEAST_KEPT),
    "small stacks": Check(stacks, before=_small_stack),
}
