"""Attention: each step looks at all steps of a sequence, and takes a mean of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.core import attend as dots
from cylstm.core.affine import Affine
from cylstm.core.weights import Version
from cylstm.layers.base import Array, Layer, as_array, check_gradient
from cylstm.parameters import Parameters

SCORES = ("dot", "additive")
Ends = npt.NDArray[np.intp]  # (N,): how many steps are a sequence's own


@dataclass(eq=False)
class Attended:
    """What one sequence leaves for the backward pass of additive scores: of its own steps alone."""

    memory: Array  # (S, M)
    queries: Array  # (T, Q)
    weights: Array  # (T, S)
    hidden: Array  # (T, S, A)


@dataclass(eq=False)
class AttendedByDots:
    """What a whole batch leaves for it."""

    queries: Array  # (T, N, Q)
    memory: Array  # (S, N, Q)
    ends: Ends
    query_ends: Ends
    weights: Array  # (N, T, S or more), zero past the ends


@dataclass(eq=False)
class AttentionTape:
    """What `Attention.attend` leaves: a part for each sequence, or the whole of dot scores."""

    parts: list[Attended] | AttendedByDots
    query_shape: tuple[int, ...]  # as they were given
    memory_shape: tuple[int, ...]
    changes: int  # of the parameters, until then


class Attention(Layer):
    """For each query the mean of a sequence's steps, weighted by how well they fit it.

    As a layer among others it lets each step of a sequence look at all of them: queries and memory
    are both its input. `attend` takes them apart, for a decoder that looks at an encoder's outputs.

    Parameters
    ----------
    query_size : int
        Q, the features of a query.
    memory_size : int, optional
        M, those of a step of the memory, and of the output; Q by default.
    attention_size : int, optional
        A, the width of additive scores; Q by default.
    score : {"dot", "additive"}
        How well a step m fits a query q: ``scale * q . m`` [2]_, without parameters, or
        ``weight_v . tanh(weight_q q + weight_m m + bias)`` [1]_.
    scale : float, optional
        Of dot scores; 1 / sqrt(Q) by default, as in [3]_ and PyTorch.
    batch_first : bool, default False
        Whether sequences are (N, T, ...), not (T, N, ...).
    dtype : {"float32", "float64"}
    seed : int or numpy.random.Generator, optional
        Where the first weights are drawn from.

    Attributes
    ----------
    weight_q : array, (A, Q)
        Of additive scores, as the others; at first Glorot-uniform.
    weight_m : array, (A, M)
    bias : array, (A,)
        At first zero.
    weight_v : array, (A,)

    Notes
    -----
    With `lengths` what is past a sequence's end has the weight 0, exactly, and is not read; a
    sequence of no step gives zeros. Results are the same bits with any padding, and whatever other
    sequences and queries are beside: each sequence has products of its own. Additive scores take
    memory of T S A numbers a sequence.

    References
    ----------
    .. [1] D. Bahdanau, K. Cho, Y. Bengio, "Neural machine translation by jointly learning to align
       and translate", ICLR 2015. https://arxiv.org/abs/1409.0473
    .. [2] M.-T. Luong, H. Pham, C. D. Manning, "Effective approaches to attention-based neural
       machine translation", EMNLP 2015. https://arxiv.org/abs/1508.04025
    .. [3] A. Vaswani et al., "Attention is all you need", NeurIPS 2017.
       https://arxiv.org/abs/1706.03762

    Examples
    --------
    >>> attention = Attention(4, score="additive", seed=0)
    >>> queries, memory = np.ones((3, 2, 4), np.float32), np.ones((7, 2, 4), np.float32)
    >>> context, tape = attention.attend(queries, memory, lengths=[7, 5])
    >>> context.shape
    (3, 2, 4)
    >>> attention.weights(queries, memory, lengths=[7, 5])[0, 1].round(3)
    array([0.2, 0.2, 0.2, 0.2, 0.2, 0. , 0. ], dtype=float32)
    """

    takes = frozenset({"lengths"})

    def __init__(
        self,
        query_size: int,
        memory_size: int | None = None,
        attention_size: int | None = None,
        *,
        score: str = "dot",
        scale: float | None = None,
        batch_first: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.query_size = checks.whole("query_size", query_size, 1)
        self.memory_size = _size("memory_size", memory_size, self.query_size)
        self.batch_first = checks.is_true_or_false("batch_first", batch_first)
        self.dtype = checks.floating("dtype", dtype)
        if score not in SCORES:
            raise ValueError(f"score: expected one of {', '.join(SCORES)}, got {score!r}")
        self.score, self.scale, self.attention_size = score, scale, attention_size
        if score == "dot":
            self._check_dot()
            return
        if scale is not None:
            raise ValueError(f"scale: expected none for additive scores, got {scale!r}")
        width = self.attention_size = _size("attention_size", attention_size, self.query_size)
        shapes = {
            "weight_q": (width, self.query_size),
            "weight_m": (width, self.memory_size),
            "bias": (width,),
            "weight_v": (width,),
        }
        self._store = Parameters(shapes, self.dtype)
        rng, memory = checks.seeded("seed", seed), self._store.memory()
        memory["bias"][...] = 0
        for name in ("weight_q", "weight_m", "weight_v"):
            rows, columns = (1, width) if name == "weight_v" else shapes[name]
            limit = math.sqrt(6 / (rows + columns))  # Glorot's
            memory[name][...] = rng.uniform(-limit, limit, shapes[name])

    def _check_dot(self) -> None:
        if self.memory_size != self.query_size:
            raise ValueError(
                f"memory_size: expected query_size, {self.query_size}, for dot scores, "
                f"got {self.memory_size}"
            )
        if self.attention_size is not None:
            raise ValueError(
                f"attention_size: expected none for dot scores, got {self.attention_size!r}"
            )
        if self.scale is not None:
            self.scale = checks.within("scale", self.scale, self.dtype)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer, without the seed."""
        return {
            "query_size": self.query_size,
            "memory_size": self.memory_size,
            "attention_size": self.attention_size,
            "score": self.score,
            "scale": self.scale,
            "batch_first": self.batch_first,
            "dtype": self.dtype.name,
        }

    @classmethod
    def from_saved(cls, config: dict[str, Any], state: Mapping[str, Array]) -> Layer:
        """Make the layer that a file describes; see `Layer.from_saved`."""
        if config.get("score") == "additive":  # before sizes take memory that tensors do not
            for name, width in (("weight_q", "query_size"), ("weight_m", "memory_size")):
                shape = config.get("attention_size"), config.get(width)
                if name not in state or state[name].shape != shape:
                    raise ValueError(f"{name}: expected shape {shape}, got another or none")
        return super().from_saved(config, state)

    # A layer among others

    def forward(self, x: Array, lengths: Any = None) -> tuple[Array, AttentionTape]:
        """Let each step of `x` look at all steps of its sequence; return that, and the tape.

        Parameters
        ----------
        x : ndarray, (T, N, Q), or (N, T, Q) with `batch_first`
        lengths : array of int, (N,), optional
            Each sequence's own length; the output is zero past it.
        """
        if self.memory_size != self.query_size:
            raise ValueError(
                f"x: expected queries and a memory, of {self.query_size} and {self.memory_size} "
                "features; give them to attend"
            )
        y, tape = self.attend(x, x, lengths, query_lengths=lengths)
        return y, tape

    def backward(self, tape: AttentionTape, grad_y: Array) -> tuple[Array, dict[str, Array]]:
        """Return the gradient of the input, and the parameters' gradients by name."""
        grad_queries, grad_memory, grads = self.attend_backward(tape, grad_y)
        return grad_queries + grad_memory, grads

    # Queries and a memory

    def attend(
        self, queries: Array, memory: Array, lengths: Any = None, *, query_lengths: Any = None
    ) -> tuple[Array, AttentionTape]:
        """Return what each query takes from the memory, and the tape.

        Parameters
        ----------
        queries : ndarray, (T, N, Q), or (N, T, Q) with `batch_first`
            Such as a decoder's outputs.
        memory : ndarray, (S, N, M), or (N, S, M)
            Such as an encoder's outputs.
        lengths : array of int, (N,), optional
            Of the memory's sequences: what is past it has the weight 0.
        query_lengths : array of int, (N,), optional
            Of the queries': the output is zero past it.

        Returns
        -------
        context : ndarray, (T, N, M), or (N, T, M)
        tape : AttentionTape

        Raises
        ------
        TypeError, ValueError
            If an array is not of the layer's dtype, or its shape does not fit.
        """
        asked, given = self._checked(queries, memory)
        steps, size = asked.shape[:2]
        ends = _ends("lengths", lengths, len(given), size)
        query_ends = _ends("query_lengths", query_lengths, steps, size)
        context = self._empty(steps, size, self.memory_size)
        parts: list[Attended] | AttendedByDots
        with self._reading() as changes:
            if self.score == "dot":
                parts = self._attend_by_dots(asked, given, ends, query_ends, context)
            else:
                parts = self._attend_each(asked, given, ends, query_ends, context)
        return self._turned(context), AttentionTape(parts, queries.shape, memory.shape, changes)

    def attend_backward(
        self, tape: AttentionTape, grad_context: Array
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Return the gradients of the queries, the memory, and the parameters.

        Parameters
        ----------
        tape : AttentionTape
            From `attend`.
        grad_context : ndarray
            The gradient of the context, of its shape.
        """
        grad_context = as_array("grad_y", grad_context, self.dtype)
        check_gradient(grad_context, (*tape.query_shape[:2], self.memory_size))
        grad = _with_rows(self._turned(grad_context))
        grad_queries = self._turned(np.empty(tape.query_shape, self.dtype))
        grad_memory = self._turned(np.empty(tape.memory_shape, self.dtype))
        grads = {name: np.zeros_like(p) for name, p in self.named_parameters()}
        with self._reading() as changes:
            if changes != tape.changes:
                raise ValueError("tape: the parameters have changed since forward; run it again")
            if isinstance(tape.parts, AttendedByDots):
                kept = tape.parts
                dots.attend_backward(
                    kept.queries, kept.memory, kept.ends, kept.query_ends, self._scale,
                    kept.weights, grad, grad_queries, grad_memory,
                )  # fmt: skip
            else:
                self._backward_each(tape.parts, grad, grad_queries, grad_memory, grads)
        return self._turned(grad_queries), self._turned(grad_memory), grads

    def weights(self, queries: Array, memory: Array, lengths: Any = None) -> Array:
        """Return how much each query takes from each step of the memory.

        Parameters
        ----------
        queries, memory, lengths
            As for `attend`.

        Returns
        -------
        ndarray, (T, N, S), or (N, T, S)
            From 0 to 1; those of a query add up to 1.
        """
        asked, given = self._checked(queries, memory)
        steps, size = asked.shape[:2]
        ends = _ends("lengths", lengths, len(given), size)
        query_ends, length = _ends("query_lengths", None, steps, size), len(given)
        weights = self._empty(steps, size, length)
        with self._reading():
            if self.score == "dot":
                context = np.empty(asked.shape, self.dtype)
                kept = self._attend_by_dots(asked, given, ends, query_ends, context)
                weights[...] = kept.weights[:, :, :length].swapaxes(0, 1)
                return self._turned(weights)
            weights[...] = 0
            for n, end in enumerate(ends):
                weights[:, n, :end] = self._attended(asked[:, n], given[:end, n]).weights
        return self._turned(weights)

    def _attend_by_dots(
        self, queries: Array, memory: Array, ends: Ends, query_ends: Ends, context: Array
    ) -> AttendedByDots:
        """Write the context; what is kept is copied, a sequence's steps side by side."""
        queries, memory = (
            np.array(a.swapaxes(0, 1), order="C").swapaxes(0, 1) for a in (queries, memory)
        )
        weights = dots.attend(queries, memory, ends, query_ends, self._scale, context)
        return AttendedByDots(queries, memory, ends, query_ends, weights)

    # Additive scores

    def _attend_each(
        self, queries: Array, memory: Array, ends: Ends, query_ends: Ends, context: Array
    ) -> list[Attended]:
        """Write the context, sequence by sequence."""
        parts = []
        for n, (end, last) in enumerate(zip(ends, query_ends, strict=True)):
            part = self._attended(queries[:last, n], memory[:end, n])
            context[:last, n], context[last:, n] = _mean(part), 0
            parts.append(part)
        return parts

    def _backward_each(
        self, parts: list[Attended], grad_context: Array, grad_queries: Array, grad_memory: Array,
        grads: dict[str, Array],
    ) -> None:  # fmt: skip
        """Write the gradients of queries and memory; those of the parameters are added to."""
        grad_queries[...] = grad_memory[...] = 0
        for n, part in enumerate(parts):
            steps, length = part.weights.shape
            if steps and length:
                of_queries, of_memory = self._backward_of(part, grad_context[:steps, n], grads)
                grad_queries[:steps, n] = of_queries
                grad_memory[:length, n] = of_memory

    # One sequence: rows (T, Q) that look at rows (S, M)

    def _attended(self, queries: Array, memory: Array) -> Attended:
        queries, memory = np.ascontiguousarray(queries), np.ascontiguousarray(memory)
        hidden = self._map("weight_q", None).run(queries)[:, None]
        hidden = np.tanh(hidden + self._map("weight_m", "bias").run(memory))
        rows = hidden.reshape(-1, hidden.shape[2])
        scores = self._map("weight_v", None).run(rows).reshape(hidden.shape[:2])
        weights = _softmax(scores) if len(memory) else np.zeros((len(queries), 0), self.dtype)
        return Attended(memory, queries, weights, hidden)

    def _backward_of(
        self, part: Attended, grad_context: Array, grads: dict[str, Array]
    ) -> tuple[Array, Array]:
        """The gradients of queries and memory; those of the parameters are added to `grads`."""
        transposed = _affine(np.ascontiguousarray(part.memory.T))
        grad_weights, grad_transposed, _ = transposed.backward(
            part.weights, np.ascontiguousarray(grad_context)
        )
        inner = (grad_weights * part.weights).sum(-1, keepdims=True)
        grad_scores = part.weights * (grad_weights - inner)
        width = part.hidden.shape[2]
        grad_hidden, grad_v, _ = self._map("weight_v", None).backward(
            part.hidden.reshape(-1, width), grad_scores.reshape(-1, 1)
        )
        grad_hidden = grad_hidden.reshape(part.hidden.shape) * (1 - part.hidden * part.hidden)
        grad_queries, grad_q, _ = self._map("weight_q", None).backward(
            part.queries, grad_hidden.sum(1)
        )
        grad_memory, grad_m, grad_bias = self._map("weight_m", "bias").backward(
            part.memory, grad_hidden.sum(0)
        )
        found = {"weight_q": grad_q, "weight_m": grad_m, "bias": grad_bias, "weight_v": grad_v[0]}
        for name, grad in found.items():
            grads[name] += grad
        return grad_queries, grad_memory + grad_transposed.T

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(self.query_size) if self.scale is None else self.scale

    def _map(self, weight: str, bias: str | None) -> Affine:
        """The map of a parameter, its packed copies kept."""
        maps = self.__dict__.setdefault("_maps", {})
        if weight not in maps:
            views = self._store.views
            matrix = np.atleast_2d(views[weight])
            maps[weight] = Affine(
                matrix, None if bias is None else views[bias], self._store.version
            )
        return maps[weight]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_maps"}

    # Arrays

    def _checked(self, queries: Array, memory: Array) -> tuple[Array, Array]:
        """Views (T, N, Q) and (S, N, M)."""
        arrays = []
        for name, value, width in (
            ("queries", queries, self.query_size),
            ("memory", memory, self.memory_size),
        ):
            array = as_array(name, value, self.dtype)
            if array.ndim != 3 or array.shape[2] != width:
                lead = "N, T" if self.batch_first else "T, N"
                raise ValueError(f"{name}: expected shape ({lead}, {width}), got {array.shape}")
            arrays.append(self._turned(array))
        if arrays[0].shape[1] != arrays[1].shape[1]:
            raise ValueError(
                f"memory: expected as many sequences as queries, {arrays[0].shape[1]}, "
                f"got {arrays[1].shape[1]}"
            )
        return arrays[0], arrays[1]

    def _turned(self, array: Array) -> Array:
        """Between the order of axes outside and (T, N, ...)."""
        return array.swapaxes(0, 1) if self.batch_first else array

    def _empty(self, steps: int, size: int, width: int) -> Array:
        """(T, N, F), contiguous outside."""
        shape = (size, steps, width) if self.batch_first else (steps, size, width)
        return self._turned(np.empty(shape, self.dtype))

    @contextmanager
    def _reading(self) -> Iterator[int]:
        """Lets nobody change the parameters; gives how often they have changed."""
        if self._store is None:
            yield 0
            return
        with self._store.reading():
            yield self._store.version.changes


def _with_rows(array: Array) -> Array:
    """The array, or a copy, whose rows are contiguous."""
    strides, size = array.strides, array.itemsize
    regular = strides[2] == size and all(s >= 0 and s % size == 0 for s in strides[:2])
    return array if regular and array.flags.aligned else np.ascontiguousarray(array)


def _affine(weight: Array) -> Affine:
    """The map of a sequence's own rows: our products, so that no threads of BLAS's spin."""
    return Affine(weight, None, Version())


def _mean(part: Attended) -> Array:
    """The memory's rows, weighted: (T, M)."""
    if not part.weights.size:
        return np.zeros((len(part.weights), part.memory.shape[1]), part.memory.dtype)
    return _affine(np.ascontiguousarray(part.memory.T)).run(part.weights)


def _softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    weights /= weights.sum(-1, keepdims=True)
    return weights


def _size(name: str, value: int | None, default: int) -> int:
    return default if value is None else checks.whole(name, value, 1)


def _ends(name: str, lengths: Any, steps: int, size: int) -> Ends:
    if lengths is None:
        return np.full(size, steps)
    try:
        return checks.lengths(lengths, steps, size)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("lengths", name, 1)) from None
