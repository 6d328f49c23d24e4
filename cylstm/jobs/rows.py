"""Rows that cannot be scored: where they are, and what to do about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["ON_ERROR", "BadRow", "RowError"]

ON_ERROR = ("fail", "skip")


@dataclass(frozen=True)
class BadRow:
    """A row, counted from 0 in its file and row group, and what is wrong with it."""

    file: str
    row_group: int | None
    row: int
    column: str
    reason: str
    keys: dict[str, Any]

    def __str__(self) -> str:
        group = "" if self.row_group is None else f", row group {self.row_group}"
        return f"{self.file}{group}, row {self.row}, column {self.column!r}: {self.reason}"

    def as_json(self) -> str:
        """Return one line."""
        return json.dumps(vars(self), default=str)


class RowError(ValueError):
    """A row that cannot be scored, in a job that is to fail then.

    Attributes
    ----------
    row : BadRow
    """

    def __init__(self, row: BadRow) -> None:
        super().__init__(str(row))
        self.row = row

    def __reduce__(self) -> tuple[Any, ...]:
        return RowError, (self.row,)
