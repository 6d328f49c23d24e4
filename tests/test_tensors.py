"""All tensors of files, for what stands around an LSTM."""

import pickle

import numpy as np
import pytest

import cylstm


def arrays():
    rng = np.random.default_rng(0)
    return {
        "lstm.weight_ih_l0": rng.standard_normal((16, 3)).astype("f4"),
        "head.weight": rng.standard_normal((2, 4)),
        "head.tracked": np.array(7),
        "head.bytes": np.arange(6, dtype="u1").reshape(2, 3),
        "head.masked": np.array([True, False]),
        "head.half": np.arange(3, dtype="f2"),
    }


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, array in expected.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def npz(path, tensors):
    np.savez(path.with_suffix(".npz"), **tensors)
    return path.with_suffix(".npz")


def pickled(path, tensors):
    path.write_bytes(pickle.dumps(tensors))
    return path


def torch_save(path, tensors, **options):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, path, **options)
    return path


def torch_save_before(path, tensors):
    return torch_save(path, tensors, _use_new_zipfile_serialization=False)


def safetensors(path, tensors):
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file(tensors, path)
    return path


WRITERS = [npz, pickled, torch_save, torch_save_before, safetensors]


@pytest.mark.parametrize("write", WRITERS)
def test_every_tensor_is_read(tmp_path, write):
    path = write(tmp_path / "model", arrays())
    found = cylstm.load_tensors(path)
    assert_same({name: found[name] for name in arrays()}, arrays())
    assert len(found) == len(arrays())


@pytest.mark.parametrize("write", WRITERS)
def test_a_prefix_is_taken_off(tmp_path, write):
    found = cylstm.load_tensors(write(tmp_path / "model", arrays()), "head.")
    expected = {n[5:]: array for n, array in arrays().items() if n.startswith("head.")}
    assert_same({name: found[name] for name in expected}, expected)
    assert len(found) == len(expected)


def test_they_are_arrays_of_their_own(tmp_path):
    path = pickled(tmp_path / "model", arrays())
    cylstm.load_tensors(path)["head.bytes"][...] = 0
    assert_same(cylstm.load_tensors(path), arrays())


def test_names_in_a_checkpoint_are_joined(tmp_path):
    path = pickled(tmp_path / "model", {"epoch": 3, "model": {"a": {"w": np.ones(2)}}})
    assert_same(cylstm.load_tensors(path), {"model.a.w": np.ones(2)})


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_bfloat16_and_quantized_are_float32(tmp_path):
    torch = pytest.importorskip("torch")
    numbers = torch.linspace(-1, 1, 9)
    quantized = torch.quantize_per_tensor(numbers, 0.01, 3, torch.qint8)
    torch.save({"b": numbers.bfloat16(), "q": quantized}, tmp_path / "model")
    expected = {"b": numbers.bfloat16().float().numpy(), "q": quantized.dequantize().numpy()}
    assert_same(cylstm.load_tensors(tmp_path / "model"), expected)


def test_a_prefix_of_none_is_refused_with_names(tmp_path):
    path = npz(tmp_path / "model", arrays())
    with pytest.raises(ValueError, match=r"prefix: expected .* got 'tail.'; there are 'lstm.weig"):
        cylstm.load_tensors(path, "tail.")


def test_what_has_no_real_numbers_is_refused_by_name(tmp_path):
    path = npz(tmp_path / "model", {"a": np.ones(2), "b.z": np.ones(2, "c16")})
    with pytest.raises(ValueError, match=r"b\.z.*expected real numbers"):
        cylstm.load_tensors(path)
    assert_same(cylstm.load_tensors(path, "a"), {"": np.ones(2)})


def test_another_file_is_refused(tmp_path):
    (tmp_path / "model").write_bytes(b"text")
    with pytest.raises(ValueError, match="expected a zip archive or a pickle"):
        cylstm.load_tensors(tmp_path / "model")
