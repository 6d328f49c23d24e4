"""One page that says what goes on in a model, for someone who wonders why it does not learn."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cylstm.family import Trainable
from cylstm.insight.attribution import Saliency, saliency
from cylstm.insight.gradients import GradientWay, gradient_way
from cylstm.insight.models import Loss, Parts, loss_of, time_first
from cylstm.insight.pictures import (
    draw_gates,
    draw_gradients,
    draw_memory,
    draw_saliency,
    draw_saturation,
    new_figure,
    steps_in_words,
)
from cylstm.insight.remembered import Memory, memory
from cylstm.insight.saturated import Saturation, saturation
from cylstm.io.writing import check_writable, replacing
from cylstm.layers import Layer

OFTEN = 0.5  # a share of steps and units that is worth a sentence
GATES = {"i": "input", "o": "output", "r": "reset"}
LITTLE = {"i": "takes in little", "o": "lets little out", "r": "sees little of what it has kept"}
KEEP = {"f": "forget", "z": "update"}  # the gate that keeps, of an LSTM and of a GRU
SHOWN = 8  # units of the heat map

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title><style>
body {{ max-width: 70em; margin: 2em auto; padding: 0 1em; font-family: sans-serif; }}
li {{ margin: 0.4em 0; }} code {{ background: #f3f3f3; overflow-wrap: anywhere; }}
.picture {{ overflow-x: auto; }} img {{ width: 100%; min-width: 48em; }}
</style></head><body><h1>{title}</h1><p><code>{model}</code>, {data}</p>
<h2>What was found</h2><ul>{findings}</ul>{pictures}</body></html>
"""


def report(
    model: Trainable[Any] | Layer,
    x: np.ndarray,
    target: np.ndarray,
    loss: Loss | None = None,
    *,
    lengths: Any = None,
    path: str | os.PathLike[str] = "insight.html",
    title: str = "A look inside",
    labels: Sequence[str] | None = None,
) -> list[str]:
    """Look at a model over a batch, and write what is found to one page.

    Parameters
    ----------
    model : LSTM, GRU, RNN or Sequential
        Dropout is off.
    x, target : array
        A batch, as `cylstm.train.fit` takes it; some dozen sequences tell enough.
    loss : callable, optional
        As of `cylstm.train`: by default cross entropy where the target is integers, else the mean
        square.
    lengths : array of int, (N,), optional
    path : path-like
        The page, HTML that needs no other file.
    title : str
        Of the page.
    labels : sequence of str, optional
        What the first sequence's steps are.

    Returns
    -------
    list of str
        The findings, a sentence each, as the page has them.

    Raises
    ------
    ImportError
        If matplotlib is not installed; it says what to install.
    """
    new_figure(1.0)  # says now, not after all the work, if there is no Matplotlib
    check_writable(path, "path")
    parts = Parts(model)
    own = parts.lengths_of(x, lengths)
    where = None
    if parts.keeps_time and lengths is not None:
        steps = np.arange(parts.shape_of(x)[0])[:, None]
        where = time_first(steps < own, parts.batch_first)
    prediction, tapes = parts.forward(x, lengths)
    value = loss_of(loss, prediction, target, where)[0]
    saturated: list[Saturation] = []
    remembered: list[Memory] = []
    pictures: list[tuple[str, Any]] = []
    for (name, layer), (given, _) in zip(parts.named, tapes, strict=True):
        if isinstance(layer, Trainable):
            trace, called = layer.trace(given, lengths=lengths), parts.called(name)
            saturated += saturation(trace, part=called)
            remembered += memory(layer, given, lengths=lengths, part=called)
            if not pictures:
                units = np.linspace(0, layer.hidden_size - 1, SHOWN).round().astype(int)
                figure = draw_gates(trace, sorted(set(units.tolist())), labels=labels)
                pictures.append(("The gates of some units, over the first sequence", figure))
    if not saturated:
        raise ValueError("model: expected one with an LSTM, GRU or RNN in it, got none")
    ways = gradient_way(model, x, target, loss, lengths=lengths)
    salient = saliency(model, x, target, loss, lengths=lengths)
    pictures += [
        *_of_saturation(saturated),
        ("Does the gradient vanish?", draw_gradients(ways)),
        ("Memory", draw_memory(remembered)),
        ("What the loss rests on", draw_saliency(salient, labels=labels)),
    ]
    findings = [
        f"The loss of this batch is {value:.4g}.",
        *(_of_gates(a, b) for a, b in zip(saturated, remembered, strict=True) if a.below),
        *map(_of_gradient, ways),
        *map(_of_memory, remembered),
        *map(_of_chaos, remembered),
        _of_input(salient, own),
    ]
    shortest = "" if own.min() == own.max() else f"{own.min()} to "
    data = f"{len(own)} sequences of {shortest}{steps_in_words(int(own.max()))}"
    page = PAGE.format(
        title=html.escape(title),
        model=html.escape(repr(model)),
        data=data,
        findings="".join(f"<li>{html.escape(finding)}</li>" for finding in findings),
        pictures="".join(f"<h2>{html.escape(name)}</h2>{_image(name, f)}" for name, f in pictures),
    )
    with replacing(path) as file:
        file.write(page.encode())
    return findings


