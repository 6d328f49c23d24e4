"""A model's digest is that of all that its outputs follow from, and the same in every process."""

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cylstm
from cylstm.digest import digest_of
from cylstm.layers import Dropout, Embedding, Last, Linear, Sequential


def elsewhere(path):
    """The digest that another process finds, whose hashes of strings differ."""
    code = (
        "import sys, cylstm; from cylstm.digest import digest_of;"
        "print(digest_of(cylstm.load(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        cwd=Path(path).parent,  # not in the source folder
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def model(seed=0, p=0.5):
    lstm = cylstm.LSTM(3, 4, seed=seed)
    return Sequential(Embedding(9, 3, seed=0), lstm, Dropout(p), Last(), Linear(4, 2, seed=0))


def test_of_layers(tmp_path):
    own = model()
    before = digest_of(own)
    own.predict([[1, 2], [3]])
    own.forward(np.array([[1], [2]]))  # draws random numbers, which outputs do not depend on
    own.save(tmp_path / "m.safetensors")
    assert digest_of(own) == before == elsewhere(tmp_path / "m.safetensors")
    assert digest_of(pickle.loads(pickle.dumps(own))) == before
    with own.edit() as parameters:
        parameters["4.bias"][0] += 1e-6
    assert digest_of(own) != before
    assert len({before, digest_of(model(seed=1)), digest_of(model(p=0.25))}) == 3


def test_of_few_bits(tmp_path):
    lstm = cylstm.LSTM(3, 4, seed=0)
    digests = {digest_of(lstm), *(digest_of(lstm.quantize(kind)) for kind in ("int8", "bfloat16"))}
    assert len(digests) == 3
    lstm.quantize("int8").save(tmp_path / "q.safetensors")
    assert elsewhere(tmp_path / "q.safetensors") in digests
    whole = model().quantize("int8")
    before = digest_of(whole)
    whole.predict([[1, 2], [3]])
    whole.save(tmp_path / "whole.safetensors")
    assert digest_of(whole) == before == elsewhere(tmp_path / "whole.safetensors")


@pytest.mark.filterwarnings("ignore")  # those of the framework
def test_of_a_model_of_keras(tmp_path):
    if importlib.util.find_spec("tensorflow") is None:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layers = keras.layers
    given = layers.Input((None, 3))
    both = layers.concatenate([layers.LSTM(2)(given), layers.LSTM(2, go_backwards=True)(given)])
    for name, last in (("chain", [layers.LSTM(4), layers.Dense(2, "softmax")]), ("graph", None)):
        made = keras.Model(given, both) if last is None else keras.Sequential([given, *last])
        path = tmp_path / f"{name}.keras"
        made.save(path)
        loaded = cylstm.load(path)
        before = digest_of(loaded)
        loaded(np.ones((2, 5, 3), np.float32))
        assert digest_of(loaded) == before == elsewhere(path)
        made.set_weights([weight + 0.5 for weight in made.get_weights()])
        made.save(path)
        assert digest_of(cylstm.load(path)) != before


def test_of_a_model_of_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    cylstm.LSTM(3, 4, seed=0).to_onnx(tmp_path / "graph.onnx")
    proto = onnx.load(tmp_path / "graph.onnx")
    del proto.graph.output[1:]
    onnx.save(proto, tmp_path / "chain.onnx")
    found = set()
    for name in ("graph.onnx", "chain.onnx"):
        loaded = cylstm.load(tmp_path / name)
        before = digest_of(loaded)
        loaded(np.ones((5, 2, 3), np.float32))
        assert digest_of(loaded) == before == elsewhere(tmp_path / name)
        found.add(before)
    assert len(found) == 2
