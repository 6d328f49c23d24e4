"""Layers of Keras that score, with what Keras makes of masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from cylstm.family import Trainable
from cylstm.formats.chain import Apply, Mask, Scoring
from cylstm.formats.chain_stream import Advancing, Axes, axes_of_output, parts_of

__all__ = [
    "GlobalAverage",
    "Masking",
    "NoMask",
    "Recurrent",
    "Unmasked",
    "affine",
    "average_pooled",
    "convolved",
    "max_pooled",
    "normalised",
]


class Recurrent(Scoring):
    """An LSTM, GRU or RNN, in one or both directions, with what Keras makes of masks.

    Parameters
    ----------
    lstm : LSTM, GRU or RNN
        With `batch_first`.
    sequences : bool
        Whether all steps are returned, not only the last.
    backwards : bool
        Whether these come in the order in which they were processed, from the end on.
    merge_mode : {"concat", "sum", "mul", "ave"}
        How both directions are joined, where there are two; of a swapped pair the direction that
        reads from the end comes first.
    zero_output : bool
        Whether steps that do not count give zeros, not the output before them.
    """

    def __init__(
        self,
        lstm: Trainable[Any],
        sequences: bool,
        backwards: bool,
        merge_mode: str,
        zero_output: bool,
    ) -> None:
        self.lstm = lstm
        self.sequences = sequences
        self.backwards = backwards
        self.merge_mode = merge_mode
        self.zero_output = zero_output

    @property
    def config(self) -> dict[str, Any]:
        """The arguments."""
        return {name: value for name, value in vars(self).items() if name != "lstm"} | {
            "lstm": self.lstm
        }

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output for x (N, T, I), all of whose steps count."""
        return self.follow(x, None)[0]

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return the output, and the mask as it came: Keras does not turn it round."""
        x = np.asarray(x, self.lstm.dtype)
        parts, ends = self._run(x) if mask is None else self._run_masked(x, mask)
        if not self.sequences:
            return self._merged(ends), None
        merged = self._merged(parts)
        return (merged[:, ::-1] if self.backwards else merged), mask

    def axes_after(self, axes: Axes) -> Axes:
        """Return those of all steps, or of one."""
        return axes_of_output(axes, 1, None if not self.sequences else 1)

    def advancing(self, batch_size: int) -> Advancing:
        """Return what it is in a stream."""
        return _Steps(self, batch_size)

    def _run(self, x: np.ndarray, **given: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return each direction's outputs, and its last one."""
        y, state = self.lstm(x, **given)
        directions = 1 + self.lstm.bidirectional
        return np.split(y, directions, axis=2), list(
            parts_of(state)[0][-directions:]
        )  # of the last layer

    def _run_masked(
        self, x: np.ndarray, mask: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the same where some steps do not count.

        They leave the state as it was: they are left out, and their places filled afterwards.
        """
        order = np.argsort(~mask, axis=1, kind="stable")
        ordered = np.take_along_axis(x, order[:, :, None], axis=1)
        parts, ends = self._run(ordered, lengths=mask.sum(axis=1))
        if self.zero_output:
            last = mask[:, 0 if self.lstm.reverse else -1, None]
            ends = [np.where(last, end, 0) for end in ends]
        if self.sequences:
            from_end = [self.lstm.reverse, True][: len(parts)]
            parts = [self._spread(*given, mask) for given in zip(parts, from_end, strict=True)]
        return parts, ends

    def _spread(self, y: np.ndarray, from_end: bool, mask: np.ndarray) -> np.ndarray:
        """Put a direction's outputs, which stand side by side, to the steps that count."""
        if from_end:  # the output before a step is that of a later one
            flipped = np.flip(mask, 1)
            place = mask.sum(axis=1, keepdims=True) - np.flip(flipped.cumsum(axis=1), 1)
        else:
            place = mask.cumsum(axis=1) - 1
        steps = mask.shape[1]
        known = (place >= 0) & (place < mask.sum(axis=1, keepdims=True))
        known &= mask if self.zero_output else True
        taken = np.take_along_axis(y, place.clip(0, max(steps - 1, 0))[:, :, None], axis=1)
        return np.where(known[:, :, None], taken, np.zeros((), y.dtype))

    def _merged(self, parts: list[np.ndarray]) -> np.ndarray:
        """Join the directions."""
        if len(parts) == 1:
            return parts[0]
        first, second = parts[::-1] if self.backwards else parts
        return {
            "concat": lambda: np.concatenate([first, second], axis=-1),
            "sum": lambda: first + second,
            "mul": lambda: first * second,
            "ave": lambda: (first + second) / 2,
        }[self.merge_mode]()


class _Steps(Advancing):
    """A `Recurrent` that takes a step at a time; one that does not count leaves the state."""

    def __init__(self, layer: Recurrent, batch_size: int) -> None:
        self._layer = layer
        super().__init__(layer.lstm, batch_size)

    def reset(self, rows: Any = None) -> None:
        super().reset(rows)
        self._last = parts_of(self.stream.state)[0][-1]  # the output before a first step: zero

    def __call__(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        x = np.asarray(x[:, 0], self._layer.lstm.dtype)
        y = self.stream.step(x) if mask is None or mask.all() else self._masked(x, mask)
        self._last = y
        return (y[:, None], mask) if self._layer.sequences else (y, None)

    def _masked(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        before = self.stream.state
        y = self.stream.step(x)
        kept = tuple(
            np.where(mask[None], after, own)
            for after, own in zip(parts_of(self.stream.state), parts_of(before), strict=True)
        )
        self.stream.state = kept if isinstance(before, tuple) else kept[0]
        filled = np.zeros((), y.dtype) if self._layer.zero_output else self._last
        return np.where(mask, y, filled)


class Masking(Scoring):
    """Steps of which all features have one value do not count."""

    def __init__(self, value: float) -> None:
        self.value = np.float32(value)

    @property
    def config(self) -> dict[str, Any]:
        """The value."""
        return {"value": float(self.value)}

    def axes_after(self, axes: Axes) -> Axes:
        """Return those of x."""
        if axes.along(-1):
            raise ValueError("which mixes the steps")
        return axes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return x with zeros for those steps."""
        return self.follow(x, None)[0]

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return x with zeros for those steps, and which count."""
        x = np.asarray(x)
        counts = np.any(x != self.value, axis=-1)
        return x * counts[..., None].astype(x.dtype), counts


class Unmasked(Apply):
    """A function of whose output Keras does not know which steps count."""

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return the output without a mask."""
        return self(x), None


class NoMask(Scoring):
    """What Keras's versions do differently, or not at all, where steps do not count.

    Parameters
    ----------
    name : str
        Keras's of the layer.
    layer : Apply
        What it does where all steps count.
    """

    def __init__(self, name: str, layer: Apply) -> None:
        self.name, self.layer = name, layer

    @property
    def config(self) -> dict[str, Any]:
        """The name, and what it does."""
        return {"name": self.name, "layer": self.layer}

    def axes_after(self, axes: Axes) -> Axes:
        """Return those of what it does."""
        return self.layer.axes_after(axes)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output where all steps count."""
        return self.layer(x)

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return the output, or refuse."""
        if mask is not None:
            raise ValueError(f"{self.name}: expected an input all of whose steps count, got a mask")
        return self.layer(x), None


class GlobalAverage(Scoring):
    """The mean over the steps that count.

    Parameters
    ----------
    keepdims : bool
        Whether one step is left, (N, 1, F), not none.
    """

    def __init__(self, keepdims: bool) -> None:
        self.keepdims = keepdims

    @property
    def config(self) -> dict[str, Any]:
        """Whether one step is left."""
        return {"keepdims": self.keepdims}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the mean of x (N, T, F), all of whose steps count."""
        return self.follow(x, None)[0]

    def follow(self, x: np.ndarray, mask: Mask) -> tuple[np.ndarray, Mask]:
        """Return the mean, which has no mask; of no step it is NaN, as Keras's."""
        counts = np.ones(x.shape[:2], bool) if mask is None else mask
        total = np.sum(np.where(counts[:, :, None], x, 0), axis=1, keepdims=self.keepdims)
        number = counts[:, :, None].sum(axis=1, keepdims=self.keepdims).astype(x.dtype)
        with np.errstate(invalid="ignore"):
            return total / number, None


def windows(
    x: np.ndarray, size: int, stride: int, dilation: int, padding: str, filled: float
) -> list[np.ndarray]:
    """Return, for each place in a window of steps, what all windows have there, (N, windows, F)."""
    steps, span = x.shape[1], (size - 1) * dilation + 1
    before = after = 0
    if padding == "causal":
        before = span - 1
    elif padding == "same":
        whole = max((-(-steps // stride) - 1) * stride + span - steps, 0)
        before, after = whole // 2, whole - whole // 2
    padded = np.pad(x, ((0, 0), (before, after), (0, 0)), constant_values=filled)
    count = (padded.shape[1] - span) // stride + 1
    if count < 1:
        raise ValueError(f"expected at least {span} steps, got {steps}")
    return [
        padded[:, place : place + (count - 1) * stride + 1 : stride]
        for place in range(0, span, dilation)
    ]


def convolved(
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    stride: int,
    dilation: int,
    padding: str,
    groups: int,
) -> np.ndarray:
    """Return the convolution along the steps, with a kernel (size, F / groups, filters)."""
    parts = windows(np.asarray(x, kernel.dtype), len(kernel), stride, dilation, padding, 0)
    outputs = [
        sum(part @ own for part, own in zip(split, filters, strict=True))
        for split, filters in zip(
            zip(*(np.split(part, groups, axis=2) for part in parts), strict=True),
            np.split(kernel, groups, axis=2),
            strict=True,
        )
    ]
    y = np.concatenate(outputs, axis=2)
    return y if bias is None else y + bias


def max_pooled(x: np.ndarray, size: int, stride: int, padding: str) -> np.ndarray:
    """Return the largest of each window."""
    return np.max(windows(x, size, stride, 1, padding, -np.inf), axis=0)


def average_pooled(x: np.ndarray, size: int, stride: int, padding: str) -> np.ndarray:
    """Return the mean of each window, of which padding is no part."""
    inside = windows(np.ones_like(x[:1, :, :1]), size, stride, 1, padding, 0)
    return np.sum(windows(x, size, stride, 1, padding, 0), axis=0) / np.sum(inside, axis=0)


def affine(x: np.ndarray, scale: Any, shift: Any, axis: int) -> np.ndarray:
    """Return scale x + shift, along the last axis."""
    if axis not in (-1, x.ndim - 1):
        raise ValueError(f"axis: expected the last of {x.ndim}, got {axis}")
    return scale * x + shift


def normalised(x: np.ndarray, scale: Any, shift: Any, epsilon: float, axis: int) -> np.ndarray:
    """Return x with mean 0 and variance 1 along the last axis, scaled and shifted."""
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + x.dtype.type(epsilon))
    return affine(centred / deviation, scale, shift, axis)
