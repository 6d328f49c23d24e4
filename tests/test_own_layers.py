"""Layers of one's own: saved by name, built by classes that the program gives, never by a file."""

import json

import numpy as np
import pytest

import cylstm
from cylstm.io.safetensors import read, write
from cylstm.layers import Layer, Linear, Sequential, register, saved


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(saved, "_registered", {})


class Scale(Layer):
    """With an argument, and a parameter that it holds in its own way."""

    steps_alone = True

    def __init__(self, sizes, sign=1.0):
        self.sizes, self.sign = tuple(sizes), sign
        self.factor = np.ones(self.sizes, np.float32)

    @property
    def config(self):
        return {"sizes": self.sizes, "sign": self.sign}

    def forward(self, x):
        return x * self.sign * self.factor, x

    def backward(self, tape, grad_y):
        rows = tuple(range(grad_y.ndim - 1))
        grads = {"factor": (grad_y * tape * self.sign).sum(rows)}
        return grad_y * self.sign * self.factor, grads

    def named_parameters(self):
        yield "factor", self.factor

    def edit(self):
        class Lent(dict):
            __enter__ = lambda self: self  # noqa: E731
            __exit__ = lambda self, *_: None  # noqa: E731

        return Lent(factor=self.factor)


class Forgetful(Layer):
    """Its config does not tell what it was made with."""

    def __init__(self, power=1):
        self.power = power

    config = {}  # noqa: RUF012

    def forward(self, x):
        return x**self.power, None

    def backward(self, tape, grad_y):
        return grad_y, {}


def model():
    scale = Scale([3], sign=-2.0)
    scale.factor[...] = [1, 2, 3]
    return Sequential(cylstm.LSTM(2, 3, seed=0), scale, Linear(3, 2, seed=1))


def test_a_registered_layer_is_saved_and_loaded(tmp_path, rng):
    assert register(Scale) is Scale
    own, x = model(), rng.normal(size=(5, 2, 2)).astype(np.float32)
    own.save(tmp_path / "model")
    loaded = cylstm.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded(x), own(x))
    assert isinstance(loaded[1], Scale)
    assert loaded[1].sign == -2


def test_a_program_that_did_not_register_it_gives_it(tmp_path, rng, monkeypatch):
    register(Scale)
    own, x = model(), rng.normal(size=(5, 2, 2)).astype(np.float32)
    own.save(tmp_path / "model")
    monkeypatch.setattr(saved, "_registered", {})
    with pytest.raises(ValueError, match=r"layers\[1\]: expected one of .*, got 'Scale'; a class"):
        cylstm.load(tmp_path / "model")
    loaded = cylstm.load(tmp_path / "model", layers={"Scale": Scale})
    np.testing.assert_array_equal(loaded(x), own(x))


def test_what_is_not_registered_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match=r"layers\[1\]: expected .* cylstm.layers.register"):
        model().save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    register(Scale)
    own = model()
    own[1].sign = {1, 2}  # which JSON cannot hold
    with pytest.raises(ValueError, match=r"layers\[1\]: expected a Scale that its config"):
        own.save(tmp_path / "model")
    register(Broken)
    with pytest.raises(ValueError, match=r"layers\[0\]: expected a Broken that its config"):
        Sequential(Broken(3)).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


class Broken(Forgetful):
    """Its config has an argument that is not its own."""

    config = {"size": 3}  # noqa: RUF012


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: register(3), TypeError, "cls: expected a class of layers"),
        (lambda: register(dict), TypeError, "cls: expected a class of layers"),
        (lambda: register(Scale([3])), TypeError, "cls: expected a class of layers"),
        (lambda: register(type("Linear", (Scale,), {})), ValueError, "own Linear"),
    ],
)
def test_what_cannot_be_registered(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_two_classes_of_one_name():
    register(Scale)
    register(Scale)
    with pytest.raises(ValueError, match="cls: expected one class called Scale"):
        register(type("Scale", (Forgetful,), {"__module__": "elsewhere"}))


@pytest.mark.parametrize("given", [[Scale], {"Scale": Linear(2, 2)}, {"Linear": Scale}])
def test_what_load_does_not_take(given, tmp_path):
    Sequential(Linear(2, 2)).save(tmp_path / "model")
    with pytest.raises((TypeError, ValueError), match="layers: expected"):
        cylstm.load(tmp_path / "model", layers=given)


def test_files_that_have_no_layers_take_none(tmp_path):
    cylstm.LSTM(2, 3).save(tmp_path / "lstm")
    with pytest.raises(TypeError, match="layers: expected none for a file of cylstm"):
        cylstm.load(tmp_path / "lstm", layers={"Scale": Scale})


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.update(config={"sizes": [4], "sign": 1.0}),
        lambda layer: layer.update(config={"sizes": [3]}),
        lambda layer: layer.update(config={"sizes": [3], "sign": 1.0, "more": 1}),
        lambda layer: layer.update(config=[]),
        lambda layer: layer.update(kind="os.system"),
    ],
)
def test_a_file_that_lies_is_refused(change, tmp_path):
    register(Scale)
    model().save(tmp_path / "model")
    tensors, metadata = read(tmp_path / "model")
    config = json.loads(metadata["config"])
    change(config["layers"][1])
    write(tmp_path / "model", tensors, metadata | {"config": json.dumps(config)})
    with pytest.raises(ValueError, match=r"layers\[1\]"):
        cylstm.load(tmp_path / "model")


def test_a_tensor_of_another_dtype_is_refused(tmp_path):
    register(Scale)
    model().save(tmp_path / "model")
    tensors, metadata = read(tmp_path / "model")
    tensors["1.factor"] = tensors["1.factor"].astype(np.float64)
    write(tmp_path / "model", tensors, metadata)
    with pytest.raises(ValueError, match=r"layers\[1\]: factor: expected float32"):
        cylstm.load(tmp_path / "model")
