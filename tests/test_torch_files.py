"""Files that hold PyTorch's weights in other ways than as a state dict of tensors."""

import collections
import datetime
import decimal
import enum
import functools
import io
import pathlib
import pickle
import types
import zipfile

import numpy as np
import pytest

import cylstm

TOLERANCE = 2e-6


class Colour(enum.Enum):
    """An enumeration of a user's own."""

    RED = 1


class Flag(enum.Flag):
    """Another."""

    A = 1
    B = 2


def arrays(dtype="f4"):
    """An LSTM's weights without PyTorch."""
    rng = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "bias_ih_l0": (16,)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def assert_reads(path, state, prefix=None):
    lstm = cylstm.from_torch(path, prefix, batch_first=True)
    for name, array in state.items():
        own = getattr(lstm, name.replace("_ih", "") if "bias" in name else name)
        np.testing.assert_array_equal(own, array.astype(own.dtype))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8"])
def test_pickles_of_arrays(protocol, dtype, tmp_path):
    state = arrays(dtype)
    state["weight_ih_l0"] = np.asfortranarray(state["weight_ih_l0"])
    state["weight_hh_l0"] = np.repeat(state["weight_hh_l0"], 2, axis=1)[:, ::2]
    (tmp_path / "m").write_bytes(pickle.dumps({"a": state, "n": np.arange(3)}, protocol))
    assert_reads(tmp_path / "m", state)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8"])
def test_archives_of_arrays(save, dtype, tmp_path):
    state = arrays(dtype)
    state["weight_ih_l0"] = np.asfortranarray(state["weight_ih_l0"])
    with open(tmp_path / "m", "wb") as file:
        save(file, **{f"rnn.{name}": array for name, array in state.items()}, epoch=3)
    assert_reads(tmp_path / "m", state)


BESIDE = {
    "paths": [pathlib.PurePosixPath("/x"), pathlib.Path("y")],
    "enumerations": {"e": Colour.RED, "f": Flag.A | Flag.B},
    "times": [datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), datetime.timedelta(1)],
    "partial": functools.partial(int, base=2),
    "counter": collections.Counter("abc"),
    "ordered": collections.OrderedDict(a=1),
    "sets": [{1, 2}, frozenset("ab")],
    "slice": slice(1, 2),
    "complex": 1 + 2j,
    "bytearray": bytearray(b"abc"),
    "range": range(3),
    "namespace": types.SimpleNamespace(a=1),
    "decimal": decimal.Decimal("0.1"),
    "numpy": [np.float32(1), np.int64(2), np.dtype("f4"), np.array(["a"], object), np.bool_(True)],
    "class": dict,
    "function": len,
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE.keys())
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_stands_beside_is_passed_over(beside, protocol, tmp_path):
    state = arrays()
    content = {"before": beside, "state": state, "after": [beside]}
    (tmp_path / "m").write_bytes(pickle.dumps(content, protocol))
    assert_reads(tmp_path / "m", state)


def test_what_pytorch_puts_beside_is_passed_over(tmp_path):
    torch = pytest.importorskip("torch")
    state = torch.nn.LSTM(3, 4).state_dict()
    quantised = torch.zeros(2).char()
    beside = [torch.device("cpu"), torch.float32, torch.Size([1]), torch.get_rng_state(), quantised]
    beside.append(torch.zeros(2, dtype=torch.complex64))
    beside.append(torch.eye(2).to_sparse())
    torch.save({"state": state, "beside": dict(enumerate(beside))}, tmp_path / "m.pt")
    lstm = cylstm.from_torch(tmp_path / "m.pt", batch_first=False)
    np.testing.assert_array_equal(lstm.weight_ih_l0, state["weight_ih_l0"])


