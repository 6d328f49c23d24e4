"""The machine's limit: what its cores can do at most, measured, and the least time of a shape."""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .common import Shape

SOURCE = Path(__file__).with_name("machine.c")
FLOAT_BYTES = 4
FLAGS = {  # instruction set: bytes of a vector, and the compiler's flags
    "avx512": (64, ["-mavx512f", "-mfma"]),
    "avx2": (32, ["-mavx2", "-mfma"]),
    "baseline": (16, []),
}
WITHIN = {"avx512bf16": "avx512", "avx512vnni": "avx512", "avxvnni": "avx2", "dotprod": "baseline"}
WEIGHT_BYTES = {"float32": FLOAT_BYTES, "bfloat16": 2, "int8": 1}
MORE_FLAGS = {  # those of a CPU that has these, for sums of such numbers: its name for them, GCC's
    ("int8", "avx512"): {"avx512bw": "-mavx512bw", "avx512_vnni": "-mavx512vnni"},
    ("int8", "avx2"): {"avx_vnni": "-mavxvnni"},
    ("bfloat16", "avx512"): {"avx512_bf16": "-mavx512bf16"},
}


@dataclass(frozen=True)
class Level:
    """A cache, or the memory: what a thread has of it, and how fast it reads from there."""

    name: str
    capacity: int  # bytes
    rate: float  # bytes a second


@dataclass(frozen=True)
class Machine:
    """What each of `threads` threads can do at most while all of them are at it."""

    threads: int
    flops: float  # multiplications and additions a second, of numbers as the weights are
    levels: tuple[Level, ...]  # the nearest first; the last is the memory
    weight_bytes: int = FLOAT_BYTES


def read_seconds(machine: Machine, size: float) -> float:
    """The least time in which the threads together read `size` bytes, again and again.

    Each reads its share: of it as much from each cache as that holds, the rest from further out.
    """
    share, seconds, nearer = size / machine.threads, 0.0, 0
    for level in machine.levels:
        seconds += max(0, min(share, level.capacity) - nearer) / level.rate
        nearer = level.capacity
    return seconds


def product_seconds(machine: Machine, rows: float, weights: int) -> float:
    """The least time of rows x weights: by its FLOPs, or by reading the weights once."""
    by_flops = 2 * rows * weights / (machine.threads * machine.flops)
    return max(by_flops, read_seconds(machine, machine.weight_bytes * weights))


def least_seconds(shape: Shape, machine: Machine, training: bool = False) -> float:
    """The least time in which the machine can run `shape`.

    Counted are the products of each layer and direction. The input's is one product over all steps.
    The recurrent one waits for its step: each takes as long as its FLOPs at the machine's peak, or
    as reading the recurrent weights from where they fit, whichever is longer; a step has the rows
    of the sequences that still run. The one step of a stream is one product with both matrices.
    Training adds backward's: a recurrent product a step, and over all steps those that give the
    gradients of x, W_ih and W_hh. The gates' arithmetic and the reading and writing of x and y
    count as nothing.
    """
    lengths = [shape.steps] * shape.batch if shape.lengths is None else shape.lengths
    rows = [sum(length > t for length in lengths) for t in range(shape.steps)]
    seconds = 0.0
    for _, inputs in shape.cells:
        w_ih, w_hh = 4 * shape.hidden_size * inputs, 4 * shape.hidden_size**2
        if shape.steps == 1:
            seconds += product_seconds(machine, rows[0], w_ih + w_hh)
            continue
        merged = product_seconds(machine, sum(rows), w_ih)
        steps = sum(product_seconds(machine, n, w_hh) for n in rows)
        seconds += merged + steps
        if training:
            seconds += steps + 2 * merged + product_seconds(machine, sum(rows), w_hh)
    return seconds


def usable_cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def cache_sizes() -> dict[str, int]:
    """The bytes of each cache that the first CPU reads data from, the nearest first."""
    sizes = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (
            (folder / name).read_text().strip() for name in ("type", "level", "size")
        )
        if kind != "Instruction":
            sizes[f"L{level}"] = int(size.rstrip("K")) * 1024
    return sizes


def measure(isa: str, threads: int = 1, seconds: float = 0.3, weights: str = "float32") -> Machine:
    """Measure what the first `threads` CPUs that are ours can do, with the instructions of `isa`.

    With `weights` of int8 or bfloat16 the multiply-adds are those of such numbers, by the fastest
    instructions that the CPU has for exact sums; where it has none of bfloat16, those of float32.
    Each runs `machine.c` at the same time as the others; the slowest counts.
    """
    caches = cache_sizes()
    *inner, outer = caches.values()
    memory = 4 * outer
    sizes = [*(size // 2 for size in inner), outer // (4 * threads), memory // threads]
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(isa, folder, weights)
        command = [program, str(seconds), *map(str, sizes)]
        cpus = usable_cpus()[:threads]
        runs = [subprocess.Popen(["taskset", "-c", str(cpu), *command], stdout=-1) for cpu in cpus]
        rates = [[float(line) for line in run.communicate()[0].split()] for run in runs]
    flops, *reads = map(min, zip(*rates, strict=True))
    held = [*inner, outer // threads, 1 << 62]
    levels = map(Level, [*caches, "memory"], held, reads)
    return Machine(threads, flops, tuple(levels), WEIGHT_BYTES[weights])


def cpu_flags() -> set[str]:
    """What Linux says that the CPU has."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def compiled(isa: str, folder: str, weights: str = "float32") -> str:
    """The path of `machine.c`, compiled for `isa` and numbers of `weights` into `folder`."""
    isa = WITHIN.get(isa, isa)  # those add what MORE_FLAGS looks for
    width, flags = FLAGS[isa]
    there, more = cpu_flags(), MORE_FLAGS.get((weights, isa), {})
    flags = [*flags, f"-D{weights.upper()}", *(more[name] for name in more if name in there)]
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    program = str(Path(folder, "machine"))
    subprocess.run(
        [*compiler, "-O3", "-ffp-contract=fast", f"-DVECTOR_BYTES={width}", *flags,
         str(SOURCE), "-o", program], check=True)  # fmt: skip
    return program
