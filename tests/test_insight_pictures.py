"""Pictures and the page: each figure shows what it says, nothing is clipped, no state is global."""

import re
import subprocess
import sys

import numpy as np
import pytest

import cylstm
from cylstm import insight
from cylstm.layers import Embedding, Last, Linear, Sequential

pytest.importorskip("matplotlib")


def texts(figure):
    return " ".join(
        text.get_text() for text in figure.findobj(match=lambda o: hasattr(o, "get_text"))
    )


def assert_readable(figure, tmp_path):
    """Every axis is named, and no name lies outside of the picture, by more than its margin."""
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    canvas = figure.bbox
    for axis in figure.axes:
        named = [axis.xaxis.label, axis.yaxis.label, axis.title, axis._left_title]
        assert any(text.get_text() for text in named)
        for text in named:
            if text.get_text():
                box = text.get_window_extent()
                assert box.x0 >= -3
                assert box.y0 >= -3
                assert box.x1 <= canvas.x1 + 3
                assert box.y1 <= canvas.y1 + 3


@pytest.fixture
def lstm():
    return cylstm.LSTM(3, 8, num_layers=2, seed=0)


@pytest.fixture
def x(rng):
    return rng.normal(size=(20, 4, 3)).astype("f4")


def test_gates(lstm, x, tmp_path):
    trace = lstm.trace(x, lengths=[20, 12, 3, 1])
    figure = insight.draw_gates(trace, [0, 5], layer=1, sequence=1, labels=list("abcdefghijkl"))
    assert_readable(figure, tmp_path)
    images = [axis.images[0].get_array() for axis in figure.axes[:4]]
    for image, slot in zip(images, "ifoc", strict=True):
        np.testing.assert_array_equal(image, trace[f"{slot}_l1"][:12, 1, [0, 5]].T)
    assert "layer 2" in texts(figure)
    with pytest.raises(ValueError, match=r"slots: expected some of i, f, g, o.*, got \['q'\]"):
        insight.draw_gates(trace, [0], slots=["q"])
    with pytest.raises(ValueError, match="units: expected a number from 0 to 7, got 8"):
        insight.draw_gates(trace, [8])
    with pytest.raises(ValueError, match="sequence: expected a number from 0 to 3, got 4"):
        insight.draw_gates(trace, [0], sequence=4)
    with pytest.raises(ValueError, match="units: expected at least one, got none"):
        insight.draw_gates(trace, [])
    with pytest.raises(ValueError, match="found: expected at least one layer, got none"):
        insight.draw_memory([])


def test_gates_of_batch_first_and_one_sequence(x):
    lstm = cylstm.LSTM(3, 8, batch_first=True, seed=0)
    trace = lstm.trace(x.swapaxes(0, 1))
    figure = insight.draw_gates(trace, [3], sequence=2, slots=["h"])
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array()[0], trace["h_l0"][2, :, 3])
    trace = lstm.trace(x[:, 0])
    figure = insight.draw_gates(trace, [3], slots=["h"])
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array()[0], trace["h_l0"][:, 3])


def test_text(tmp_path):
    text = "ab\n" + 90 * "c" + "$"
    values = np.linspace(-1, 1, len(text))
    figure = insight.draw_text(text, values, title="Unit 1", name="tanh(c)")
    assert_readable(figure, tmp_path)
    grid = figure.axes[0].images[0].get_array()
    assert grid.shape == (3, 80)
    np.testing.assert_array_equal(grid[0, :3], values[:3])
    np.testing.assert_array_equal(grid[1], values[3:83])
    np.testing.assert_array_equal(grid[2, :11], values[83:])
    assert np.ma.getmaskarray(grid)[0, 3:].all()
    with pytest.raises(ValueError, match="values: expected one a character, 94, got"):
        insight.draw_text(text, values[1:])


