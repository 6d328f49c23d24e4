"""Optimizers: each changes a model's parameters in place, by their gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from numbers import Real
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cylstm import checks
from cylstm.core import training
from cylstm.layers.gradients import Gradient, RowGradient, checked_gradient
from cylstm.parameters import checked

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]

Array = npt.NDArray[np.floating[Any]]
Rows = npt.NDArray[np.intp]


class Model(Protocol):
    """What an optimizer asks of a model: `cylstm.LSTM` and every `Layer` have it."""

    def named_parameters(self) -> Iterator[tuple[str, Array]]: ...

    def edit(self) -> AbstractContextManager[MutableMapping[str, Array]]: ...


class Optimizer(ABC):
    """What all optimizers share: the parameters' bookkeeping.

    A new optimizer names the arrays that it keeps for each parameter in `slots` (zero at first),
    says in `config` what it was made with, and in `_update` how one parameter changes.

    Parameters
    ----------
    model : Layer or cylstm.LSTM
        The model to train.
    lr : float
        The learning rate.
    slots : tuple of str
        The names of the arrays to keep for each parameter.

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

    Notes
    -----
    Of a `RowGradient` only its rows are updated, in the parameter and in what is kept for it, as
    ``torch.optim.SparseAdam`` does: the others stay as they are, without decay.
    """

    def __init__(self, model: Model, lr: float, slots: tuple[str, ...] = ()) -> None:
        if not (hasattr(model, "named_parameters") and hasattr(model, "edit")):
            raise TypeError(f"model: expected a Layer or an LSTM, got {type(model).__name__}")
        self._model = model
        self.lr = lr
        self.steps = 0
        self._state = {
            name: {slot: np.zeros_like(parameter) for slot in slots}
            for name, parameter in model.named_parameters()
        }

    @property
    def lr(self) -> float:  # noqa: D102 (documented among the class's attributes)
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = _number("lr", lr)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that it was made with, but the model and `lr`; JSON can hold them."""
        return {}

    def step(self, grads: Mapping[str, Gradient]) -> None:
        """Change every parameter by its gradient.

        Parameters
        ----------
        grads : mapping of str to ndarray or RowGradient
            The gradient of each parameter, of its shape, as ``backward`` returns them.

        Raises
        ------
        KeyError
            If a gradient is missing, or belongs to no parameter. Nothing is changed then.
        TypeError
            If one is not of float32 or float64. Nothing is changed then.
        ValueError
            If one has another shape than its parameter. Nothing is changed then.
        """
        updates = _as_updates(dict(self._model.named_parameters()), grads)
        with getattr(self._model, "_in_place", self._model.edit)() as parameters:
            self.steps += 1
            for name, (gradient, rows, view) in updates.items():
                slots = {slot: view(kept) for slot, kept in self._state[name].items()}
                self._update(view(parameters[name]), gradient, rows, **slots)

    @abstractmethod
    def _update(self, parameter: Array, gradient: Array, rows: Rows, **slots: Array) -> None:
        """Change one parameter and its slots in place.

        Parameters
        ----------
        parameter : ndarray, (R, W)
            The matrix of a `RowGradient`; any other parameter as one row.
        gradient : ndarray, (K, W)
            Of these rows.
        rows : ndarray of intp, (K,)
            Which they are, each once.
        **slots : ndarray, (R, W)
            What is kept for the parameter, by name.
        """

    def state_dict(self) -> dict[str, Array]:
        """Return copies of what is kept for the parameters, as ``slot.parameter``."""
        return {
            f"{slot}.{name}": kept.copy()
            for name, slots in self._state.items()
            for slot, kept in slots.items()
        }

    def load_state_dict(self, state: Mapping[str, Array], steps: int) -> None:
        """Go on from where another run was: its `state_dict` and number of steps.

        Raises
        ------
        KeyError, TypeError, ValueError
            If an array is missing or unknown, holds no real numbers, or has another shape. Nothing
            is changed then.
        """
        own = {
            f"{slot}.{name}": kept
            for name, slots in self._state.items()
            for slot, kept in slots.items()
        }
        if own.keys() != state.keys():
            raise KeyError(
                f"state: missing {sorted(own.keys() - state.keys())}, "
                f"unexpected {sorted(state.keys() - own.keys())}"
            )
        values = {name: checked(name, state[name], kept) for name, kept in own.items()}
        self.steps = checks.whole("steps", steps)
        for name, kept in own.items():
            kept[...] = values[name]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum [1]_.

    Parameters
    ----------
    model : Layer or cylstm.LSTM
        The model to train.
    lr : float, default 1e-2
        The learning rate.
    momentum : float, default 0
        How much of the last step each step keeps.
    nesterov : bool, default False
        Whether the gradient is taken as if that part of the step had been made [2]_.
    weight_decay : float, default 0
        How much of the parameter is added to its gradient.

    Raises
    ------
    ValueError
        If an argument is out of its range, or `nesterov` comes without momentum.

    See Also
    --------
    Optimizer : The attributes `lr` and `steps`.

    Notes
    -----
    Numbers are those of ``torch.optim.SGD``: the momentum is not scaled by the learning rate.

    References
    ----------
    .. [1] B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR
       Computational Mathematics and Mathematical Physics 4(5), 1964.
    .. [2] I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and
       momentum in deep learning", ICML 2013. https://proceedings.mlr.press/v28/sutskever13.html

    Examples
    --------
    >>> from cylstm.train import Linear
    >>> model = Linear(1, 1, bias=False, dtype="float64", seed=0)
    >>> before = model.state_dict()["weight"]
    >>> SGD(model, lr=0.5).step({"weight": np.ones((1, 1))})
    >>> before - model.state_dict()["weight"]
    array([[0.5]])
    """

    def __init__(
        self,
        model: Model,
        lr: float = 1e-2,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self._momentum = _number("momentum", momentum, below=1)
        self._nesterov = checks.is_true_or_false("nesterov", nesterov)
        self._weight_decay = _number("weight_decay", weight_decay)
        if nesterov and not momentum:
            raise ValueError("nesterov: expected momentum above 0 beside it, got 0")
        super().__init__(model, lr, ("velocity",) if momentum else ())

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that it was made with, but the model and `lr`."""
        return {
            "momentum": self._momentum,
            "nesterov": self._nesterov,
            "weight_decay": self._weight_decay,
        }

    def _update(
        self, parameter: Array, gradient: Array, rows: Rows, *, velocity: Array | None = None
    ) -> None:
        rule = _RULE | {
            "rate": self.lr,
            "momentum": self._momentum,
            "nesterov": self._nesterov,
            "decay": self._weight_decay,
        }
        training.change("sgd", rule, parameter, gradient, rows, velocity)


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
    weight_decay : float, default 0
        How much of the parameter is added to its gradient.

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

    def __init__(
        self,
        model: Model,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not isinstance(betas, (tuple, list)):
            raise TypeError(f"betas: expected two numbers, got {betas!r}")
        if len(betas) != 2:
            raise ValueError(f"betas: expected two numbers, got {betas!r}")
        self._betas = tuple(_number(f"betas[{i}]", beta, below=1) for i, beta in enumerate(betas))
        self._eps = _number("eps", eps)
        self._weight_decay = _number("weight_decay", weight_decay)
        super().__init__(model, lr, ("mean", "square"))

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that it was made with, but the model and `lr`."""
        return {
            "betas": list(self._betas),
            "eps": self._eps,
            "weight_decay": self._weight_decay,
        }

    def _update(  # type: ignore[override]
        self, parameter: Array, gradient: Array, rows: Rows, *, mean: Array, square: Array
    ) -> None:
        beta1, beta2 = self._betas
        decay, shrink = self._decays()
        rule = _RULE | {
            "rate": self.lr / (1 - beta1**self.steps),
            "correction": math.sqrt(1 - beta2**self.steps),
            "mean": beta1,
            "square": beta2,
            "eps": self._eps,
            "decay": decay,
            "shrink": shrink,
        }
        training.change("adam", rule, parameter, gradient, rows, mean, square)

    def _decays(self) -> tuple[float, float]:
        """What part of the parameter is added to its gradient, and what part of it is kept."""
        return self._weight_decay, 1.0


class AdamW(Adam):
    """Adam with decoupled weight decay [1]_: parameters shrink whatever their gradients are.

    Parameters
    ----------
    model : Layer or cylstm.LSTM
        The model to train.
    lr : float, default 1e-3
        The learning rate.
    betas : tuple of two floats, default (0.9, 0.999)
        How much of the mean, and of the mean square, each step keeps.
    eps : float, default 1e-8
        Added to the root, so that nothing is divided by zero.
    weight_decay : float, default 1e-2
        A step first multiplies each parameter by ``1 - lr * weight_decay``.

    See Also
    --------
    Adam : Without it; errors and notes are the same.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
       https://arxiv.org/abs/1711.05101

    Examples
    --------
    >>> from cylstm.train import Linear
    >>> model = Linear(1, 1, bias=False, dtype="float64", seed=0)
    >>> before = model.state_dict()["weight"]
    >>> AdamW(model, lr=0.5, weight_decay=0.1).step({"weight": np.zeros((1, 1))})
    >>> model.state_dict()["weight"] / before
    array([[0.95]])
    """

    def __init__(
        self,
        model: Model,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(model, lr, betas, eps, weight_decay)

    def _decays(self) -> tuple[float, float]:
        return 0.0, 1 - self.lr * self._weight_decay


class RMSprop(Optimizer):
    """Steps of the gradient over the root of its mean square [1]_.

    Parameters
    ----------
    model : Layer or cylstm.LSTM
        The model to train.
    lr : float, default 1e-2
        The learning rate.
    alpha : float, default 0.99
        How much of the mean square each step keeps.
    eps : float, default 1e-8
        Added to the root, so that nothing is divided by zero.
    momentum : float, default 0
        How much of the last step each step keeps.
    weight_decay : float, default 0
        How much of the parameter is added to its gradient.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    See Also
    --------
    Optimizer : The attributes `lr` and `steps`.

    Notes
    -----
    Numbers are those of ``torch.optim.RMSprop``.

    References
    ----------
    .. [1] T. Tieleman and G. Hinton, "Lecture 6.5 - rmsprop", Neural Networks for Machine Learning,
       Coursera, 2012. https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf

    Examples
    --------
    >>> from cylstm.train import Linear
    >>> model = Linear(1, 1, bias=False, dtype="float64", seed=0)
    >>> before = model.state_dict()["weight"]
    >>> RMSprop(model, lr=0.1, alpha=0.75).step({"weight": np.full((1, 1), 8.0)})
    >>> (before - model.state_dict()["weight"]).round(6)
    array([[0.2]])
    """

    def __init__(
        self,
        model: Model,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self._alpha = _number("alpha", alpha, below=1)
        self._eps = _number("eps", eps)
        self._momentum = _number("momentum", momentum, below=1)
        self._weight_decay = _number("weight_decay", weight_decay)
        super().__init__(model, lr, ("square", "velocity") if momentum else ("square",))

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that it was made with, but the model and `lr`."""
        return {
            "alpha": self._alpha,
            "eps": self._eps,
            "momentum": self._momentum,
            "weight_decay": self._weight_decay,
        }

    def _update(  # type: ignore[override]
        self,
        parameter: Array,
        gradient: Array,
        rows: Rows,
        *,
        square: Array,
        velocity: Array | None = None,
    ) -> None:
        rule = _RULE | {
            "rate": self.lr,
            "momentum": self._momentum,
            "square": self._alpha,
            "eps": self._eps,
            "decay": self._weight_decay,
        }
        training.change("rmsprop", rule, parameter, gradient, rows, square, velocity)


_RULE = dict.fromkeys(
    ("rate", "correction", "momentum", "nesterov", "mean", "square", "eps", "decay", "shrink"), 0.0
)  # what `cylstm.core.training.change` wants of each optimizer

_ONLY_ROW = np.zeros(1, np.intp)


def _as_one_row(array: Array) -> Array:
    return array.reshape(1, -1)


def _as_it_is(array: Array) -> Array:
    return array


Update = tuple[Array, Rows, Callable[[Array], Array]]


def _as_updates(
    parameters: Mapping[str, Array], grads: Mapping[str, Gradient]
) -> dict[str, Update]:
    """Return what to do to each parameter, all of it checked.

    That is the gradient's rows as a matrix of the parameter's dtype, which rows they are, and how
    to view the parameter, and what is kept for it, as a matrix of such rows.
    """
    missing = [name for name in parameters if name not in grads]
    unexpected = [name for name in grads if name not in parameters]
    if missing or unexpected:
        raise KeyError(f"grads: missing {missing}, unexpected {unexpected}")
    return {
        name: _as_update(f"grads[{name!r}]", parameter, grads[name])
        for name, parameter in parameters.items()
    }


def _as_update(where: str, parameter: Array, given: Gradient) -> Update:
    is_of_rows = isinstance(given, RowGradient)
    values = checked_gradient(where, given.values if is_of_rows else given)
    shape = given.shape if is_of_rows else values.shape
    if shape != parameter.shape:
        raise ValueError(f"{where}: expected shape {parameter.shape}, got {shape}")
    values = np.ascontiguousarray(values, parameter.dtype)
    if is_of_rows:
        return values, given.rows, _as_it_is
    return values.reshape(1, -1), _ONLY_ROW, _as_one_row


def _number(name: str, value: float, below: float = math.inf) -> float:
    """Return an argument as a float if it is a number from 0 and below the limit."""
    if not (isinstance(value, Real) and 0 <= value < below):
        raise ValueError(f"{name}: expected a number from 0 and below {below}, got {value!r}")
    return float(value)
