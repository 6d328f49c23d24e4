"""Pictures of what `cylstm.insight` finds, each one call that returns a Matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cylstm import checks
from cylstm.insight.attribution import Saliency
from cylstm.insight.gradients import GradientWay
from cylstm.insight.models import name_of_cell, time_first
from cylstm.insight.remembered import Memory
from cylstm.insight.saturated import Saturation
from cylstm.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"i": "input gate i", "f": "forget gate f", "o": "output gate o", "g": "candidate g",
         "c": "cell state c", "tanh_c": "tanh(c)", "h": "output h", "r": "reset gate r",
         "z": "update gate z", "n": "candidate n", "hn": "hn, of which r lets through"}  # fmt: skip
MOST_LABELS = 90  # of the steps, that can be read beside each other
MANY = 4  # units at one place, of which the number is said
WIDE, LINE = 11.0, 80  # inches, characters of a text


def new_figure(height: float, width: float = WIDE) -> Figure:
    """A figure that belongs to nobody else."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "insight: pictures need matplotlib, which is not installed: "
            "python -m pip install 'cylstm[plot]'"
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def draw_gates(
    trace: Trace,
    units: Sequence[int],
    *,
    layer: int = 0,
    direction: int = 0,
    sequence: int = 0,
    labels: Sequence[str] | None = None,
    slots: Sequence[str] | None = None,
) -> Figure:
    """Draw gates and states of chosen units over the steps of one sequence, as heat maps.

    Parameters
    ----------
    trace : Trace
        From `LSTM.trace`.
    units : sequence of int
    layer, direction, sequence : int
        Which.
    labels : sequence of str, optional
        What each step is: a character, a word.
    slots : sequence of str
        What to draw, by its name in the trace: by default the gates, and the cell state, or h.

    Returns
    -------
    matplotlib.figure.Figure
    """
    arrays = trace.of(layer, direction)
    if slots is None:
        slots = [slot for slot in "ifrzo" if slot in arrays] + ["c" if "c" in arrays else "h"]
    missing = [slot for slot in slots if slot not in arrays]
    if missing or not slots:
        raise ValueError(f"slots: expected some of {', '.join(arrays)}, got {list(slots)}")
    chosen = [_index("units", unit, arrays[slots[0]].shape[-1]) for unit in units]
    if not chosen:
        raise ValueError("units: expected at least one, got none")
    length = int(trace.lengths[_index("sequence", sequence, len(trace.lengths))])
    if not length:
        raise ValueError(f"sequence: expected one with a step, got {sequence}, which has none")
    figure = new_figure(1.1 + len(slots) * (0.55 + 0.26 * len(units)))
    axes = figure.subplots(len(slots), 1, sharex=True, squeeze=False)[:, 0]
    ending = f"_l{layer}" + "_reverse" * direction
    figure.suptitle(f"Gates and states of units over the sequence: {name_of_cell('', ending)}")
    for axis, slot in zip(axes, slots, strict=True):
        values = one_sequence(arrays[slot], trace.batch_first, sequence)[:length, chosen].T
        gate = slot in "iforz"
        most = float(np.abs(values).max(initial=1.0 if gate else 1e-9))
        colours = {"cmap": "viridis", "vmin": 0} if gate else {"cmap": "RdBu_r", "vmin": -most}
        drawn = axis.imshow(values, aspect="auto", interpolation="nearest", vmax=most, **colours)
        axis.set_yticks(range(len(units)), [f"unit {unit}" for unit in units])
        axis.set_title(NAMES[slot], loc="left", fontsize=10)
        scale = "0 shut, 1 open" if gate else f"value of {slot}"
        figure.colorbar(drawn, ax=axis, label=scale, pad=0.01)
    label_steps(axes[-1], length, labels)
    return figure


def draw_text(
    text: str, values: np.ndarray, *, title: str = "", name: str = "tanh of the unit's cell state"
) -> Figure:
    """Draw a text, each character on the colour of its value.

    Parameters
    ----------
    text : str
    values : array, (len(text),)
        From -1 to 1, such as a unit's ``tanh_c`` at each character.
    title, name : str
        Of the picture, and of what the colours show.

    Returns
    -------
    matplotlib.figure.Figure
    """
    values = checks.real_array("values", values)
    if values.shape != (len(text),):
        raise ValueError(f"values: expected one a character, {len(text)}, got {values.shape}")
    places, row, column = [], 0, 0
    for character in text:
        if column == LINE:
            row, column = row + 1, 0
        places.append((row, column))
        row, column = (row + 1, 0) if character == "\n" else (row, column + 1)
    rows = max((place[0] for place in places), default=0) + 1
    grid = np.full((rows, LINE), np.nan)
    for (row, column), value in zip(places, values, strict=True):
        grid[row, column] = value
    figure = new_figure(1.1 + 0.21 * rows)
    axis = figure.subplots()
    drawn = axis.imshow(grid, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
    for (row, column), character, value in zip(places, text, values, strict=True):
        shown = "\u21b5" if character == "\n" else character
        colour = "white" if abs(value) > 0.7 else "0.55" if character == "\n" else "black"
        axis.text(column, row, shown.replace("$", r"\$"), ha="center", va="center", color=colour,
                  family="monospace", fontsize=8.5)  # fmt: skip
    axis.set(xticks=[], yticks=[], title=title)
    axis.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axis, label=name, pad=0.01, aspect=max(12, 1.2 * rows))
    return figure


