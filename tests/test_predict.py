"""Any number of ragged sequences in memory: as each is alone, in their order."""

import importlib.util
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm.layers import Dropout, Embedding, Last, Layer, Linear, Sequential
from cylstm.predict.batches import batches_of
from cylstm.predict.model import Predictor
from cylstm.predict.outputs import probabilities

MODELS = {
    "LSTM": lambda: cylstm.LSTM(3, 4, num_layers=2, seed=0),
    "both directions": lambda: cylstm.LSTM(3, 4, bidirectional=True, seed=0),
    "batch first": lambda: cylstm.LSTM(3, 4, batch_first=True, seed=0),
    "float64": lambda: cylstm.LSTM(3, 4, dtype="float64", seed=0),
    "int8": lambda: cylstm.LSTM(3, 4, bidirectional=True, seed=0).quantize("int8"),
    "steps": lambda: Sequential(cylstm.LSTM(3, 4, seed=0), Dropout(), Linear(4, 2, seed=0)),
    "within": lambda: Sequential(Sequential(cylstm.LSTM(3, 4, seed=0)), Last()),
    "last of both": lambda: Sequential(
        cylstm.LSTM(3, 4, num_layers=2, bidirectional=True, seed=0), Last(), Linear(8, 2, seed=0)
    ),
    "last of stacked": lambda: Sequential(
        cylstm.LSTM(3, 4, bidirectional=True, proj_size=2, seed=0),
        cylstm.LSTM(4, 4, bidirectional=True, seed=1),
        Last(),
    ),
    "last of reverse": lambda: Sequential(cylstm.LSTM(3, 4, reverse=True, seed=0), Last()),
    "GRU": lambda: Sequential(cylstm.GRU(3, 4, bidirectional=True, seed=0), Last()),
    "RNN": lambda: cylstm.RNN(3, 4, seed=0),
    "whole in int8": lambda: Sequential(
        Linear(3, 3, seed=1), cylstm.LSTM(3, 4, seed=0), Last(), Linear(4, 2, seed=0)
    ).quantize("int8"),
    "last": lambda: Sequential(cylstm.LSTM(3, 4, batch_first=True, seed=0), Last(True)),
}


def alone(model, x):
    """The output of one sequence in a batch of its own."""
    first = bool(model.batch_first)
    y = model(x[None] if first else x[:, None])
    y = y[0] if isinstance(y, tuple) else y
    return y[0] if first or y.ndim == 2 else y[:, 0]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@given(data=st.data())
@settings(max_examples=20)
def test_each_sequence_is_as_alone(make, data):
    model = make()
    lengths = data.draw(st.lists(st.integers(1, 9), max_size=30))
    batch_tokens = data.draw(st.sampled_from([1, 7, 30, 1000]))
    rng = np.random.default_rng(0)
    dtype = getattr(model, "dtype", np.float32)
    sequences = [rng.standard_normal((n, 3)).astype(dtype) for n in lengths]
    found = model.predict(sequences, batch_tokens=batch_tokens, threads=2)
    assert len(found) == len(sequences)
    for y, x in zip(found, sequences, strict=True):
        assert np.array_equal(y, alone(model, x))
    values = np.concatenate([np.zeros((2, 3), dtype), *sequences])  # offsets may begin anywhere
    offsets = np.cumsum([2, *lengths])
    flat = model.predict(values, offsets, batch_tokens=batch_tokens)
    if isinstance(found, list):
        found = np.concatenate([np.zeros((0, flat.shape[1]), dtype), *found])
    assert np.array_equal(flat, found)


def test_empty_sequences_have_no_steps():
    model = cylstm.LSTM(3, 4, seed=0)
    x = np.ones((2, 3), np.float32)
    found = model.predict([x, x[:0], x])
    assert [len(y) for y in found] == [2, 0, 2]
    assert np.array_equal(found[2], model(x)[0])
    assert model.predict([]) == []


def test_numbers_of_other_types_are_converted():
    model = cylstm.LSTM(3, 4, seed=0)
    (found,) = model.predict([[[1, 2, 3], [4, 5, 6]]])
    assert np.array_equal(found, model(np.array([[1, 2, 3], [4, 5, 6]], np.float32))[0])


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_last_step_has_the_bits_of_all_steps(rng, make):
    """Though not all that the other steps need is computed for it."""
    model = make()
    predictor = Predictor(model)
    x = rng.standard_normal((9, 6, 3)).astype(getattr(model, "dtype", np.float32))
    x = x.swapaxes(0, 1).copy() if predictor.batch_first else x
    for lengths in (None, np.array([9, 2, 5, 1, 9, 0])):
        y = predictor.run(x, lengths)[0]
        if predictor.keeps_time:
            y = y.swapaxes(0, 1) if predictor.batch_first else y
            ends = np.full(6, 9) if lengths is None else lengths
            y = np.where((ends > 0)[:, None], y[ends - 1, np.arange(6)], 0)
        found = predictor.run_last(x, lengths)
        real = slice(0, 5) if lengths is not None and predictor.keeps_time else slice(None)
        assert np.array_equal(found[real], y[real])


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ([np.ones((2, 4))], ValueError, r"expected shape \(T, 3\), got \(T, 4\)"),
        ([np.ones((2, 3)), np.ones((2, 4))], ValueError, r"sequences\[1\]: expected shape"),
        ([np.ones(2)], ValueError, r"expected shape \(T, 3\)"),
        (np.ones((2, 2, 3)), TypeError, "expected a list of arrays, or values and offsets"),
        ([np.array([["a", "b", "c"]])], TypeError, "expected real numbers"),
    ],
)
def test_what_is_refused(sequences, error, message):
    with pytest.raises(error, match=message):
        cylstm.LSTM(3, 4, seed=0).predict(sequences)


