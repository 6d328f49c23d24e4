"""What PyTorch made, against PyTorch itself; its files without it; and hostile ones."""

import argparse
import collections
import contextlib
import importlib.util
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm.io import unpickle
from reference import random_lstm

pytestmark = pytest.mark.filterwarnings("ignore")  # those of PyTorch
TOLERANCE = 2e-6

configs = st.fixed_dictionaries(
    {
        "input_size": st.integers(1, 9),
        "hidden_size": st.integers(2, 9),
        "num_layers": st.integers(1, 3),
        "bias": st.booleans(),
        "batch_first": st.booleans(),
        "bidirectional": st.booleans(),
        "proj_size": st.integers(0, 1),
    }
)
dtypes = st.sampled_from(["float16", "bfloat16", "float32", "float64"])


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def as_zip(torch, value, path):
    torch.save(value, path)


def as_legacy(torch, value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def as_later_pickle(torch, value, path):
    torch.save(value, path, pickle_protocol=4)


def as_safetensors(torch, value, path):
    library = pytest.importorskip("safetensors.torch")
    library.save_file({name: tensor.contiguous() for name, tensor in value.items()}, path)


SAVED = [as_zip, as_legacy, as_later_pickle, as_safetensors]


# LSTMs -----------------------------------------------------------------------------------------


@given(configs, dtypes, st.sampled_from(SAVED), st.integers(0, 2**31))
@settings(max_examples=60)
def test_lstms_have_their_outputs(torch, tmp_path_factory, config, dtype, saved, seed):
    torch.manual_seed(seed)
    module = torch.nn.LSTM(**config).to(getattr(torch, dtype))
    path = tmp_path_factory.mktemp("torch") / "model.pt"
    saved(torch, module.state_dict(), path)
    wide = "float64" if dtype == "float64" else "float32"
    shape = (2, 5) if config["batch_first"] else (5, 2)
    x = torch.randn(*shape, config["input_size"], dtype=getattr(torch, wide))
    arrays = module.state_dict()
    module = module.to(getattr(torch, wide))  # PyTorch computes in half precision; cylstm does not
    with torch.no_grad():
        expected, (h_n, c_n) = module(x)
    for source in (path, str(path), arrays):
        lstm = cylstm.from_torch(source, batch_first=config["batch_first"])
        assert lstm.config == cylstm.LSTM(**config, dtype=wide).config
        y, state = lstm(x.numpy())
        for ours, theirs in zip((y, *state), (expected, h_n, c_n), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
    assert cylstm.from_torch(module).config == lstm.config
    again = torch.nn.LSTM(**config, dtype=getattr(torch, wide))
    again.load_state_dict(lstm.to_torch())
    with torch.no_grad():
        np.testing.assert_allclose(again(x)[0], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("bias", [False, True])
def test_cells_are_one_step(torch, bias, rng):
    cell = torch.nn.LSTMCell(3, 4, bias=bias)
    x = rng.standard_normal((2, 3)).astype(np.float32)
    with torch.no_grad():
        h, c = cell(torch.from_numpy(x))
    y, (_, c_n) = cylstm.from_torch(cell)(x[None])
    np.testing.assert_allclose(y[0], h, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(c_n[0], c, rtol=0, atol=TOLERANCE)


def test_a_module_tells_its_options(torch):
    module = torch.nn.LSTM(3, 4, num_layers=2, dropout=0.25, batch_first=True)
    lstm = cylstm.from_torch(module)
    assert (lstm.dropout, lstm.batch_first) == (0.25, True)
    assert not cylstm.from_torch(module, batch_first=False).batch_first


def test_the_prefix_picks_one_of_several(torch, tmp_path):
    model = torch.nn.ModuleDict({
        "encoder": torch.nn.LSTM(3, 4), "decoder": torch.nn.LSTM(5, 6), "other": torch.nn.GRU(2, 2),
        "cell": torch.nn.LSTMCell(7, 8), "head": torch.nn.Linear(2, 2),
    })  # fmt: skip
    path = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 3, "model": model.state_dict(), "optimizer": {"lr": 1e-3}}, path)
    with pytest.raises(ValueError, match="expected one of") as caught:
        cylstm.from_torch(path)
    for name in ("'model.encoder'", "'model.decoder'", "'model.cell'"):
        assert name in str(caught.value)
    assert "other" not in str(caught.value)
    assert cylstm.from_torch(path, "model.decoder").input_size == 5
    assert cylstm.from_torch(path, "model.cell.").hidden_size == 8
    assert cylstm.from_torch(model, "encoder").input_size == 3


def test_views_of_one_storage_are_right(torch, tmp_path, rng):
    shared = torch.from_numpy(rng.standard_normal(1000).astype(np.float32))
    state = {
        "weight_ih_l0": shared[17:].as_strided((16, 3), (5, 2)),
        "weight_hh_l0": shared.as_strided((16, 4), (1, 16)),
        "bias_ih_l0": shared[::2][:16],
        "bias_hh_l0": shared[:1].expand(16),
    }
    for saved in (as_zip, as_legacy):
        saved(torch, state, tmp_path / "m.pt")
        lstm = cylstm.from_torch(tmp_path / "m.pt")
        np.testing.assert_array_equal(lstm.weight_ih_l0, state["weight_ih_l0"])
        np.testing.assert_array_equal(lstm.weight_hh_l0, state["weight_hh_l0"])
        np.testing.assert_array_equal(lstm.bias_l0, state["bias_ih_l0"] + state["bias_hh_l0"])


@pytest.mark.parametrize("saved", [as_zip, as_legacy])
def test_a_shared_storage_is_read_once(torch, tmp_path, monkeypatch, saved):
    flat = torch.randn(8 * 16 * 16)
    names = ("weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1")
    state = {n: flat[k * 128 :][:1024].view(64, 16) for k, n in enumerate(names)}
    saved(torch, state, tmp_path / "m.pt")
    monkeypatch.setattr("cylstm.io.files._FREE", 0)
    monkeypatch.setattr("cylstm.io.files._TIMES", 4)  # the tensors, and the storage, but once
    np.testing.assert_array_equal(
        cylstm.from_torch(tmp_path / "m.pt").weight_hh_l1, state["weight_hh_l1"]
    )


def test_whole_modules_and_torchscript_are_read(torch, tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv1d(2, 2, 1), torch.nn.LSTM(3, 4, 2))
    torch.save(module, tmp_path / "zip.pt")
    torch.save(module, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.jit.script(module[1]).save(tmp_path / "script.pt")
    for name, prefix in (("zip.pt", "1"), ("old.pt", "1"), ("script.pt", None)):
        lstm = cylstm.from_torch(tmp_path / name, prefix)
        np.testing.assert_array_equal(lstm.weight_hh_l1, module[1].weight_hh_l1.detach())


def test_checkpoints_hold_more_than_tensors(torch, tmp_path):
    state = torch.nn.LSTM(3, 4).state_dict()
    beside = {
        "args": argparse.Namespace(lr=0.1),
        "loss": np.float64(0.5),
        "history": [1, 2.5, None, True, b"bytes", {3, 4}, (5, 6, 7, 8)],
        "counts": collections.defaultdict(int, {"a": 1}),
        "size": torch.Size([1, 2]),
        7: {"step": torch.tensor(3)},
        "unusual": torch.zeros(2, dtype=torch.uint16),
    }
    torch.save({"state": state, **beside}, tmp_path / "m.pt")
    np.testing.assert_array_equal(
        cylstm.from_torch(tmp_path / "m.pt").weight_ih_l0, state["weight_ih_l0"]
    )


# TensorFlow 1 ----------------------------------------------------------------------------------


def test_the_forget_bias_of_tensorflow_1_is_added(rng):
    """Its cell reads one kernel of both inputs, gates i j f o, and adds 1 to f when it runs."""
    kernel, bias = rng.standard_normal((3 + 2, 8)), rng.standard_normal(8)
    x, h, c = rng.standard_normal((1, 3)), np.zeros((1, 2)), np.zeros((1, 2))

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    i, j, f, o = np.split(np.concatenate([x, h], axis=1) @ kernel + bias, 4, axis=1)
    c = c * sigmoid(f + 1.0) + sigmoid(i) * np.tanh(j)
    h = np.tanh(c) * sigmoid(o)

    order = np.r_[0:2, 4:6, 2:4, 6:8]  # i f j o
    state = {
        "weight_ih_l0": kernel[:3, order].T,
        "weight_hh_l0": kernel[3:, order].T,
        "bias_ih_l0": bias[order],
        "bias_hh_l0": np.zeros(8),
    }
    first = rng.standard_normal((1, 2))  # else c = 0, and the forget gate would not matter
    lstm = cylstm.from_torch(state, forget_bias=1.0)
    np.testing.assert_allclose(lstm(x)[0], h, rtol=0, atol=1e-12)
    plain = cylstm.from_torch(state)
    assert not np.allclose(lstm(x, (h, first))[0], plain(x, (h, first))[0])
    np.testing.assert_array_equal(lstm.bias_l0 - plain.bias_l0, [0, 0, 1, 1, 0, 0, 0, 0])
    without = {name: array for name, array in state.items() if "weight" in name}
    np.testing.assert_array_equal(
        cylstm.from_torch(without, forget_bias=1.0).bias_l0, [0, 0, 1, 1, 0, 0, 0, 0]
    )


# Back ------------------------------------------------------------------------------------------


def test_without_pytorch_it_gives_arrays(monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "torch", None)
    lstm = random_lstm(rng, input_size=3, hidden_size=4)
    state = lstm.to_torch()
    assert {type(array) for array in state.values()} == {np.ndarray}
    np.testing.assert_array_equal(cylstm.from_torch(state).bias_l0, lstm.bias_l0)


@pytest.mark.parametrize(
    "option",
    [{"reverse": True}, {"peephole": True}, {"coupled": True}, {"clip": 1.0},
     {"activations": ("relu", "tanh", "tanh")}],
)  # fmt: skip
def test_what_pytorch_lacks_does_not_go_back(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        cylstm.LSTM(3, 4, **option).to_torch()


# Files made here, without PyTorch --------------------------------------------------------------

FLOATS = {f"weight_{k}_l0": np.arange(8.0 * n, dtype="f4").reshape(8, n)
          for k, n in (("ih", 3), ("hh", 2))}  # fmt: skip


def program(tensors, name="FloatStorage", more=b""):
    """A pickle as PyTorch writes it, of tensors given as (key, count, offset, size, stride)."""
    text = b"\x80\x02}("
    for tensor, (key, count, offset, size, stride) in tensors.items():
        text += b"X" + struct.pack("<I", len(tensor)) + tensor.encode()
        text += b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\n"
        text += name.encode() + b"\nX" + struct.pack("<I", len(key)) + key.encode()
        text += b"X\x03\0\0\0cpu" + number(count) + b"tQ" + number(offset)
        text += b"(" + b"".join(map(number, size)) + b"t(" + b"".join(map(number, stride))
        text += b"t\x89ccollections\nOrderedDict\n)RtR"
    return text + more + b"u."


def number(value):
    if not isinstance(value, int):
        return value
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + raw


def plain():
    """The tensors of FLOATS."""
    return {n: (str(i), a.size, 0, a.shape, (a.shape[1], 1))
            for i, (n, a) in enumerate(FLOATS.items())}  # fmt: skip


def write_zip(path, pickled, storages=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for i, array in enumerate(FLOATS.values() if storages is None else storages):
            archive.writestr(f"archive/data/{i}", bytes(array))


def test_a_zip_file_is_read(tmp_path):
    write_zip(tmp_path / "m.pt", program(plain()))
    lstm = cylstm.from_torch(tmp_path / "m.pt")
    for name, array in FLOATS.items():
        np.testing.assert_array_equal(getattr(lstm, name), array)


def test_a_big_endian_file_is_read(tmp_path):
    write_zip(tmp_path / "m.pt", program(plain()), [a.astype(">f4") for a in FLOATS.values()])
    with zipfile.ZipFile(tmp_path / "m.pt", "a") as archive:
        archive.writestr("archive/byteorder", "big")
    np.testing.assert_array_equal(
        cylstm.from_torch(tmp_path / "m.pt").weight_ih_l0, FLOATS["weight_ih_l0"]
    )


def legacy(pickled, counts=None):
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001}]
    content = b"".join(pickle.dumps(part, 2) for part in head) + pickled
    content += pickle.dumps([str(i) for i in range(len(FLOATS))], 2)
    for i, array in enumerate(FLOATS.values()):
        content += struct.pack("<q", counts[i] if counts else array.size) + bytes(array)
    return content


def test_a_legacy_file_is_read(tmp_path):
    (tmp_path / "m.pt").write_bytes(legacy(program(plain())))
    lstm = cylstm.from_torch(tmp_path / "m.pt")
    for name, array in FLOATS.items():
        np.testing.assert_array_equal(getattr(lstm, name), array)


# Bad files -------------------------------------------------------------------------------------

CALLS = {
    "os.system": b"X\x01\0\0\0ecos\nsystem\n(X\x0c\0\0\0touch calledtR",
    "builtins.eval": b"X\x01\0\0\0ecbuiltins\neval\n(X\x04\0\0\0exittR",
    "posix.system": b"X\x01\0\0\0e\x8c\x05posix\x8c\x06system\x93(X\x01\0\0\0xtR",
    "torch.load": b"X\x01\0\0\0ectorch\nload\n(X\x01\0\0\0xtR",
}


@pytest.mark.parametrize(("name", "call"), CALLS.items(), ids=CALLS.keys())
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_call_is_refused_and_not_made(tmp_path, monkeypatch, name, call, form):
    monkeypatch.chdir(tmp_path)
    if form == "zip":
        write_zip(tmp_path / "m.pt", program(plain(), more=call))
    else:
        (tmp_path / "m.pt").write_bytes(legacy(program(plain(), more=call)))
    with pytest.raises(ValueError, match=rf"calls {name}, which was not run"):
        cylstm.from_torch(tmp_path / "m.pt")
    assert os.listdir(tmp_path) == ["m.pt"]


class Exploit:
    def __reduce__(self):
        return os.system, ("touch called",)


class Setter:
    def __setstate__(self, state):
        raise AssertionError("it was called")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_python_objects_do_nothing(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="system"):
        unpickle.load(io.BytesIO(pickle.dumps(Exploit(), protocol)), None)
    assert os.listdir(tmp_path) == []
    if protocol >= 2:
        setter = Setter()
        setter.a = 1
        made = unpickle.load(io.BytesIO(pickle.dumps(setter, protocol)), None)
        assert type(made) is unpickle.Instance
        assert made.attributes.items == [("a", 1)]


def laughs():
    """Tuples of tuples: 2**40 leaves to whoever walks or hashes them all."""
    text = b"\x80\x02}(K\x01" + b"q\x00h\x00\x86" * 40 + b"X\x01\0\0\0vu."
    return text


def changed(key="0", count=24, offset=0, size=(8, 3), stride=(3, 1), name="FloatStorage"):
    return program(plain() | {"weight_ih_l0": (key, count, offset, size, stride)}, name)


BAD = {
    "storage of another number": changed(key="7"),
    "past the end": changed(offset=1),
    "far past the end": changed(offset=2**62),
    "negative offset": changed(offset=-1),
    "negative stride": changed(stride=(-3, 1)),
    "huge stride": changed(stride=(2**62, 1)),
    "negative size": changed(size=(-8, 3)),
    "huge size": changed(size=(2**31, 2**31), stride=(0, 0)),
    "size beyond 64 bits": changed(size=(2**63, 2**63), stride=(0, 0)),
    "many axes": changed(size=(1,) * 40, stride=(1,) * 40),
    "size and stride of other ranks": changed(stride=(1,)),
    "offset a string": changed(offset=b"X\x01\0\0\0a"),
    "size of None": changed(size=(b"N", b"N")),
    "integers": changed(name="LongStorage"),
    "unknown storage": changed(name="QInt8Storage"),
    "ragged shapes": changed(size=(8, 1)).replace(b"weight_hh_l0", b"weight_hh_l1"),
    "nothing": b"",
    "no end": b"\x80\x02}",
    "no pickle": b"\x80\x02\xff.",
    "empty stack": b"\x80\x02.",
    "pop of nothing": b"\x80\x02R.",
    "unknown memo": b"\x80\x02h\x05.",
    "text without end": b"\x80\x02X\xff\xff\xff\xff.",
    "mark without items": b"\x80\x02u.",
    "items for a number": b"\x80\x02K\x01(K\x01K\x02u.",
    "odd items": b"\x80\x02}(K\x01u.",
    "laughs": laughs(),
    "a name that doubles": b"\x80\x02K\x01" + b"q\x00h\x00\x93" * 40 + b".",
    "many long names": b"\x80\x02}(X\x01\0\0\0a}(X"
    + struct.pack("<i", 10**6)
    + b"b" * 10**6
    + b"q\x00N"
    + b"h\x00N" * 10**5
    + b"uu.",
    "nested": b"\x80\x02" + b"(" * 100_000 + b"K\x01" + b"l" * 100_000 + b".",
    "a wide memo": b"\x80\x02}r\xff\xff\xff\xff.",
    "instruction of Python 2": b"(S'ls'\nios\nsystem\n.",
    "buffer": b"\x80\x05\x97.",
    "extension": b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("pickled", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_bad_file_is_an_error_with_a_name(tmp_path, pickled, form):
    path = tmp_path / "m.pt"
    if form == "zip":
        write_zip(path, pickled)
    else:
        path.write_bytes(legacy(pickled))
    with pytest.raises(ValueError, match=r"m\.pt: ") as caught:
        cylstm.from_torch(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 600 + len(str(path))


@pytest.mark.parametrize("counts", [[2**62, 16], [-1, 16], [23, 16], [25, 16]])
def test_a_legacy_file_that_lies_about_sizes_is_refused(tmp_path, counts):
    (tmp_path / "m.pt").write_bytes(legacy(program(plain()), counts))
    with pytest.raises(ValueError, match=r"m\.pt: "):
        cylstm.from_torch(tmp_path / "m.pt")


def test_the_names_of_storages_are_not_looked_up_for_ever(tmp_path):
    content = legacy(program(plain()))
    names = pickle.dumps([str(i) for i in range(len(FLOATS))], 2)
    keys = b"\x80\x02]K\x01" + b"q\x00h\x00\x86" * 40 + b"a."
    (tmp_path / "m.pt").write_bytes(content.replace(names, keys))
    with pytest.raises(ValueError, match="expected the name of a storage"):
        cylstm.from_torch(tmp_path / "m.pt")


def test_a_compressed_archive_is_refused(tmp_path):
    write_zip(tmp_path / "m.pt", program(plain()), [b"\0" * 10**7] * 2, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="expected to be stored as it is"):
        cylstm.from_torch(tmp_path / "m.pt")


def test_a_changed_weight_is_found_by_the_checksum(tmp_path):
    write_zip(tmp_path / "m.pt", program(plain()))
    content = bytearray((tmp_path / "m.pt").read_bytes())
    content[content.index(bytes(FLOATS["weight_ih_l0"])) + 9] ^= 1
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ValueError, match="CRC"):
        cylstm.from_torch(tmp_path / "m.pt")


@given(st.data())
@settings(max_examples=200)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_changed_byte_is_read_or_refused(tmp_path_factory, form, data):
    path = tmp_path_factory.mktemp("flip") / "m.pt"
    if form == "zip":
        write_zip(path, program(plain()))
    else:
        path.write_bytes(legacy(program(plain())))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] or content)
    with contextlib.suppress(ValueError):  # any other exception fails the test
        cylstm.from_torch(path)


def test_memory_is_bounded_by_the_file(tmp_path):
    """A file of a kilobyte that asks for 3 GB does not get it."""
    write_zip(tmp_path / "m.pt", changed(size=(4 * 2**14, 2**14), stride=(0, 0)))
    code = (
        "import resource, sys, cylstm\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: cylstm.from_torch(sys.argv[1])\n"
        "except ValueError: pass\n"
        "else: raise SystemExit('read')\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "m.pt"], check=True, cwd=tmp_path)


def test_no_lstm_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="expected an LSTM, GRU or RNN, found none"):
        cylstm.from_torch({"weight": np.ones(2)})
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ValueError, match="expected a zip archive or a pickle"):
        cylstm.from_torch(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        cylstm.from_torch(tmp_path / "missing.pt")
    with pytest.raises(TypeError, match="expected a module, a state dict or a path, got int"):
        cylstm.from_torch(3)


def test_more_layers_than_there_are_is_an_error():
    state = {**FLOATS, "weight_ih_l2": np.ones((8, 2)), "weight_ih_l999999999": np.ones((8, 2))}
    with pytest.raises(ValueError, match="expected 1 layers, got also"):
        cylstm.from_torch(state)


def test_import_is_lazy(tmp_path):
    code = "import sys, cylstm; assert 'cylstm.formats.torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert importlib.util.find_spec("cylstm.formats.torch") is not None