def test_saturation_gradients_memory_saliency(lstm, x, tmp_path):
    target = np.zeros((20, 4, 8), "f4")
    ways = insight.gradient_way(lstm, x, target)
    salient = insight.saliency(lstm, x, target)
    figures = [
        insight.draw_saturation(insight.saturation(lstm.trace(x))),
        insight.draw_gradients(ways),
        insight.draw_memory(insight.memory(lstm, x)),
        insight.draw_saliency(salient, sequence=3, labels=[f"step {t}" for t in range(20)]),
    ]
    for figure in figures:
        assert_readable(figure, tmp_path)
    for axis, state in zip(figures[1].axes, "ch", strict=True):
        for line, way in zip(axis.lines, ways, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), way.by_lag(state))
            assert way.name in line.get_label()
    heights = [bar.get_height() for bar in figures[3].axes[1].patches]
    np.testing.assert_allclose(heights, salient.steps[:, 3])


def test_attention(tmp_path):
    weights = np.eye(2, 3)
    figure = insight.draw_attention(weights, ["a", " ", "$"], "bc", title="Where it looks")
    assert_readable(figure, tmp_path)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), weights)
    with pytest.raises(ValueError, match=r"weights: expected shape \(2, 2\), got \(2, 3\)"):
        insight.draw_attention(weights, "ab", "bc")


def test_a_figure_is_not_pyplots():
    code = (
        "import sys, numpy as np; from cylstm import insight, LSTM;"
        "insight.draw_gates(LSTM(3, 4).trace(np.ones((5, 2, 3), 'f4')), [0]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_numbers_need_no_matplotlib(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import numpy as np, cylstm
from cylstm import insight
lstm, x = cylstm.LSTM(3, 4, seed=0), np.ones((9, 2, 3), 'f4')
insight.memory(lstm, x), insight.saliency(lstm, x, np.ones((9, 2, 4), 'f4'))
for call in (lambda: insight.draw_gates(lstm.trace(x), [0]),
             lambda: insight.report(lstm, x, np.ones((9, 2, 4), 'f4'))):
    try:
        call()
    except ImportError as error:
        assert "pip install 'cylstm[plot]'" in str(error)
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert not (tmp_path / "insight.html").exists()


def test_importing_cylstm_imports_no_insight():
    code = "import sys, cylstm; assert not any('insight' in name for name in sys.modules)"
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


# The page -----------------------------------------------------------------------------------------


def findings_of(lstm, x, target, tmp_path, **given):
    path = tmp_path / "page.html"
    findings = insight.report(lstm, x, target, path=path, **given)
    page = path.read_text()
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r"(src|href)=.(?!data:)", page)
    assert page.count("<li>") == len(findings)
    return findings


def test_the_page_says_that_a_model_cannot_remember(x, rng, tmp_path):
    lstm = cylstm.LSTM(3, 8, num_layers=2, forget_bias=-5.0, seed=0)
    findings = " ".join(findings_of(lstm, x, np.zeros((20, 4, 8), "f4"), tmp_path))
    below = 100 * (lstm.trace(x)["f_l1"] < 0.1).mean()
    assert (
        f"The forget gates of layer 2 are below 0.1 at {below:.0f} % of the steps: "
        "no unit can remember more than about 1 step." in findings
    )
    assert "The gradient of the last step vanishes on its way back through layer 1" in findings
    assert "Layer 1 forgets how it began" in findings


def test_the_page_of_a_model_whose_gradient_explodes(tmp_path):
    lstm = cylstm.LSTM(1, 1, activations=("relu", "tanh", "relu"))
    lstm.load_state_dict(
        {name: np.zeros_like(p) for name, p in lstm.named_parameters()}
        | {"bias_l0": np.array([1, 1.5, 1, 1], "f4")}
    )
    x = np.ones((30, 2, 1), "f4")
    findings = " ".join(findings_of(lstm, x, np.zeros((30, 2, 1), "f4"), tmp_path))
    assert "explodes on its way back through layer 1: it is never halved" in findings
    assert "Layer 1 is chaotic: small changes of its state grow by 50 % a step" in findings
    assert "The forget gates of layer 1 are above 0.9 at 100 % of the steps" in findings
    assert "The loss does not depend on the input." in findings


