"""What a forward pass keeps for the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cylstm.axes import Axes
from cylstm.batch import Batch
from cylstm.core.lookup import Tables

if TYPE_CHECKING:
    from cylstm.recurrent import Recurrent

Parts = list[tuple[slice, Batch]]


@dataclass(eq=False, repr=False)
class Start:
    """The state in which a direction came to a part of the steps, and its tape if that is kept."""

    h: np.ndarray  # (N, R), in the sorted order
    c: np.ndarray | None  # (N, H); None where the state is h alone
    tape: np.ndarray | None


@dataclass(eq=False, repr=False)
class TapeOfLayer:
    """What one layer's forward pass leaves, in packed rows."""

    x: np.ndarray
    mask: np.ndarray | None  # dropout's, on x
    y: np.ndarray
    starts: list[list[Start]]  # of each direction, in the order in which it came to the parts
    vectors: np.ndarray | None = None  # of which x is one at each row: then x is ids (S, 1), and
    tables: Tables | None = None  # these were made of them


@dataclass(eq=False, repr=False)
class Tape:
    """What `forward` keeps for `backward`: opaque, and good for that network alone."""

    lstm: Recurrent[Any]
    changes: int  # of the parameters, until then
    batch: Batch
    axes: Axes
    parts: Parts
    layers: list[TapeOfLayer]
    starts: np.ndarray | None  # (D, S): whether a state started from zero at a row

    def starts_of(self, rows: slice) -> np.ndarray | None:
        """Of the rows of a part."""
        return None if self.starts is None else np.ascontiguousarray(self.starts[:, rows])
