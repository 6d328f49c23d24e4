"""The pictures of the tutorial: a gate, the cell, the steps, the memory, and where gradients live.

What is drawn is computed: the memory by an LSTM of one unit whose weights are set by hand, the
gradients by those of networks as they begin.

    python examples/tutorial_pictures.py            # a few seconds
    python examples/tutorial_pictures.py --help
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle, FancyBboxPatch
from report import claim, parse_arguments

from cylstm import LSTM, RNN

CELL, HIDDEN, INPUT = "#0b7285", "#d9480f", "#495057"  # c, h, x
GATES = {"f": "#2b8a3e", "i": "#1864ab", "g": "#862e9c", "o": "#a61e4d"}
TIMES = "\N{MULTIPLICATION SIGN}"
STYLE = {
    "font.size": 12,
    "svg.hashsalt": "cylstm",  # the same file each time
    "svg.fonttype": "path",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
STEPS, WRITTEN, SHOWN = 20, 4, 15  # of the memory
LAG = 60  # over which gradients are drawn


def canvas(width, height, scale=0.42):
    """An empty picture whose units are as long in both directions."""
    figure = plt.figure(figsize=(width * scale, height * scale))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def line(axes, points, color, arrow=True, width=2.0):
    """From point to point, with a head at the end."""
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=color, lw=width, solid_joinstyle="round", zorder=2)
    if arrow:
        axes.annotate(
            "",
            points[-1],
            points[-2],
            arrowprops={
                "arrowstyle": "-|>",
                "color": color,
                "lw": width,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )


def box(axes, x, y, width, height, color, text, size=12, fill="white"):
    shape = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.25",
        facecolor=fill, edgecolor=color, lw=2, zorder=3,
    )  # fmt: skip
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", color=color, fontsize=size, zorder=4)


def sign(axes, x, y, text, color):
    """Of what happens to two numbers that meet."""
    axes.add_patch(Circle((x, y), 0.38, facecolor="white", edgecolor=color, lw=2, zorder=3))
    axes.text(x, y - 0.03, text, ha="center", va="center", color=color, fontsize=14, zorder=4)


def draw_activations():
    """The two curves, and what they are for."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.7), layout="constrained")
    z = np.linspace(-6, 6, 200)
    axes[0].plot(z, 1 / (1 + np.exp(-z)), color=GATES["i"], lw=2.5)
    axes[0].set_title("sigmoid: how far a gate is open", loc="left", fontsize=12)
    axes[0].set_yticks([0, 0.5, 1], ["0 (shut)", "½", "1 (open)"])
    axes[1].plot(z, np.tanh(z), color=GATES["g"], lw=2.5)
    axes[1].set_title("tanh: a value, of either sign", loc="left", fontsize=12)
    axes[1].set_yticks([-1, 0, 1], ["-1", "0", "1"])
    for each in axes:
        each.set(xlabel="weighted sum of the inputs, z", xticks=[-6, -3, 0, 3, 6])
        each.grid(alpha=0.3)
    return figure