def test_the_page_of_a_whole_model_with_ragged_sequences(rng, tmp_path):
    model = Sequential(
        Embedding(9, 3, seed=0),
        cylstm.LSTM(3, 8, bidirectional=True, seed=1),
        Last(),
        Linear(16, 2),
    )
    x, target = rng.integers(9, size=(12, 3)), np.array([0, 1, 0])
    given = {"lengths": [12, 5, 2], "title": "<A & B>", "labels": list("abcdefghijkl")}
    findings = findings_of(model, x, target, tmp_path, **given)
    assert "&lt;A &amp; B&gt;" in (tmp_path / "page.html").read_text()
    assert any("does not reach the steps before it in layer 1, backward" in f for f in findings)
    loss, _ = cylstm.train.cross_entropy_loss(model(x, lengths=[12, 5, 2]), target)
    assert findings[0] == f"The loss of this batch is {loss:.4g}."


def test_a_page_that_cannot_be_written_or_shows_nothing(lstm, x, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        insight.report(lstm, x, x, path=tmp_path / "nowhere" / "page.html")
    with pytest.raises(
        ValueError, match="model: expected one with an LSTM, GRU or RNN in it, got none"
    ):
        insight.report(Sequential(Linear(3, 3)), x, x, path=tmp_path / "page.html")


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_pictures_and_page_of(kind, x, tmp_path):
    cell = getattr(cylstm, kind)(3, 8, num_layers=2, bidirectional=True, seed=0)
    trace, target = cell.trace(x), np.zeros((20, 4, 16), "f4")
    figures = [
        insight.draw_gates(trace, [0, 5], layer=1, direction=1),
        insight.draw_gradients(insight.gradient_way(cell, x, target)),
        insight.draw_memory(insight.memory(cell, x)),
    ]
    for figure in figures:
        assert_readable(figure, tmp_path)
    shown = figures[0].axes[0].images[0].get_array()
    first = "r" if kind == "GRU" else "h"
    np.testing.assert_array_equal(shown, trace.of(1, 1)[first][:, 0, [0, 5]].T)
    assert len(figures[1].axes) == 1
    path = tmp_path / "page.html"
    findings = " ".join(insight.report(cell, x, target, path=path))
    assert path.read_text().count("base64") == (5 if kind == "GRU" else 4)
    assert ("gates of layer 1" in findings) == (kind == "GRU")
    if kind == "RNN":
        with pytest.raises(ValueError, match="found: expected cells that have gates, got an RNN's"):
            insight.draw_saturation(insight.saturation(trace))


def test_the_page_says_that_a_gru_cannot_remember(x, tmp_path):
    gru = cylstm.GRU(3, 8, seed=0)
    with gru.edit() as parameters:
        parameters["bias_l0"][8:16] = -5
    findings = " ".join(findings_of(gru, x, np.zeros((20, 4, 8), "f4"), tmp_path))
    assert "The update gates of layer 1 are below 0.1 at" in findings
    assert "no unit can remember more than about 1 step" in findings


def test_the_page_of_a_model_of_several_kinds(x, rng, tmp_path):
    """Whose gates are drawn apart."""
    model = Sequential(cylstm.LSTM(3, 4, seed=0), cylstm.GRU(4, 5, seed=1), cylstm.RNN(5, 2))
    path = tmp_path / "page.html"
    insight.report(model, x, rng.normal(size=(*x.shape[:2], 2)).astype("f4"), path=path)
    page = path.read_text()
    assert page.count("<h2>Saturation of the gates</h2>") == 2
    assert page.count('<div class="picture"><img alt=') == 6
    found = [
        one
        for layer, width in ((model[0], 3), (model[1], 4))
        for one in insight.saturation(layer.trace(np.ones((2, 1, width), "f4")))
    ]
    with pytest.raises(ValueError, match="found: expected cells of one kind, whose gates are"):
        insight.draw_saturation(found)
