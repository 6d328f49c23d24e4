"""The safetensors reader and writer: beside the library's own, and against hostile files."""

import contextlib
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cylstm.io.safetensors import check_model, read, write, write_model

FLOATS = st.sampled_from(["<f4", "<f8", ">f4", ">f8"])
TENSORS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter("__metadata__".__ne__),
    hnp.arrays(FLOATS, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)),
    max_size=5,
)


def assert_same(actual, expected):
    """Assert the same names, shapes and bits."""
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert actual[name].dtype == native.dtype
        assert actual[name].shape == native.shape
        assert actual[name].tobytes() == native.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# Both directions --------------------------------------------------------------------------------


@given(TENSORS)
def test_what_is_written_is_read(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("round") / "trip.safetensors"
    write(path, tensors, {"größe": "3 µm"})
    actual, metadata = read(path)
    assert_same(actual, tensors)
    assert metadata == {"größe": "3 µm"}
    for array in actual.values():
        assert array.dtype.isnative
        for flag in ("OWNDATA", "WRITEABLE", "ALIGNED", "C_CONTIGUOUS"):
            assert array.flags[flag]


@given(TENSORS)
def test_the_library_reads_what_is_written(tmp_path_factory, tensors):
    library = pytest.importorskip("safetensors")
    numpy_library = pytest.importorskip("safetensors.numpy")
    path = tmp_path_factory.mktemp("to") / "library.safetensors"
    write(path, tensors, {"key": "value"})
    assert_same(numpy_library.load_file(path), tensors)
    with library.safe_open(path, "numpy") as file:
        assert file.metadata() == {"key": "value"}


@given(TENSORS)
def test_what_the_library_writes_is_read(tmp_path_factory, tensors):
    numpy_library = pytest.importorskip("safetensors.numpy")
    path = tmp_path_factory.mktemp("from") / "library.safetensors"
    native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in tensors.items()}
    numpy_library.save_file(native, path, {"key": "value"})
    actual, metadata = read(path)
    assert_same(actual, tensors)
    assert metadata == {"key": "value"}


