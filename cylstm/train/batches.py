"""Where batches come from: arrays, windows of a series, ragged sequences, one long sequence.

A source gives the batches of an epoch, ``source.epoch(rng)``, in an order that is the random
generator's alone. Anything else that gives `Batch`es, or tuples like them, trains as well: a list,
an object that can be iterated anew for each epoch, or an iterator without end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.train.losses import IGNORED

if TYPE_CHECKING:
    from cylstm.layers import Layer

__all__ = [
    "Arrays",
    "Batch",
    "Buckets",
    "Source",
    "Streams",
    "as_batch",
    "as_data",
    "epoch_of",
    "windows",
]

AnyArray = npt.NDArray[Any]


class Batch(NamedTuple):
    """What one training step sees.

    Attributes
    ----------
    x : ndarray
        The model's input.
    target : ndarray
        What the loss compares its output with.
    lengths : ndarray of int, (N,), optional
        Each sequence's own length.
    follows : bool, default False
        Whether each sequence goes on where the one at its place in the batch before ended: then
        the model begins in the state in which it was left.
    resets : ndarray of bool, (T, N) or (N, T), optional
        Where a new sequence begins within a row, as `cylstm.LSTM` takes it.
    """

    x: AnyArray
    target: AnyArray
    lengths: AnyArray | None = None
    follows: bool = False
    resets: AnyArray | None = None


class Source(ABC):
    """What gives an epoch's batches."""

    @abstractmethod
    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Iterate over the batches of one epoch; `rng` alone decides on their order."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in an epoch."""