def draw_saturation(found: Sequence[Saturation]) -> Figure:
    """Draw for each gate the units by the shares of steps at which they stand shut and open.

    Parameters
    ----------
    found : sequence of Saturation
        From `saturation`, of one kind of cell.

    Returns
    -------
    matplotlib.figure.Figure
    """
    _check_some(found)
    gates = list(found[0].below)
    if not gates:
        raise ValueError("found: expected cells that have gates, got an RNN's")
    for one in found:
        if list(one.below) != gates:
            raise ValueError(
                f"found: expected cells of one kind, whose gates are {', '.join(gates)}, got "
                f"{', '.join(one.below) or 'none'} in {one.name}"
            )
    figure = new_figure(4.4)
    axes = figure.subplots(1, len(gates), sharex=True, sharey=True, squeeze=False)[0]
    figure.suptitle("How often each unit's gates are saturated (a dot's area: how many units)")
    marks = "os^Dv<>ph"
    for axis, gate in zip(axes, gates, strict=True):
        for k, one in enumerate(found):
            shares = np.stack([one.above[gate], one.below[gate]]).T
            places, counts = np.unique((100 * shares).round(), axis=0, return_counts=True)
            axis.scatter(
                *places.T, s=25 * counts, marker=marks[k % len(marks)], alpha=0.5, linewidth=0,
                clip_on=False,
            )  # fmt: skip
            for place, count in zip(places, counts, strict=True):
                if count > MANY:
                    beside = 3 + 2.5 * count**0.5, -12 if place[1] > 90 else 4
                    axis.annotate(f"{count} units", place, beside, textcoords="offset points")
            axis.plot([], [], marks[k % len(marks)], color=f"C{k}", alpha=0.5, label=one.name)
        axis.plot([0, 100], [100, 0], color="0.7", linewidth=1, zorder=0)
        axis.text(52, 52, "always shut or open", color="0.4", rotation=-45, ha="center",
                  va="center", fontsize=9)  # fmt: skip
        axis.set(title=NAMES[gate], xlim=(0, 100), ylim=(0, 100), aspect="equal")
        axis.set_xlabel(f"open: above {found[0].high:g}\n(% of the steps)")
    axes[0].set_ylabel(f"shut: below {found[0].low:g} (% of the steps)")
    axes[-1].legend(frameon=False, loc="upper right", fontsize=9)
    return figure


def draw_gradients(ways: Sequence[GradientWay]) -> Figure:
    """Draw how much of a loss's gradient comes to the states of the steps before it.

    Parameters
    ----------
    ways : sequence of GradientWay
        From `gradient_way`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    _check_some(ways)
    figure = new_figure(4.6)
    states = [state for state in "ch" if any(state in way.states for way in ways)]
    axes = figure.subplots(1, len(states), sharey=True, squeeze=False)[0]
    figure.suptitle("The gradient's way back from the last step")
    for axis, state in zip(axes, states, strict=True):
        for way in (way for way in ways if state in way.states):
            norms = way.by_lag(state)
            halved = way.halving(state)
            half = "never halved" if halved is None else f"halved after {steps_in_words(halved)}"
            shown = np.where(norms > 0, norms, np.nan)
            verdict = f"{way.verdict}, " if state == way.states[0] else ""
            axis.semilogy(shown, label=f"{way.name}: {verdict}{half}", marker=".", markersize=3)
        axis.set(title=f"by the {NAMES[state]}", xlabel="lag: steps before the last one")
        axis.legend(frameon=False, fontsize=9)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("norm of the loss's gradient")
    return figure


def draw_memory(found: Sequence[Memory]) -> Figure:
    """Draw how long units remember, and how the influence of a change decays.

    Parameters
    ----------
    found : sequence of Memory
        From `memory`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    _check_some(found)
    figure = new_figure(4.6)
    left, right = figure.subplots(1, 2)
    figure.suptitle("How long the units remember")
    reach = max(len(one.influence) for one in found) - 1
    most = 4.0 * reach
    for k, one in enumerate(found):
        order = np.argsort(-np.where(np.isnan(one.by_gate), one.measured, one.by_gate))
        colour = f"C{k}"
        ranks = np.arange(1, len(order) + 1)
        left.plot(ranks, np.minimum(one.by_gate[order], most), color=colour, label=one.name)
        measured = np.minimum(one.measured[order], reach)
        left.plot(ranks, measured, ".", color=colour, markersize=5, alpha=0.6)
        middle, high = np.quantile(one.influence, [0.5, 0.95], axis=1)
        right.plot(
            middle, color=colour, label=f"{one.name} (Lyapunov exponent {one.lyapunov:+.3f})"
        )
        right.fill_between(range(len(high)), middle, high, color=colour, alpha=0.15, linewidth=0)
    left.plot([], [], "k-", label="line: -1 / log(mean gate that keeps)")
    left.plot([], [], "k.", label=f"dots: measured, at most {reach}")
    left.set(title="Time scale of each unit", xlabel="units, the longest first",
             ylabel="steps until 1/e is left", yscale="log")  # fmt: skip
    left.legend(frameon=False, fontsize=9)
    right.axhline(np.exp(-1), color="0.6", linestyle=":", linewidth=1)
    right.text(reach, np.exp(-1), "1/e", ha="right", va="bottom", color="0.4")
    right.set(title="A changed state: median unit (shade: up to 95 %)",
              xlabel="steps after the change", ylabel="share of the change that is left",
              yscale="log", ylim=(1e-3, None))  # fmt: skip
    left.set_ylim(top=3 * left.get_ylim()[1])  # room for the legend
    left.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
    left.yaxis.set_major_formatter("{x:g}")
    left.tick_params(axis="y", which="minor", labelleft=False)
    right.legend(frameon=False, fontsize=9)
    return figure


