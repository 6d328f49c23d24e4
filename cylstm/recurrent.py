"""Running a recurrent network, and its training passes: on arrays as a caller has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from cylstm import checks
from cylstm.axes import Axes
from cylstm.batch import Batch
from cylstm.core.cell import Cell
from cylstm.core.network import Network
from cylstm.options import Shared
from cylstm.parameters import Parameters
from cylstm.stream import Stream
from cylstm.tape import Start, Tape, TapeOfLayer
from cylstm.trace import Trace, traced

State = TypeVar("State")  # (h, c) of an LSTM, h of others
Pair = tuple[np.ndarray, np.ndarray | None]  # within: without a c, None


class Recurrent(Generic[State]):
    """What a network does, whatever it was made from: calls, streams, forward and backward."""

    batch_first: bool
    dropout: float
    dtype: np.dtype
    hidden_size: int
    input_size: int
    num_layers: int
    _layers: list[list[Cell]]  # by layer and direction
    _network: Network  # of them
    _options: Shared
    _rng: np.random.Generator | None  # None until it is asked for
    _store: Parameters

    if TYPE_CHECKING:  # the parameters: weight_ih_l0

        def __getattr__(self, name: str) -> np.ndarray: ...

    @property
    def _width(self) -> int:
        """Of y: D R."""
        return self._options.directions * self._options.output_size

    # Inference

    def __call__(
        self,
        x: np.ndarray,
        state: State | None = None,
        lengths: checks.Lengths | None = None,
        *,
        resets: Any = None,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """Run over whole sequences, keeping nothing.

        A GRU's and an RNN's state is h alone: where a pair (h, c) is said, h.

        Parameters
        ----------
        x : array, (T, N, I), (N, T, I) with `batch_first`, or (T, I)
            Of the network's dtype, in any layout.
        state : (h_0, c_0), optional
            Arrays (L D, N, R) and (L D, N, H), or without N for an x without it; zero by default.
        lengths : array of int, (N,), optional
            Each sequence's own length, from 0 to T. y is zero past it, the reverse direction starts
            at it, and the state returned is that of its last step.
        resets : array of bool, (T, N), (N, T) with `batch_first`, or (T,), optional
            Where a new sequence begins within a row: the state starts there from zero, in each
            layer, and the reverse direction's in the step before. y is, to the bit, that of
            separate calls. What is past a sequence's length is not read.
        out : array, optional
            Where to write y.

        Returns
        -------
        y : array, (T, N, D R), (N, T, D R) or (T, D R)
            The last layer's h at each step.
        (h_n, c_n) : arrays, as `state`
            The state of each layer and direction after its last step.

        Raises
        ------
        ValueError, TypeError
            For an argument of the wrong rank, shape or dtype.
        MemoryError
            If the output cannot be had.

        Examples
        --------
        >>> lstm = cylstm.LSTM(3, 4, bidirectional=True, seed=0)
        >>> x = np.ones((6, 2, 3), np.float32)
        >>> y, (h_n, c_n) = lstm(x, lengths=[6, 2])
        >>> y.shape, h_n.shape
        ((6, 2, 8), (2, 2, 4))
        >>> bool((y[2:, 1] == 0).all())
        True
        """
        if state is lengths is resets is out is None:
            fast = self._network.call(x)
            if fast is not None:
                return fast
        x, batch, axes = self._checked_input(x, lengths)
        h, c = self._initial_state(state, batch, axes)
        starts = self._starts(resets, batch, axes)
        steps, size = batch.shape
        y = axes.empty(steps, size, self._width, self.dtype)
        if out is not None:
            checks.output(out, axes.outer(y))
            direct = axes.inner(out)
            if checks.is_regular(out, self.dtype) and not np.may_share_memory(out, x):
                y = direct
        if batch.ragged:
            y[...] = 0
        self._run(batch, x, y, h, c, starts)
        if out is not None and y is not direct:
            direct[...] = y
        given = axes.outer(y) if out is None else out
        return given, self._given_state(batch, h, c, axes)

    def _run(
        self, batch: Batch, x: np.ndarray, y: np.ndarray, h: np.ndarray, c: np.ndarray | None,
        starts: np.ndarray | None,
    ) -> None:  # fmt: skip
        """All layers; h, c (L D, N, ...) are sorted as `batch` is, and end as the last state."""
        self._network.run(x, y, h, c, batch, starts)

    def stream(self, batch_size: int = 1) -> Stream:
        """Make a stream: the network with its state, to be advanced a step, or some, at a time.

        Examples
        --------
        >>> lstm = cylstm.LSTM(3, 4, seed=0)
        >>> x = np.ones((6, 1, 3), np.float32)
        >>> stream = lstm.stream()
        >>> steps = [stream.step(x_t) for x_t in x]
        >>> bool(np.allclose(np.stack(steps), lstm(x)[0], atol=1e-6))
        True
        """
        return Stream(self, batch_size)

    def predict(
        self,
        sequences: Any,
        offsets: Any = None,
        *,
        batch_tokens: int | None = None,
        threads: int | None = None,
        progress: bool = False,
    ) -> Any:
        """Return y of any number of sequences of any lengths, in their order.

        Parameters
        ----------
        sequences, offsets, batch_tokens, threads, progress
            As `cylstm.layers.Layer.predict` has them.

        Returns
        -------
        list of array, (T_n, D R) each, or with `offsets` array, (S, D R)

        Examples
        --------
        >>> lstm = cylstm.LSTM(3, 4, seed=0)
        >>> [y.shape for y in lstm.predict([np.ones((5, 3)), np.ones((2, 3))])]
        [(5, 4), (2, 4)]
        """
        from cylstm.predict.calls import predict

        return predict(
            self, sequences, offsets, batch_tokens=batch_tokens, threads=threads, progress=progress
        )

    # Training

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
        rng = self._own_rng() if rng is None else checks.generator("rng", rng)
        x, batch, axes = self._checked_input(x, lengths)
        h, c = self._initial_state(state, batch, axes)
        starts = self._packed_starts(resets, batch, axes)
        if segment is not None:
            segment = checks.whole("segment", segment, 1)
        with self._store.reading():
            changes = self._store.version.changes
            tape = Tape(self, changes, batch, axes, batch.parts(segment), [], starts)
            rows = self._forward_layers(tape, batch.pack(x, own=True), h, c, rng)
        given = axes.outer_rows(batch, rows, kept=True)
        return given, self._given_state(batch, h, c, axes), tape

    def _forward_layers(
        self,
        tape: Tape,
        rows: np.ndarray,
        h: np.ndarray,
        c: np.ndarray | None,
        rng: np.random.Generator | None,
    ) -> np.ndarray:
        """Run and tape all layers; return the last one's y in packed rows.

        Without a source of random numbers there is no dropout.
        """
        directions, width = self._options.directions, self._options.output_size
        for layer in range(self.num_layers):
            mask = self._dropout_mask(rows, rng) if layer and self.dropout and rng else None
            if mask is not None:
                rows = rows * mask
            y = np.empty((len(rows), directions * width), self.dtype)
            kept = TapeOfLayer(rows, mask, y, [])
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
            self._run_taped(layer, kept.x, kept.y, h, c, parts[0][1], tapes, tape.starts)
            return
        for d, cell in enumerate(cells):
            kept.starts.append([])
            for rows, batch in parts[:: -1 if cell.reverse else 1]:
                kept.starts[d].append(_start(h, c, d, None))
                tapes = self._tapes_of_one(layer, d, batch)
                self._run_taped(
                    layer, kept.x[rows], kept.y[rows], h, c, batch, tapes, tape.starts_of(rows)
                )

    def _tapes_of_one(self, layer: int, direction: int, batch: Batch) -> list[Any]:
        """As `_run_taped` wants them, to run one direction."""
        cells = self._layers[layer]
        return [
            cell.new_tape(batch.count) if d == direction else None for d, cell in enumerate(cells)
        ]

    def _run_taped(
        self, layer: int, x: np.ndarray, y: np.ndarray, h: Any, c: Any, batch: Batch,
        tapes: list[Any], starts: np.ndarray | None,
    ) -> None:  # fmt: skip
        """Run those of a layer's directions that have a tape to write."""
        self._network.forward(layer, x, y, h, c, batch, tapes, starts)

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
            grad_x = np.empty_like(kept.x)
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
        given = axes.outer_rows(batch, grad_rows, kept=False)
        return given, self._given_state(batch, grad_h, grad_c, axes), grads

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

        grad_x is written by the first direction, and added to by the second.
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
        y = np.empty_like(kept.y[rows])
        self._run_taped(layer, kept.x[rows], y, h, c, batch, tapes, starts)
        return tapes[direction]

    def _check_tape(self, tape: Any) -> None:
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if tape.lstm is not self:
            raise ValueError(f"tape: expected one of this {self._options.kind}'s, got another's")
        if tape.changes != self._store.version.changes or tape.changes % 2:
            raise ValueError("tape: the parameters have changed since forward; run it again")

    def _checked_input(self, x: Any, lengths: Any) -> tuple[np.ndarray, Batch, Axes]:
        if not self._network.is_input(x):
            x = checks.is_array("x", x)
            checks.steps(x)
            shape = Axes(self.batch_first, x.ndim == 2).shape("T", "N", self.input_size)
            x = checks.array("x", x, self.dtype, shape)
        axes = Axes(self.batch_first, x.ndim == 2)
        x = axes.inner(x)
        steps, size = x.shape[:2]
        if lengths is not None:
            lengths = checks.lengths(
                np.atleast_1d(lengths) if axes.unbatched else lengths, steps, size
            )
        return x, Batch(steps, size, lengths), axes

    def _packed_starts(self, resets: Any, batch: Batch, axes: Axes) -> np.ndarray | None:
        """(D, S): as `_starts`, of packed rows."""
        starts = self._starts(resets, batch, axes)
        if starts is None:
            return None
        return np.stack([batch.pack(one[..., None])[:, 0] for one in starts])

    def _starts(self, resets: Any, batch: Batch, axes: Axes) -> np.ndarray | None:
        """Of each direction whether a state starts from zero at a step, (D, T, N); None if none."""
        if resets is None:
            return None
        steps, size = batch.shape
        given = checks.mask("resets", resets, axes.shape(steps, size, 1)[:-1])
        begins = axes.inner(given[..., None])[..., 0].copy()
        if batch.ragged:
            begins[np.arange(steps)[:, None] >= batch.lengths] = False
        if not begins.any():
            return None
        starts = np.zeros((self._options.directions, steps, size), bool)
        for direction, own in enumerate(starts):
            if self._options.reads_from_end(direction):
                own[:-1] = begins[1:]
            else:
                own[...] = begins
        return starts

    def _initial_state(
        self, state: Any, batch: Batch, axes: Axes,
        name: str = "state", before: str = "", after: str = "_0",
    ) -> Pair:  # fmt: skip
        """Sorted copies of (L D, N, R) and (L D, N, H), the second None where there is no c."""
        count, size = self.num_layers * self._options.directions, batch.shape[1]
        if state is None:
            return self._network.zero_state(size)
        names = f"{before}h{after}", f"{before}c{after}"
        sizes = (count,) if axes.unbatched else (count, size)
        if not self._network.has_c:
            if isinstance(state, (tuple, list)) and len(state) == 2:
                raise TypeError(f"{name}: expected {names[0]} alone, got {type(state).__name__}")
            return self._sorted(
                names[0], state, sizes, self._options.output_size, batch, axes
            ), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            expected = f"{name}: expected a pair ({names[0]}, {names[1]})"
            if isinstance(state, (tuple, list)):
                raise ValueError(f"{expected}, got {len(state)}")
            raise TypeError(f"{expected}, got {type(state).__name__}")
        widths = self._options.output_size, self.hidden_size
        h, c = (
            self._sorted(part, value, sizes, width, batch, axes)
            for part, value, width in zip(names, state, widths, strict=True)
        )
        return h, c

    def _sorted(
        self, name: str, given: Any, sizes: tuple[int, ...], width: int, batch: Batch, axes: Axes
    ) -> np.ndarray:
        """A sorted copy of a part of the state."""
        array = checks.array(name, given, self.dtype, (*sizes, width))
        return batch.sort(array[:, None] if axes.unbatched else array)

    def _given_state(self, batch: Batch, h: np.ndarray, c: np.ndarray | None, axes: Axes) -> State:
        parts = [batch.unsort(part) for part in (h, c) if part is not None]
        if axes.unbatched:
            parts = [part[:, 0] for part in parts]
        return parts[0] if c is None else tuple(parts)  # type: ignore[return-value]


def _start(h: np.ndarray, c: np.ndarray | None, direction: int, tape: Any) -> Start:
    own = None if c is None else c[direction].copy()
    return Start(h[direction].copy(), own, tape)
