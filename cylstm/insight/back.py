"""One layer and direction, gone through backward step by step, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cylstm.family import Trainable
from cylstm.insight.models import alone, flipped


class Cell:
    """A layer and direction of a network over its own input, which it reads forward.

    Parameters
    ----------
    lstm : LSTM, GRU or RNN
    ending : str
        Of the layer's and direction's names.
    x : array, (T, N, F)
        The layer's input, in the order of the model's.
    lengths : array of int, (N,)
    """

    def __init__(
        self, lstm: Trainable[Any], ending: str, x: np.ndarray, lengths: np.ndarray
    ) -> None:
        self.lstm, self.lengths = alone(lstm, ending), lengths
        self.backwards = lstm.reverse or ending.endswith("_reverse")
        self.x = self.turned(x.astype(np.float64))
        self.at = self.lstm.trace(self.x, lengths=lengths).of(0)
        self.states = [name for name in ("h", "c") if name in self.at]

    def turned(self, array: np.ndarray) -> np.ndarray:
        """Between the order of the input and the one in which this direction reads it."""
        return flipped(array, self.lengths) if self.backwards else array

    def back(
        self, grad_y: np.ndarray, grads: dict[str, np.ndarray]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """From the last step to the first: the step, and grad_x_t; `grads` are those before it.

        They are of the states, (N, R) and (N, H), by name, and may be changed between the steps.
        Each step is a forward and backward pass of its own, so that its gradients are those of the
        training's kernels.
        """
        for t in reversed(range(len(self.x))):
            running = (t < self.lengths).astype(np.intp)
            states = self._given(
                [
                    (self.at[name][t - 1] if t else np.zeros_like(self.at[name][0]))[None]
                    for name in self.states
                ]
            )
            _, _, tape = self.lstm.forward(self.x[t : t + 1], states, running)
            given = self._given([grads[name][None] for name in self.states])
            grad_x, before, _ = self.lstm.backward(tape, grad_y[t : t + 1], given)
            parts = before if len(self.states) > 1 else [before]
            for name, part in zip(self.states, parts, strict=True):
                grads[name][...] = part[0]
            yield t, grad_x[0]

    def _given(self, states: list[np.ndarray]) -> Any:
        """As the network takes its state."""
        return tuple(states) if len(states) > 1 else states[0]

    def through_the_output(self, grad_h: np.ndarray) -> np.ndarray:
        """What the gradient of h, (T, N, R), gives to that of c at the same step, (T, N, H)."""
        own = dict(self.lstm.named_parameters())
        gates, _, output = self.lstm.activations
        if self.lstm.proj_size:
            grad_h = grad_h @ own["weight_hr_l0"]
        o, out = self.at["o"], self.at["tanh_c"]
        grad_c = grad_h * o * _slope(output, out, np.inf)
        if self.lstm.peephole:
            clip = np.inf if self.lstm.clip is None else self.lstm.clip
            hidden = self.lstm.hidden_size
            grad_c += grad_h * out * _slope(gates, o, clip) * own["weight_p_l0"][2 * hidden :]
        return grad_c


def _slope(activation: str | tuple[str, float, float], out: np.ndarray, clip: float) -> np.ndarray:
    """The derivative of an activation of what is clipped, from its output."""
    name, slope, offset = (activation, 0.2, 0.5) if isinstance(activation, str) else activation
    function, derivative = {
        "sigmoid": (lambda z: 0.5 + 0.5 * np.tanh(0.5 * z), lambda y: y * (1 - y)),
        "tanh": (np.tanh, lambda y: 1 - y * y),
        "relu": (lambda z: np.maximum(z, 0), lambda y: np.where(y > 0, 1.0, 0.0)),
        "hard_sigmoid": (
            lambda z: np.clip(slope * z + offset, 0, 1),
            lambda y: np.where((y > 0) & (y < 1), slope, 0.0),
        ),
    }[name]
    slopes = derivative(out)
    if np.isfinite(clip):
        low, high = sorted((function(-clip), function(clip)))
        slopes = np.where((out > low) & (out < high), slopes, 0.0)
    return slopes
