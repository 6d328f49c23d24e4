"""An extension of another package computes with cylstm in C: the same bits as in Python."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest

import cylstm
import cylstm.layers

SOURCE = Path(__file__).parent / "dependant"

pytest.importorskip("Cython")
pytest.importorskip("setuptools")
pytestmark = pytest.mark.skipif(
    shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None,
    reason="there is no C compiler",
)


def build(folder):
    """The module, built in a copy of the package."""
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
    packages = str(Path(cylstm.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": packages},
        capture_output=True,
        text=True,
        check=False,
    )


def load(folder):
    path = next(folder.glob("dependant.*.so"), None) or next(folder.glob("dependant.*.pyd"))
    spec = importlib.util.spec_from_file_location("dependant", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dependant(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dependant")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return load(folder)


def state_of(network, rows, rng=None):
    directions = 2 if network.bidirectional else 1
    shape = network.num_layers * directions, rows
    outputs = getattr(network, "proj_size", 0) or network.hidden_size
    make = np.zeros if rng is None else lambda s, dtype: rng.normal(size=s).astype(dtype)
    h = make((*shape, outputs), network.dtype)
    has_c = "LSTM" in type(network).__name__
    return h, make((*shape, network.hidden_size), network.dtype) if has_c else None


def pair(state):
    return state if isinstance(state, tuple) else (state, None)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


NETWORKS = {
    "one": lambda: cylstm.LSTM(5, 7, seed=1),
    "stack": lambda: cylstm.LSTM(5, 40, num_layers=3, seed=1),
    "projected": lambda: cylstm.LSTM(5, 24, num_layers=2, proj_size=9, seed=1),
    "double": lambda: cylstm.LSTM(5, 7, num_layers=2, dtype="float64", seed=1),
    "int8": lambda: cylstm.LSTM(5, 24, num_layers=2, seed=1).quantize("int8"),
    "bfloat16": lambda: cylstm.LSTM(5, 24, proj_size=9, seed=1).quantize("bfloat16"),
    "gru": lambda: cylstm.GRU(5, 24, num_layers=2, seed=1),
    "rnn": lambda: cylstm.RNN(5, 24, num_layers=2, seed=1),
}
BOTH_WAYS = {
    "bidirectional": lambda: cylstm.LSTM(5, 24, num_layers=3, bidirectional=True, seed=1),
    "reverse": lambda: cylstm.LSTM(5, 24, reverse=True, seed=1),
}


@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize("name", NETWORKS)
def test_steps_are_those_of_a_stream(dependant, rng, name, rows):
    network = NETWORKS[name]()
    x = rng.normal(size=(6, rows, 5)).astype(network.dtype)
    h, c = state_of(network, rows, rng)
    stream = network.stream(rows)
    stream.state = h if c is None else (h, c)
    expected = np.stack([stream.step(x_t) for x_t in x])
    y = np.empty_like(expected)
    model = dependant.Model(network)
    (model.steps_double if name == "double" else model.steps)(x, h, c, y)
    assert_same((y, h, c), (expected, *pair(stream.state)))


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (50, 1), (9, 5), (40, 64)])
@pytest.mark.parametrize("name", NETWORKS | BOTH_WAYS)
def test_a_sequence_is_that_of_a_call(dependant, rng, name, steps, rows):
    network = (NETWORKS | BOTH_WAYS)[name]()
    x = rng.normal(size=(steps, rows, 5)).astype(network.dtype)
    h, c = state_of(network, rows, rng)
    expected, last = network(x, h if c is None else (h, c))
    y = np.empty_like(expected)
    model = dependant.Model(network)
    for _ in range(2):  # the second in the memory that the first left
        own_h, own_c = h.copy(), None if c is None else c.copy()
        run = model.sequence_double if name == "double" else model.sequence
        run(x, own_h, own_c, y)
        assert_same((y, own_h, own_c), (expected, *pair(last)))


def test_sizes(dependant):
    model = dependant.Model(cylstm.LSTM(5, 24, num_layers=3, bidirectional=True, proj_size=9))
    expected = {"input_size": 5, "hidden_size": 24, "output_size": 9, "directions": 2}
    assert model.sizes == expected | {"states": 6, "itemsize": 4, "has_c": 1}


def test_a_model_keeps_the_weights_that_it_was_opened_with(dependant, rng):
    lstm = cylstm.LSTM(5, 7, seed=1)
    x = rng.normal(size=(4, 2, 5)).astype("f4")
    before = lstm(x)[0]
    model = dependant.Model(lstm)
    lstm.load_state_dict(cylstm.LSTM(5, 7, seed=2).state_dict())
    assert not np.array_equal(lstm(x)[0], before)
    y = np.empty_like(before)
    model.sequence(x, *state_of(lstm, 2), y)
    np.testing.assert_array_equal(y, before)
    del lstm
    model.sequence(x, *state_of(cylstm.LSTM(5, 7), 2), y)
    np.testing.assert_array_equal(y, before)


def test_models_of_many_threads(dependant, rng):
    lstm = cylstm.LSTM(5, 64, num_layers=2, seed=1)
    x = rng.normal(size=(60, 8, 5)).astype("f4")
    expected = lstm(x)[0]
    results = [np.empty_like(expected) for _ in range(6)]

    def work(y):
        model = dependant.Model(lstm)
        for _ in range(5):
            model.sequence(x, *state_of(lstm, 8), y)

    threads = [threading.Thread(target=work, args=(y,)) for y in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for y in results:
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("steps", "rows", "places"),
    [
        (2, 1, (-1, 300, 600)),
        (2, 1, (200, -1, 600)),
        (2, 1, (200, 300, -1)),
        (-1, 1, (200, 300, 600)),
        (2, -1, (200, 300, 600)),
        (2**40, 2, (200, 300, 600)),
        (2, 1, (5, 300, 600)),
        (2, 1, (200, 203, 600)),
        (2, 1, (200, 300, 299)),
        (2, 1, (200, 300, 7)),
    ],
)
def test_bad_arguments_write_nothing(dependant, steps, rows, places):
    memory = np.arange(1000, dtype="f4")
    with pytest.raises(ValueError, match="an argument is NULL"):
        dependant.Model(cylstm.LSTM(5, 7)).wrong(steps, rows, memory, *places)
    np.testing.assert_array_equal(memory, np.arange(1000))


def test_nothing_to_do_is_done(dependant):
    memory = np.arange(1000, dtype="f4")
    dependant.Model(cylstm.LSTM(5, 7)).wrong(0, 3, memory, 200, 300, 600)
    np.testing.assert_array_equal(memory, np.arange(1000))


def test_another_dtype_is_refused(dependant):
    x = np.zeros((2, 1, 5), "f4")
    lstm = cylstm.LSTM(5, 7, dtype="float64")
    y, (h, c) = cylstm.LSTM(5, 7)(x)
    with pytest.raises(ValueError, match="numbers are of another type"):
        dependant.Model(lstm).sequence(x, h, c, y)


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_no_step_of_a_direction_from_the_end(dependant, name):
    lstm = BOTH_WAYS[name]()
    x = np.zeros((2, 1, 5), "f4")
    y, (h, c) = lstm(x)
    with pytest.raises(ValueError, match="cannot be streamed"):
        dependant.Model(lstm).steps(x, h, c, y)


@pytest.mark.parametrize("other", [None, 3, np.zeros(3), cylstm.layers.Linear(3, 2)])
def test_what_is_no_network_is_refused(dependant, other):
    with pytest.raises(TypeError, match="network: expected an LSTM, GRU or RNN"):
        dependant.Model(other)


def test_another_abi_is_an_import_error(tmp_path):
    """Of an extension that was built with a later header."""
    header = (Path(cylstm.get_include()) / "cylstm.h").read_text()
    later = header.replace("#define CYLSTM_ABI 1", "#define CYLSTM_ABI 9")
    (tmp_path / "cylstm.h").write_text(later)  # beside the C file, where it is found first
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ImportError, match=r"built for ABI 9 .* installed has ABI 1"):
        load(tmp_path)
