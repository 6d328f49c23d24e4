"""A model as what scores batches of ragged sequences, whatever made it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.core import kernels
from cylstm.layers import (
    Dropout,
    Embedding,
    Layer,
    LayerNorm,
    Linear,
    QuantizedLinear,
    Sequential,
)
from cylstm.layers.activations import Activation
from cylstm.layers.outputs import as_layer, taken
from cylstm.layers.pooling import Pooling
from cylstm.predict.last import last_step_of
from cylstm.recurrent import Recurrent

__all__ = ["Predictor"]

_OWN = (
    Activation,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    Pooling,
    QuantizedLinear,
)  # beside what is recurrent
_ALREADY = {"softmax": "probabilities", "sigmoid": "probabilities", "log_softmax": "logarithms"}


class Predictor:
    """What a model takes and returns, and how to call it.

    Parameters
    ----------
    model : LSTM or Layer
    batch_first : bool, optional
        Whether the model takes (N, T, ...), where it does not tell itself.

    Attributes
    ----------
    tokens : bool or None
        Whether it takes integers (T, N), not features (T, N, F); None if it does not tell.
    size : int or None
        How many tokens it knows, or F.
    dtype : dtype
        Of features.
    is_exact : bool
        Whether a sequence's output is the same bits in any batch.
    takes_lengths : bool
        Whether it is told where sequences end; if not, a batch has those of one length.
    keeps_time : bool
        Whether there is an output for each step.
    width : int
        How many numbers an output has.
    state_sizes : dict of str to int
        The name and size of each array of a sequence's state.
    """

    def __init__(self, model: Any, batch_first: bool | None = None) -> None:
        self.model = model
        self.layer = model if isinstance(model, Recurrent) else as_layer(model)
        layers = [model] if not isinstance(model, Sequential) else list(model)
        leaves = [leaf for layer in layers for leaf in _leaves_of(layer)]
        whole = type(model).__module__.startswith("cylstm.formats")  # read of a file
        self._is_own = not whole and all(isinstance(leaf, (Recurrent, *_OWN)) for leaf in leaves)
        self.is_exact = self._is_own and kernels.PRODUCT != "blas"
        self.takes_lengths = not whole and all(map(_can_be_padded, leaves))
        self.tokens, self.size, self.dtype = _input_of(leaves, model)
        self.batch_first = self._which_axes(batch_first)
        self.last_function = getattr(getattr(layers[-1], "function", None), "__name__", None)
        self._recurrent = [k for k, layer in enumerate(layers) if isinstance(layer, Recurrent)]
        self.keeps_time: bool
        self.width: int
        self._probe()
        self._last_step = last_step_of(model) if self.is_exact else None

    def _which_axes(self, given: bool | None) -> bool:
        """Whether the batch's axis is the first."""
        if given is not None:
            given = checks.is_true_or_false("batch_first", given)
        own = _axes_of(self.model, self.layer)
        if own is not None:
            if given is not None and given != own:
                raise ValueError(f"batch_first: expected {own}, which the model says, got {given}")
            return own
        if given is None and not self._is_own:
            raise ValueError(
                "batch_first: expected True or False, since the model does not tell whether it "
                "takes (N, T, ...) or (T, N, ...)"
            )
        return bool(given)

    def run(self, x: np.ndarray, lengths: np.ndarray | None) -> tuple[np.ndarray, list[Any]]:
        """Return the output, (N, F), or (T, N, F) with or without batch first, and the states."""
        y, state = self._call(x, lengths if self.takes_lengths else None)
        if isinstance(self.model, Recurrent):
            return y, [state]
        return y, [state[k] for k in self._recurrent] if self.state_sizes else []

    def _call(self, x: np.ndarray, lengths: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        if isinstance(self.model, Recurrent):
            return self.model(x, None, lengths)
        given = {} if lengths is None else taken(self.layer, lengths=lengths)
        return self.layer.run(x, **given)

    def run_last(self, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """Return the output at the last step of each sequence, (N, F) or (N,)."""
        if self._last_step is not None:
            return self._last_step(x, lengths)
        y, _ = self._call(x, lengths if self.takes_lengths else None)
        if not self.keeps_time:
            return y
        if lengths is None:
            lengths = np.full(x.shape[0 if self.batch_first else 1], x.shape[self.batch_first])
        return _last(y, lengths, self.batch_first)

    # What it returns

    def _probe(self) -> None:
        """Call the model on two batches of no meaning, to see which axes its output has."""
        self.state_sizes: dict[str, int] = {}
        shapes = []
        for rows, steps in ((5, 7), (6, 9)):
            y, state = self._try(rows, steps)
            shapes.append(y.shape)
        if self._is_own:
            self._note_states(state)
        first, second = shapes
        axes = [
            "N"
            if pair == (5, 6)
            else "T"
            if pair == (7, 9)
            else "F"
            if len(set(pair)) == 1
            else "?"
            for pair in zip(first, second, strict=False)
        ]
        found = "".join(axes)
        steps = "NT" if self.batch_first else "TN"
        if len(first) != len(second) or found not in ("N", "NF", steps, f"{steps}F"):
            raise ValueError(
                "model: expected an output for each sequence, (N, F), or each step, "
                f"{checks.shape_text((*steps, 'F'))}, got {first} of 5 sequences of 7 steps"
            )
        self.keeps_time = "T" in found
        self.width = first[-1] if found.endswith("F") else 1
        self.has_axis = found.endswith("F")
        self.out_dtype = y.dtype

    def _try(self, rows: int, steps: int) -> tuple[np.ndarray, Any]:
        shape = (rows, steps) if self.batch_first else (steps, rows)
        if self.tokens is not False:
            x = np.full(shape, min(1, (self.size or 2) - 1), np.int64)
        if not self.tokens:
            features = np.full((*shape, self.size or 1), 0.5, self.dtype)
            x = features if self.tokens is False else x
        try:
            y, state = self._call(x)
        except (ArithmeticError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"model: expected one that takes any number of sequences and steps; a trial with "
                f"{rows} sequences of {steps} steps failed: {error}"
            ) from error
        if not isinstance(y, np.ndarray) or y.dtype.kind not in "iuf":
            raise ValueError(f"model: expected one output of numbers, got {type(y).__name__}")
        return y, state

    def _note_states(self, state: Any) -> None:
        pairs = (
            [state] if isinstance(self.model, Recurrent) else [state[k] for k in self._recurrent]
        )
        for pair, k in zip(pairs, self._recurrent, strict=True):
            pair = pair if isinstance(pair, tuple) else (pair,)
            for name, array in zip("hc", pair, strict=False):
                ending = f"_{k}" if len(pairs) > 1 else ""
                self.state_sizes[name + ending] = array.shape[0] * array.shape[2]

    def states(self, pairs: list[Any]) -> dict[str, np.ndarray]:
        """Return each array of the state as (N, L D R), by its name."""
        arrays = [a for pair in pairs for a in (pair if isinstance(pair, tuple) else (pair,))]
        return {
            name: array.swapaxes(0, 1).reshape(array.shape[1], -1)
            for name, array in zip(self.state_sizes, arrays, strict=True)
        }

    @property
    def step_bytes(self) -> int:
        """What a step has of numbers in the widest place of the model, about."""
        widths = [len(array) for name, array in self.layer.named_parameters() if array.ndim == 1]
        return max(self.width, self.size if not self.tokens and self.size else 0, *widths, 64) * 4

    def check_is_raw(self, wanted: str) -> None:
        """Refuse to make probabilities of probabilities."""
        if self.last_function in _ALREADY:
            raise ValueError(
                f"output: expected 'raw' or 'argmax', since the model ends with "
                f"{self.last_function} and returns {_ALREADY[self.last_function]}, got {wanted!r}"
            )


def _last(y: np.ndarray, lengths: np.ndarray, batch_first: bool) -> np.ndarray:
    """Return the last step of each sequence, zero if it has none."""
    rows = np.arange(len(lengths))
    if not y.shape[int(batch_first)]:
        return np.zeros((len(lengths), *y.shape[2:]), y.dtype)
    last = y[rows, lengths - 1] if batch_first else y[lengths - 1, rows]
    last[lengths == 0] = 0
    return last


def _leaves_of(layer: Any) -> Iterator[Any]:
    """Iterate over the layers of a Sequential, those within others too; others are one layer."""
    if type(layer) is not Sequential:
        yield layer
        return
    for part in layer:
        yield from _leaves_of(part)


def _can_be_padded(layer: Any) -> bool:
    """Whether what stands past a sequence's end has no effect on it."""
    if type(layer).__module__.startswith("cylstm.formats"):
        return False  # whole models: they take no lengths
    return isinstance(layer, (Recurrent, *_OWN)) or layer.steps_alone or "lengths" in layer.takes


def _input_of(layers: list[Any], model: Any) -> tuple[bool | None, int | None, np.dtype]:
    """Return whether the first layer takes tokens, how many or how wide, and the dtype."""
    dtype = np.dtype("float32")
    if hasattr(model, "inputs"):
        return _declared_input(model)
    for layer in layers:
        lstm = layer if isinstance(layer, Recurrent) else getattr(layer, "lstm", None)
        if isinstance(lstm, Recurrent):
            return False, lstm.input_size, lstm.dtype
        if isinstance(layer, (Linear, QuantizedLinear)):
            return False, layer.in_features, getattr(layer, "dtype", dtype)
        if isinstance(layer, Embedding):
            return True, layer.num_embeddings, layer.dtype
        if isinstance(layer, LayerNorm):
            return False, layer.normalized_shape, layer.dtype
        if hasattr(layer, "mask_zero"):
            return True, len(layer.weight), dtype
        declared = getattr(layer, "arguments", {}).get("dtype")
        if isinstance(layer, (Activation, Dropout, Pooling)) or type(layer).__name__ == "Masking":
            continue
        if declared is None or getattr(layer.function, "__name__", "") != "as_declared":
            break
        if declared.startswith("float"):
            dtype = np.dtype(declared)
    return None, None, dtype


def _declared_input(model: Any) -> tuple[bool | None, int | None, np.dtype]:
    """Of a graph, which says what it takes, or at least how many inputs it has."""
    if len(model.inputs) != 1:
        raise ValueError(f"model: expected one input, got {', '.join(model.inputs)}")
    if not isinstance(model.inputs, dict):
        return _input_of([step.layer for step in model.steps[:1]], None)
    (declared,) = model.inputs.values()
    dtype, shape = np.dtype(declared["dtype"]), declared["shape"]
    if dtype.kind != "f":
        return True, None, np.dtype("float32")
    return (False, shape[-1] if shape and len(shape) == 3 else None, dtype)


def _axes_of(model: Any, layer: Layer) -> bool | None:
    """Whether the model takes the batch first, if anything in it tells."""
    module = type(model).__module__
    if not module.startswith("cylstm.formats"):
        return layer.batch_first
    if module.startswith("cylstm.formats.keras"):
        return True
    if not isinstance(model, Sequential):
        return None
    if any(type(part).__module__.startswith("cylstm.formats.keras") for part in model):
        return True
    from cylstm.formats.chain_stream import axes_of_chain

    return axes_of_chain(tuple(model))