class Arrays(Source):
    """Examples in arrays.

    Parameters
    ----------
    x, target : ndarray
        The inputs and the targets of all examples.
    batch_size : int, default 32
        How many examples a batch has; the last of an epoch may have fewer.
    lengths : ndarray of int, (N,), optional
        Each sequence's own length.
    axes : tuple of two ints, default (1, 1)
        Along which axis of `x` and of `target` the examples lie: 1 in (T, N, ...), 0 in (N, ...).
    shuffle : bool, default True
        Whether each epoch has an order of its own.

    Raises
    ------
    TypeError, ValueError
        If the arrays do not have the same number of examples, at least one.

    Examples
    --------
    >>> source = Arrays(np.zeros((7, 10, 1)), np.arange(10.0), batch_size=4, axes=(1, 0))
    >>> [batch.x.shape for batch in source.epoch(np.random.default_rng(0))]
    [(7, 4, 1), (7, 4, 1), (7, 2, 1)]
    """

    def __init__(
        self,
        x: AnyArray,
        target: AnyArray,
        batch_size: int = 32,
        *,
        lengths: Any = None,
        axes: tuple[int, int] = (1, 1),
        shuffle: bool = True,
    ) -> None:
        self.x, self.target = checks.is_array("x", x), checks.is_array("target", target)
        self.axes = axes
        self.batch_size = checks.whole("batch_size", batch_size, 1)
        self.shuffle = checks.is_true_or_false("shuffle", shuffle)
        for name, array, axis in (("x", self.x, axes[0]), ("target", self.target, axes[1])):
            if array.ndim <= axis:
                raise ValueError(f"{name}: expected examples along axis {axis}, got {array.shape}")
        self.count, targets = self.x.shape[axes[0]], self.target.shape[axes[1]]
        if self.count == 0 or targets != self.count:
            raise ValueError(
                f"target: expected as many examples as x, at least one: {self.count}, got {targets}"
            )
        self.lengths = lengths
        if lengths is not None:
            if self.x.ndim < 2:
                raise ValueError(f"x: expected sequences beside lengths, got {self.x.shape}")
            self.lengths = checks.lengths(lengths, self.x.shape[1 - axes[0]], self.count)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(self.count / self.batch_size)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Iterate over the batches of one epoch."""
        order = rng.permutation(self.count) if self.shuffle else np.arange(self.count)
        for begin in range(0, self.count, self.batch_size):
            yield self._batch(order[begin : begin + self.batch_size])

    def _batch(self, chosen: npt.NDArray[np.intp]) -> Batch:
        x = np.take(self.x, chosen, self.axes[0])
        target = np.take(self.target, chosen, self.axes[1])
        return Batch(x, target, None if self.lengths is None else self.lengths[chosen])


def windows(
    series: AnyArray,
    steps: int,
    ahead: int = 1,
    *,
    stride: int = 1,
    every_step: bool = False,
    target: AnyArray | None = None,
) -> tuple[AnyArray, AnyArray]:
    """Cut a series into windows, and what follows each of them.

    Parameters
    ----------
    series : ndarray, (S,) or (S, F)
        The series.
    steps : int
        T, the steps of a window.
    ahead : int, default 1
        How many steps after it are to be forecast.
    stride : int, default 1
        The steps from the start of one window to that of the next.
    every_step : bool, default False
        Whether the forecast is made at each step of a window, or at its last alone.
    target : ndarray, (S,), optional
        What is to be forecast; the series itself if it is (S,).

    Returns
    -------
    x : ndarray, (T, N, F)
        The windows, read-only views of the series.
    target : ndarray, (N, ahead), or (T, N, ahead) with `every_step`
        What follows them, or each of their steps; read-only as well.

    Raises
    ------
    TypeError, ValueError
        If the series is too short for one window, or an argument is out of its range.

    Examples
    --------
    >>> x, target = windows(np.arange(6.0), steps=3, ahead=2)
    >>> x[:, :, 0].T
    array([[0., 1., 2.],
           [1., 2., 3.]])
    >>> target
    array([[3., 4.],
           [4., 5.]])
    """
    series, steps = checks.is_array("series", series), checks.whole("steps", steps, 1)
    ahead, stride = checks.whole("ahead", ahead, 1), checks.whole("stride", stride, 1)
    if series.ndim not in (1, 2):
        raise ValueError(f"series: expected shape (S,) or (S, F), got {series.shape}")
    if target is None and series.ndim == 2:
        raise ValueError("target: expected what to forecast of a series (S, F), got None")
    target = series if target is None else checks.is_array("target", target)
    if target.shape != series.shape[:1]:
        raise ValueError(f"target: expected shape {series.shape[:1]}, got {target.shape}")
    if len(series) < steps + ahead:
        raise ValueError(
            f"series: expected at least steps + ahead = {steps + ahead} steps, got {len(series)}"
        )
    cut = np.lib.stride_tricks.sliding_window_view
    x = cut(series.reshape(len(series), -1)[:-ahead], steps, axis=0)[::stride]
    following = cut(cut(target[1:], ahead), steps, axis=0)[::stride]  # (N, ahead, T)
    following = following.transpose(2, 0, 1)
    return x.transpose(2, 0, 1), following if every_step else following[-1]


class Buckets(Source):
    """Ragged sequences, in batches of like lengths, so that little is padding.

    Parameters
    ----------
    sequences : sequence of ndarray, (T_n, ...) each
        The inputs.
    targets : ndarray, (N, ...), or sequence of ndarray, (T_n, ...) each, with `every_step`
        The target of each sequence, or of each of its steps.
    batch_size : int, default 32
        How many sequences a batch has; the one of the longest may have fewer.
    every_step : bool, default False
        Whether each step has a target.
    batch_first : bool, default False
        Whether batches are (N, T, ...), not (T, N, ...).

    Raises
    ------
    TypeError, ValueError
        If there is no sequence, or the targets do not fit.

    Notes
    -----
    Steps past a sequence's end are zero, in a target of integers -100 (`IGNORED`), and do not count
    in `fit`. Each epoch mixes sequences of one length, and the batches, anew.

    Examples
    --------
    >>> sequences = [np.ones((steps, 2)) for steps in (9, 1, 8, 2)]
    >>> source = Buckets(sequences, np.arange(4.0), batch_size=2)
    >>> batches = source.epoch(np.random.default_rng(0))
    >>> sorted((batch.x.shape, sorted(batch.target.tolist())) for batch in batches)
    [((2, 2, 2), [1.0, 3.0]), ((9, 2, 2), [0.0, 2.0])]
    """

    def __init__(
        self,
        sequences: Sequence[AnyArray],
        targets: Any,
        batch_size: int = 32,
        *,
        every_step: bool = False,
        batch_first: bool = False,
    ) -> None:
        self.sequences = _alike("sequences", sequences)
        self.batch_size = checks.whole("batch_size", batch_size, 1)
        self.every_step = checks.is_true_or_false("every_step", every_step)
        self.batch_first = checks.is_true_or_false("batch_first", batch_first)
        self.targets = _alike("targets", targets) if every_step else _steps("targets", targets)
        if not self.sequences or len(self.targets) != len(self.sequences):
            raise ValueError(
                "targets: expected as many as sequences, at least one: "
                f"{len(self.sequences)}, got {len(self.targets)}"
            )
        self.lengths = np.array([len(x) for x in self.sequences])
        if every_step:
            for n, (target, length) in enumerate(zip(self.targets, self.lengths, strict=True)):
                if len(target) != length:
                    raise ValueError(f"targets[{n}]: expected {length} steps, got {len(target)}")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(len(self.sequences) / self.batch_size)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Iterate over the batches of one epoch."""
        order = rng.permutation(len(self.sequences))
        order = order[np.argsort(self.lengths[order], kind="stable")]
        for begin in rng.permutation(len(self)) * self.batch_size:
            yield self._batch(order[begin : begin + self.batch_size])

    def _batch(self, chosen: npt.NDArray[np.intp]) -> Batch:
        x = self._padded([self.sequences[n] for n in chosen], 0)
        if not self.every_step:
            return Batch(x, self.targets[chosen], self.lengths[chosen])
        targets = [self.targets[n] for n in chosen]
        missing = IGNORED if targets[0].dtype.kind == "i" else 0
        return Batch(x, self._padded(targets, missing), self.lengths[chosen])

    def _padded(self, sequences: list[AnyArray], missing: float) -> AnyArray:
        """Lay sequences side by side."""
        steps = max(1, *map(len, sequences))
        shape = (steps, len(sequences), *sequences[0].shape[1:])
        padded = np.full(shape, missing, sequences[0].dtype)
        for n, sequence in enumerate(sequences):
            padded[: len(sequence), n] = sequence
        return padded.swapaxes(0, 1) if self.batch_first else padded


