"""A model's file that tests itself: a small input, and the output that the model gave to it.

They are two tensors of the file, under names that no parameter has. `cylstm.load` runs the model on
the input and refuses it if what it gives differs by more than rounding may.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np

from cylstm import checks
from cylstm.core.kernels import ISA, PRODUCT
from cylstm.io.files import open_plain
from cylstm.io.safetensors import begins, is_model, read_metadata, write_model

__all__ = ["KEY", "Example", "bound_of", "example_of", "is_kept", "save_model", "taken", "verify"]

KEY = "check"  # in the metadata: the dtype of the input
_X, _Y = "__check__.x", "__check__.y"
_DTYPES = ("float32", "float64", "int64")
_STEPS, _SEQUENCES = 8, 2
_MOST = 2**22  # numbers of an input: running it must not take long

# How far apart outputs may be, of those of magnitude 1; see docs/accuracy.md.
_BOUNDS = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2e-2, "int8": 2e-2}
_SIZES = ("input_size", "in_features", "normalized_shape", "query_size")


@dataclass(frozen=True, eq=False)
class Example:
    """An input of a model, and its output."""

    x: np.ndarray
    y: np.ndarray

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """What a file has of it, beside the parameters; tokens are float64, which holds them."""
        return {_X: self.x if self.x.dtype.kind == "f" else self.x.astype("f8"), _Y: self.y}

    @property
    def metadata(self) -> dict[str, str]:
        """What a file says of it."""
        return {KEY: self.x.dtype.name}


def example_of(model: Any, check: Any) -> tuple[Any, Example | None]:
    """Return what to save, and the example to save with it.

    Parameters
    ----------
    model : LSTM, GRU, RNN, one of these quantized, or Sequential
    check : bool or ndarray
        The argument of ``save``: False for none, True for an input that is made, or an input.

    Raises
    ------
    TypeError, ValueError
        If the model does not tell what it takes, or does not take what is given, or gives numbers
        that are not finite.
    """
    if isinstance(check, (bool, np.bool_)):
        if not check:
            return model, None
        x = _input_of(model)
    else:
        x = _as_input("check", check)
    model = copy.deepcopy(model)  # one moment's parameters, in the file and in its output
    y = _output(model, x)
    if not np.isfinite(y).all():
        raise ValueError("check: expected a model that gives finite numbers, got NaN or infinity")
    return model, Example(x, y)


def save_model(path: str | os.PathLike[str], kind: str, model: Any, check: Any) -> None:
    """Write a model's file; `check` is the argument of its ``save``, see `example_of`."""
    model, example = example_of(model, check)
    write_model(path, kind, model.config, model.state_dict(), example)


def taken(tensors: dict[str, np.ndarray], metadata: Mapping[str, str]) -> Example | None:
    """Take an example out of the tensors that were read, if there is one.

    Raises
    ------
    ValueError
        If there is the half of one, or it is none that could have been saved.
    """
    x, y = tensors.pop(_X, None), tensors.pop(_Y, None)
    if x is None and y is None and KEY not in metadata:
        return None
    kind = metadata.get(KEY)
    if x is None or y is None:
        raise ValueError(f"check: expected the tensors {_X} and {_Y}, got one or none")
    if kind not in _DTYPES:
        raise ValueError(f"check: expected one of {', '.join(_DTYPES)}, got {short(kind)}")
    for name, array in ((_X, x), (_Y, y)):
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got others")
    with np.errstate(invalid="ignore", over="ignore"):
        made = x.astype(kind)
    if (made != x).any():
        raise ValueError(f"{_X}: expected {kind}, got other numbers")
    return Example(_as_input(_X, made), y)


def verify(model: Any, example: Example) -> float:
    """Return the largest difference between a model's output and the one that was kept.

    Raises
    ------
    ValueError
        If it is more than `bound_of` says, or the model does not take the input.
    """
    try:
        y = _output(model, example.x)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{_X}: expected an input of the model: {error}") from error
    if y.shape != example.y.shape or y.dtype != example.y.dtype:
        raise ValueError(
            f"{_Y}: expected {y.dtype} of shape {y.shape}, got {example.y.dtype} of shape "
            f"{example.y.shape}"
        )
    bound = bound_of(model, example)
    apart = float(np.abs(y - example.y).max(initial=0))
    if not apart <= bound:  # NaN is no match either
        raise ValueError(
            f"check: expected the output that the file keeps, within {bound:.1e}, got one that "
            f"differs by {apart:.1e} (instructions {ISA}, product {PRODUCT}): the file was "
            "changed, or this machine computes otherwise; load(..., check=False) takes it as it is"
        )
    return apart


def bound_of(model: Any, example: Example) -> float:
    """Return how far apart two machines' outputs may be."""
    kinds = {getattr(layer, "weights", None) for layer in _layers(model)} & _BOUNDS.keys()
    each = max(_BOUNDS[name] for name in {example.y.dtype.name, *kinds})
    return each * max(1.0, float(np.abs(example.y).max(initial=0)))


def is_kept(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file of any kind keeps an example."""
    with open_plain(path) as file:
        is_ours = begins(file.read(9))
    metadata = read_metadata(path) if is_ours else {}
    return is_model(metadata) and KEY in metadata


def _output(model: Any, x: np.ndarray) -> np.ndarray:
    y = model(x)
    return y[0] if isinstance(y, tuple) else y


def _layers(model: Any) -> list[Any]:
    """Return the layers of a model, those of models within it too."""
    if not hasattr(model, "__len__"):
        return [model]
    return [leaf for layer in model for leaf in _layers(layer)]


def _input_of(model: Any) -> np.ndarray:
    """Make an input of two sequences of eight steps."""
    sizes = (_STEPS, _SEQUENCES)
    sizes = sizes[::-1] if getattr(model, "batch_first", False) else sizes
    rng = np.random.default_rng(0)
    for layer in _layers(model):
        if not type(layer).__module__.startswith("cylstm."):
            break
        if hasattr(layer, "num_embeddings"):
            return rng.integers(layer.num_embeddings, size=sizes)
        size = next((vars(layer)[name] for name in _SIZES if name in vars(layer)), None)
        if size is not None:
            dtype = getattr(layer, "dtype", np.dtype(np.float32))
            return rng.standard_normal((*sizes, size)).astype(dtype)
    raise ValueError(
        f"check: expected a model whose first layer tells what it takes, got {short(model)}; give "
        "an input, check=x"
    )


def _as_input(name: str, value: Any) -> np.ndarray:
    x = checks.is_array(name, value)
    x = x.astype(np.int64) if x.dtype.kind in "iu" else x
    if x.dtype.name not in _DTYPES:
        raise TypeError(f"{name}: expected True, False or an input of the model, got {x.dtype}")
    if x.size > _MOST or not np.isfinite(x).all():
        raise ValueError(f"{name}: expected at most {_MOST} finite numbers, got shape {x.shape}")
    return x