def _of_saturation(saturated: Sequence[Saturation]) -> list[tuple[str, Any]]:
    """A picture for each kind of cell that has gates."""
    by_gates: dict[tuple[str, ...], list[Saturation]] = {}
    for one in saturated:
        if one.below:
            by_gates.setdefault(tuple(one.below), []).append(one)
    return [("Saturation of the gates", draw_saturation(found)) for found in by_gates.values()]


def _image(name: str, figure: Any) -> str:
    """On a narrow screen it keeps a width at which it can be read, and is moved sideways."""
    memory_file = io.BytesIO()
    figure.savefig(memory_file, format="png", dpi=110)
    encoded = base64.b64encode(memory_file.getvalue()).decode()
    return (
        f'<div class="picture"><img alt="{html.escape(name)}" '
        f'src="data:image/png;base64,{encoded}"></div>'
    )


def _of_gates(one: Saturation, remembered: Memory) -> str:
    """What is most saturated."""
    keeps = next(gate for gate in KEEP if gate in one.below)
    if one.below[keeps].mean() > OFTEN:
        longest = max(1, round(float(remembered.by_gate.max())))
        return (
            f"The {KEEP[keeps]} gates of {one.name} are below {one.low:g} at "
            f"{_percent(one.below[keeps].mean())} of the steps: no unit can remember more than "
            f"about {steps_in_words(longest)}."
        )
    for gate, name in GATES.items():
        if gate in one.below and one.below[gate].mean() > OFTEN:
            return (
                f"The {name} gates of {one.name} are below {one.low:g} at "
                f"{_percent(one.below[gate].mean())} of the steps: it {LITTLE[gate]}."
            )
    if one.above[keeps].mean() > OFTEN:
        return (
            f"The {KEEP[keeps]} gates of {one.name} are above {one.high:g} at "
            f"{_percent(one.above[keeps].mean())} of the steps: it keeps most of what it has seen."
        )
    return f"The gates of {one.name} are neither mostly open nor mostly shut."


def _of_gradient(way: GradientWay) -> str:
    last = int(way.lengths.max()) - 1
    halved, left = way.halving(), way.left()
    half = (
        "it is never halved" if halved is None else f"it has halved after {steps_in_words(halved)}"
    )
    if way.verdict == "does not reach":
        return f"The gradient of the last step does not reach the steps before it in {way.name}."
    meaning = {
        "vanishes": "what came so early can hardly be learnt",
        "explodes": "clip it, or the training diverges",
        "holds": "what came so early can be learnt",
    }[way.verdict]
    return (
        f"The gradient of the last step {way.verdict} on its way back through {way.name}: {half}, "
        f"and {left:.2g} of it is left at lag {last}: {meaning}."
    )


def _of_memory(one: Memory) -> str:
    reach, measured = len(one.influence) - 1, one.measured
    beyond = float(np.isinf(measured).mean())
    longest = f"more than {reach}" if beyond else f"{measured.max():.2g}"
    middle = float(np.median(measured))
    half = f"within {middle:.2g} steps" if np.isfinite(middle) else f"after more than {reach} steps"
    return (
        f"Half of the units of {one.name} have lost two thirds of a change of their state "
        f"{half}; the longest keeps a third of it for {longest} steps."
    )


def _of_chaos(one: Memory) -> str:
    exponent = one.lyapunov
    if exponent == -np.inf:
        return f"{one.name.capitalize()} forgets its state wholly: the gradient becomes zero."
    does, change = ("is chaotic", "grow") if exponent > 0 else ("forgets how it began", "shrink")
    return (
        f"{one.name.capitalize()} {does}: small changes of its state {change} by "
        f"{100 * abs(np.expm1(exponent)):.2g} % a step (Lyapunov exponent {exponent:+.3f})."
    )


def _of_input(found: Saliency, lengths: np.ndarray) -> str:
    """How far before the end lies what the loss rests on."""
    sizes = np.abs(found.steps)
    lags = lengths - 1 - np.arange(len(sizes))[:, None]
    by_lag = np.array([sizes[lags == k].sum() for k in range(int(lengths.max()))])
    if not by_lag.sum():
        return "The loss does not depend on the input."
    half = int(np.searchsorted(np.cumsum(by_lag), by_lag.sum() / 2)) + 1
    return (
        f"Half of what the input gives to the loss comes from the last {steps_in_words(half)} of a "
        f"sequence (integrated gradients, which miss their exact sum by {100 * found.error:.2g} %)."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
