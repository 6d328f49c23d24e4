"""A random share of zeros, in training."""

from __future__ import annotations

from typing import Any

import numpy as np

from cylstm import checks
from cylstm.layers.base import Array, Layer, check_gradient
from cylstm.layers.gradients import Gradient


class Dropout(Layer):
    """Set a random share of the inputs to zero while training, and scale up the rest [1]_.

    Calling the layer, as in inference, gives `x` back as it is.

    Parameters
    ----------
    p : float, default 0.5
        The share.
    seed : int or numpy.random.Generator, optional
        Of the layer's own random numbers, used where `forward` is given no `rng`.

    Raises
    ------
    TypeError, ValueError
        If `p` is not a number from 0 to 1.

    References
    ----------
    .. [1] N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
       Overfitting", JMLR 15, 2014. https://jmlr.org/papers/v15/srivastava14a.html

    Examples
    --------
    >>> dropout = Dropout(0.5, seed=0)
    >>> dropout.forward(np.ones(4))[0]
    array([2., 2., 2., 0.])
    >>> dropout(np.ones(4))
    array([1., 1., 1., 1.])
    """

    takes = frozenset({"rng"})
    steps_alone = True

    def __init__(self, p: float = 0.5, *, seed: int | np.random.Generator | None = None) -> None:
        self.p = checks.finite("p", p)
        if not 0 <= self.p <= 1:
            raise ValueError(f"p: expected a number from 0 to 1, got {p!r}")
        self._rng = checks.seeded("seed", seed)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this layer, without the seed."""
        return {"p": self.p}

    def run(self, x: Array) -> tuple[Array, None]:
        """Return `x`, and no state."""
        return x, None

    def forward(self, x: Array, rng: np.random.Generator | None = None) -> tuple[Array, Array]:
        """Return `x` with a share `p` of it zero and the rest divided by ``1 - p``, and the tape.

        Parameters
        ----------
        x : ndarray of float32 or float64
            Of any shape.
        rng : numpy.random.Generator, optional
            Source of the random numbers; the layer's own by default.

        Raises
        ------
        TypeError
            If `x` or `rng` is of another type.
        """
        rng = self._rng if rng is None else checks.generator("rng", rng)
        x = checks.is_array("x", x)
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"x: expected float32 or float64, got {x.dtype}")
        kept = rng.random(x.shape, np.float32) >= np.float32(self.p)
        mask = kept * x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        return x * mask, mask

    def backward(self, tape: Array, grad_y: Array) -> tuple[Array, dict[str, Gradient]]:
        """Return the gradient of the input, and no others."""
        grad_y = checks.is_array("grad_y", grad_y)
        check_gradient(grad_y, tape.shape)
        return grad_y * tape, {}
