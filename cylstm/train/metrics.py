"""What a run measures beside its loss: names and functions, averaged over batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.train.losses import IGNORED, cross_entropy_loss, mae_loss, mse_loss

__all__ = ["Measures", "Metric", "as_metrics", "count_of"]

Array = npt.NDArray[Any]


@dataclass
class Mean:
    """A mean over batches, each weighed by how many targets count."""

    total: float = 0.0
    weight: int = 0

    def add(self, value: float, count: int) -> None:
        """Add a batch's."""
        self.total += value * count
        self.weight += count

    @property
    def value(self) -> float:
        """The mean."""
        return self.total / self.weight


@dataclass(frozen=True)
class Metric:
    """A function of a batch's prediction and target, and what becomes of its mean."""

    name: str
    function: Callable[[Array, Array], Any]
    finish: Callable[[float], float] = float


@dataclass
class Measures:
    """The means of metrics over some batches."""

    metrics: tuple[Metric, ...]
    means: dict[str, Mean] = field(default_factory=dict)

    def of(self, prediction: Array, target: Array, mask: Array | None) -> dict[str, float]:
        """Return a batch's values: of ragged sequences, over the steps that count."""
        if self.metrics and mask is not None:
            prediction, target = prediction[mask], target[mask]
        return {
            one.name: checks.real(f"metrics[{one.name!r}]", one.function(prediction, target))
            for one in self.metrics
        }

    def add(self, values: dict[str, float], count: int) -> None:
        """Add a batch's values."""
        for name, value in values.items():
            self.means.setdefault(name, Mean()).add(value, count)

    def values(self) -> dict[str, float]:
        """Return each metric's value over all of them."""
        return {one.name: float(one.finish(self.means[one.name].value)) for one in self.metrics}


def count_of(target: Array, mask: Array | None) -> int:
    """How many elements of a target count."""
    if target.dtype.kind == "f":
        count = target.size if mask is None else np.count_nonzero(mask)
        return int(count if mask is None else count * math.prod(target.shape[mask.ndim :]))
    labels = target if mask is None else target[mask]
    return int(np.count_nonzero(labels != IGNORED))


def as_metrics(given: Any) -> tuple[Metric, ...]:
    """Return the metrics that names and functions stand for.

    Raises
    ------
    TypeError, ValueError
        If one is neither, or a name is unknown or there twice.

    Examples
    --------
    >>> [metric.name for metric in as_metrics(["accuracy", mse_loss])]
    ['accuracy', 'mse_loss']
    """
    if given is None:
        return ()
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"metrics: expected a list of names and functions, got {short(given)}")
    pairs = given.items() if isinstance(given, Mapping) else ((None, one) for one in given)
    found = [_metric(name, one) for name, one in pairs]
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise ValueError(f"metrics: expected each name once, got {', '.join(names)}")
    return tuple(found)


def _metric(name: Any, one: Any) -> Metric:
    if isinstance(one, str):
        if one not in _NAMED:
            raise ValueError(f"metrics: expected one of {', '.join(_NAMED)}, got {one!r}")
        return Metric(one if name is None else str(name), *_NAMED[one])
    if not callable(one):
        raise TypeError(f"metrics: expected names and functions, got {short(one)}")
    return Metric(str(name or getattr(one, "__name__", type(one).__name__)), one)


def accuracy(prediction: Array, target: Array) -> float:
    """Return the share of labels that are the largest logit's; those of -100 do not count."""
    if target.dtype.kind not in "iu" or target.shape != prediction.shape[:-1]:
        raise ValueError(
            f"accuracy: expected labels of shape {prediction.shape[:-1]}, got {target.dtype} of "
            f"shape {target.shape}"
        )
    counts = target != IGNORED
    right = (prediction.argmax(axis=-1) == target) & counts
    return float(np.count_nonzero(right) / max(np.count_nonzero(counts), 1))


def _value_of(loss: Callable[..., tuple[float, Array]]) -> Callable[[Array, Array], float]:
    return lambda prediction, target: loss(prediction, target)[0]


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < math.log(np.finfo(float).max) else math.inf


_NAMED: dict[str, tuple[Any, ...]] = {
    "accuracy": (accuracy,),
    "mae": (_value_of(mae_loss),),
    "mse": (_value_of(mse_loss),),
    "rmse": (_value_of(mse_loss), math.sqrt),  # of the mean over all batches
    "perplexity": (_value_of(cross_entropy_loss), _exp),
}
