"""Learning-rate schedules: each says the rate of a step, from nothing but what it is given.

A schedule is called with the number of steps taken and the losses of the epochs so far, and keeps
nothing, so that a resumed run goes on as if it had not stopped. Any function of these two will do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cylstm import checks

__all__ = ["Cosine", "Exponential", "LinearDecay", "Plateau"]


@dataclass(frozen=True)
class Exponential:
    """``lr * gamma ** (step // every)``: a decay, in stairs of `every` steps.

    Examples
    --------
    >>> schedule = Exponential(0.1, gamma=0.5, every=10)
    >>> schedule(0), schedule(9), schedule(20)
    (0.1, 0.1, 0.025)
    """

    lr: float
    gamma: float
    every: int = 1

    def __post_init__(self) -> None:
        _set(self, lr=_rate("lr", self.lr), gamma=_rate("gamma", self.gamma))
        _set(self, every=checks.whole("every", self.every, 1))

    def __call__(self, step: int, losses: Sequence[float] = ()) -> float:
        """Return the rate of a step."""
        return self.lr * self.gamma ** (step // self.every)


@dataclass(frozen=True)
class _Decay(ABC):
    """From `lr` to `final` in `steps` steps, the first `warmup` of which rise to `lr`."""

    lr: float
    steps: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _set(self, lr=_rate("lr", self.lr), final=_rate("final", self.final))
        _set(self, steps=checks.whole("steps", self.steps))
        _set(self, warmup=checks.whole("warmup", self.warmup))

    def __call__(self, step: int, losses: Sequence[float] = ()) -> float:
        """Return the rate of a step."""
        done = _share_done(step, self.warmup, self.steps)
        if done < 0:
            return self.lr * (1 + done)
        return self.final + (self.lr - self.final) * self._left(done)

    @abstractmethod
    def _left(self, done: float) -> float:
        """Return what is left of the way to `final`, 1 to 0, when 0 to 1 of the steps are done."""


class Cosine(_Decay):
    """Half a wave of the cosine from `lr` to `final` in `steps` steps, then constant [1]_.

    The first `warmup` of the steps rise to `lr` in equal parts.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR
       2017. https://arxiv.org/abs/1608.03983

    Examples
    --------
    >>> schedule = Cosine(0.1, steps=100, warmup=10)
    >>> [round(schedule(step), 3) for step in (0, 9, 10, 55, 100, 1000)]
    [0.01, 0.1, 0.1, 0.05, 0.0, 0.0]
    """

    def _left(self, done: float) -> float:
        return (1 + math.cos(math.pi * done)) / 2


class LinearDecay(_Decay):
    """A line from `lr` to `final` in `steps` steps, then constant.

    The first `warmup` of the steps rise to `lr` in equal parts.

    Examples
    --------
    >>> schedule = LinearDecay(0.1, steps=100)
    >>> [round(schedule(step), 3) for step in (0, 50, 100, 1000)]
    [0.1, 0.05, 0.0, 0.0]
    """

    def _left(self, done: float) -> float:
        return 1 - done


@dataclass(frozen=True)
class Plateau:
    """`lr`, multiplied by `factor` each time that `patience` epochs have brought nothing better.

    The losses are those of the validation where there is one, else of the training; better is lower
    than the lowest before by the part `threshold` of it, and never NaN or infinite. As
    ``torch.optim.lr_scheduler.ReduceLROnPlateau``, the epoch after the last of its patience acts.

    Examples
    --------
    >>> schedule = Plateau(0.1, factor=0.5, patience=1)
    >>> schedule(0, [3.0, 2.0, 2.0]), schedule(0, [3.0, 2.0, 2.0, 2.0])
    (0.1, 0.05)
    """

    lr: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4

    def __post_init__(self) -> None:
        _set(self, lr=_rate("lr", self.lr), factor=_rate("factor", self.factor))
        _set(self, patience=checks.whole("patience", self.patience))
        _set(self, threshold=_rate("threshold", self.threshold))

    def __call__(self, step: int, losses: Sequence[float] = ()) -> float:
        """Return the rate of a step."""
        lr, best, waited = self.lr, math.inf, 0
        for loss in losses:
            better = math.isfinite(loss) and loss < best * (1 - self.threshold)
            best, waited = (loss, 0) if better else (best, waited + 1)
            if waited > self.patience:
                lr, waited = lr * self.factor, 0
        return lr


def _share_done(step: int, warmup: int, steps: int) -> float:
    """Return 0 to 1 after the warm-up, and -1 to 0 within it."""
    if step < warmup:
        return (step + 1) / warmup - 1
    return min((step - warmup) / max(steps - warmup, 1), 1.0)


def _set(schedule: Any, **checked: Any) -> None:
    """Set what a frozen schedule was made with to what was checked, in its plain type."""
    for name, value in checked.items():
        object.__setattr__(schedule, name, value)


def _rate(name: str, value: Any) -> float:
    """Return a finite number from 0."""
    number = checks.finite(name, value)
    if number < 0:
        raise ValueError(f"{name}: expected a number from 0, got {number}")
    return number
