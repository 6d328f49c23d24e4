"""How much a job may hold at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cylstm import checks
from cylstm.jobs.parts import PART_BYTES
from cylstm.jobs.readers import BLOCK_BYTES
from cylstm.predict.batches import Scorers
from cylstm.predict.model import Predictor

__all__ = ["Budget", "as_bytes"]

DEFAULT = "2GB"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_PROCESS = 150 * 10**6  # of Python, NumPy and Arrow
_PART = 3 * PART_BYTES  # its steps, its outputs, and these as a file
_LEAST = 6  # parts: read, waiting, scored (two), waiting, written
_WIDER = 8  # so many times the model's own numbers a step has on its way through it


def as_bytes(name: str, value: Any) -> int:
    """Return a size such as "2GB" or "800 MiB" as a number.

    Examples
    --------
    >>> as_bytes("memory", "2GB"), as_bytes("memory", "1.5 MiB"), as_bytes("memory", 1000)
    (2000000000, 1572864, 1000)
    """
    if not isinstance(value, str):
        return checks.whole(name, value, 1) if not isinstance(value, int) else value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(I?)B?\s*", value.upper())
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{name}: expected a size such as '2GB' or '800MiB', got {value!r}")
    unit = _UNITS[match[2]]
    if match[3]:
        unit = 1024 ** list(_UNITS).index(match[2])
    return int(float(match[1]) * unit)


def _shown(size: int) -> str:
    return f"{size // 10**6}MB" if size >= 10**6 else f"{size} bytes"


@dataclass(frozen=True)
class Budget:
    """How many parts may wait between the threads."""

    limit: int
    least: int
    depth: int

    @staticmethod
    def least_of(predictor: Predictor, scorers: Scorers) -> int:
        """Return what a job takes at least."""
        parameters = sum(array.nbytes for _, array in predictor.layer.named_parameters())
        work = scorers.threads * scorers.batch_tokens * predictor.step_bytes * _WIDER
        return _PROCESS + 2 * parameters + work + 3 * BLOCK_BYTES + _LEAST * _PART

    @staticmethod
    def of(limit: int, predictor: Predictor, scorers: Scorers) -> Budget:
        """Divide up a limit.

        Raises
        ------
        ValueError
            If it is less than a job takes.
        """
        least = Budget.least_of(predictor, scorers)
        if limit < least:
            raise ValueError(
                f"memory: expected {-(-least // 10**6)}MB at least for this model with "
                f"{scorers.threads} threads, got {_shown(limit)}"
            )
        return Budget(limit, least, 1 + int(min(3, (limit - least) // (2 * _PART))))
