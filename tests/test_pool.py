"""A pool of streams: each goes on as a stream of its own would, at times of its own."""

import importlib.util
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm.layers import Embedding, Last, Linear, Sequential

MODELS = {
    "LSTM": lambda: cylstm.LSTM(3, 4, num_layers=2, seed=0),
    "projected": lambda: cylstm.LSTM(3, 4, proj_size=2, dtype="float64", seed=0),
    "int8": lambda: cylstm.LSTM(3, 4, seed=0).quantize("int8"),
    "GRU": lambda: cylstm.GRU(3, 4, num_layers=2, seed=0),
    "layers": lambda: Sequential(
        Linear(3, 5, seed=0), cylstm.LSTM(5, 4, seed=0), cylstm.LSTM(4, 4, seed=1), Last()
    ),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@given(steps=st.lists(st.sets(st.integers(0, 5)), max_size=12), reset=st.integers(0, 5))
@settings(max_examples=20)
def test_each_is_as_a_stream_of_its_own(make, steps, reset):
    model = make()
    dtype = getattr(model, "dtype", np.dtype("float32"))
    pool, streams = cylstm.StreamPool(model, 6), [model.stream() for _ in range(6)]
    rng = np.random.default_rng(0)
    for n, chosen in enumerate(steps):
        rows = rng.permutation(sorted(chosen)).astype(int)
        x = rng.standard_normal((len(rows), 3)).astype(dtype)
        y = pool.step(rows, x)
        assert len(y) == len(rows)
        for row, given_x, found in zip(rows, x, y, strict=True):
            assert np.array_equal(streams[row].step(given_x[None])[0], found)
        if n == 5:
            pool.reset([reset])
            streams[reset].reset()


def test_states_are_saved_and_restored(rng, tmp_path):
    model = MODELS["layers"]()
    pool = cylstm.StreamPool(model, 100)
    x = rng.standard_normal((5, 40, 3)).astype(np.float32)
    for step in x[:3]:
        pool.step(rng.permutation(100)[:40], step)
    pool.save(tmp_path / "streams.safetensors")
    again = cylstm.StreamPool(MODELS["layers"](), 100)
    again.restore(tmp_path / "streams.safetensors")
    for step in x[3:]:
        rows = rng.permutation(100)[:40]
        assert np.array_equal(pool.step(rows, step), again.step(rows, step))
    weights = sum(array.nbytes for _, array in model.named_parameters())
    assert (tmp_path / "streams.safetensors").stat().st_size < 100 * 4 * 4 * 4 + weights


def test_another_models_states_are_refused(tmp_path):
    path = tmp_path / "streams.safetensors"
    lstm = cylstm.LSTM(3, 4, seed=0)
    pool = cylstm.StreamPool(lstm, 10)
    pool.step([3], np.ones((1, 3), np.float32))
    pool.save(path)
    with pytest.raises(ValueError, match="another model's"):
        cylstm.StreamPool(cylstm.LSTM(3, 4, seed=1), 10).restore(path)
    with pytest.raises(ValueError, match="another size's"):
        cylstm.StreamPool(lstm, 11).restore(path)
    lstm.save(path)
    with pytest.raises(ValueError, match=r"expected what StreamPool\.save wrote"):
        pool.restore(path)
    with pytest.raises(FileNotFoundError):
        pool.restore(tmp_path / "none")


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([1, 1], ValueError, "expected each once"),
        ([1, 10], IndexError, "expected 0 to 9, got 1 to 10"),
        ([-1, 0], IndexError, "expected 0 to 9"),
        ([0.0, 1.0], TypeError, "expected integers"),
        ([0], ValueError, "x: expected a step for each of 1 rows"),
    ],
)
def test_bad_rows_change_nothing(rows, error, message):
    pool = cylstm.StreamPool(cylstm.LSTM(3, 4, seed=0), 10)
    first = pool.step([0, 1], np.ones((2, 3), np.float32))
    pool.reset([0, 1])
    with pytest.raises(error, match=message):
        pool.step(rows, np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="x: expected"):
        pool.step([0, 1], np.ones((2, 5), np.float32))
    assert np.array_equal(pool.step([0, 1], np.ones((2, 3), np.float32)), first)


def test_a_model_that_cannot_be_streamed_is_refused():
    with pytest.raises(ValueError, match="cannot be streamed"):
        cylstm.StreamPool(cylstm.LSTM(3, 4, bidirectional=True), 10)


def test_tokens():
    model = Sequential(Embedding(9, 3, seed=0), cylstm.LSTM(3, 4, seed=0))
    pool, stream = cylstm.StreamPool(model, 1000), model.stream()
    for token in (3, 1, 4):
        assert np.array_equal(pool.step([512], np.array([token])), stream.step(np.array([token])))


@pytest.mark.filterwarnings("ignore")  # those of the framework
def test_a_model_of_keras(rng, tmp_path):
    if importlib.util.find_spec("tensorflow") is None:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Input((None, 3)), keras.layers.LSTM(4, return_sequences=True)]
    keras.Sequential([*layers, keras.layers.Dense(2)]).save(tmp_path / "m.keras")
    model = cylstm.load(tmp_path / "m.keras")
    pool, streams = cylstm.StreamPool(model, 4), [model.stream() for _ in range(4)]
    for rows in ([0, 2], [2, 1, 0], [3], [0, 1, 2, 3]):
        x = rng.standard_normal((len(rows), 3)).astype(np.float32)
        for row, own, y in zip(rows, x, pool.step(rows, x), strict=True):
            np.testing.assert_allclose(streams[row].step(own[None])[0], y, rtol=1e-6)