def draw_cell():
    """One step: the line of c above, the gates below it."""
    figure, axes = canvas(18, 10.4)
    body = FancyBboxPatch(
        (2.2, 1.3), 13.2, 7.9, boxstyle="round,pad=0,rounding_size=0.5",
        facecolor="#f8f9fa", edgecolor="#adb5bd", lw=1.5, zorder=0,
    )  # fmt: skip
    axes.add_patch(body)
    top, bus, gates = 8.2, 2.1, 3.9
    at = {"f": 4.3, "i": 6.9, "g": 9.2, "o": 11.7}
    line(axes, [(0.3, top), (17.7, top)], CELL, width=4)
    line(axes, [(0.3, bus), (at["o"], bus)], HIDDEN, arrow=False)
    line(axes, [(3.0, 0.4), (3.0, bus)], INPUT)
    names = {"f": "forget", "i": "input", "g": "candidate", "o": "output"}
    for gate, x in at.items():
        line(axes, [(x, bus), (x, gates - 0.75)], HIDDEN)
        kind = "tanh" if gate == "g" else "sigmoid"
        box(axes, x, gates, 2.1, 1.5, GATES[gate], f"{names[gate]}\n{kind}", 11)
    line(axes, [(at["f"], gates + 0.75), (at["f"], top - 0.38)], GATES["f"])
    sign(axes, at["f"], top, TIMES, CELL)
    meet = (at["i"] + at["g"]) / 2
    for gate, towards in (("i", -0.38), ("g", 0.38)):
        points = [(at[gate], gates + 0.75), (at[gate], 6.1), (meet + towards, 6.1)]
        line(axes, points, GATES[gate])
    sign(axes, meet, 6.1, TIMES, INPUT)
    line(axes, [(meet, 6.48), (meet, top - 0.38)], INPUT)
    sign(axes, meet, top, "+", CELL)
    out = 14.0
    line(axes, [(out, top), (out, 7.2)], CELL)
    box(axes, out, 6.75, 1.5, 0.9, CELL, "tanh", 11)
    line(axes, [(out, 6.3), (out, 5.88)], CELL)
    line(axes, [(at["o"], gates + 0.75), (at["o"], 5.5), (out - 0.38, 5.5)], GATES["o"])
    sign(axes, out, 5.5, TIMES, HIDDEN)
    line(axes, [(out, 5.12), (out, bus), (17.7, bus)], HIDDEN)
    for x, y, text, color in (
        (0.3, top + 0.45, "$c_{t-1}$", CELL),
        (16.3, top + 0.45, "$c_t$", CELL),
        (0.3, bus + 0.4, "$h_{t-1}$", HIDDEN),
        (16.3, bus + 0.4, "$h_t$", HIDDEN),
        (2.0, 0.4, "$x_t$", INPUT),
        (at["f"] + 0.2, 6.1, "$f$", GATES["f"]),
        (at["i"] - 0.5, 5.4, "$i$", GATES["i"]),
        (at["g"] + 0.2, 5.4, "$g$", GATES["g"]),
        (12.4, 5.75, "$o$", GATES["o"]),
    ):
        axes.text(x, y, text, color=color, fontsize=16, va="bottom")
    axes.text(9, 9.65, "what is remembered: kept, added to, never squeezed", color=CELL,
              ha="center", fontsize=12)  # fmt: skip
    axes.text(9.6, 0.45, "every gate sees the new input and the last output", color=HIDDEN,
              ha="center", fontsize=12)  # fmt: skip
    return figure


def draw_steps():
    """The same cell, one copy for each step."""
    figure, axes = canvas(18, 6.2)
    line(axes, [(0.3, 3.9), (17.7, 3.9)], CELL, width=4)
    line(axes, [(0.3, 2.5), (17.7, 2.5)], HIDDEN)
    for t, x in enumerate((2.8, 6.9, 11.0, 15.1), 1):
        box(axes, x, 3.2, 2.4, 2.4, INPUT, "", fill="#f8f9fa")
        axes.plot([x - 1.2, x + 1.2], [3.9, 3.9], color=CELL, lw=4, zorder=4)
        axes.text(x, 3.0, "cell", ha="center", va="center", color=INPUT, zorder=5)
        line(axes, [(x, 0.9), (x, 2.0)], INPUT)
        line(axes, [(x, 4.4), (x, 5.4)], HIDDEN)
        axes.text(x + 0.2, 1.0, f"$x_{t}$", color=INPUT, fontsize=16)
        axes.text(x + 0.2, 5.0, f"$y_{t}=h_{t}$", color=HIDDEN, fontsize=15)
        if t < 4:
            axes.text(x + 1.75, 4.1, f"$c_{t}$", color=CELL, fontsize=15)
            axes.text(x + 1.75, 1.85, f"$h_{t}$", color=HIDDEN, fontsize=15)
    axes.text(9, 0.2, "time: the same weights at every step", ha="center", color=INPUT)
    return figure


def make_memory():
    """An LSTM(2, 1) that stores a number when it is told to, and shows it when it is told to."""
    lstm = LSTM(2, 1)
    strong = 20.0  # inputs: a number; and a command: 1 to write, -1 to show
    weights = np.array([[0, strong], [0, -strong], [1, 0], [0, -strong]], "f4")  # i, f, g, o
    bias = np.array([-strong / 2, strong / 2, 0, -strong / 2], "f4")
    lstm.load_state_dict(
        {"weight_ih_l0": weights, "weight_hh_l0": np.zeros((4, 1), "f4"), "bias_l0": bias}
    )
    return lstm


