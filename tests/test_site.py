"""The site: its pages' code runs, every public name is in it, every page can be reached."""

import html
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cylstm
import cylstm.insight
import cylstm.layers
import cylstm.train

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = DOCS.parent / "examples"
# Pages whose code runs as it stands; of `move` it wants the frameworks.
RUNNING = ["index", "tutorial", "streams", "forecast", "text", "quantise", "embed"]
# Those that tests/test_docs.py runs with what they speak of; and those without code in Python.
OTHERS = {"batch_jobs", "insight", "training", "formats"}
SILENT = {
    "accuracy", "applications", "background", "benchmarks", "changelog", "design", "howto",
    "packages", "peers", "reference",
}  # fmt: skip

# The folders are sections, whose own names follow.
NAMES = sorted(set(cylstm.__all__) - {"insight", "layers", "train"})

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="of the source tree")


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.S | re.M)


def test_every_page_is_one_of_these():
    assert {path.stem for path in DOCS.glob("*.md")} == {*RUNNING, "move"} | OTHERS | SILENT
    assert not any(blocks_of(page) for page in SILENT)


def run_code(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    blocks = blocks_of(page)
    assert blocks
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}.md, block {number}", "exec"), names)


@pytest.mark.parametrize("page", RUNNING)
def test_the_code_of(page, tmp_path, monkeypatch):
    run_code(page, tmp_path, monkeypatch)


@pytest.mark.filterwarnings("ignore")  # those of the frameworks
def test_the_code_of_move(tmp_path, monkeypatch):
    if importlib.util.find_spec("tensorflow") is None:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    for package in ("torch", "keras", "h5py", "onnx"):
        pytest.importorskip(package)
    run_code("move", tmp_path, monkeypatch)


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference.md").read_text()
    found = re.findall(r"^   (cylstm\.[\w.]+)$", text, re.M)
    assert len(found) == len(set(found))
    expected = {f"cylstm.{name}" for name in NAMES}
    for module in (cylstm.layers, cylstm.insight):
        expected |= {f"{module.__name__}.{name}" for name in module.__all__}
    expected |= {
        f"cylstm.train.{name}" for name in cylstm.train.__all__ if name not in cylstm.layers.__all__
    }
    assert set(found) == expected


def test_every_page_is_in_a_table_of_contents():
    listed = {"index"}
    for page in DOCS.glob("*.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.S):
            lines = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {re.sub(r".*<(.*)>", r"\1", line) for line in lines}
    assert listed == {path.stem for path in DOCS.glob("*.md")}


def test_formulae_are_drawn(tmp_path):
    """By the same library as the site's; a browser without MathML is not asked."""
    convert = pytest.importorskip("latex2mathml.converter").convert
    text = (DOCS / "tutorial.md").read_text()
    formulae = re.findall(r"\$\$(.*?)\$\$", text, re.S)
    formulae += re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", text)
    assert len(formulae) > 20
    for formula in formulae:
        drawn = re.sub(r"<[^>]*>", "", convert(formula))
        assert drawn.strip()
        assert not {"\\", "&"} & set(html.unescape(drawn))


def test_the_tutorials_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "tutorial_pictures.py"), "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = {path.name for path in tmp_path.iterdir()}
    shown = set(re.findall(r"\(tutorial/(\w+\.svg)\)", (DOCS / "tutorial.md").read_text()))
    assert drawn == shown == {path.name for path in (DOCS / "tutorial").iterdir()}


@pytest.fixture
def links():
    spec = importlib.util.spec_from_file_location("links", DOCS / "links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_wrong_links_are_found(links, tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#there">x</a><a href="#here">x</a><a href="c.html">x</a>'
        '<a href="#gone">x</a><a href="https://example.org">x</a><img src="https://example.org/x">'
    )
    (tmp_path / "b.html").write_text('<p id="there">')
    wrong, elsewhere = links.problems(tmp_path)
    assert wrong == [
        "a.html: loads https://example.org/x",
        "a.html: c.html leads nowhere",
        "a.html: #gone has no such place",
    ]
    assert elsewhere == ["https://example.org"]


def test_it_is_built_without_a_warning(links, tmp_path):
    for package in ("sphinx", "myst_parser", "pydata_sphinx_theme", "latex2mathml"):
        pytest.importorskip(package)
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("generated"))
    for name in ("CHANGELOG.md", "examples", "tests"):
        (tmp_path / name).symlink_to(DOCS.parent / name)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", "site"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wrong, elsewhere = links.problems(tmp_path / "site")
    assert wrong == []
    assert elsewhere
    for name in NAMES:
        assert (tmp_path / f"site/generated/cylstm.{name}.html").exists()


def test_the_memory_of_the_tutorial_is_an_lstms(monkeypatch):
    """What the picture shows is what the equations say."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    pictures = importlib.import_module("tutorial_pictures")
    x, trace = pictures.run_memory()
    c = trace["c_l0"][:, 0]
    kept = c[pictures.WRITTEN : pictures.STEPS]
    np.testing.assert_allclose(kept, np.tanh(x[pictures.WRITTEN, 0]), atol=0.01)
