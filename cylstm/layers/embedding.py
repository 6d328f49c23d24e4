"""Vectors for words, characters and other things of a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.core import training
from cylstm.layers.base import Array, Layer, as_array, check_gradient, check_saved_weight
from cylstm.layers.gradients import RowGradient
from cylstm.lookup import LookedUp, pays_in_training
from cylstm.parameters import Parameters


@dataclass(frozen=True, eq=False)
class Occurring:
    """The tape of vectors that were looked up: which of them, rising."""

    rows: npt.NDArray[np.intp]


class Embedding(Layer):
    """A vector for each of a set of things, such as words or characters.

    Parameters
    ----------
    num_embeddings : int
        How many things there are.
    embedding_dim : int
        D, the size of a vector.
    padding_idx : int, optional
        A thing whose vector starts at zero and never learns.
    dtype : {"float32", "float64"}
        The type of the vectors.
    seed : int or numpy.random.Generator, optional
        Where the first vectors are drawn from.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer, `padding_idx` is none of the things, or the dtype is
        another.

    Notes
    -----
    The parameter is ``weight`` (num_embeddings, D), at first standard normal: name, shape and
    distribution are those of ``torch.nn.Embedding``. Its gradient is a `RowGradient` of the vectors
    that took part.

    Examples
    --------
    >>> embedding = Embedding(1000, 8, seed=0)
    >>> words = np.array([[5, 7], [2, 5]])
    >>> y, tape = embedding.forward(words)
    >>> y.shape
    (2, 2, 8)
    >>> _, grads = embedding.backward(tape, np.ones_like(y))
    >>> grads["weight"].rows, grads["weight"].values[:, 0]
    (array([2, 5, 7]), array([1., 2., 1.], dtype=float32))
    """

    steps_alone = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.num_embeddings = checks.whole("num_embeddings", num_embeddings, 1)
        self.embedding_dim = checks.whole("embedding_dim", embedding_dim, 1)
        self.padding_idx = None if padding_idx is None else checks.whole("padding_idx", padding_idx)
        if padding_idx is not None and self.padding_idx >= self.num_embeddings:
            raise ValueError(
                f"padding_idx: expected 0 to {num_embeddings - 1}, got {self.padding_idx}"
            )
        self.dtype = checks.floating("dtype", dtype)
        shape = self.num_embeddings, self.embedding_dim
        self._store = Parameters({"weight": shape}, self.dtype)
        weight = self._store.memory()["weight"]
        checks.seeded("seed", seed).standard_normal(dtype=self.dtype, out=weight)
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer, without the seed."""
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "padding_idx": self.padding_idx,
            "dtype": self.dtype.name,
        }

    @classmethod
    def from_saved(cls, config: dict[str, Any], state: Mapping[str, Array]) -> Layer:
        """Make the layer that a file describes; see `Layer.from_saved`."""
        check_saved_weight(state, (config.get("num_embeddings"), config.get("embedding_dim")))
        return super().from_saved(config, state)

    def forward(self, x: npt.NDArray[np.integer[Any]]) -> tuple[Array, npt.NDArray[np.integer]]:
        """Return the vectors of `x`, and the tape.

        Parameters
        ----------
        x : ndarray of integers, (...)
            Which things, from 0 to num_embeddings - 1.

        Returns
        -------
        y : ndarray, (..., D)
            Their vectors.
        tape : ndarray
            A copy of `x`.

        Raises
        ------
        TypeError
            If `x` is not an array of integers.
        ValueError
            If one of them is out of range.
        """
        x = self._checked(np.array(checks.is_array("x", x)))  # no one else may change the tape
        x.flags.writeable = False
        with self._store.reading():
            return self._store.views["weight"][x], x

    def looked_up(self, x: npt.NDArray[np.integer[Any]]) -> LookedUp:
        """Return what `forward` does, as a recurrent layer can do with; the caller reads it."""
        ids = self._checked(x).astype(np.intp)
        return LookedUp(self._store.views["weight"], ids, self._store.version)

    def forward_looked_up(
        self, x: npt.NDArray[np.integer[Any]]
    ) -> tuple[LookedUp | Array, Occurring | npt.NDArray[np.integer]]:
        """Return what `forward` does, as `looked_up` if that is less work, and the tape."""
        looked = self.looked_up(x)
        if not looked.has_steps:
            return self.forward(x)
        rows, places = distinct(looked.ids, self.num_embeddings)
        if not pays_in_training(places.size, len(rows), self.embedding_dim):
            return self.forward(x)
        return LookedUp(looked.vectors[rows], places), Occurring(rows)

    def _checked(self, x: Any) -> npt.NDArray[np.integer[Any]]:
        x = checks.is_array("x", x)
        if x.dtype.kind not in "iu":
            raise TypeError(f"x: expected integers, got {x.dtype}")
        if x.size and not (x.min() >= 0 and x.max() < self.num_embeddings):
            raise ValueError(
                f"x: expected 0 to {self.num_embeddings - 1}, got {x.min()} to {x.max()}"
            )
        return x

    def backward(
        self, tape: npt.NDArray[np.integer] | Occurring, grad_y: Array
    ) -> tuple[None, dict[str, RowGradient]]:
        """Return None, since integers have no gradient, and the vectors' gradient.

        Raises
        ------
        TypeError, ValueError
            If `grad_y` does not have the output's dtype and shape.
        """
        grad_y = as_array("grad_y", grad_y, self.dtype)
        if isinstance(tape, Occurring):
            rows, sums = tape.rows, grad_y
            check_gradient(grad_y, (len(rows), self.embedding_dim))
        else:
            check_gradient(grad_y, (*tape.shape, self.embedding_dim))
            values = np.ascontiguousarray(grad_y.reshape(-1, self.embedding_dim))
            ids = tape.reshape(-1).astype(np.intp, copy=False)
            rows, sums = training.sums_by_id(ids, np.argsort(ids, kind="stable"), values)
        if self.padding_idx is not None:
            learns = rows != self.padding_idx
            rows, sums = rows[learns], sums[learns]
        shape = self.num_embeddings, self.embedding_dim
        return None, {"weight": RowGradient(rows, sums, shape)}


def distinct(ids: npt.NDArray[np.integer[Any]], count: int) -> tuple[Any, Any]:
    """Return which of so many ids there are, rising, and the place among them of each.

    Examples
    --------
    >>> distinct(np.array([7, 2, 7]), 9)
    (array([2, 7]), array([1, 0, 1]))
    """
    places = np.zeros(count, np.intp)
    places[ids] = 1
    rows = np.flatnonzero(places)
    places[rows] = np.arange(len(rows))
    return rows, places[ids]
