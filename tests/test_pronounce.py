"""The example that runs g2p-en's GRUs."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples/packages"
LETTERS, PHONEMES, WIDTH, HIDDEN = 29, 74, 12, 20
SIZES = {"enc": LETTERS, "dec": PHONEMES}


@pytest.fixture
def speller(monkeypatch):
    """The example's class, without the package."""
    stand_in = SimpleNamespace(g2p=SimpleNamespace(G2p=object))
    monkeypatch.setitem(sys.modules, "g2p_en", stand_in)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "pronounce", raising=False)
    yield importlib.import_module("pronounce").Speller
    del sys.modules["pronounce"]


def random_weights(rng):
    shapes = {"fc_w": (PHONEMES, HIDDEN), "fc_b": (PHONEMES,)}
    for name, size in SIZES.items():
        shapes |= {f"{name}_emb": (size, WIDTH), f"{name}_w_ih": (3 * HIDDEN, WIDTH)}
        shapes |= {f"{name}_w_hh": (3 * HIDDEN, HIDDEN)}
        shapes |= {f"{name}_b_{part}": (3 * HIDDEN,) for part in ("ih", "hh")}
    return {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}


def spelt(weights, word):
    """What g2p-en's loops give, in float64."""
    w = {name: array.astype(float) for name, array in weights.items()}

    def step(name, x, h):
        of_x = w[f"{name}_w_ih"] @ x + w[f"{name}_b_ih"]
        of_h = w[f"{name}_w_hh"] @ h + w[f"{name}_b_hh"]
        r, z = np.split(1 / (1 + np.exp(-(of_x + of_h)[: 2 * HIDDEN])), 2)
        n = np.tanh(of_x[2 * HIDDEN :] + r * of_h[2 * HIDDEN :])
        return (1 - z) * n + z * h

    h = np.zeros(HIDDEN)
    for letter in word:
        h = step("enc", w["enc_emb"][letter], h)
    found, last = [], 2
    while len(found) < 20:
        h = step("dec", w["dec_emb"][last], h)
        last = int(np.argmax(w["fc_w"] @ h + w["fc_b"]))
        if last == 3:
            break
        found.append(last)
    return found


def test_the_recurrence_is_that_of_the_package(speller, rng):
    weights = random_weights(rng)
    weights["fc_b"][3] += 4  # so that words end sooner or later
    words = [[*rng.integers(3, LETTERS, rng.integers(1, 15)).tolist(), 2] for _ in range(40)]
    expected = [spelt(weights, word) for word in words]
    assert len({len(phonemes) for phonemes in expected}) > 3
    spell = speller(weights)
    assert spell(words) == expected
    assert [spell([word])[0] for word in words] == expected


def test_the_pronunciations_are_those_of_the_package():
    if importlib.util.find_spec("g2p_en") is None:
        pytest.skip("g2p-en is not installed")

    def run(*arguments):
        command = [sys.executable, str(FOLDER / "pronounce.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "of which 0 are pronounced otherwise" in run("--quick")
    assert "cythonized S AY1 T AH0 N AY2 Z D\n" in run("cythonized")
