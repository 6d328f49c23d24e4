"""The examples in docstrings run, and every public name has a docstring with its parts."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import cylstm
import cylstm.insight
import cylstm.train

MODULES = [
    found.name
    for found in pkgutil.walk_packages(cylstm.__path__, "cylstm.")
    if not found.name.rpartition(".")[2].startswith("_")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"np": np, "cylstm": cylstm})
    assert failed == 0


def test_examples_of_formats():
    text = pathlib.Path(__file__).parents[1] / "docs" / "formats.md"
    failed, run = doctest.testfile(str(text), False, globs={"np": np, "cylstm": cylstm})
    assert (failed, run > 0) == (0, True)


def test_there_are_examples():
    finder, found = doctest.DocTestFinder(), 0
    for name in MODULES:
        found += sum(bool(test.examples) for test in finder.find(importlib.import_module(name)))
    assert found >= 10


@pytest.mark.parametrize("name", cylstm.__all__)
def test_public_names_are_documented(name):
    assert inspect.getdoc(getattr(cylstm, name))


@pytest.mark.parametrize("name", cylstm.train.__all__)
def test_names_of_train_are_documented(name):
    assert inspect.getdoc(getattr(cylstm.train, name))


@pytest.mark.parametrize("name", cylstm.insight.__all__)
def test_names_of_insight_are_documented(name):
    assert inspect.getdoc(getattr(cylstm.insight, name))


def test_insight_as_the_page_shows_it(tmp_path, monkeypatch, rng):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    lstm = cylstm.LSTM(3, 48, num_layers=2, seed=0)
    names = {
        "model": lstm,
        "lstm": lstm,
        "x": rng.normal(size=(20, 2, 3)).astype("f4"),
        "target": np.zeros((20, 2, 48), "f4"),
        "lengths": [20, 20],
        "text": 20 * "a",
    }
    text = (Path(__file__).parents[1] / "docs/insight.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 8
    for block in blocks:
        exec(block, names)
    assert len(names["findings"]) > 5
    assert (tmp_path / "insight.html").exists()
    for name in re.findall(r"\((insight/[a-z_]+\.png)\)", text):
        assert (Path(__file__).parents[1] / "docs" / name).exists()


@pytest.mark.parametrize(("page", "mark"), [("README.md", "fit("), ("docs/training.md", "train.")])
def test_training_as_the_pages_show_it(page, mark, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    monkeypatch.chdir(tmp_path)
    wave = np.sin(np.arange(90, dtype=np.float32))
    names = {"cylstm": cylstm, "series": wave, "later": wave[:70], "train": cylstm.train}
    text = (Path(__file__).parents[1] / page).read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if mark in block]
    assert blocks
    for block in blocks:
        exec(block, names)
    assert list(tmp_path.glob("*.safetensors"))


def test_the_batch_job_as_the_page_shows_it(rng, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from cylstm.cli.main import main

    monkeypatch.chdir(tmp_path)

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(50, 4)
            self.lstm = torch.nn.LSTM(4, 6, batch_first=True)
            self.linear = torch.nn.Linear(6, 3)

        def forward(self, tokens):
            return self.linear(self.lstm(self.embedding(tokens))[0][:, -1])

    tagger = Tagger().eval()
    torch.save(tagger.state_dict(), "tagger.pt")
    tokens = [rng.integers(0, 50, rng.integers(1, 9)).tolist() for _ in range(30)]
    parquet.write_table(pyarrow.table({"id": np.arange(30), "tokens": tokens}), "posts.parquet")
    text = (Path(__file__).parents[1] / "docs" / "batch_jobs.md").read_text()
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], {})
    command = re.search(r"^cylstm (score tagger.*)$", text, re.M)[1]
    assert main([*command.split(), "--quiet"]) == 0
    with torch.no_grad():
        expected = [int(tagger(torch.tensor(t)[None]).argmax()) for t in tokens]
    assert parquet.read_table("scored").column("prediction").to_pylist() == expected
