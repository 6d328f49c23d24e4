"""Streaming: a recurrent network together with its state, advanced as the input comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cylstm import checks
from cylstm.axes import Axes
from cylstm.batch import Batch
from cylstm.core.workspace import Workspace

if TYPE_CHECKING:
    from cylstm.layers.embedding import Embedding
    from cylstm.recurrent import Recurrent


class Stream:
    """A network's state over N sequences that come step by step; made by `LSTM.stream`.

    A stream is for one thread, and one that comes amid another's step is refused; one network may
    have any number of streams. It sees a change of the network's parameters at its next step.

    A copy, as `copy.copy` makes it, is a stream of the same network that goes on from the same
    state.

    Attributes
    ----------
    batch_size : int
        N.
    """

    def __init__(self, lstm: Recurrent[Any], batch_size: int = 1) -> None:
        if lstm.bidirectional or lstm.reverse:
            raise ValueError("stream: a direction that reads from the end cannot be streamed")
        self.batch_size = checks.whole("batch_size", batch_size)
        self._lstm = lstm
        self._step = Batch(1, self.batch_size)
        self._workspace = Workspace()
        shape = lstm.num_layers, self.batch_size
        self._h = np.zeros((*shape, lstm._options.output_size), lstm.dtype)
        has_c = lstm._network.has_c
        self._c = np.zeros((*shape, lstm.hidden_size), lstm.dtype) if has_c else None

    def step(
        self, x: np.ndarray, out: np.ndarray | None = None, *, resets: Any = None
    ) -> np.ndarray:
        """Advance by one step, or by several.

        Parameters
        ----------
        x : array, (N, I), or (I,) if N is 1; several steps (T, N, I), (N, T, I) with `batch_first`
        out : array, optional
            Where to write y.
        resets : array of bool, (N,), or () for an x of (I,); (T, N) or (N, T) of several steps
            Which sequences start from zero, each at which step.

        Returns
        -------
        y : array, (N, R), (R,), (T, N, R) or (N, T, R)
            The last layer's h.

        Raises
        ------
        ValueError, TypeError
            If x, `out` or `resets` is of the wrong rank, shape or dtype; the state is as before.
        RuntimeError
            If another thread uses the stream now, or did when this process was forked.
        """
        lstm = self._lstm
        if resets is None:
            fast = lstm._network.step(x, out, self._h, self._c, self._workspace)
            if fast is not None:
                return fast
        x, axes = checks.is_array("x", x), Axes(lstm.batch_first)
        single = x.ndim == 1 and self.batch_size == 1
        if single or x.ndim == 2:
            shape: tuple[Any, ...] = (self.batch_size, lstm.input_size)
            x = checks.array("x", x, lstm.dtype, shape[1:] if single else shape)
            x, batch = x.reshape(1, *shape), self._step
        else:
            shape = axes.shape("T", self.batch_size, lstm.input_size)
            x = axes.inner(checks.array("x", x, lstm.dtype, shape))
            batch = Batch(len(x), self.batch_size)
        if batch is self._step and resets is not None:
            axes = Axes(False)
            resets = checks.mask("resets", resets, () if single else shape[:1]).reshape(1, -1)
        starts = lstm._starts(resets, batch, axes)
        y = axes.empty(len(x), self.batch_size, lstm._width, lstm.dtype)
        given = y[0, 0] if single else y[0] if batch is self._step else axes.outer(y)
        if out is not None:
            checks.output(out, given)
        with self._workspace:
            lstm._run(batch, x, y, self._h, self._c, starts)
        if out is None:
            return given
        out[...] = given
        return out

    def _step_looked_up(self, ids: Any, embedding: Embedding) -> np.ndarray:
        """As `step`, where x is the vectors of these ids; the caller reads all parameters."""
        network, version = self._lstm._network, embedding._store.version
        fast = network.step_row(ids, version, self._h, self._c, self._workspace)
        if fast is not None:
            return fast
        x = embedding.looked_up(ids)
        if network.tables_for(x) is not None:
            fast = network.step_row(x.ids, version, self._h, self._c, self._workspace)
        return self.step(x.taken()) if fast is None else fast

    def reset(self, rows: Any = None) -> None:
        """Set the state to zero: of all sequences, or of those chosen.

        Parameters
        ----------
        rows : index of an axis, optional
            Which sequences: an integer, a list of integers, a slice or a mask (N,).
        """
        chosen = slice(None) if rows is None else checks.index("rows", rows)
        if rows is None:
            self._workspace.forget_fork()
        try:
            with self._workspace:
                self._h[:, chosen] = 0
                if self._c is not None:
                    self._c[:, chosen] = 0
        except IndexError as error:
            raise IndexError(f"rows: {error}") from None

    @property
    def state(self) -> Any:
        """Copies of (h, c): (L, N, R) and (L, N, H). It can be set to such a pair.

        A GRU's and an RNN's is h alone.
        """
        with self._workspace:
            return self._h.copy() if self._c is None else (self._h.copy(), self._c.copy())

    @state.setter
    def state(self, state: Any) -> None:
        h, c = self._lstm._initial_state(state, self._step, Axes(False), "state", after="")
        self._workspace.forget_fork()
        with self._workspace:
            self._h[...] = h
            if self._c is not None:
                self._c[...] = c

    def __copy__(self) -> Stream:
        stream = Stream(self._lstm, self.batch_size)
        stream.state = self.state
        return stream