class Streams(Source):
    """One long sequence, for truncated backpropagation through time [1]_.

    It is cut into N parts that are read side by side, `steps` steps in each batch; the gradient
    goes back through these, the state goes on from batch to batch, to the parts' ends. So the model
    must not read from the end (`bidirectional`, `reverse`).

    Parameters
    ----------
    x, target : ndarray, (S, ...)
        The sequence, and a target for each of its steps.
    batch_size : int, default 32
        N; up to N - 1 steps at the end of the sequence are left out.
    steps : int, default 64
        How many steps the gradient goes back; the last batch of an epoch may have fewer.
    batch_first : bool, default False
        Whether batches are (N, T, ...), not (T, N, ...).

    Raises
    ------
    TypeError, ValueError
        If the arrays differ in length, or are shorter than N steps.

    References
    ----------
    .. [1] R. J. Williams and J. Peng, "An efficient gradient-based algorithm for on-line training
       of recurrent network trajectories", Neural Computation 2(4), 1990.

    Examples
    --------
    >>> text = np.arange(13)
    >>> for batch in Streams(text[:-1], text[1:], 2, steps=4).epoch(np.random.default_rng(0)):
    ...     print(batch.x.T.tolist(), batch.follows)
    [[0, 1, 2, 3], [6, 7, 8, 9]] False
    [[4, 5], [10, 11]] True
    """

    def __init__(
        self,
        x: AnyArray,
        target: AnyArray,
        batch_size: int = 32,
        *,
        steps: int = 64,
        batch_first: bool = False,
    ) -> None:
        x, target = _steps("x", x), _steps("target", target)
        batch_size = checks.whole("batch_size", batch_size, 1)
        self.steps = checks.whole("steps", steps, 1)
        self.batch_first = checks.is_true_or_false("batch_first", batch_first)
        if len(x) != len(target) or len(x) < batch_size:
            raise ValueError(
                f"target: expected as many steps as x, at least {batch_size} (batch_size): "
                f"{len(x)}, got {len(target)}"
            )
        self.length = len(x) // batch_size
        self.x = self._side_by_side(x, batch_size)
        self.target = self._side_by_side(target, batch_size)

    def _side_by_side(self, sequence: AnyArray, parts: int) -> AnyArray:
        """View a sequence as (N, S / N, ...)."""
        return sequence[: parts * self.length].reshape(parts, self.length, *sequence.shape[1:])

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(self.length / self.steps)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Iterate over the batches of one epoch, which have but one order."""
        for begin in range(0, self.length, self.steps):
            now = slice(begin, begin + self.steps)
            x, target = self.x[:, now], self.target[:, now]
            if not self.batch_first:
                x, target = x.swapaxes(0, 1), target.swapaxes(0, 1)
            yield Batch(x, target, None, follows=begin > 0)


def _steps(name: str, value: Any) -> AnyArray:
    """Return an array with at least one axis."""
    array = checks.is_array(name, value)
    if array.ndim == 0:
        raise ValueError(f"{name}: expected at least one axis, got shape ()")
    return array


def _alike(name: str, values: Any) -> list[AnyArray]:
    """Return arrays that differ in length alone, since side by side they are one array."""
    if not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected a sequence of arrays, got {type(values).__name__}")
    arrays = [_steps(f"{name}[{n}]", value) for n, value in enumerate(values)]
    for n, array in enumerate(arrays):
        if array.shape[1:] != arrays[0].shape[1:]:
            shape = checks.shape_text(("T", *arrays[0].shape[1:]))
            raise ValueError(f"{name}[{n}]: expected shape {shape}, got {array.shape}")
        if array.dtype != arrays[0].dtype:
            raise TypeError(f"{name}[{n}]: expected dtype {arrays[0].dtype}, got {array.dtype}")
    return arrays


# What a user calls data --------------------------------------------------------------------------


def as_data(
    model: Layer, data: Any, batch_size: int, *, shuffle: bool, name: str = "data"
) -> Source | Iterable[Any]:
    """Return what gives batches, of what the user calls data, by the argument's name."""
    batch_size = checks.whole("batch_size", batch_size, 1)
    if not isinstance(data, tuple) or isinstance(data, Batch):
        if isinstance(data, Source) or (isinstance(data, Iterable) and not hasattr(data, "ndim")):
            return data
        raise TypeError(
            f"{name}: expected a Source, a tuple of arrays or an iterable of batches, "
            f"got {type(data).__name__}"
        )
    if len(data) not in (2, 3):
        raise ValueError(f"{name}: expected (x, target) or (x, target, lengths), got {len(data)}")
    x_axis = 1 if model.batch_first is False else 0
    axes = x_axis, x_axis if model.keeps_time else 0
    lengths = data[2] if len(data) == 3 else None
    return Arrays(*data[:2], batch_size, lengths=lengths, axes=axes, shuffle=shuffle)


def epoch_of(data: Source | Iterable[Any], rng: np.random.Generator) -> Iterator[Any]:
    """Iterate over what the data gives in an epoch."""
    return data.epoch(rng) if isinstance(data, Source) else iter(data)


def as_batch(given: Any, name: str = "data") -> Batch:
    """Return a batch, of what the user's data gave."""
    if not isinstance(given, Batch):
        if not isinstance(given, tuple) or len(given) not in (2, 3):
            raise TypeError(
                f"{name}: expected batches (x, target) or (x, target, lengths), "
                f"got {type(given).__name__}"
            )
        given = Batch(*given)
    x, target = checks.is_array("x", given.x), checks.is_array("target", given.target)
    return given._replace(x=x, target=target)