def test_tokens_are_checked():
    model = Sequential(Embedding(9, 3, seed=0), cylstm.LSTM(3, 4, seed=0))
    with pytest.raises(ValueError, match="expected tokens from 0 to 8, got 0 to 9"):
        model.predict([[0, 1], [9]])
    with pytest.raises(TypeError, match=r"expected tokens, integers \(T,\), got float64"):
        model.predict([[0.5]])
    for offsets in ([0, 3, 2], [0, 9], [-1, 2]):
        with pytest.raises(ValueError, match="offsets: expected rising numbers from 0 to 4"):
            model.predict(np.arange(4), offsets)


def test_progress(capsys):
    pytest.importorskip("tqdm")
    cylstm.LSTM(3, 4, seed=0).predict([np.ones((2, 3))] * 5, progress=True)
    assert "5/5" in capsys.readouterr().err


class Mean(Layer):
    """A layer of a user's: it takes no lengths, so a batch must have none that differ."""

    keeps_time = False

    def forward(self, x):
        return x.mean(axis=0), None

    def backward(self, tape, grad_y):
        raise NotImplementedError

    @property
    def config(self):
        return {}


def test_a_layer_that_takes_no_lengths_sees_no_padding(rng):
    model = Sequential(cylstm.LSTM(3, 4, seed=0), Mean())
    sequences = [rng.standard_normal((n, 3)).astype(np.float32) for n in (5, 2, 7, 2)]
    for y, x in zip(model.predict(sequences), sequences, strict=True):
        np.testing.assert_allclose(y, model(x[:, None])[0], rtol=1e-6)
    assert not Predictor(model).is_exact


def test_batches_have_all_once_and_few_padded_steps(rng):
    lengths = rng.integers(0, 50, 1000)
    for alike in (False, True):
        batches = list(batches_of(lengths, 400, alike))
        assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(1000))
        for rows in batches:
            assert len(rows) * max(1, lengths[rows].max()) <= 400
            assert not alike or len(set(lengths[rows])) == 1


def test_probabilities_do_not_depend_on_other_rows(rng):
    for width in (1, 2, 5, 17):
        y = rng.standard_normal((300, width)).astype(np.float32) * 20
        whole = probabilities(y)
        for n in (0, 7, 299):
            assert np.array_equal(probabilities(y[n : n + 1])[0], whole[n])
        wide = y.astype(np.float64)
        if width > 1:
            expected = np.exp(wide - wide.max(axis=1, keepdims=True))
            expected /= expected.sum(axis=1, keepdims=True)
        else:
            expected = 1 / (1 + np.exp(-wide))
        np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-37)


# Models of other frameworks --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # those of the framework
def test_a_model_of_keras(rng, tmp_path):
    """Its mask is its own; padding would change what it returns."""
    if importlib.util.find_spec("tensorflow") is None:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((None,), dtype="int32"),
            layers.Embedding(20, 4),
            layers.Bidirectional(layers.LSTM(3)),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.save(tmp_path / "m.keras")
    loaded = cylstm.load(tmp_path / "m.keras")
    sequences = [rng.integers(0, 20, n) for n in (5, 1, 9, 5)]
    found = loaded.predict(sequences)
    for y, x in zip(found, sequences, strict=True):
        expected = keras.ops.convert_to_numpy(model(x[None]))[0]
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match="ends with softmax and returns probabilities"):
        cylstm.Scorer(loaded, output="probabilities")({"x": sequences})
    scored = cylstm.Scorer(loaded)({"x": np.array(sequences, object)})["prediction"]
    assert np.array_equal(scored, found)


def test_a_model_of_onnx(rng, tmp_path):
    onnx = pytest.importorskip("onnx")
    lstm = cylstm.LSTM(3, 4, bidirectional=True, seed=0)
    lstm.to_onnx(tmp_path / "m.onnx")
    graph = cylstm.load(tmp_path / "m.onnx")  # three outputs
    with pytest.raises(ValueError, match="expected one output"):
        graph.predict([np.ones((2, 3), np.float32)], batch_first=False)
    proto = onnx.load(tmp_path / "m.onnx")
    del proto.graph.output[1:]
    onnx.save(proto, tmp_path / "m.onnx")
    chain = cylstm.load(tmp_path / "m.onnx")
    sequences = [rng.standard_normal((n, 3)).astype(np.float32) for n in (5, 2, 7, 2)]
    for y, x in zip(chain.predict(sequences, batch_first=False), sequences, strict=True):
        assert np.array_equal(y, lstm(x[:, None])[0][:, 0])
    with pytest.raises(ValueError, match="batch_first: expected False, which the model says"):
        chain.predict(sequences, batch_first=True)
