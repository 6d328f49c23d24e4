"""The training passes of a recurrent network: forward with a tape, backward, and the trace."""

from __future__ import annotations

from typing import Any

import numpy as np

from cylstm import checks
from cylstm.axes import Axes
from cylstm.batch import Batch
from cylstm.lookup import LookedUp
from cylstm.recurrent import Recurrent, State
from cylstm.tape import Start, Tape, TapeOfLayer
from cylstm.trace import Trace, traced


class Passes(Recurrent[State]):
    """What a network whose weights are real numbers does beside running."""

    def forward(
        self,
        x: np.ndarray,
        state: State | None = None,
        lengths: checks.Lengths | None = None,
        *,
        resets: Any = None,
        rng: np.random.Generator | None = None,
        segment: int | None = None,
    ) -> tuple[np.ndarray, State, Tape]:
        """Run as in training: dropout acts, and what `backward` needs is kept.

        Parameters
        ----------
        x, state, lengths, resets
            As for inference. No gradient goes over a reset.
        rng : numpy.random.Generator, optional
            Source of dropout; the network's own by default.
        segment : int, optional
            Keep of a layer its input, its output, and its state at every so many steps, and compute
            the gates between them again in `backward` [4]_: for long sequences, whose gates take
            6 H values a step of an LSTM, 4 H of a GRU. It costs one more `forward`; gradients are
            the same but for rounding.

        Returns
        -------
        y, (h_n, c_n)
            As for inference.
        tape : Tape
            For `backward`.

        References
        ----------
        .. [4] T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training deep nets with sublinear memory
           cost", 2016. https://arxiv.org/abs/1604.06174

        Examples
        --------
        >>> lstm = cylstm.LSTM(3, 4, seed=0)
        >>> x = np.ones((6, 2, 3), np.float32)
        >>> y, (h_n, c_n), tape = lstm.forward(x)
        >>> grad_x, (grad_h0, grad_c0), grads = lstm.backward(tape, np.ones_like(y))
        >>> grad_x.shape, sorted(grads)
        ((6, 2, 3), ['bias_l0', 'weight_hh_l0', 'weight_ih_l0'])
        """
        return self._forward_lent(
            x, state, lengths, resets=resets, rng=rng, segment=segment, is_lent=False, lends=False
        )

    def _forward_lent(
        self, x: Any, state: State | None = None, lengths: checks.Lengths | None = None, *,
        is_lent: bool, lends: bool, resets: Any = None, rng: np.random.Generator | None = None,
        segment: int | None = None,
    ) -> tuple[np.ndarray, State, Tape]:  # fmt: skip
        """As `forward`; of an x that is lent, and of a y that is lent, the tape needs no copy."""
        rng = self._own_rng() if rng is None else checks.generator("rng", rng)
        vectors = None
        if isinstance(x, LookedUp):
            vectors, x = x.vectors, x.ids[..., None]
        x, batch, axes = self._checked_input(x, lengths, vectors is not None)
        h, c = self._initial_state(state, batch, axes)
        starts, spare = self._packed_starts(resets, batch, axes), self._network.spare
        if segment is not None:
            segment = checks.whole("segment", segment, 1)
        with self._store.reading():
            changes = self._store.version.changes
            tape = Tape(self, changes, batch, axes, batch.parts(segment), [], starts)
            own = batch.pack(x, None if is_lent else spare)
            rows = self._forward_layers(tape, own, h, c, rng, vectors)
        given = axes.outer_rows(batch, rows, None if lends else spare)
        return given, self._given_state(batch, h, c, axes), tape

    def _forward_layers(
        self,
        tape: Tape,
        rows: np.ndarray,
        h: np.ndarray,
        c: np.ndarray | None,
        rng: np.random.Generator | None,
        vectors: np.ndarray | None = None,
    ) -> np.ndarray:
        """Run and tape all layers; return the last one's y in packed rows.

        Without a source of random numbers there is no dropout. With vectors the rows are ids.
        """
        directions, width = self._options.directions, self._options.output_size
        for layer in range(self.num_layers):
            mask = self._dropout_mask(rows, rng) if layer and self.dropout and rng else None
            if mask is not None:
                rows = rows * mask
            y = self._network.spare.empty((len(rows), directions * width), self.dtype)
            kept = TapeOfLayer(rows, mask, y, [])
            if vectors is not None and layer == 0:
                kept.vectors, kept.tables = vectors, self._network.tables(vectors)
            own = slice(layer * directions, (layer + 1) * directions)
            self._forward_layer(layer, kept, h[own], None if c is None else c[own], tape)
            tape.layers.append(kept)
            rows = kept.y
        return rows

    def _forward_layer(
        self, layer: int, kept: TapeOfLayer, h: np.ndarray, c: np.ndarray | None, tape: Tape
    ) -> None:
        """Write the layer's y, and its starts; h, c (D, N, ...) end as the last state."""
        cells, parts = self._layers[layer], tape.parts
        if len(parts) == 1:
            tapes = [cell.new_tape(len(kept.x)) for cell in cells]
            kept.starts = [[_start(h, c, d, tape)] for d, tape in enumerate(tapes)]
            self._run_taped(layer, kept, slice(None), kept.y, h, c, parts[0][1], tapes, tape.starts)
            return
        for d, cell in enumerate(cells):
            kept.starts.append([])
            for rows, batch in parts[:: -1 if cell.reverse else 1]:
                kept.starts[d].append(_start(h, c, d, None))
                tapes = self._tapes_of_one(layer, d, batch)
                self._run_taped(
                    layer, kept, rows, kept.y[rows], h, c, batch, tapes, tape.starts_of(rows)
                )

    def _tapes_of_one(self, layer: int, direction: int, batch: Batch) -> list[Any]:
        """As `_run_taped` wants them, to run one direction."""
        cells = self._layers[layer]
        return [
            cell.new_tape(batch.count) if d == direction else None for d, cell in enumerate(cells)
        ]

    def _run_taped(
        self, layer: int, kept: TapeOfLayer, rows: slice, y: np.ndarray, h: Any, c: Any,
        batch: Batch, tapes: list[Any], starts: np.ndarray | None,
    ) -> None:  # fmt: skip
        """Run those of a layer's directions that have a tape to write, over rows of its x."""
        x = kept.x[rows]
        self._network.forward(layer, x, y, h, c, batch, tapes, starts, kept.tables)

    def _own_rng(self) -> np.random.Generator:
        """One that is made when it is first asked for: numpy.random is slow to import."""
        if self._rng is None:
            self._rng = np.random.default_rng()
        return self._rng

    def _dropout_mask(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        kept = rng.random(rows.shape, self.dtype) >= self.dropout
        return kept * self.dtype.type(1 / (1 - self.dropout) if self.dropout < 1 else 0)

    def trace(
        self,
        x: np.ndarray,
        state: State | None = None,
        lengths: checks.Lengths | None = None,
        *,
        resets: Any = None,
    ) -> Trace:
        """Run, and return what each step computed: gates, cell state and output of each layer.

        The numbers are the bits of `forward` without dropout, and come at its speed.

        Parameters
        ----------
        x, state, lengths, resets
            As for inference.

        Returns
        -------
        Trace
            Arrays by name: ``trace["f_l0"]`` is the first layer's forget gate at each step.

        Examples
        --------
        >>> lstm = cylstm.LSTM(3, 4, num_layers=2, seed=0)
        >>> trace = lstm.trace(np.ones((6, 2, 3), np.float32))
        >>> trace["f_l1"].shape
        (6, 2, 4)
        >>> bool((trace["h_l1"] == trace["o_l1"] * trace["tanh_c_l1"]).all())
        True
        """
        x, batch, axes = self._checked_input(x, lengths)
        h, c = self._initial_state(state, batch, axes)
        starts = self._packed_starts(resets, batch, axes)
        with self._store.reading():
            changes = self._store.version.changes
            tape = Tape(self, changes, batch, axes, batch.parts(None), [], starts)
            self._forward_layers(tape, batch.pack(x), h, c, None)
        return traced(tape, self._given_state(batch, h, c, axes))

    def backward(
        self, tape: Tape, grad_y: np.ndarray, grad_state: State | None = None
    ) -> tuple[np.ndarray, State, dict[str, np.ndarray]]:
        """Backpropagation through time: the gradients of all inputs and parameters.

        Parameters
        ----------
        tape : Tape
            From `forward` of this network, with the parameters as they are now. It is not used up.
        grad_y : array, as y
            The loss's gradient by y. What is past a sequence's length is not read.
        grad_state : (grad_hn, grad_cn), optional
            By h_n and c_n; zero by default.

        Returns
        -------
        grad_x : array, as x
        (grad_h0, grad_c0) : arrays, as the state
        grads : dict of str to array
            For each parameter.

        Raises
        ------
        ValueError
            If the tape is another network's, or older than a change of the parameters.
        """
        with self._store.reading():
            return self._backward(tape, grad_y, grad_state)

    def _backward(
        self, tape: Tape, grad_y: np.ndarray, grad_state: State | None
    ) -> tuple[np.ndarray, State, dict[str, np.ndarray]]:
        self._check_tape(tape)
        batch, axes = tape.batch, tape.axes
        steps, size = batch.shape
        directions = self._options.directions
        wide = axes.shape(steps, size, self._width)
        grad_y = checks.array("grad_y", grad_y, self.dtype, wide)
        grad_rows = batch.pack(axes.inner(grad_y))
        grad_h, grad_c = self._initial_state(grad_state, batch, axes, "grad_state", "grad_", "n")
        by_cell = {}
        for layer in reversed(range(self.num_layers)):
            kept = tape.layers[layer]
            if kept.vectors is None:
                grad_x = self._network.spare.empty(kept.x.shape, self.dtype)
            else:
                grad_x = np.zeros_like(kept.vectors)
            for direction in range(directions):
                by_cell[layer * directions + direction] = self._backward_direction(
                    tape, layer, direction, grad_rows, grad_h, grad_c, grad_x
                )
            grad_rows = grad_x if kept.mask is None else grad_x * kept.mask
        grads = {
            name + ending: grad
            for k, ending in enumerate(self._options.endings)
            for name, grad in by_cell[k].items()
        }
        if tape.layers[0].vectors is None:
            grad_rows = axes.outer_rows(batch, grad_rows)
        return grad_rows, self._given_state(batch, grad_h, grad_c, axes), grads

    def _backward_direction(
        self,
        tape: Tape,
        layer: int,
        direction: int,
        grad_y: np.ndarray,
        grad_h: np.ndarray,
        grad_c: np.ndarray | None,
        grad_x: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """The parameters' gradients; of grad_h and grad_c its part becomes h_0's and c_0's.

        grad_x is written by the first direction, and added to by the second; of vectors, by both.
        """
        kept, cell = tape.layers[layer], self._layers[layer][direction]
        grads: dict[str, np.ndarray] = {}
        parts = tape.parts[:: 1 if cell.reverse else -1]
        for (rows, batch), start in zip(parts, kept.starts[direction][::-1], strict=True):
            gates = start.tape
            starts = tape.starts_of(rows)
            if gates is None:
                gates = self._taped_again(layer, direction, kept, rows, batch, start, starts)
            more = self._network.backward(
                layer, direction, rows.start, kept.x, kept.y, gates, start.h, start.c, batch,
                grad_y, grad_h, grad_c, grad_x, None if starts is None else starts[direction],
                kept.vectors,
            )  # fmt: skip
            grads = {name: grads[name] + more[name] for name in more} if grads else more
        return grads

    def _taped_again(
        self, layer: int, direction: int, kept: TapeOfLayer, rows: slice, batch: Batch,
        start: Start, starts: np.ndarray | None,
    ) -> Any:  # fmt: skip
        """The tape of a part of which only the start was kept."""
        directions = self._options.directions
        tapes = self._tapes_of_one(layer, direction, batch)
        h = [start.h.copy()] * directions
        c = None if start.c is None else [start.c.copy()] * directions
        y = self._network.spare.empty(kept.y[rows].shape, self.dtype)
        self._run_taped(layer, kept, rows, y, h, c, batch, tapes, starts)
        return tapes[direction]

    def _check_tape(self, tape: Any) -> None:
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if tape.lstm is not self:
            raise ValueError(f"tape: expected one of this {self._options.kind}'s, got another's")
        if tape.changes != self._store.version.changes or tape.changes % 2:
            raise ValueError("tape: the parameters have changed since forward; run it again")

    def _packed_starts(self, resets: Any, batch: Batch, axes: Axes) -> np.ndarray | None:
        """(D, S): as `_starts`, of packed rows."""
        starts = self._starts(resets, batch, axes)
        if starts is None:
            return None
        return np.stack([batch.pack(one[..., None])[:, 0] for one in starts])


def _start(h: np.ndarray, c: np.ndarray | None, direction: int, tape: Any) -> Start:
    own = None if c is None else c[direction].copy()
    return Start(h[direction].copy(), own, tape)
