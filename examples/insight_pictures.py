"""A look inside LSTMs that learn, or cannot learn, to remember: every picture of cylstm.insight.

One learns to add two marked numbers of a sequence (see long_memory.py). Its gates, their
saturation, the gradient's way, the units' memory and the saliency of its input are drawn; the
gradients of LSTMs with other forget biases beside it. A report on one that cannot learn, whose
forget gates are shut, says why.

    python examples/insight_pictures.py            # half a minute
    python examples/insight_pictures.py --help
"""

from dataclasses import replace

import numpy as np
from long_memory import HIDDEN, adding, build_adder, judge, learn
from report import claim, parse_arguments

from cylstm import LSTM, insight
from cylstm.train import mse_loss

LAG = 30
SHUT = -4.0  # a forget bias


def bars_of(batch):
    """Labels of the first sequence's steps: the marked numbers."""
    numbers, marks = batch.x[:, 0].T
    return [f"add {n:.2f}" if mark else "" for n, mark in zip(numbers, marks, strict=True)]


def ways_of_biases(batch):
    """Before training: the gradient's way by the forget bias."""
    ways = []
    for bias in (0.0, 1.0, 2.0):
        model = build_adder(LSTM(2, HIDDEN, forget_bias=bias, seed=2))
        way = insight.gradient_way(model, batch.x, batch.target)[0]
        ways.append(replace(way, name=f"forget bias {bias:g}"))
    return ways


def main():
    arguments = parse_arguments(__doc__, steps=(1500, "training steps"))
    steps = 100 if arguments.quick else arguments.steps
    model = build_adder(LSTM(2, HIDDEN, seed=2))
    learn(model, adding(LAG, 1), mse_loss, steps)
    error = 6 * judge(model, adding(LAG, 2), mse_loss)
    print(f"error, as a share of that without memory: {error:.3f}")

    batch, long = next(adding(LAG, 3)), next(adding(100, 3))
    trace = model[0].trace(batch.x)
    salient = insight.saliency(model, batch.x, batch.target)
    shut = build_adder(LSTM(2, HIDDEN, forget_bias=SHUT, seed=2))
    learn(shut, adding(LAG, 1), mse_loss, steps)
    both = {"learnt to add": model[0], f"forget bias {SHUT:g}": shut[0]}
    saturation, memory = [], []
    for name, lstm in both.items():
        saturation.append(replace(insight.saturation(lstm.trace(batch.x))[0], name=name))
        memory.append(replace(insight.memory(lstm, long.x)[0], name=name))
    widest = np.argsort(-np.ptp(trace["c_l0"][:, 0], axis=0))[:6]
    pictures = {
        "gates": insight.draw_gates(trace, sorted(widest.tolist()), labels=bars_of(batch)),
        "saturation": insight.draw_saturation(saturation),
        "gradients": insight.draw_gradients(ways_of_biases(long)),
        "memory": insight.draw_memory(memory),
        "saliency": insight.draw_saliency(salient, labels=bars_of(batch)),
    }
    for name, figure in pictures.items():
        figure.savefig(arguments.out / f"{name}.png", dpi=100)
    claim(salient.error < 0.02, "the integrated gradients add up to the loss, within 2 %")

    path = arguments.out / "insight.html"
    title = f"An LSTM whose forget gates began at {SHUT:g}"
    findings = insight.report(
        shut, batch.x, batch.target, path=path, title=title, labels=bars_of(batch)
    )
    print("\n".join(f"- {finding}" for finding in findings))
    claim("vanishes" in " ".join(findings), f"the report {path} says that its gradient vanishes")


if __name__ == "__main__":
    main()