def run_memory():
    """Its inputs and what each step computed."""
    x = np.zeros((STEPS, 2), np.float32)
    x[:, 0] = np.random.default_rng(1).uniform(-1, 1, STEPS)
    x[WRITTEN] = 0.8, 1
    x[SHOWN, 1] = -1
    return x, make_memory().trace(x)


def draw_memory(x, trace):
    """The number that comes, the gates, the line of c, and the output."""
    rows = {
        "number": (x[:, 0], INPUT),
        "input gate $i$": (trace["i_l0"][:, 0], GATES["i"]),
        "forget gate $f$": (trace["f_l0"][:, 0], GATES["f"]),
        "cell $c$": (trace["c_l0"][:, 0], CELL),
        "output gate $o$": (trace["o_l0"][:, 0], GATES["o"]),
        "output $h$": (trace["h_l0"][:, 0], HIDDEN),
    }
    figure, axes = plt.subplots(len(rows), figsize=(7.5, 6.2), sharex=True, layout="constrained")
    for each, (name, (values, color)) in zip(axes, rows.items(), strict=True):
        each.bar(np.arange(STEPS), values, color=color, width=0.8)
        each.set_ylabel(name, rotation=0, ha="right", va="center", color=color)
        each.set_ylim((-1.1, 1.1) if values.min() < 0 else (0, 1.1))
        each.set_yticks([-1, 0, 1] if values.min() < 0 else [0, 1])
        each.axvspan(WRITTEN - 0.5, WRITTEN + 0.5, color="0.92", zorder=0)
        each.axvspan(SHOWN - 0.5, SHOWN + 0.5, color="0.92", zorder=0)
    axes[0].text(WRITTEN, 1.2, "“write”", ha="center", color=GATES["i"])
    axes[0].text(SHOWN, 1.2, "“show”", ha="center", color=GATES["o"])
    axes[-1].set(xlabel="step", xticks=range(0, STEPS, 3))
    return figure


def gradient_sizes(network):
    """How large the gradient of the last output is, by the state of each step before it."""
    x = np.random.default_rng(0).normal(size=(LAG + 1, 16, 8)).astype(network.dtype)
    y, _, tape = network.forward(x)
    grad_y = np.zeros_like(y)
    grad_y[-1] = np.random.default_rng(1).normal(size=y[-1].shape)
    sizes = np.linalg.norm(network.backward(tape, grad_y)[0], axis=(1, 2))[::-1]
    return sizes / sizes[0]


def draw_gradients(ways):
    """By how many steps back."""
    figure, axes = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    colors = (INPUT, GATES["o"], CELL, GATES["f"])
    for (name, sizes), color in zip(ways.items(), colors, strict=True):
        axes.semilogy(sizes, color=color, lw=2.5)
        axes.text(LAG + 0.6, sizes[-1], name, color=color, va="center")
    axes.set(
        xlim=(0, LAG * 1.5), ylim=(1e-12, 30), xticks=range(0, LAG + 1, 10),
        xlabel="steps back from the end", ylabel="gradient that arrives",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    return figure


def main():
    arguments = parse_arguments(__doc__)
    plt.rcParams.update(STYLE)
    x, trace = run_memory()
    kept, shown = trace["c_l0"][SHOWN, 0], trace["h_l0"][:, 0]
    claim(abs(kept - np.tanh(0.8)) < 0.01, "the number is kept from the step that writes it")
    claim(np.argmax(np.abs(shown)) == SHOWN, "the output shows it when told to")
    ways = {"RNN": gradient_sizes(RNN(8, 32, dtype="float64", seed=0))}
    for bias in (0, 1, 4):
        lstm = LSTM(8, 32, forget_bias=bias, dtype="float64", seed=0)
        ways[f"LSTM, forget bias {bias}"] = gradient_sizes(lstm)
    last = [sizes[-1] for sizes in ways.values()]
    claim(last[3] > 100 * last[2], "an open forget gate lets the gradient through")
    pictures = {
        "activations": draw_activations(),
        "cell": draw_cell(),
        "steps": draw_steps(),
        "memory": draw_memory(x, trace),
        "gradients": draw_gradients(ways),
    }
    for name, figure in pictures.items():
        figure.savefig(arguments.out / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
