"""What an editor and a type checker see: public names, and the README's code under mypy."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import cylstm

ROOT = Path(__file__).parents[1]
PACKAGE = Path(cylstm.__file__).parents[1]

# What the README's code takes as given: a stub, and the import of it.
GIVEN = """\
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

import cylstm
from cylstm import train

class Modules:
    def state_dict(self) -> dict[str, Any]: ...

torch_lstm: Modules
lstm: cylstm.LSTM
model: train.Sequential
x: npt.NDArray[np.float32]
target: npt.NDArray[np.float32]
series: npt.NDArray[np.float32]
source: Iterable[npt.NDArray[np.float32]]
"""
BEFORE = """\
import numpy as np

import cylstm
from cylstm import insight, train
from given import lstm, model, series, source, target, torch_lstm, x

"""

# What the README has no room for.
MORE = """\
import numpy as np
import numpy.typing as npt

import cylstm
from cylstm import layers, train

lstm = cylstm.LSTM(3, 4, num_layers=2)
gru = cylstm.GRU(3, 4)
x: npt.NDArray[np.float32] = np.ones((5, 2, 3), np.float32)
y, (h_n, c_n) = lstm(x, state=None, lengths=[5, 2])
y, (h_n, c_n) = lstm(x, (h_n, c_n), np.array([5, 2]))
z, h = gru(x, state=None)
z, h = gru(x, state=h, lengths=(5, 2))
width: int = lstm.weight_ih_l0.shape[0]
lstm.bias_l0 = lstm.bias_l0 * 2
tokens: npt.NDArray[np.int64] = np.array([[3, 1], [4, 1]])
tagger = layers.Sequential(layers.Embedding(9, 4), lstm, layers.Linear(4, 2))
scores: npt.NDArray[np.floating] = tagger(tokens)
scores = tagger(tokens, lengths=[2, 1])
scores, state = tagger.run(tokens)
scores, state = tagger.run(tokens, state=state)
history = train.fit(
    tagger, (tokens, tokens), train.cross_entropy_loss, train.Adam(tagger), epochs=1,
    metrics=["accuracy"],
)
losses: list[float] = history.metrics["accuracy"]
loss = train.evaluate(tagger, (tokens, tokens), train.cross_entropy_loss)
version: str = cylstm.__version__
fast: cylstm.QuantizedLSTM = lstm.quantize()
pool = cylstm.StreamPool(lstm, 10)
"""


def test_dir_shows_the_public_names():
    assert sorted(dir(cylstm)) == sorted([*cylstm.__all__, "__version__"])


@pytest.mark.parametrize("name", cylstm.__all__)
def test_every_public_name_is_there(name):
    assert getattr(cylstm, name) is not None


def test_type_checkers_see_every_public_name():
    """Those that are imported later too, from where they are."""
    tree = ast.parse(Path(cylstm.__file__).read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    named = {alias.name for node in imported for alias in node.names}
    assert set(cylstm.__all__) <= named
    later = {alias.name: node.module for node in imported for alias in node.names}
    assert cylstm._LATER.items() <= later.items()


def test_the_version_is_the_installed_ones():
    assert cylstm.__version__ == version("cylstm")


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'lstm_cell'"):
        cylstm.lstm_cell  # noqa: B018


def blocks(tmp_path):
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(found) >= 5
    for i, block in enumerate(found):
        (tmp_path / f"block_{i}.py").write_text(BEFORE + block)
    (tmp_path / "more.py").write_text(MORE)
    (tmp_path / "given.pyi").write_text(GIVEN)
    return [*(f"block_{i}.py" for i in range(len(found))), "more.py"]


def environment():
    """A source tree is named to mypy, which finds what is installed, and refuses to be told it."""
    if PACKAGE.name in ("site-packages", "dist-packages"):
        return os.environ
    return os.environ | {"MYPYPATH": str(PACKAGE)}


def test_the_readmes_code_is_typed(tmp_path):
    """Under mypy --strict, which reads the package as one that is installed."""
    pytest.importorskip("mypy")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--no-error-summary",
    ]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), *blocks(tmp_path)],
        cwd=tmp_path, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("", 0)


def test_pyright_agrees(tmp_path):
    if shutil.which("pyright") is None:
        pytest.skip("pyright is not installed")
    names = blocks(tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{PACKAGE}"]}}')
    done = subprocess.run(["pyright", *names], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
