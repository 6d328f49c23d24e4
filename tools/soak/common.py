"""What the checks share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cylstm
from cylstm import layers

Arrays = list[np.ndarray]


class Failed(Exception):
    """A check that did not hold."""


class Skipped(Exception):
    """A check that cannot be made here."""


@dataclass(frozen=True)
class Check:
    """Something to run: with what before its command, and in what environment."""

    run: Callable[[float], str]
    before: Callable[[], list[str]] = list
    environment: Callable[[], Mapping[str, str]] = dict


def times(count: int, scale: float) -> int:
    """How often, at a scale."""
    return max(1, round(count * scale))


def expect(holds: bool, text: str) -> None:
    """Fail with this text unless something holds."""
    if not holds:
        raise Failed(text)


def same(first: Any, second: Any) -> bool:
    """Whether two results, of arrays in tuples, lists and dicts, are the same bits."""
    if isinstance(first, np.ndarray):
        return bool(first.dtype == second.dtype) and first.tobytes() == second.tobytes()
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[n], second[n]) for n in first)
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def resident_bytes() -> int:
    """How much memory the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Flat:
    """Memory that must not grow after a fifth of the rounds."""

    def __init__(self, rounds: int, allowed: int = 4_000_000) -> None:
        self.warm, self.rounds, self.allowed = rounds // 5, rounds, allowed
        self.begin = 0

    def after(self, done: int) -> None:
        """Look, after so many rounds."""
        if done == self.warm:
            self.begin = resident_bytes()
        if done == self.rounds and self.begin:
            grown = resident_bytes() - self.begin
            expect(grown < self.allowed, f"memory grew by {grown:,} bytes in {done:,} rounds")


def models() -> dict[str, Any]:
    """One of each kind, small."""
    lstm = cylstm.LSTM(6, 20, num_layers=2, bidirectional=True, peephole=True, seed=0)
    return {
        "lstm": lstm,
        "projected": cylstm.LSTM(6, 20, proj_size=7, seed=1),
        "float64": cylstm.LSTM(6, 20, dtype="float64", seed=2),
        "gru": cylstm.GRU(6, 20, num_layers=2, seed=3),
        "rnn": cylstm.RNN(6, 20, seed=4),
        "int8": cylstm.LSTM(6, 20, seed=5).quantize("int8"),
        "bfloat16": cylstm.GRU(6, 20, seed=6).quantize("bfloat16"),
        "model": layers.Sequential(
            layers.LayerNorm(6), cylstm.LSTM(6, 20, seed=7), layers.MeanPool(),
            layers.Linear(20, 3, seed=8), layers.Softmax(),
        ),
    }  # fmt: skip
