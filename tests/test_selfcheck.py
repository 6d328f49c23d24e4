"""Files that test themselves: what they keep, and what becomes of a file or a machine that lies."""

import numpy as np
import pytest

import cylstm
from cylstm import selfcheck
from cylstm.cli.main import main
from cylstm.io.safetensors import read, write
from cylstm.layers import (
    Dropout,
    Embedding,
    Last,
    Layer,
    LayerNorm,
    Linear,
    MeanPool,
    ReLU,
    Sequential,
    register,
    saved,
)

MODELS = {
    "lstm": lambda: cylstm.LSTM(3, 5, 2, bidirectional=True, seed=0),
    "lstm-float64": lambda: cylstm.LSTM(3, 5, proj_size=2, dtype="float64", seed=0),
    "lstm-batch-first": lambda: cylstm.LSTM(3, 5, batch_first=True, seed=0),
    "gru": lambda: cylstm.GRU(3, 5, seed=0),
    "rnn": lambda: cylstm.RNN(3, 5, seed=0),
    "int8": lambda: cylstm.LSTM(3, 5, seed=0).quantize("int8"),
    "bfloat16": lambda: cylstm.GRU(3, 5, seed=0).quantize("bfloat16"),
    "tagger": lambda: Sequential(
        Embedding(9, 4, seed=0), cylstm.LSTM(4, 5, seed=1), Linear(5, 3, seed=2)
    ),
    "classifier": lambda: Sequential(
        Dropout(), LayerNorm(4), cylstm.LSTM(4, 5, batch_first=True), MeanPool(True), Linear(5, 2)
    ),
    "quantized": lambda: Sequential(cylstm.LSTM(4, 5, seed=1), Last(), Linear(5, 3)).quantize(),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request):
    return request.param()


def test_a_file_that_tests_itself(model, tmp_path):
    model.save(tmp_path / "plain")
    model.save(tmp_path / "model", check=True)
    loaded = cylstm.load(tmp_path / "model")
    assert repr(loaded) == repr(model)
    plain, _ = read(tmp_path / "plain")
    tensors, metadata = read(tmp_path / "model")
    assert tensors.keys() - plain.keys() == {"__check__.x", "__check__.y"}
    example = selfcheck.taken(tensors, metadata)
    assert tensors.keys() == plain.keys()
    assert selfcheck.verify(loaded, example) == 0
    assert example.x.shape[:2] == ((2, 8) if model.batch_first else (8, 2))