@pytest.mark.parametrize("kind", ["arrays", "tensors in a pickle", "attributes"])
def test_other_ways_to_save(kind, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = torch.nn.LSTM(3, 4, bias=False).state_dict()
    state = {name: tensor.numpy() for name, tensor in tensors.items()}
    if kind == "arrays":
        torch.save(state, tmp_path / "m")
    elif kind == "attributes":
        for tensor in tensors.values():
            tensor.owner = "me"
        torch.save(dict(tensors), tmp_path / "m")
    else:
        (tmp_path / "m").write_bytes(pickle.dumps(tensors))
    assert_reads(tmp_path / "m", state)


def test_an_archive_of_files(tmp_path):
    """As stable-baselines3 writes them."""
    torch = pytest.importorskip("torch")
    policy = torch.nn.ModuleDict({"lstm_actor": torch.nn.LSTM(3, 4), "head": torch.nn.Linear(4, 1)})
    optimizer = torch.optim.Adam(policy.parameters())
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("data", "{}")
        for name, part in (("policy", policy), ("policy.optimizer", optimizer)):
            file = io.BytesIO()
            torch.save(part.state_dict(), file)
            archive.writestr(f"{name}.pth", file.getvalue())
        archive.writestr("system_info.txt", "text")
    for prefix in (None, "lstm_actor", "policy.lstm_actor"):
        lstm = cylstm.from_torch(tmp_path / "m.zip", prefix, batch_first=False)
        np.testing.assert_array_equal(lstm.weight_hh_l0, policy["lstm_actor"].weight_hh_l0.detach())


# Quantised --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # PyTorch's, and that a state dict does not say batch_first
@pytest.mark.parametrize("dtype", ["qint8", "float16"])
@pytest.mark.parametrize("options", [{"num_layers": 3}, {"bidirectional": True}, {"num_layers": 2,
                         "bidirectional": True, "batch_first": True}])  # fmt: skip
def test_a_quantised_lstm_is_its_weights(dtype, options, tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 4, **options)})
    model = torch.ao.quantization.quantize_dynamic(
        model, {torch.nn.LSTM}, dtype=getattr(torch, dtype)
    )
    torch.save(model, tmp_path / "whole.pt")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    torch.jit.script(model["rnn"]).save(tmp_path / "script.pt")
    files = [tmp_path / f"{name}.pt" for name in ("whole", "state", "script")]
    for source in (model, model.state_dict(), *files):
        lstm = cylstm.from_torch(source)
        biases = model["rnn"].get_bias()
        for name, weight in model["rnn"].get_weight().items():
            np.testing.assert_array_equal(getattr(lstm, name), weight.dequantize())
        for name in (n for n in lstm.state_dict() if n.startswith("bias_")):
            pair = [biases[name.replace("bias_", f"bias_{k}_")].detach() for k in ("ih", "hh")]
            np.testing.assert_array_equal(getattr(lstm, name), pair[0] + pair[1])


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_state_dict_that_could_be_two_lstms_is_refused():
    torch = pytest.importorskip("torch")
    model = torch.ao.quantization.quantize_dynamic(
        torch.nn.Sequential(torch.nn.LSTM(4, 4, 2)), {torch.nn.LSTM}
    )
    assert cylstm.from_torch(model).num_layers == 2
    with pytest.raises(ValueError, match="two layers, or of one in both directions"):
        cylstm.from_torch(model.state_dict())


# What is not read -------------------------------------------------------------------------------

STARTS = {
    "TensorFlow Lite": b"\x1c\0\0\0TFL3",
    "Core ML": b"\x08\x05\x12\x10\x0a\x0e\x0a\x01x",
    "HDF5.*from_keras": b"\x89HDF\r\n\x1a\n",
    "ONNX.*from_onnx": b"\x08\x08\x12\x07pytorch",
    "gzip": b"\x1f\x8b\x08",
    "empty": b"",
}


@pytest.mark.parametrize(("said", "content"), STARTS.items())
def test_the_error_says_what_the_file_is(said, content, tmp_path):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path / 'm'}: .*{said}"):
        cylstm.from_torch(tmp_path / "m")


FOLDERS = [("saved_model.pb", "SavedModel"), ("Manifest.json", "Core ML"), ("a.bin", "'a.bin'")]


@pytest.mark.parametrize(("name", "said"), FOLDERS)
def test_the_error_says_what_the_folder_is(name, said, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=said):
        cylstm.from_torch(tmp_path)


def test_weights_whose_content_is_not_read_are_refused(tmp_path):
    state = arrays() | {"bias_ih_l0": Colour.RED}
    (tmp_path / "m").write_bytes(pickle.dumps(state))
    with pytest.raises(ValueError, match=r"bias_ih_l0'?: expected real numbers, got an object of"):
        cylstm.from_torch(tmp_path / "m", batch_first=True)
