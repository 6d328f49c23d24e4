"""The examples, run as a user runs them, in their short mode."""

import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import cylstm
from gradient_check import assert_gradient, central_differences

EXAMPLES = Path(__file__).parents[1] / "examples"

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")


def run(example, *arguments, folder):
    """Run an example in a folder of its own; return what it did."""
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def row_of(done, name):
    """Return the numbers that a table gives beside a name."""
    row = next(line for line in done.stdout.splitlines() if line.startswith(name))
    return [float(number) for number in row.removeprefix(name).split()]


@pytest.mark.parametrize(
    ("example", "claims", "model", "layers", "picture"),
    [
        ("forecast_sine.py", 3, "sine", 3, "sine"),
        ("forecast_sunspots.py", 3, "sunspots", 2, "forecast"),
        ("next_word.py", 3, "next_word", 5, "next_word"),
        ("characters.py", 2, "characters", 3, "characters"),
        ("long_memory.py", 2, "adding", 3, "long_memory"),
    ],
)
def test_an_example(tmp_path, example, claims, model, layers, picture):
    done = run(example, "--quick", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok ") == claims
    assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert len(cylstm.load(tmp_path / f"{model}.safetensors")) == layers
    assert len(list(tmp_path.iterdir())) == 2


CELLS = ["in_a_string", "in_a_docstring", "in_a_comment", "place_in_the_line", "indentation"]
PICTURES = ["gates", "saturation", "gradients", "memory", "saliency"]


@pytest.mark.parametrize(
    ("example", "claims", "files"),
    [
        ("insight_pictures.py", 2, ["insight.html", *(f"{name}.png" for name in PICTURES)]),
        ("cells.py", 1, ["cells.png", "cells_saturation.png", *(f"{name}.png" for name in CELLS)]),
        ("dates.py", 2, ["attention.png", "dates.safetensors"]),
        ("grid_lstm.py", 1, []),
    ],
)
def test_a_look_inside(tmp_path, example, claims, files):
    done = run(example, "--quick", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok ") == claims
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_every_example_is_run():
    given = test_an_example.pytestmark[0].args[1] + test_a_look_inside.pytestmark[0].args[1]
    tested = [example for example, *_ in given]
    tested += [f"score_{engine}.py" for engine in ("dask", "ray", "spark")]  # by test_scorer.py
    tested.append("tutorial_pictures.py")  # by test_site.py
    programs = [path.name for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text()]
    assert sorted(programs) == sorted(tested)


def test_the_naive_errors_are_those_of_the_data(tmp_path):
    done = run("forecast_sunspots.py", "--quick", "--out", "new/folder", folder=tmp_path)
    sunspots = np.loadtxt(EXAMPLES / "data/sunspots.csv", delimiter=",", skiprows=1, usecols=1)
    assert len(sunspots) == 2820
    expected = {"persistence": (1, 12), "eleven years ago": (132, 132)}
    for name, lags in expected.items():
        errors = [np.sqrt(np.mean((sunspots[lag:] - sunspots[:-lag])[-564:] ** 2)) for lag in lags]
        assert row_of(done, name) == [float(f"{error:.2f}") for error in errors]
    assert (tmp_path / "new/folder/forecast.png").exists()


def test_a_claim_that_fails_is_an_error(tmp_path):
    done = run("forecast_sunspots.py", "--seeds", "1", "--epochs", "1", folder=tmp_path)
    assert done.returncode == 1
    assert "FAILED every LSTM beats" in done.stdout


@pytest.mark.parametrize("option", ["--seeds", "--epochs"])
def test_nothing_to_do_is_refused(tmp_path, option):
    done = run("forecast_sunspots.py", option, "0", folder=tmp_path)
    assert done.returncode == 2
    assert "must be at least 1" in done.stderr


# The baselines ------------------------------------------------------------------------------------


@pytest.fixture
def ngram(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("ngram")


def kneser_ney(tokens, gram, size):
    """The probability of a gram's last token by the recursion of Chen and Goodman (1998)."""
    levels = {3: Counter(tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2))}
    for length in (2, 1):
        levels[length] = Counter(longer[1:] for longer in levels[length + 1])

    def probability(gram):
        if not gram:
            return 1 / size
        level = levels[len(gram)]
        once, twice = (list(level.values()).count(n) for n in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        same = [count for seen, count in level.items() if seen[:-1] == gram[:-1]]
        if not same:
            return probability(gram[1:])
        own = max(level[gram] - discount, 0) if gram in level else 0
        return (own + discount * len(same) * probability(gram[1:])) / sum(same)

    return probability(tuple(gram))


def test_the_ngram_model_is_the_recursion(ngram, rng):
    tokens, others = rng.integers(4, size=60), rng.integers(5, size=40)
    model = ngram.NGram(tokens, 3, 5)
    expected = [kneser_ney(tokens, others[i : i + 3], 5) for i in range(38)]
    np.testing.assert_allclose(model.probabilities(others), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_ngram_model_gives_probabilities(ngram, rng, order):
    model = ngram.NGram(rng.integers(6, size=200), order, 7)
    for context in rng.integers(7, size=(20, order - 1)):
        given = [model.probabilities(np.append(context, token)) for token in range(7)]
        assert np.sum(given) == pytest.approx(1, rel=1e-12)
        assert np.min(given) > 0


def test_too_long_an_ngram_is_refused(ngram):
    with pytest.raises(ValueError, match="order: expected size"):
        ngram.NGram(np.zeros(9, int), 5, 10_000)


def test_the_grid_lstm_has_the_right_gradients(ngram, rng):
    grid = importlib.import_module("grid_lstm").GridLSTM(3, 2, dtype="float64")
    x, grad_y = rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 2, 3))
    _, tape = grid.forward(x)
    grad_x, grads = grid.backward(tape, grad_y)

    def loss():
        return np.sum(grad_y * grid.forward(x)[0])

    assert_gradient(grad_x, central_differences(loss, x))
    state = grid.cells.state_dict()

    def loss_of_parameters():
        grid.cells.load_state_dict(state)
        return loss()

    assert grads.keys() == state.keys()
    for name in ("0.weight_hh_l0", "1.weight_ih_l0", "2.weight_ih_l0", "3.bias_l0"):
        assert_gradient(grads[name], central_differences(loss_of_parameters, state[name]))


def test_the_translator_has_the_right_gradients(ngram, rng):
    dates = importlib.import_module("dates")
    model, batch = dates.Translator(), next(dates.batches(0))
    with model.edit() as parameters:
        parameters["4.weight_v"][...] *= 3
    logits, tape = model.forward(batch.x, batch.lengths)
    grad = rng.normal(size=logits.shape).astype("f4")
    _, grads = model.backward(tape, grad)
    way = {name: rng.normal(size=p.shape).astype("f4") for name, p in model.named_parameters()}
    dense = {name: getattr(g, "dense", lambda g=g: g)() for name, g in grads.items()}
    expected = sum(np.vdot(dense[name].astype(float), way[name]) for name in way)
    values = []
    for step in (1e-3, -1e-3):
        with model.edit() as parameters:
            for name, array in way.items():
                parameters[name] = parameters[name] + np.float32(step) * array
        values.append(np.vdot(model.forward(batch.x, batch.lengths)[0].astype(float), grad))
        with model.edit() as parameters:
            for name, array in way.items():
                parameters[name] = parameters[name] - np.float32(step) * array
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(expected, rel=1e-2)


def test_what_is_true_of_a_character(ngram):
    cells = importlib.import_module("cells")
    text = 'a = "b" # c\n    """d"""'
    found = cells.properties_of(text)
    assert [text[i] for i in np.flatnonzero(found["in a string"])] == ['"', "b"]
    assert "".join(text[i] for i in np.flatnonzero(found["in a comment"])) == "# c"
    assert "".join(text[i] for i in np.flatnonzero(found["in a docstring"])) == '"""d""'
    assert found["place in the line"].tolist() == [*range(1, 12), 0, *range(1, 12)]
    assert found["indentation"][11:].tolist() == [0, 1, 2, 3, 4, *[4] * 7]