@given(
    st.dictionaries(
        st.text("abc", max_size=3),
        hnp.arrays(
            st.sampled_from(["f2", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"]),
            hnp.array_shapes(),
        ),
    )
)
def test_other_numbers_are_read(tmp_path_factory, tensors):
    numpy_library = pytest.importorskip("safetensors.numpy")
    path = tmp_path_factory.mktemp("other") / "numbers.safetensors"
    numpy_library.save_file(tensors, path)
    assert_same(read(path)[0], tensors)


def test_bfloat16_is_widened(path):
    path.write_bytes(encode({"a": tensor("BF16", [2])}, struct.pack("<2H", 0x3FC0, 0xC000)))
    (array,) = read(path)[0].values()
    np.testing.assert_array_equal(array, np.array([1.5, -2], np.float32), strict=True)


def test_metadata_is_optional(path):
    path.write_bytes(encode({}))
    assert read(path) == ({}, {})


@pytest.mark.parametrize(
    "view",
    [lambda a: a.T, lambda a: a[::2, ::-1], lambda a: np.asfortranarray(a), lambda a: a[:, :1]],
    ids=["transposed", "strided", "fortran", "column"],
)
def test_strided_arrays_are_written_in_order(path, view):
    array = view(np.arange(24.0).reshape(6, 4))
    write(path, {"a": array}, {})
    np.testing.assert_array_equal(read(path)[0]["a"], array)


def test_the_data_stand_aligned(path):
    write(path, {"odd": np.zeros(3, np.float32), "double": np.zeros(2)}, {"k": "v"})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert header["double"]["data_offsets"] == [0, 16]  # before the float32 of odd length
    assert header["odd"]["data_offsets"] == [16, 28]


# Writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "message"),
    [
        (
            {"a": np.zeros(2, np.int64)},
            {},
            TypeError,
            "'a' must be float32, float64, int8 or bfloat16's uint16, not int64",
        ),
        ({"a": np.zeros(2, np.float16)}, {}, TypeError, "not float16"),
        ({"a": np.array([None])}, {}, TypeError, "not object"),
        ({1: np.zeros(2)}, {}, TypeError, "name must be a str, not 1"),
        ({"__metadata__": np.zeros(2)}, {}, ValueError, "cannot be called '__metadata__'"),
        ({}, {"a": 1}, TypeError, "not 'a' to 1"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(path, tensors, metadata, error, message):
    with pytest.raises(error, match=message):
        write(path, tensors, metadata)
    assert not path.exists()


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(path, monkeypatch, failing):
    write(path, {"a": np.ones(2)}, {})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, {"a": np.zeros(2)}, {})
    assert os.listdir(path.parent) == [path.name]
    np.testing.assert_array_equal(read(path)[0]["a"], [1, 1])


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_the_file_has_the_permissions_of_any_new_file(path):
    write(path, {}, {})
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


# Hostile files ----------------------------------------------------------------------------------


def encode(header, data=b"", length=None):
    """Encode a file from its parts, be they right or wrong."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(dtype="F32", shape=(1,), begin=0, end=4, **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


A = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
HOSTILE = {
    "empty file": (b"", "0 bytes are too few"),
    "seven bytes": (b"\0" * 7, "7 bytes are too few"),
    "no header": (encode(b""), "does not begin with"),
    "header past the end": (encode({}, length=3), "a header of 3 bytes in a file of 10"),
    "header of 2**63": (encode({}, length=2**63), "a header of 9223372036854775808 bytes"),
    "not JSON": (encode(b"{nonsense"), "not valid JSON"),
    "not UTF-8": (encode(b'{"\xff":1}'), "utf-8"),
    "UTF-16": (encode("{}".encode("utf-16-le")), "not valid JSON"),
    "byte order mark": (encode(b"\xef\xbb\xbf{}"), "does not begin with"),
    "a list": (encode([]), "does not begin with"),
    "two objects": (encode(b"{}{}"), "not valid JSON"),
    "nested deeply": (encode(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "nested less deeply": (encode(b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"), "data_offsets|deep"),
    "tensor twice": (encode(A + b"," + A[1:] + b"}", b"\0" * 8), "stands twice"),
    "key twice": (encode(b'{"a":{"dtype":"F32","dtype":"F32"}}'), "stands twice"),
    "metadata a list": (encode({"__metadata__": []}), "must map strings to strings"),
    "metadata a number": (encode({"__metadata__": {"a": 1}}), "must map strings to strings"),
    "metadata null": (encode({"__metadata__": None}), "must map strings to strings"),
    "entry a number": (encode({"a": 1}), "needs exactly dtype"),
    "entry lacks offsets": (encode({"a": {"dtype": "F32", "shape": []}}), "needs exactly dtype"),
    "entry has more": (encode({"a": tensor(more=1)}, b"\0" * 4), "needs exactly dtype"),
    "quarter precision": (encode({"a": tensor("F8_E4M3", [4])}, b"\0" * 4), "dtype 'F8_E4M3', exp"),
    "dtype a number": (encode({"a": tensor(32)}, b"\0" * 4), "has dtype 32"),
    "dtype a list": (encode({"a": tensor(["F32"])}, b"\0" * 4), "has dtype"),
    "shape a number": (encode({"a": tensor(shape=1)}, b"\0" * 4), "no valid shape: 1"),
    "shape negative": (encode({"a": tensor(shape=[-1, -1])}, b"\0" * 4), "no valid shape"),
    "shape of booleans": (encode({"a": tensor(shape=[True])}, b"\0" * 4), "no valid shape"),
    "shape of floats": (encode({"a": tensor(shape=[1.0])}, b"\0" * 4), "no valid shape"),
    "shape NaN": (encode({"a": tensor(shape=[np.nan])}, b"\0" * 4), "NaN is not JSON"),
    "shape of 33 axes": (encode({"a": tensor(shape=[1] * 33)}, b"\0" * 4), "no valid shape"),
    "shape huge": (encode({"a": tensor(shape=[2**40])}, b"\0" * 4), "do not fit"),
    "shape and offsets huge": (
        encode({"a": tensor(shape=[2**60], end=2**62)}, b"\0" * 4),
        "the tensors take 4611686018427387904 bytes, the file has 4",
    ),
    "shape wraps to 4 bytes": (encode({"a": tensor(shape=[2**62 + 1])}, b"\0" * 4), "do not fit"),
    "shape huge but empty": (encode({"a": tensor(shape=[0, 2**62, 9], end=0)}), "too large"),
    "shape of endless digits": (
        encode(b'{"a":{"shape":[1' + b"0" * 10**6 + b"]}}"),
        "an integer of 1000001 digits",
    ),
    "offsets a number": (encode({"a": tensor() | {"data_offsets": 4}}, b"\0" * 4), "data_offsets"),
    "offsets of three": (
        encode({"a": tensor() | {"data_offsets": [0, 4, 8]}}, b"\0" * 4),
        "no valid data_offsets",
    ),
    "offsets negative": (encode({"a": tensor(begin=-4, end=0)}, b"\0" * 4), "data_offsets"),
    "offsets backwards": (encode({"a": tensor(begin=4, end=0)}, b"\0" * 4), "data_offsets"),
    "too few bytes": (encode({"a": tensor("F64")}, b"\0" * 4), "do not fit its shape"),
    "hole at the start": (encode({"a": tensor(begin=4, end=8)}, b"\0" * 8), "leaves a hole"),
    "hole between": (
        encode({"a": tensor(), "b": tensor(begin=8, end=12)}, b"\0" * 12),
        "'b' leaves a hole after",
    ),
    "overlap": (
        encode({"a": tensor(shape=[2], end=8), "b": tensor(begin=4, end=8)}, b"\0" * 8),
        "'b' overlaps",
    ),
    "same place": (encode({"a": tensor(), "b": tensor()}, b"\0" * 4), "'b' overlaps"),
    "past the end": (encode({"a": tensor()}, b"\0" * 3), "take 4 bytes, the file has 3"),
    "rest at the end": (encode({"a": tensor()}, b"\0" * 5), "take 4 bytes, the file has 5"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_an_error_with_a_name(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_header_over_the_limit_is_refused_unread(path):
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 100_000_001))
        file.truncate(200_000_000)  # a hole: it takes no room on the disk
    with pytest.raises(ValueError, match="at most 100000000 allowed"):
        read(path)


@pytest.mark.parametrize("length", [0, 8, 40, -1])
def test_a_truncated_file_is_refused(path, length):
    write(path, {"a": np.ones((3, 4)), "b": np.ones(3, np.float32)}, {"k": "v"})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"model\.safetensors: "):
        read(path)


@given(st.data())
def test_a_changed_byte_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "model.safetensors"
    write(path, {"a": np.ones((3, 4)), "b": np.ones(3, np.float32)}, {"k": "v"})
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(ValueError):  # any other exception fails the test
        read(path)


def test_a_missing_file_is_an_os_error(path):
    with pytest.raises(FileNotFoundError):
        read(path)


# A model ----------------------------------------------------------------------------------------


def test_a_model_comes_back(path):
    config = {"input_size": 3, "clip": None, "activations": ["sigmoid", "tanh", "tanh"]}
    tensors = {"weight": np.arange(6.0).reshape(2, 3)}
    write_model(path, "LSTM", config, tensors)
    loaded_tensors, metadata = read(path)
    assert check_model(path, metadata) == ("LSTM", config)
    assert_same(loaded_tensors, tensors)


MODEL = {"format": "cylstm", "version": "1", "kind": "LSTM", "config": "{}"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pt"}, "not a cylstm model: its metadata has format 'pt'"),
        ({"format": None}, "not a cylstm model"),
        ({"version": None}, "lacks version"),
        ({"kind": None, "config": None}, "lacks config, kind"),
        ({"version": "2"}, "written by a newer cylstm; upgrade"),
        ({"kind": "TCN"}, "unknown kind 'TCN', expected one of LSTM, GRU, RNN, QuantizedLSTM"),
        ({"config": "{"}, "the configuration is not valid JSON"),
        ({"config": "[]"}, "the configuration must be a JSON object"),
        ({"config": '{"a": 1, "a": 2}'}, "stands twice"),
        ({"config": '{"clip": Infinity}'}, "Infinity is not JSON"),
        ({"config": "[" * 100_000}, "nested too deeply"),
    ],
)
def test_a_malformed_model_is_refused(path, change, message):
    metadata = {key: value for key, value in (MODEL | change).items() if value is not None}
    write(path, {}, metadata)
    with pytest.raises(ValueError, match=message) as caught:
        check_model(path, read(path)[1])
    assert str(caught.value).startswith(f"{path}: ")


def test_a_configuration_that_json_cannot_hold_is_refused(path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_model(path, "LSTM", {"clip": np.inf}, {})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_model(path, "LSTM", {"clip": object()}, {})
    assert not path.exists()
