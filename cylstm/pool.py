"""Many streams of one model, of which some have a step now: for servers."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.digest import digest_of
from cylstm.io import safetensors
from cylstm.stream import Stream

__all__ = ["StreamPool"]

_FORMAT = "cylstm streams 1"
_SIZES = 64  # of batches for which a stream is kept


class StreamPool:
    """The states of many sequences that come step by step, at times of their own.

    A stream advances all of its sequences together; a pool those that have a step now, with the
    bits that a stream of its own would give to each. Threads take turns.

    Parameters
    ----------
    model : LSTM, Sequential or what else has a ``stream``
        It is kept, not copied: streams see a change of its parameters at their next step.
    size : int
        How many sequences there are, each with a row from 0 to size - 1. Their states are zero
        at first.

    Raises
    ------
    ValueError
        If the model cannot be streamed.

    Examples
    --------
    >>> lstm = cylstm.LSTM(3, 4, seed=0)
    >>> pool = cylstm.StreamPool(lstm, 1000)
    >>> y = pool.step([7, 512], np.ones((2, 3), np.float32))  # of two that have a step now
    >>> y.shape
    (2, 4)
    >>> stream = lstm.stream()
    >>> bool((stream.step(np.ones((1, 3), np.float32)) == y[:1]).all())
    True
    """

    def __init__(self, model: Any, size: int) -> None:
        self._model = model
        self.size = checks.whole("size", size, 1)
        self._streams: OrderedDict[int, Any] = OrderedDict()  # by how many sequences they advance
        self._lock = threading.Lock()
        arrays = self._stream(1)[1]
        # By row first: those of a step are then a few contiguous pieces.
        self._states = [
            np.zeros((self.size, array.shape[0], array.shape[2]), array.dtype) for array in arrays
        ]
        self._first = [array.swapaxes(0, 1).copy() for array in arrays]
        self.reset()

    def step(self, rows: Any, x: np.ndarray) -> np.ndarray:
        """Advance some sequences by one step.

        Parameters
        ----------
        rows : array of int, (N,)
            Which; each once.
        x : array, (N, ...)
            Their steps: what the model takes, without the axis of time.

        Returns
        -------
        y : array, (N, ...)
            The model's output at this step.

        Raises
        ------
        IndexError
            If there is no such row.
        ValueError, TypeError
            If a row is there twice, or x is no step of each; the states are as before.
        """
        rows = self._checked(rows)
        if len(np.unique(rows)) < len(rows):
            raise ValueError("rows: expected each once, got one twice; its steps come one by one")
        x = checks.is_array("x", x)
        if x.ndim == 0 or len(x) != len(rows):
            raise ValueError(f"x: expected a step for each of {len(rows)} rows, got {x.shape}")
        with self._lock:
            stream, arrays = self._stream(len(rows))
            for array, state in zip(arrays, self._states, strict=True):
                array[...] = state[rows].swapaxes(0, 1)
            y = stream.step(x)
            for array, state in zip(arrays, self._states, strict=True):
                state[rows] = array.swapaxes(0, 1)
        return y

    def reset(self, rows: Any = None) -> None:
        """Let sequences begin anew: all, or those of some rows."""
        chosen = slice(None) if rows is None else self._checked(rows)
        with self._lock:
            for state, begin in zip(self._states, self._first, strict=True):
                state[chosen] = begin

    def _checked(self, rows: Any) -> np.ndarray:
        rows = checks.as_numpy("rows", rows)
        if rows.size == 0:
            return np.zeros(0, np.intp)
        if rows.dtype.kind not in "iu" or rows.ndim != 1:
            raise TypeError(f"rows: expected integers (N,), got {rows.dtype} {rows.shape}")
        if rows.min() < 0 or rows.max() >= self.size:
            raise IndexError(
                f"rows: expected 0 to {self.size - 1}, got {rows.min()} to {rows.max()}"
            )
        return rows.astype(np.intp)

    def _stream(self, rows: int) -> tuple[Any, list[np.ndarray]]:
        """Return a stream of so many sequences, and its states; made before if used lately."""
        if rows in self._streams:
            self._streams.move_to_end(rows)
        else:
            stream = self._model.stream(rows)
            self._streams[rows] = stream, [a for one in _recurrent(stream) for a in _arrays(one)]
            if len(self._streams) > _SIZES:
                self._streams.popitem(last=False)
        return self._streams[rows]

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the states, without the model, as one file, which is whole or not there.

        Parameters
        ----------
        path : path-like
            The file; one that is there is replaced.
        """
        with self._lock:
            tensors = {str(k): state.copy() for k, state in enumerate(self._states)}
        safetensors.write(path, tensors, self._metadata())

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on from the states of a file that `save` wrote for the same model and size.

        Raises
        ------
        ValueError
            If it is another file, or of another model or size; the states are then as before.

        Examples
        --------
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "streams.safetensors")
        >>> pool = cylstm.StreamPool(cylstm.LSTM(3, 4, seed=0), 10)
        >>> pool.save(path)
        >>> pool.restore(path)
        """
        tensors, metadata = safetensors.read(path)
        name = os.fspath(path)
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{name}: expected what StreamPool.save wrote, got another file")
        for key, own in self._metadata().items():
            if metadata.get(key) != own:
                raise ValueError(f"{name}: expected the states of this pool, got another {key}'s")
        found = []
        for k, state in enumerate(self._states):
            tensor = tensors.get(str(k))
            if tensor is None or (tensor.shape, tensor.dtype) != (state.shape, state.dtype):
                raise ValueError(f"{name}: expected states {state.shape}, got others or none")
            found.append(tensor)
        with self._lock:
            for state, tensor in zip(self._states, found, strict=True):
                state[...] = tensor

    def _metadata(self) -> dict[str, str]:
        return {"format": _FORMAT, "size": str(self.size), "model": digest_of(self._model)}


def _recurrent(stream: Any) -> list[Stream]:
    """Return the streams of LSTMs within a model's."""
    if isinstance(stream, Stream):
        return [stream]
    own = getattr(stream, "stream", None)
    if isinstance(own, Stream):
        return [own]
    steps = getattr(stream, "_steps", ())
    if not steps and not callable(stream) and getattr(stream, "has_state", True):
        raise ValueError(
            f"model: expected layers without a state beside the recurrent ones, got one that "
            f"streams as {type(stream).__name__}"
        )
    return [one for step in steps for one in _recurrent(step)]


def _arrays(stream: Stream) -> list[np.ndarray]:
    return [stream._h] if stream._c is None else [stream._h, stream._c]
