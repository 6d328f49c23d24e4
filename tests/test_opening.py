"""`cylstm.load`: each kind of file is told by its content, whatever it is called."""

import os
import pickle

import numpy as np
import pytest

import cylstm
from cylstm.io import safetensors
from cylstm.train import Last, Linear, Sequential

INPUT, HIDDEN = 3, 4
READERS = ["load", "from_torch", "from_keras", "from_onnx"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.dat"  # the name tells nothing


@pytest.fixture
def lstm():
    return cylstm.LSTM(INPUT, HIDDEN, num_layers=2, batch_first=True, seed=0)


@pytest.fixture
def x(rng):
    return rng.standard_normal((2, 5, INPUT)).astype(np.float32)


def arrays_of(lstm):
    return {name: np.asarray(array) for name, array in lstm.to_torch().items()}


def save_numpy(path, lstm):
    with open(path, "wb") as file:
        np.savez(file, **arrays_of(lstm))


def save_pickle(path, lstm, protocol=4):
    path.write_bytes(pickle.dumps(arrays_of(lstm), protocol))


def save_old_pickle(path, lstm):
    save_pickle(path, lstm, 0)


def save_torch(path, lstm, **options):
    pytest.importorskip("torch").save(lstm.to_torch(), path, **options)


def save_old_torch(path, lstm):
    save_torch(path, lstm, _use_new_zipfile_serialization=False)


def save_foreign_tensors(path, lstm):
    safetensors.write(path, arrays_of(lstm), {"format": "pt"})


OF_PYTORCH = [
    *(save_numpy, save_pickle, save_old_pickle, save_torch, save_old_torch),
    save_foreign_tensors,
]


@pytest.mark.parametrize("save", OF_PYTORCH)
def test_weights_of_pytorch(save, path, lstm, x):
    save(path, lstm)
    found = cylstm.load(path, batch_first=True)
    np.testing.assert_array_equal(found(x)[0], lstm(x)[0])
    with pytest.raises(TypeError, match="config: expected none for a file of PyTorch"):
        cylstm.load(path, config={})
    with pytest.raises(ValueError, match="prefix"):
        cylstm.load(path, "encoder", batch_first=True)


def test_unsaid_batch_first_warns_as_from_torch_does(path, lstm):
    save_numpy(path, lstm)
    with pytest.warns(UserWarning, match="batch_first"):
        assert not cylstm.load(path).batch_first


def test_our_own(path, lstm, x):
    for model in (lstm, Sequential(lstm, Last(), Linear(HIDDEN, 2, seed=1))):
        model.save(path)
        found = cylstm.load(path)
        assert type(found) is type(model)
        first, second = found(x), model(x)
        for a, b in zip(np.atleast_1d(first[0]), np.atleast_1d(second[0]), strict=True):
            np.testing.assert_array_equal(a, b)
        for name, value in {"batch_first": True, "prefix": "a", "config": {}}.items():
            with pytest.raises(TypeError, match=f"{name}: expected none for a file of cylstm"):
                cylstm.load(path, **{name: value})


def test_onnx(path, lstm, x):
    pytest.importorskip("onnx")
    lstm.to_onnx(path)
    y, (h_n, c_n) = lstm(x)
    found = cylstm.load(path)(x)
    for name, expected in {"y": y, "h_n": h_n, "c_n": c_n}.items():
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-6)
    for given in ({"batch_first": True}, {"config": {}}):
        with pytest.raises(
            TypeError, match=f"{next(iter(given))}: expected none for a file of ONNX"
        ):
            cylstm.load(path, **given)


@pytest.mark.filterwarnings("ignore")  # Keras's own
@pytest.mark.parametrize("file", ["model.keras", "legacy.h5"])
def test_keras(file, path, tmp_path, x):
    pytest.importorskip("h5py")
    from test_keras import outputs, save  # which chooses Keras's backend

    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((5, INPUT)), keras.layers.LSTM(HIDDEN)])
    os.replace(save(model, tmp_path, file), path)
    np.testing.assert_allclose(cylstm.load(path)(x), outputs(model, x), rtol=0, atol=1e-5)
    with pytest.raises(TypeError, match="prefix: expected none for a file of Keras"):
        cylstm.load(path, "lstm")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "a file compressed by gzip: unpack it first"),
        (b"\x20\0\0\0TFL3\0\0\0\0", "a TensorFlow Lite model"),
        (b"weights = 1\n", "one that begins with b'weights ="),
    ],
)
def test_what_is_none_of_them_is_told(content, told, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.dat: expected a file of.*, got {told}"):
        cylstm.load(path)


def test_former_names_are_told(path, lstm):
    lstm.save(path)
    for load in (lambda: cylstm.load_model(path), lambda: Sequential.load(path)):
        with pytest.warns(DeprecationWarning, match=r"it is called cylstm\.load now"):
            assert repr(load()) == repr(lstm)


@pytest.mark.parametrize("read", READERS)
def test_a_folder_of_tensorflow_is_told(read, tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="a SavedModel of TensorFlow"):
        getattr(cylstm, read)(tmp_path)


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_not_read(read, tmp_path):
    pytest.importorskip("h5py")
    pytest.importorskip("onnx")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="fifo: expected a plain file"):
        getattr(cylstm, read)(tmp_path / "fifo")
