"""What came of a job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cylstm.jobs.manifest import Manifest

__all__ = ["Summary"]


@dataclass(frozen=True)
class Summary:
    """What came of a job; returned by `cylstm.score`.

    Attributes
    ----------
    rows : int
        Of the input, all runs together.
    predictions : int
        Sequences that were scored.
    skipped : int
        Sequences that could not be scored, with ``on_error="skip"``.
    parts : int
        Files of the output.
    rows_before : int
        Rows that earlier runs of the job had done.
    seconds : float
        That this run took.
    target : str
        The folder.
    """

    rows: int
    predictions: int
    skipped: int
    parts: int
    rows_before: int
    seconds: float
    target: str

    @staticmethod
    def of(manifest: Manifest, before: int, seconds: float) -> Summary:
        """Sum up the parts."""
        parts = manifest.parts
        return Summary(
            rows=sum(part.rows for part in parts),
            predictions=sum(part.predictions for part in parts),
            skipped=sum(part.skipped for part in parts),
            parts=len(parts),
            rows_before=before,
            seconds=round(seconds, 3),
            target=manifest.folder,
        )

    @property
    def rows_per_second(self) -> float:
        """Of this run."""
        return (self.rows - self.rows_before) / max(self.seconds, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self) | {"rows_per_second": round(self.rows_per_second, 1)}

    def __str__(self) -> str:
        text = f"{self.predictions:,} predictions of {self.rows:,} rows in {self.target}"
        if self.skipped:
            text += f", {self.skipped:,} skipped (see _skipped)"
        if self.rows_before:
            text += f", {self.rows_before:,} rows done before"
        return f"{text}; {self.seconds:.1f} s, {self.rows_per_second:,.0f} rows/s"
