"""Units of the character model whose cell state can be read: quotes, comments, lines, indentation.

The LSTM of characters.py learns Python's source; nobody tells it of strings or lines. For each of
some properties of the text the unit is found whose state goes with it most closely on text that the
model has learnt, and judged on files that it has never seen. Then those files are drawn, each
character on the colour of the unit's state.

A. Karpathy, J. Johnson, L. Fei-Fei, "Visualizing and understanding recurrent networks", 2015.

    python examples/cells.py                                   # trains first: ten minutes
    python examples/cells.py --model characters.safetensors    # what characters.py has saved
"""

import re

import numpy as np
from characters import build_model, encode, read_source, train
from report import claim, parse_arguments, print_table

from cylstm import insight, load

SIZE, EPOCHS = 2_000_000, 3
PIECES, LENGTH = 16, 4000  # of a text, to find units and to judge them
DRAWN = 700
LITERAL = re.compile(
    r"#[^\n]*"
    r'|(?P<triple>"""|\'\'\')(?:\\.|.)*?(?P=triple)'
    r'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'',
    re.DOTALL,
)


def properties_of(text):
    """What is true of each character, by name: numbers (len(text),)."""
    within = {name: np.zeros(len(text)) for name in ("string", "docstring", "comment")}
    for found in LITERAL.finditer(text):
        kind = "comment" if found[0][0] == "#" else "docstring" if found["triple"] else "string"
        end = found.end() - (kind != "comment")  # after the last quote it is over
        within[kind][found.start() : end] = 1
    column, depth = np.zeros(len(text)), np.zeros(len(text))
    place = indented = 0
    for i, character in enumerate(text):
        begins = indented == place  # as long as the line has blanks alone
        place = 0 if character == "\n" else place + 1
        indented = place if character == " " and begins else 0 if character == "\n" else indented
        column[i], depth[i] = place, indented
    return {
        "in a string": within["string"],
        "in a docstring": within["docstring"],
        "in a comment": within["comment"],
        "place in the line": column,
        "indentation": depth,
    }


def pieces(values):
    """(LENGTH, PIECES): parts from all over a text, or of what is true of its characters."""
    length = min(LENGTH, len(values) // PIECES)
    starts = np.linspace(0, len(values) - length, PIECES).astype(int)
    return np.stack([values[start : start + length] for start in starts], axis=1)


def states_of(model, numbers):
    """(T, N, H): the state of each unit after each character."""
    return model[1].trace(model[0](numbers))["tanh_c_l0"]


def find(states, properties):
    """For each property the unit, and its correlation."""
    found = {}
    for name, values in properties.items():
        fits = insight.correlations(states, pieces(values))
        unit = int(np.argmax(np.abs(fits)))
        found[name] = unit, float(fits[unit])
    return found


def passage(text, values, length):
    """Where the property changes most: of the passages that begin a line the first such."""
    starts = [i + 1 for i in np.flatnonzero(np.array(list(text)) == "\n") if i + length < len(text)]
    return max(starts, key=lambda start: np.std(values[start : start + length]))


def main():
    arguments = parse_arguments(__doc__, model=("", "of characters.py; none: train one"))
    learnt, watched, judged = read_source(150_000 if arguments.quick else SIZE)
    if arguments.model:
        model = load(arguments.model)
    else:
        model = build_model()
        train(model, learnt, watched, 1 if arguments.quick else EPOCHS, arguments.out)
        (arguments.out / "characters.checkpoint").unlink()
    found = find(states_of(model, pieces(encode(learnt))), properties_of(learnt))
    states, properties = states_of(model, pieces(encode(judged))), properties_of(judged)
    rows = {}
    for name, (unit, fit) in found.items():
        seen = insight.correlations(states[..., [unit]], pieces(properties[name]))[0]
        rows[name] = unit, fit, float(seen)
    print_table("correlation", ["unit", "learnt", "held out"], rows)

    for name, (unit, _, fit) in rows.items():
        start = passage(judged, properties[name], DRAWN)
        text = judged[start : start + DRAWN]
        values = states_of(model, encode(text)[:, None])[:, 0, unit]
        title = f"The unit that fits '{name}' best: {unit} (correlation {fit:+.2f} on new files)"
        figure = insight.draw_text(text, values, title=title)
        figure.savefig(arguments.out / f"{name.replace(' ', '_')}.png", dpi=100)
    trace = model[1].trace(model[0](pieces(encode(judged))))
    figure = insight.draw_saturation(insight.saturation(trace))
    figure.savefig(arguments.out / "cells_saturation.png", dpi=100)
    line = judged[:80]
    trace = model[1].trace(model[0](encode(line)[:, None]))
    units = sorted({unit for unit, *_ in rows.values()})
    insight.draw_gates(trace, units, labels=line).savefig(arguments.out / "cells.png", dpi=100)
    fits = {name: abs(fit) for name, (*_, fit) in rows.items()}
    claim(max(fits.values()) > 0.3, "on held-out files a unit goes with a property of the text")
    if not arguments.quick:
        for name in ("in a docstring", "place in the line", "indentation"):
            claim(fits[name] > 0.4, f"and one with: {name}")


if __name__ == "__main__":
    main()
