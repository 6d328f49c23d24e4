"""Optimizers: each changes a model's parameters in place, by their gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from numbers import Real
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Adam", "Optimizer"]

Array = npt.NDArray[np.floating[Any]]


class Model(Protocol):
    """What an optimizer asks of a model: `cylstm.LSTM` and every `Layer` have it."""

    def named_parameters(self) -> Iterator[tuple[str, Array]]: ...

    def edit(self) -> AbstractContextManager[dict[str, Array]]: ...


class Optimizer(ABC):
    """What all optimizers share: the parameters' bookkeeping.

    A new optimizer names the arrays that it keeps for each parameter in `slots` (zero at first),
    and says in `_update` how one parameter changes.

    Parameters
    ----------
    model : Layer or cylstm.LSTM
        The model to train.
    lr : float
        The learning rate.

    Attributes
    ----------
    lr : float
        The learning rate of the next step; a schedule may set it between steps.
    steps : int
        The number of steps taken.

    Raises
    ------
    ValueError
        If `lr` is negative or not finite.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: Model, lr: float) -> None:
        self._model = model
        self.lr = lr
        self.steps = 0
        self._state = {
            name: {slot: np.zeros_like(parameter) for slot in self.slots}
            for name, parameter in model.named_parameters()
        }
        # One working array as large as the largest parameter serves them all.
        largest = max((parameter.nbytes for _, parameter in model.named_parameters()), default=0)
        self._scratch = np.empty(largest, np.uint8)

    @property
    def lr(self) -> float:  # noqa: D102 (documented among the class's attributes)
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = _number("lr", lr)

    def step(self, grads: Mapping[str, Array]) -> None:
        """Change every parameter by its gradient.

        Parameters
        ----------
        grads : mapping of str to ndarray
            The gradient of each parameter, of its shape, as ``backward`` returns them.

        Raises
        ------
        KeyError
            If a gradient is missing, or belongs to no parameter. Nothing is changed then.
        ValueError
            If one has another shape than its parameter. Nothing is changed then.
        """
        with self._model.edit() as parameters:
            _check_gradients(parameters, grads)
            self.steps += 1
            for name, parameter in parameters.items():
                scratch = self._scratch[: parameter.nbytes].view(parameter.dtype)
                self._update(
                    parameter, grads[name], scratch.reshape(parameter.shape), **self._state[name]
                )

    @abstractmethod
    def _update(self, parameter: Array, gradient: Array, scratch: Array, **slots: Array) -> None:
        """Change one parameter and its slots in place; `scratch` has its shape and any value."""


class Adam(Optimizer):
    """Adam: steps of the gradient's mean over the root of its mean square [1]_.

    Parameters
    ----------
    model : Layer or cylstm.LSTM
        The model to train.
    lr : float, default 1e-3
        The learning rate: about the largest change of a parameter in one step.
    betas : tuple of two floats, default (0.9, 0.999)
        How much of the mean, and of the mean square, each step keeps.
    eps : float, default 1e-8
        Added to the root, so that nothing is divided by zero.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    See Also
    --------
    Optimizer : The attributes `lr` and `steps`.

    Notes
    -----
    Numbers are those of ``torch.optim.Adam``: `eps` is added after the correction of the bias.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
       https://arxiv.org/abs/1412.6980

    Examples
    --------
    >>> from cylstm.train import Linear, mse_loss
    >>> model = Linear(1, 1, dtype="float64", seed=0)
    >>> optimizer = Adam(model, lr=0.1)
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> for _ in range(300):
    ...     prediction, tape = model.forward(x)
    ...     loss, gradient = mse_loss(prediction, 3 * x + 1)
    ...     optimizer.step(model.backward(tape, gradient)[1])
    >>> model(x).round(2).ravel()
    array([1., 4., 7.])
    """

    slots = ("mean", "square")

    def __init__(
        self,
        model: Model,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(model, lr)
        if len(betas) != 2:
            raise ValueError(f"betas: expected two numbers, got {betas!r}")
        self._betas = tuple(_number(f"betas[{i}]", beta, below=1) for i, beta in enumerate(betas))
        self._eps = _number("eps", eps)

    def _update(  # type: ignore[override]
        self, parameter: Array, gradient: Array, scratch: Array, *, mean: Array, square: Array
    ) -> None:
        beta1, beta2 = self._betas
        # mean += (1 - beta1) * (gradient - mean)
        np.subtract(gradient, mean, out=scratch)
        scratch *= 1 - beta1
        mean += scratch
        # square = beta2 * square + (1 - beta2) * gradient**2
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - beta2
        square *= beta2
        square += scratch
        # parameter -= lr * unbiased(mean) / (sqrt(unbiased(square)) + eps)
        np.sqrt(square, out=scratch)
        scratch /= math.sqrt(1 - beta2**self.steps)
        scratch += self._eps
        np.divide(mean, scratch, out=scratch)
        scratch *= self.lr / (1 - beta1**self.steps)
        parameter -= scratch


def _number(name: str, value: float, below: float = math.inf) -> float:
    """Return an argument as a float if it is a number from 0 and below the limit."""
    if not (isinstance(value, Real) and 0 <= value < below):
        raise ValueError(f"{name}: expected a number from 0 and below {below}, got {value!r}")
    return float(value)


def _check_gradients(parameters: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
    """Check that there is one gradient of the right shape for each parameter, and no other."""
    missing = [name for name in parameters if name not in grads]
    unexpected = [name for name in grads if name not in parameters]
    if missing or unexpected:
        raise KeyError(f"grads: missing {missing}, unexpected {unexpected}")
    for name, parameter in parameters.items():
        if np.shape(grads[name]) != parameter.shape:
            raise ValueError(
                f"grads[{name!r}]: expected shape {parameter.shape}, got {np.shape(grads[name])}"
            )
