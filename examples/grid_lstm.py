"""Grid LSTM: a layer of one's own, built from LSTM cells, in less than a hundred lines.

In a grid LSTM the depth has a memory too. At each step of time and depth two cells look at the same
two outputs, h of time and h of depth; each changes its own state, and hands it on: one to the next
step, one to the next depth. So a gradient has an open way in both directions. It is built here
from `cylstm.LSTM`, a step a call: its weight_hh reads one h, its weight_ih the other.

It learns to add two binary numbers, digit by digit, the lowest first.

N. Kalchbrenner, I. Danihelka, A. Graves, "Grid long short-term memory", ICLR 2016.

    python examples/grid_lstm.py            # half a minute
"""

import numpy as np
from report import claim, parse_arguments

from cylstm import LSTM
from cylstm.layers import Layer, Linear, Sequential
from cylstm.train import Adam, Batch, Cosine, cross_entropy_loss, fit


class GridLSTM(Layer):
    """Two dimensions, time and depth: x (T, N, H) to the depth's h after its last step."""

    config = None  # it is not saved: its cells are

    def __init__(self, size, depth, seed=0, dtype="float32"):
        def cell(n):
            return LSTM(size, size, dtype=dtype, seed=seed + n)

        self.cells = Sequential(*(cell(n) for n in range(2 * depth)))  # time, depth; time, ...
        self.named_parameters, self.edit = self.cells.named_parameters, self.cells.edit

    def forward(self, x):
        depths, tapes = range(len(self.cells) // 2), []
        zero = np.zeros_like(x[:1])
        time, y = [(zero, zero)] * len(depths), np.empty_like(x)
        for t in range(len(x)):
            deep = x[t : t + 1], zero
            for d in depths:
                h_time, h_deep = time[d][0], deep[0]
                _, time[d], of_time = self.cells[2 * d].forward(h_deep, time[d])
                _, deep, of_deep = self.cells[2 * d + 1].forward(h_time, deep)
                tapes.append((of_time, of_deep))
            y[t] = deep[0][0]
        return y, tapes

    def backward(self, tapes, grad_y):
        depths, zero = range(len(self.cells) // 2), np.zeros_like(grad_y[:1])
        grad_x, grads = np.empty_like(grad_y), {n: 0 for n, _ in self.named_parameters()}
        time = [(zero, zero)] * len(depths)
        for t in reversed(range(len(grad_y))):
            deep = grad_y[t : t + 1], zero
            for d in reversed(depths):
                found = []
                for k, state in ((2 * d, time[d]), (2 * d + 1, deep)):
                    tape = tapes[t * len(depths) + d][k % 2]
                    *gradients, own = self.cells[k].backward(tape, zero, state)
                    found.append(gradients)
                    for name, grad in own.items():
                        grads[f"{k}.{name}"] = grads[f"{k}.{name}"] + grad
                (by_h_deep, by_time), (by_h_time, by_deep) = found
                time[d] = by_time[0] + by_h_time, by_time[1]
                deep = by_deep[0] + by_h_deep, by_deep[1]
            grad_x[t] = deep[0][0]
        return grad_x, grads


def sums(digits, seed):
    """Batches without end: two binary numbers, the lowest digit first, and their sum."""
    rng = np.random.default_rng(seed)
    while True:
        a, b = rng.integers(2 ** (digits - 1), size=(2, 32))
        bits = (np.array([a, b, a + b])[:, None] >> np.arange(digits)[:, None]) & 1
        yield Batch(np.moveaxis(bits[:2], 0, -1).astype(np.float32), bits[2])


def main():
    arguments = parse_arguments(__doc__, steps=(400, "training steps"))
    steps = 150 if arguments.quick else arguments.steps
    model = Sequential(Linear(2, 16, seed=1), GridLSTM(16, 2), Linear(16, 2, seed=2))
    history = fit(
        model, sums(12, 1), cross_entropy_loss, Adam(model), epochs=5,
        steps_per_epoch=steps // 5, schedule=Cosine(1e-2, steps), clip_norm=1.0,
    )  # fmt: skip
    print("loss:", " ".join(f"{loss:.4f}" for loss in history.loss))
    longer = next(sums(24, 2))  # twice as long as those that it learnt from
    right = np.mean((model.forward(longer.x)[0].argmax(-1) == longer.target).all(0))
    print(f"of sums of 24 digits, having learnt those of 12, {right:.0%} are right in all digits")
    claim(history.loss[-1] < 0.9 * history.loss[0], "it learns")
    if not arguments.quick:
        claim(right == 1, "all sums are right")


if __name__ == "__main__":
    main()
