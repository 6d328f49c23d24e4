"""Running a recurrent network: on arrays as a caller has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from cylstm import checks
from cylstm.axes import Axes
from cylstm.batch import Batch
from cylstm.core.cell import Cell
from cylstm.core.lookup import Tables
from cylstm.core.network import Network
from cylstm.lookup import LookedUp
from cylstm.options import Shared
from cylstm.parameters import Parameters
from cylstm.stream import Stream

State = TypeVar("State")  # (h, c) of an LSTM, h of others
Pair = tuple[np.ndarray, np.ndarray | None]  # within: without a c, None


class Recurrent(Generic[State]):
    """What a network does, whatever it was made from: calls and streams."""

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
        tables = None
        if isinstance(x, LookedUp):
            tables = self._network.tables_for(x)
            x = x.taken() if tables is None else x.ids[..., None]
        x, batch, axes = self._checked_input(x, lengths, tables is not None)
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
        self._run(batch, x, y, h, c, starts, tables)
        if out is not None and y is not direct:
            direct[...] = y
        given = axes.outer(y) if out is None else out
        return given, self._given_state(batch, h, c, axes)

    def _run(
        self, batch: Batch, x: np.ndarray, y: np.ndarray, h: np.ndarray, c: np.ndarray | None,
        starts: np.ndarray | None, tables: Tables | None = None,
    ) -> None:  # fmt: skip
        """All layers; h, c (L D, N, ...) are sorted as `batch` is, and end as the last state."""
        self._network.run(x, y, h, c, batch, starts, tables)

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

    def _checked_input(
        self, x: Any, lengths: Any, of_ids: bool = False
    ) -> tuple[np.ndarray, Batch, Axes]:
        if not of_ids and not self._network.is_input(x):
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