def test_the_safetensors_library_reads_it(model, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    if getattr(model, "weights", "") == "bfloat16":
        pytest.skip("NumPy has no bfloat16")
    model.save(tmp_path / "model", check=True)
    assert "__check__.y" in numpy.load_file(tmp_path / "model")


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_changed_parameter_is_seen(model, part, tmp_path):
    """By as little as rounding to fewer bits would."""
    model.save(tmp_path / "model", check=True)
    tensors, metadata = read(tmp_path / "model")
    changed = [
        n for n in tensors if part in n and tensors[n].dtype.kind == "f" and "scale" not in n
    ]
    if metadata["kind"].startswith("Quantized") or not changed:
        pytest.skip("of which bits are kept in another way")
    for name in changed:
        tensors[name] = tensors[name] + tensors[name].dtype.type(0.1)
    write(tmp_path / "model", tensors, metadata)
    message = r"model: check: expected the output that the file keeps, within .* differs by"
    with pytest.raises(ValueError, match=message):
        cylstm.load(tmp_path / "model")
    assert cylstm.load(tmp_path / "model", check=False)


def test_the_bound_is_that_of_the_precision():
    example = selfcheck.Example(np.zeros(1), np.full((2, 2), 4, np.float32))
    assert selfcheck.bound_of(cylstm.LSTM(1, 2), example) == pytest.approx(4e-5)
    assert selfcheck.bound_of(cylstm.LSTM(1, 2).quantize(), example) == pytest.approx(8e-2)
    lstm = Sequential(cylstm.LSTM(1, 2)).quantize("bfloat16")
    assert selfcheck.bound_of(lstm, example) == pytest.approx(8e-2)
    small = selfcheck.Example(np.zeros(1), np.full((2, 2), 0.1))
    assert selfcheck.bound_of(cylstm.LSTM(1, 2, dtype="float64"), small) == pytest.approx(1e-12)


@pytest.mark.parametrize(("times", "passes"), [(0.9, True), (1.1, False)])
def test_the_bound_holds_to_both_sides(times, passes, tmp_path):
    cylstm.LSTM(2, 3, seed=0).save(tmp_path / "model", check=True)
    tensors, metadata = read(tmp_path / "model")
    tensors["__check__.y"][0, 0, 0] += np.float32(times * 1e-5)
    write(tmp_path / "model", tensors, metadata)
    if passes:
        cylstm.load(tmp_path / "model")
    else:
        with pytest.raises(ValueError, match=r"differs by 1\.1e-05"):
            cylstm.load(tmp_path / "model")


def test_an_input_of_ones_own(tmp_path, rng):
    x = rng.normal(size=(30, 1, 3)).astype(np.float32)
    lstm = cylstm.LSTM(3, 4, seed=0)
    lstm.save(tmp_path / "model", check=x)
    tensors, _ = read(tmp_path / "model")
    np.testing.assert_array_equal(tensors["__check__.x"], x)
    np.testing.assert_array_equal(tensors["__check__.y"], lstm(x)[0])
    cylstm.load(tmp_path / "model")
    tagger = MODELS["tagger"]()
    tagger.save(tmp_path / "tagger", check=np.array([[3], [8]], np.int32))
    cylstm.load(tmp_path / "tagger")


class Twice(Layer):
    config = {}  # noqa: RUF012

    def forward(self, x):
        return x[..., :1] * 2, None

    def backward(self, tape, grad_y):
        return grad_y, {}


@pytest.mark.parametrize(
    ("model", "check", "error", "message"),
    [
        (lambda: cylstm.LSTM(3, 4), np.ones((2, 1, 2), "f4"), ValueError, "x: expected"),
        (lambda: cylstm.LSTM(3, 4), np.ones((2, 1, 3)), TypeError, "x: expected"),
        (
            lambda: cylstm.LSTM(3, 4),
            np.full((2, 1, 3), np.nan, "f4"),
            ValueError,
            "check: .*finite",
        ),
        (lambda: cylstm.LSTM(3, 4), np.ones((2, 1, 3), complex), TypeError, "check: expected True"),
        (lambda: cylstm.LSTM(3, 4), "yes", TypeError, "check: expected an array"),
        (lambda: cylstm.LSTM(3, 4), np.zeros((2**21, 1, 3), "f4"), ValueError, "check: .*at most"),
        (lambda: Sequential(ReLU()), True, ValueError, "check: expected a model whose first layer"),
        (lambda: broken(), True, ValueError, "check: expected a model that gives finite numbers"),
    ],
)
def test_what_cannot_be_checked(model, check, error, message, tmp_path):
    with pytest.raises(error, match=message):
        model().save(tmp_path / "model", check=check)
    assert not list(tmp_path.iterdir())


def broken():
    lstm = cylstm.LSTM(3, 4)
    lstm.bias_l0 = np.full(16, np.nan, np.float32)
    return lstm


def test_a_layer_of_ones_own_needs_an_input(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "_registered", {})
    register(Twice)
    model = Sequential(Twice(), Linear(1, 2))
    with pytest.raises(ValueError, match="give an input, check=x"):
        model.save(tmp_path / "model", check=True)
    model.save(tmp_path / "model", check=np.ones((4, 3), np.float32))
    cylstm.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.pop("__check__.x"), "check: expected the tensors"),
        (lambda t, m: t.pop("__check__.y"), "check: expected the tensors"),
        (lambda t, m: (t.pop("__check__.x"), t.pop("__check__.y")), "check: expected the tensors"),
        (lambda t, m: m.pop("check"), "check: expected one of float32"),
        (lambda t, m: m.update(check="object"), "check: expected one of float32"),
        (lambda t, m: m.update(check="int64"), "__check__.x: expected int64"),
        (lambda t, m: t["__check__.x"].fill(np.nan), "__check__.x: expected finite"),
        (lambda t, m: t["__check__.y"].fill(np.inf), "__check__.y: expected finite"),
        (lambda t, m: t.update({"__check__.x": np.ones((2, 1, 7), "f4")}), "__check__.x: expected"),
        (
            lambda t, m: t.update({"__check__.x": np.ones((2, 1, 3))}),
            "__check__.x: expected float32",
        ),
        (lambda t, m: t.update({"__check__.x": np.ones(3, "i1")}), "__check__.x: expected finite"),
        (lambda t, m: t.update({"__check__.y": np.ones((2, 2), "f4")}), "__check__.y: expected"),
        (lambda t, m: t.update({"__check__.y": t["__check__.y"].astype("f8")}), "__check__.y: exp"),
        (lambda t, m: t.update({"__check__.z": np.ones(3)}), "__check__.z"),
    ],
)
def test_hostile_files(change, message, tmp_path):
    cylstm.LSTM(3, 4, seed=0).save(tmp_path / "model", check=True)
    tensors, metadata = read(tmp_path / "model")
    if message == "__check__.x: expected float32":
        tensors["__check__.x"] = tensors["__check__.x"].astype("f8") + 1e-12
        change = lambda t, m: None  # noqa: E731
    change(tensors, metadata)
    write(tmp_path / "model", tensors, metadata)
    with pytest.raises(ValueError, match=f"model: .*{message}"):
        cylstm.load(tmp_path / "model")


def test_load_takes_true_or_false(tmp_path):
    cylstm.LSTM(3, 4).save(tmp_path / "model")
    with pytest.raises(TypeError, match="check: expected True or False"):
        cylstm.load(tmp_path / "model", check=1)


def test_the_command_line(tmp_path, capsys):
    source, target = str(tmp_path / "plain.safetensors"), str(tmp_path / "tested.safetensors")
    cylstm.LSTM(3, 4, seed=0).save(source)
    assert main(["convert", source, target, "--check", "--quantize", "int8"]) == 0
    assert main(["info", target]) == 0
    assert "tests itself" in capsys.readouterr().out
    assert main(["info", source]) == 0
    assert "tests itself" not in capsys.readouterr().out
    assert main(["convert", source, str(tmp_path / "model.onnx"), "--check"]) == 1
    assert "--check: expected a .safetensors file" in capsys.readouterr().err
