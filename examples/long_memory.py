"""Why the cell state and the forget bias matter: two problems of long memory, and the gradients.

Adding: a sequence of random numbers, two of them marked; what is their sum? Copying: a few symbols,
then a silence, then the symbols are to be repeated. Both are learnt at growing lags by an LSTM, a
GRU and a plain tanh RNN of the same size, and by LSTMs whose forget gates begin with a bias of 0, 1
and 2. The pictures also show how much of the gradient of the last step's output comes through to
the steps before.

S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997;
M. Arjovsky, A. Shah and Y. Bengio, "Unitary evolution recurrent neural networks", ICML 2016;
R. Jozefowicz, W. Zaremba and I. Sutskever, "An empirical exploration of recurrent network
architectures", ICML 2015.

    python examples/long_memory.py            # about five minutes
    python examples/long_memory.py --help
"""

import math
import os

# Products as small as these gain nothing from several threads, and on busy cores lose much.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib

matplotlib.use("Agg")  # a picture in a file needs no screen
import matplotlib.pyplot as plt
import numpy as np
from report import claim, parse_arguments, print_table

from cylstm import GRU, LSTM, RNN, load
from cylstm.train import (
    Adam,
    Batch,
    Cosine,
    Embedding,
    Last,
    Linear,
    Sequential,
    cross_entropy_loss,
    evaluate,
    fit,
    mse_loss,
)

HIDDEN = 32
BATCH = 32
LEARNING_RATE = 1e-2
SYMBOLS, COPIED = 8, 4  # to copy: so many symbols of so many kinds
BLANK, GO = SYMBOLS, SYMBOLS + 1
BIASES = 0.0, 1.0, 2.0
REACH = 150  # steps over which gradients are followed


def build_adder(cell):
    return Sequential(cell, Last(), Linear(HIDDEN, 1, seed=1))


def build_copier(cell):
    return Sequential(Embedding(SYMBOLS + 2, 8, seed=1), cell, Linear(HIDDEN, SYMBOLS + 2, seed=1))


def biased_gru(size):
    """A GRU whose update gate keeps as much at first as the LSTM's forget gate does."""
    gru = GRU(size, HIDDEN, seed=2)
    with gru.edit() as parameters:
        parameters["bias_l0"][HIDDEN : 2 * HIDDEN] = 1
    return gru


CELLS = {
    "tanh RNN": lambda size: RNN(size, HIDDEN, seed=2),
    "GRU": lambda size: GRU(size, HIDDEN, seed=2),
    "GRU, update bias 1": biased_gru,
    "LSTM": lambda size: LSTM(size, HIDDEN, seed=2),
}


