"""Keras's layers of several inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cylstm.formats.chain import Mask, Scoring, softmax

__all__ = ["Attention", "Concatenate", "Joining", "Merge"]


class Joining(Scoring):
    """A layer of several inputs."""

    def takes_inputs(self, count: int) -> bool:
        """Tell whether it can have this many inputs."""
        return count > 1

    @abstractmethod
    def join(self, inputs: Sequence[np.ndarray], masks: Sequence[Mask]) -> tuple[np.ndarray, Mask]:
        """Return the output, and which of its steps count."""

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:  # type: ignore[override]
        """Return the output for inputs all of whose steps count."""
        return self.join(inputs, [None] * len(inputs))[0]


class Merge(Joining):
    """One number of each input at a time.

    Parameters
    ----------
    function : callable
        Of two arrays.
    mean : bool, default False
        Whether the result is divided by the number of inputs.
    """

    def __init__(self, function: Callable[..., np.ndarray], mean: bool = False) -> None:
        self.function, self.mean = function, mean

    @property
    def config(self) -> dict[str, Any]:
        """The function's name, and whether the mean is taken."""
        return {"function": self.function.__name__, "mean": self.mean}

    def join(self, inputs: Sequence[np.ndarray], masks: Sequence[Mask]) -> tuple[np.ndarray, Mask]:
        """Return the result; what has fewer axes is the same at each step."""
        axes = max(x.ndim for x in inputs)
        first, *rest = (
            x.reshape(x.shape[:1] + (1,) * (axes - x.ndim) + x.shape[1:]) for x in inputs
        )
        for x in rest:
            first = self.function(first, x)
        return (first / len(inputs) if self.mean else first), _same(masks)


class Concatenate(Joining):
    """The inputs one after the other, along an axis."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    @property
    def config(self) -> dict[str, Any]:
        """The axis."""
        return {"axis": self.axis}

    def join(self, inputs: Sequence[np.ndarray], masks: Sequence[Mask]) -> tuple[np.ndarray, Mask]:
        """Return them; steps that count do so where they come to stand."""
        joined = np.concatenate(inputs, self.axis)
        if self.axis % joined.ndim == 0:
            raise ValueError("axis: expected another than that of the sequences")
        if self.axis % joined.ndim == 1 and joined.ndim > 2:
            known = [mask for mask in masks if mask is not None]
            if len(known) == len(inputs):
                return joined, np.concatenate(known, axis=1)
        return joined, _same(masks)


def _same(masks: Sequence[Mask]) -> Mask:
    """Return the mask that all inputs have.

    Keras's versions differ in what becomes of others: all must count, or any, or none is known.
    """
    first = masks[0]
    for mask in masks[1:]:
        if (mask is None) != (first is None) or not np.array_equal(mask, first):
            raise ValueError(
                "expected inputs of the same mask, since Keras's versions differ there"
            )
    return first


class Attention(Joining):
    """Attention of a query to values, by keys, which are the values unless given.

    Parameters
    ----------
    scores : {"dot", "concat", "additive"}
        How a query (Tq, F) and keys (Tv, F) make scores (Tq, Tv): their product, or the sum over F
        of ``tanh(query + key)``.
    scale : array, optional
        A factor, of the product or within the tanh; of "additive" one for each of the F, outside.
    weight : array, optional
        A factor of the sum of "concat".
    causal : bool
        Whether a step attends to none after it.
    """

    def __init__(self, scores: str, scale: Any = None, weight: Any = None, causal: bool = False):
        self.scores, self.scale, self.weight, self.causal = scores, scale, weight, causal

    @property
    def config(self) -> dict[str, Any]:
        """How the scores are made."""
        return {"scores": self.scores, "causal": self.causal}

    def join(self, inputs: Sequence[np.ndarray], masks: Sequence[Mask]) -> tuple[np.ndarray, Mask]:
        """Return what the query attends to, and the query's mask."""
        if len(inputs) > 3:
            raise ValueError(f"expected a query, values and keys, got {len(inputs)} inputs")
        query, values, keys = (*inputs, inputs[1])[:3]
        scores = self._scores(query, keys)
        counts = np.ones(scores.shape[-2:], bool)
        if self.causal:
            counts = np.tril(counts)
        if masks[1] is not None:
            counts = counts & masks[1][:, None, :]
        output = softmax(np.where(counts, scores, scores - scores.dtype.type(1e9))) @ values
        if masks[0] is not None:
            output = np.where(masks[0][:, :, None], output, np.zeros((), output.dtype))
        return output, masks[0]

    def _scores(self, query: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return the scores of each step of the query and each of the keys, (N, Tq, Tv)."""
        scale = 1 if self.scale is None else self.scale
        if self.scores == "dot":
            return scale * (query @ keys.swapaxes(1, 2))
        pairs = query[:, :, None] + keys[:, None]
        if self.scores == "additive":
            return np.sum(scale * np.tanh(pairs), axis=-1)
        return self.weight * np.sum(np.tanh(scale * pairs), axis=-1)
