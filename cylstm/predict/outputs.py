"""What is kept of a model's output."""

from __future__ import annotations

import numpy as np

from cylstm.predict.model import Predictor

__all__ = ["KINDS", "STEPS", "Outputs"]

KINDS = ("raw", "probabilities", "argmax", "state")
STEPS = ("all", "last")


class Outputs:
    """What is kept, and arrays to hold it.

    Parameters
    ----------
    predictor : Predictor
    kind : {"raw", "probabilities", "argmax", "state"}
        The output as it is; its softmax, or for one number its sigmoid; the place of its largest
        number; or the state after the last step.
    steps : {"all", "last"}, optional
        Of which steps; by default of all, where there is an output for each.

    Attributes
    ----------
    per_step : bool
        Whether a sequence has one for each step.
    widths : dict of str to int
        The name of each array, and how many numbers one output has there.
    """

    def __init__(self, predictor: Predictor, kind: str = "raw", steps: str | None = None) -> None:
        if kind not in KINDS:
            raise ValueError(f"output: expected one of {', '.join(KINDS)}, got {kind!r}")
        if steps not in (None, *STEPS):
            raise ValueError(f"steps: expected one of {', '.join(STEPS)}, got {steps!r}")
        if steps == "all" and (kind == "state" or not predictor.keeps_time):
            what = "a state" if kind == "state" else "an output of this model"
            raise ValueError(f"steps: expected 'last', since {what} is of a whole sequence")
        self.predictor, self.kind = predictor, kind
        self.per_step = predictor.keeps_time and steps != "last" and kind != "state"
        self.dtype = predictor.out_dtype
        self.widths = {"prediction": predictor.width}
        if kind == "state":
            self.widths = predictor.state_sizes
            if not self.widths:
                raise ValueError("output: expected a model of LSTMs that gives its state")
        elif kind == "probabilities":
            predictor.check_is_raw(kind)
        elif kind == "argmax":
            if predictor.width < 2:
                raise ValueError("output: expected an output of two numbers or more for argmax")
            self.widths, self.dtype = {"prediction": 0}, np.dtype(np.int32)

    def allocate(self, steps: int, rows: int) -> dict[str, np.ndarray]:
        """Return memory for the outputs of so many sequences of so many steps together."""
        count = steps if self.per_step else rows
        return {
            name: np.empty((count, width) if width else count, self.dtype)
            for name, width in self.widths.items()
        }

    @property
    def nbytes(self) -> int:
        """Of one output."""
        return sum(max(width, 1) for width in self.widths.values()) * self.dtype.itemsize

    def of(self, y: np.ndarray) -> np.ndarray:
        """Return what is kept of outputs (..., F)."""
        if self.kind == "argmax":
            if np.isnan(y).any():
                raise ValueError("the model's output is NaN, which has no largest number")
            return y.argmax(axis=-1).astype(np.int32)
        return probabilities(y) if self.kind == "probabilities" else y


def probabilities(y: np.ndarray) -> np.ndarray:
    """Return the softmax of outputs (..., F), or the sigmoid of one number.

    Examples
    --------
    >>> probabilities(np.array([[0.0, 0.0], [50.0, -50.0]]))
    array([[5.00000000e-01, 5.00000000e-01],
           [1.00000000e+00, 3.72007598e-44]])
    >>> probabilities(np.array([[0.0]]))
    array([[0.5]])
    """
    if y.shape[-1] == 1:
        small = np.exp(-np.abs(y))
        return np.where(y >= 0, 1, small) / (1 + small)
    exponentials = np.exp(y - y.max(axis=-1, keepdims=True))
    # A sum over the columns one by one: its order does not depend on how many rows there are.
    total = exponentials[..., 0].copy()
    for k in range(1, y.shape[-1]):
        total += exponentials[..., k]
    exponentials /= total[..., None]
    return exponentials
