"""Packages that ship LSTMs, on cylstm: without their framework, and with the same answers."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples/packages"

# The package's module, its framework's, what else it imports, and how far the answers may be:
# which share of them, and real numbers by how much.
PACKAGES = {
    "asmscan-bilstm": ("asmscan", "tensorflow", ["progress", "h5py"], 0, 1e-5),
    "arabic-diacritizer": ("diacritize", "torch", ["click"], 0, 0),
    "Resemblyzer": ("resemblyzer", "torch", ["librosa", "webrtcvad"], 0, 1e-5),
    "dksplit": ("dksplit", "onnxruntime", ["onnx"], 0.01, 0),  # which rounds x and h otherwise
    "silero-vad": ("silero_vad", "torch", ["packaging"], 0, 0),
    "g2pM": ("g2pM", None, [], 0, 0),
}
WITHOUT = """
import runpy, sys
sys.path.insert(0, {folder!r})
sys.modules[{framework!r}] = None
runpy.run_path({page!r}, run_name="__main__")
"""


def page_of(name):
    return FOLDER / f"{name.replace('-', '_').lower()}_cylstm.py"


def skip_without(*modules):
    for module in filter(None, modules):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def run(folder, *arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the program finds dksplit's model, if that can be converted."""
    folder = tmp_path_factory.mktemp("packages")
    if all(importlib.util.find_spec(module) for module in ("dksplit", "onnx")):
        run(folder, page_of("dksplit"), "convert")
    return folder


@pytest.mark.parametrize("name", PACKAGES)
def test_it_runs_without_its_framework(name, folder):
    module, framework, others, *_ = PACKAGES[name]
    skip_without(module, *others)
    given = {"folder": str(FOLDER), "framework": framework or "torch", "page": str(page_of(name))}
    assert run(folder, "-c", WITHOUT.format(**given)).strip()


@pytest.mark.parametrize("name", PACKAGES)
def test_it_answers_as_the_package_does(name, folder, monkeypatch):
    module, framework, others, share, tolerance = PACKAGES[name]
    skip_without(module, framework, *others)
    monkeypatch.syspath_prepend(str(FOLDER))
    measure = importlib.import_module("measure")
    before, after = (
        json.loads(
            run(
                folder, FOLDER / "measure.py", "one", folder, f"{name}={way}", "whole"
            ).splitlines()[-1]
        )["answers"]
        for way in ("before", "after")
    )
    changed, count, furthest = measure.apart(before, after)
    assert changed <= share * count
    assert furthest <= tolerance


def test_every_page_is_run():
    assert sorted(FOLDER.glob("*_cylstm.py")) == sorted(map(page_of, PACKAGES))


@pytest.mark.filterwarnings("ignore")  # those of the packages, which leave files open
def test_int8_is_no_further_off_than_onnx_runtime(monkeypatch):
    skip_without("onnx", "onnxruntime", "tabulate")
    published = importlib.import_module("benchmarks.peers.published")
    runners = importlib.import_module("benchmarks.peers.accuracy").RUNNERS
    installed = [name for name in published.PUBLISHED if not published.missing(name)]
    if not installed:
        pytest.skip("no package of those that are judged is installed")
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(published, "SOUND", 10)
    few = {name: runners[name] for name in ("float32", "int8", "ONNX Runtime int8")}
    for name in installed:
        found = published.PUBLISHED[name][1](few)
        assert 0 < found["int8"][2] <= found["ONNX Runtime int8"][2]