def adding(lag, seed):
    """Give batches without end: one number marked among the first tenth, one at the lag from it."""
    rng = np.random.default_rng(seed)
    each, steps = np.arange(BATCH), lag + max(lag // 10, 1)
    while True:
        x = np.zeros((steps, BATCH, 2), np.float32)
        x[..., 0] = rng.random((steps, BATCH))
        first = rng.integers(steps - lag, size=BATCH)
        x[first, each, 1] = x[first + lag, each, 1] = 1
        yield Batch(x, (x[..., 0] * x[..., 1]).sum(0)[:, None])


def copying(lag, seed):
    """Give batches without end: symbols, blanks, a sign to go, and only the copy counts."""
    rng = np.random.default_rng(seed)
    while True:
        symbols = rng.integers(SYMBOLS, size=(COPIED, BATCH))
        x = np.full((2 * COPIED + lag, BATCH), BLANK)
        target = np.full_like(x, -100)
        x[:COPIED], target[-COPIED:] = symbols, symbols
        x[-COPIED - 1 if lag else -COPIED] = GO
        yield Batch(x, target)


def learn(model, batches, loss, steps):
    """Train on batches without end, and return the history in ten parts."""
    schedule = Cosine(LEARNING_RATE, steps, warmup=steps // 20)
    return fit(
        model, batches, loss, Adam(model), epochs=10, steps_per_epoch=steps // 10,
        schedule=schedule, clip_norm=1.0, seed=0,
    )  # fmt: skip


def judge(model, batches, loss):
    return evaluate(model, [next(batches) for _ in range(20)], loss)


def compare(problem, build, loss, inputs, lags, steps, unit):
    """Return the error of each kind of cell at each lag, and the last LSTM."""
    errors = {name: [] for name in CELLS}
    for lag in lags:
        for name, make in CELLS.items():
            model = build(make(inputs))
            learn(model, problem(lag, 1), loss, steps)
            errors[name].append(judge(model, problem(lag, 2), loss) / unit)
            print(f"  {problem.__name__}, lag {lag}, {name}: {errors[name][-1]:.3f}", flush=True)
    return errors, model


def learn_with_biases(lag, steps):
    """Return the learning curves of LSTMs with each forget bias."""
    curves = {}
    for bias in BIASES:
        model = build_adder(LSTM(2, HIDDEN, forget_bias=bias, seed=2))
        history = learn(model, adding(lag, 1), mse_loss, steps)
        curves[bias] = np.array(history.loss) * 6
        print(f"  forget bias {bias:g}: {curves[bias][-1]:.3f}", flush=True)
    return curves


def gradients_back(cell):
    """Return how much of the last step's gradient comes through to each step before, 1 at first."""
    x = np.random.default_rng(3).normal(size=(REACH, 16, 2)).astype(np.float32)
    model = Sequential(cell, Last())
    y, tape = model.forward(x)
    grad_x, _ = model.backward(tape, np.random.default_rng(4).normal(size=y.shape).astype("f4"))
    norms = np.linalg.norm(grad_x.astype(np.float64), axis=(1, 2))[::-1]
    return norms / norms[0]


def draw(lags, adders, copiers, lags_copied, curves, flows, path):
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for axis, errors, over, title in (
        (axes[0, 0], adders, lags, "Adding"),
        (axes[0, 1], copiers, lags_copied, "Copying"),
    ):
        for name, values in errors.items():
            axis.plot(over, values, "o-", label=name)
        axis.axhline(1, color="0.6", linestyle=":", label="no memory")
        axis.set(title=title, xlabel="lag", ylabel="error / that of no memory", ylim=(0, 1.6))
    for bias, curve in curves.items():
        axes[1, 0].plot(np.arange(1, 11) * 10, curve, label=f"forget bias {bias:g}")
    axes[1, 0].set(
        title=f"Adding at lag {lags[-1]}",
        xlabel="% of the training",
        ylabel="error / that of no memory",
    )
    for name, flow in flows.items():
        axes[1, 1].semilogy(np.maximum(flow, 1e-30), label=name)
    axes[1, 1].set(
        title="The gradient before training", xlabel="steps back", ylabel="norm, 1 at the last step"
    )
    for axis in axes.flat:
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    arguments = parse_arguments(__doc__, steps=(1500, "training steps of each model"))
    lags, lags_copied = [10, 30, 60, 100], [2, 5, 10, 20]
    if arguments.quick:
        arguments.steps, lags, lags_copied = 250, [10], [2]

    print("errors, as a share of those of a guess without memory")
    adders, model = compare(adding, build_adder, mse_loss, 2, lags, arguments.steps, 1 / 6)
    copiers, _ = compare(
        copying, build_copier, cross_entropy_loss, 8, lags_copied, arguments.steps,
        math.log(SYMBOLS),
    )  # fmt: skip
    curves = learn_with_biases(lags[-1], arguments.steps)
    flows = {name: gradients_back(CELLS[name](2)) for name in CELLS if name != "LSTM"} | {
        f"LSTM, forget bias {bias:g}": gradients_back(LSTM(2, HIDDEN, forget_bias=bias, seed=2))
        for bias in BIASES
    }
    print_table("adding, lag", lags, adders)
    print_table("copying, lag", lags_copied, copiers)
    print_table("gradient, steps back", [10, 50, 100], {
        name: flow[[10, 50, 100]] for name, flow in flows.items()
    })  # fmt: skip
    reached = [flows[f"LSTM, forget bias {bias:g}"][100] for bias in BIASES]
    claim(reached[0] < reached[1] < reached[2], "the higher the forget bias, the further back")
    if not arguments.quick:
        claim(
            adders["LSTM"][-1] < 0.1 * adders["tanh RNN"][-1],
            f"adding over {lags[-1]} steps, the LSTM errs a tenth of what the tanh RNN does",
        )
        claim(
            copiers["LSTM"][2] < 0.5 * copiers["tanh RNN"][2],
            f"copying over {lags_copied[2]}, less than half",
        )
        claim(curves[1.0][-1] < 0.1 * curves[0.0][-1], "and with a forget bias of 0 it is stuck")

    path = arguments.out / "adding.safetensors"
    model.save(path)
    batch = next(adding(lags[-1], 3))
    same = np.array_equal(load(path)(batch.x), model(batch.x))
    claim(same, f"loaded again from {path}, the model gives the same bits")
    picture = arguments.out / "long_memory.png"
    draw(lags, adders, copiers, lags_copied, curves, flows, picture)
    print(f"the picture is {picture}")


if __name__ == "__main__":
    main()
