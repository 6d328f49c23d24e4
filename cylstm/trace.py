"""What a recurrent network computed at each step, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cylstm.axes import Axes
from cylstm.batch import Batch
from cylstm.tape import Tape

Slots = tuple[tuple[str, ...], tuple[str, ...]]

# Of each kind of cell what its tape holds: of a GRU hn is what n's reset gate multiplies.
SLOTS: dict[str, Slots] = {
    "LSTM": (("i", "f", "g", "o"), ("c", "tanh_c")),
    "GRU": (("n", "r", "z", "hn"), ()),
    "RNN": ((), ()),
}


def slots_of(tape: np.ndarray, slots: Slots, rows: int, hidden: int) -> dict[str, np.ndarray]:
    """The arrays (S, H) of a cell's tape, views of it.

    Parameters
    ----------
    tape : array
        As `Cell.new_tape` lays it out.
    slots : pair of tuple of str
        What it holds: the gates, which lie side by side in a row, and then arrays of their own.
    rows, hidden : int
        S and H.
    """
    gates, states = slots
    beside = tape[: len(gates) * rows * hidden].reshape(rows, len(gates), hidden)
    after = tape[len(gates) * rows * hidden :].reshape(len(states), rows, hidden)
    named = {name: beside[:, k] for k, name in enumerate(gates)}
    return named | dict(zip(states, after, strict=True))


class Trace(Mapping[str, np.ndarray]):
    """The gates and states of every step, made by `LSTM.trace`: a mapping of names to arrays.

    A name is that of the value, ``i``, ``f``, ``g``, ``o``, ``c``, ``tanh_c`` (the output
    activation of c) or ``h``, and the ending that the parameters of its layer and direction have:
    ``"f_l0"``, ``"c_l1_reverse"``. Of a GRU the values are ``n``, ``r``, ``z``, ``hn`` (what r
    multiplies in n) and ``h``, of an RNN ``h`` alone.

    Arrays lie as y does and are zero past a sequence's length, in the order of the input in both
    directions: (T, N, H), (N, T, H) with `batch_first`, or (T, H); with a projection h is (..., R).

    Attributes
    ----------
    y : array
        The last layer's h, as `LSTM.forward` returns it.
    state : (h_n, c_n), or h_n
        As `LSTM.forward` returns them.
    lengths : array of int, (N,)
        Each sequence's own length.
    batch_first : bool
        Whether the arrays are (N, T, ...).
    endings : tuple of str
        Of the names, a layer and direction each.

    Notes
    -----
    Where all sequences are of one length, the arrays are views of what the forward pass wrote.
    """

    def __init__(
        self,
        rows: dict[str, np.ndarray],
        batch: Batch,
        axes: Axes,
        endings: tuple[str, ...],
        y: np.ndarray,
        state: Any,
    ) -> None:
        self._rows, self._batch, self._axes = rows, batch, axes
        self._given: dict[str, np.ndarray] = {}
        self.endings, self.y, self.state = endings, y, state
        self.batch_first = axes.batch_first and not axes.unbatched

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._rows:
            first = ", ".join(n for n in self._rows if n.endswith(self.endings[0]))
            raise KeyError(
                f"{name}: expected one of {first}, or of other layers: {', '.join(self.endings)}"
            )
        if name not in self._given:
            self._given[name] = self._outer(self._rows[name])
        return self._given[name]

    def _outer(self, rows: np.ndarray) -> np.ndarray:
        steps, size = self._batch.shape
        if self._batch.ragged:
            unpacked = self._axes.empty(steps, size, rows.shape[1], rows.dtype)
            self._batch.unpack(rows, unpacked)
            return self._axes.outer(unpacked)
        return self._axes.outer(rows.reshape(steps, size, rows.shape[1]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        steps, size = self._batch.shape
        return f"Trace({steps} steps of {size} sequences: {', '.join(self)})"

    @property
    def lengths(self) -> np.ndarray:
        """Each sequence's own length."""
        steps, size = self._batch.shape
        if not self._batch.ragged:
            return np.full(size, steps)
        running = np.arange(size) < self._batch.sizes[:, None]
        lengths = np.empty(size, np.intp)
        lengths[self._batch.order] = running.sum(0)
        return lengths

    def of(self, layer: int, direction: int = 0) -> dict[str, np.ndarray]:
        """One layer and direction: its arrays, by names without endings.

        Examples
        --------
        >>> trace = cylstm.LSTM(3, 4, seed=0).trace(np.ones((6, 2, 3), np.float32))
        >>> list(trace.of(0))
        ['i', 'f', 'g', 'o', 'c', 'tanh_c', 'h']
        """
        ending = f"_l{layer}{'_reverse' if direction else ''}"
        if ending not in self.endings or direction not in (0, 1):
            raise ValueError(
                f"layer, direction: expected one of {', '.join(self.endings)}, "
                f"got {layer!r}, {direction!r}"
            )
        return {name.removesuffix(ending): self[name] for name in self if name.endswith(ending)}


def traced(tape: Tape, state: Any) -> Trace:
    """The arrays of a whole tape by name, and the state after it."""
    rows: dict[str, np.ndarray] = {}
    options = tape.lstm._options
    for k, ending in enumerate(options.endings):
        layer, direction = divmod(k, options.directions)
        kept, width = tape.layers[layer], options.output_size
        gates = kept.starts[direction][0].tape
        named = slots_of(gates, SLOTS[options.kind], len(kept.y), options.hidden_size)
        named["h"] = kept.y[:, direction * width : (direction + 1) * width]
        rows |= {name + ending: array for name, array in named.items()}
    y = tape.axes.outer_rows(tape.batch, tape.layers[-1].y)
    return Trace(rows, tape.batch, tape.axes, options.endings, y, state)