def draw_saliency(
    found: Saliency, *, sequence: int = 0, labels: Sequence[str] | None = None
) -> Figure:
    """Draw what each step of a sequence gives to the loss.

    Parameters
    ----------
    found : Saliency
        From `saliency`.
    sequence : int
        Which.
    labels : sequence of str, optional
        What each step is.

    Returns
    -------
    matplotlib.figure.Figure
    """
    sequence = _index("sequence", sequence, found.steps.shape[1])
    figure = new_figure(5.0)
    axes = figure.subplots(2, 1, sharex=True)
    figure.suptitle(f"What each step of the input gives to the loss (sequence {sequence})")
    shares = f"they miss the exact sum by {100 * found.error:.2g} %"
    for axis, values, title in (
        (axes[0], found.gradient.sum(-1), "gradient times input"),
        (axes[1], found.steps, f"integrated gradients ({shares})"),
    ):
        one = values[:, sequence]
        axis.bar(range(len(one)), one, color=np.where(one > 0, "C3", "C0"), width=0.9)
        axis.axhline(0, color="0.3", linewidth=0.8)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel("loss: raised (+),\nlowered (-)")
    figure.align_ylabels()
    label_steps(axes[-1], len(found.steps), labels)
    return figure


def draw_attention(
    weights: np.ndarray,
    read: Sequence[str],
    written: Sequence[str],
    *,
    title: str = "Where each written step looks",
) -> Figure:
    """Draw attention: for each step that is written, the weights of those that are read.

    Parameters
    ----------
    weights : array, (len(written), len(read))
        As `cylstm.layers.Attention.weights` gives them for one sequence.
    read, written : sequence of str
        What the steps are.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    weights = checks.real_array("weights", weights)
    if weights.shape != (len(written), len(read)):
        raise ValueError(
            f"weights: expected shape {(len(written), len(read))}, got {weights.shape}"
        )
    height, width = 2.0 + 0.27 * len(written), 2.4 + 0.27 * len(read)
    figure = new_figure(height, max(width, 5.0))
    axis = figure.subplots()
    drawn = axis.imshow(weights, aspect="auto", cmap="Greys", vmin=0, vmax=1)
    axis.set_xticks(range(len(read)), [visible(step) for step in read], family="monospace")
    axis.set_yticks(range(len(written)), [visible(step) for step in written], family="monospace")
    axis.set(title=title, xlabel="read, from left to right", ylabel="written, from top to bottom")
    figure.colorbar(drawn, ax=axis, label="weight: each row adds up to 1")
    return figure


def _index(name: str, value: int, count: int) -> int:
    """Which of so many, from 0 on."""
    index = checks.whole(name, value)
    if index >= count:
        raise ValueError(f"{name}: expected a number from 0 to {count - 1}, got {index}")
    return index


def _check_some(found: Sequence[Any]) -> None:
    if not len(found):
        raise ValueError("found: expected at least one layer, got none")


def one_sequence(array: np.ndarray, batch_first: bool, sequence: int) -> np.ndarray:
    """(T, H) of a trace's array."""
    return array if array.ndim == 2 else time_first(array, batch_first)[:, sequence]


def visible(character: str) -> str:
    """What shows a blank, and a character that Matplotlib reads as mathematics."""
    blanks = {" ": "\u2423", "\n": "\u21b5", "$": r"\$"}
    return blanks.get(character, character)


def label_steps(axis: Any, count: int, labels: Sequence[str] | None) -> None:
    """Say what the steps are, where there is room."""
    if labels is None or count > MOST_LABELS:
        axis.set_xlabel(f"step of the input, of {steps_in_words(count)}")
        return
    shown = [visible(label) for label in labels[:count]]
    long = max(map(len, shown), default=1) > 2
    axis.set_xticks(range(count), shown, family="monospace", rotation=90 if long else 0)
    axis.set_xlabel(f"step of the input, of {steps_in_words(count)}")


def steps_in_words(count: int) -> str:
    """So many, as a sentence says it."""
    return f"{count} step" + "s" * (count != 1)
