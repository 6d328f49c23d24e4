"""What Keras made, of version 3 and 2, against Keras itself; and its files without Keras."""

import importlib.util
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from reference import random_lstm
from streamed import check_streamed

h5py = pytest.importorskip("h5py")

if importlib.util.find_spec("tensorflow") is None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks
TOLERANCE = 1e-5  # absolute, of outputs within 1


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def keras(request):
    return pytest.importorskip(request.param)


def randomise(model, rng):
    """Give all weights, biases too, random values."""
    model.set_weights(
        [
            rng.standard_normal(w.shape) / np.sqrt(max(w.shape, default=1))
            for w in model.get_weights()
        ]
    )


def outputs(model, x):
    y = model(x)
    return np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)


def assert_scores(model, path, x, **options):
    """Assert that the file of a model gives its outputs, step by step too where it streams."""
    expected = outputs(model, x)
    read = cylstm.load(path, **options)
    actual = read(x)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)
    return check_streamed(read, x, actual, TOLERANCE)


FILES = ["model.keras", "legacy.h5", "model.weights.h5", "old_weights.h5"]


def save(model, folder, name):
    """Save in one of the formats; those of weights alone have the configuration beside."""
    path = os.path.join(folder, name)
    if "weights" in name:
        model.save_weights(path)
        with open(os.path.join(folder, "config.json"), "w") as file:
            file.write(model.to_json())
    else:
        model.save(path)
    return path


# LSTMs -----------------------------------------------------------------------------------------

activations = st.sampled_from(["sigmoid", "tanh", "relu", "hard_sigmoid"])
recurrent = st.fixed_dictionaries(
    {
        "units": st.integers(1, 9),
        "use_bias": st.booleans(),
        "unit_forget_bias": st.booleans(),
        "go_backwards": st.booleans(),
        "recurrent_activation": st.sampled_from(["sigmoid", "hard_sigmoid"]),
        "activation": st.sampled_from(["tanh", "sigmoid", "hard_sigmoid", "relu"]),
    }
)
layers = st.tuples(recurrent, st.none() | st.sampled_from(["concat", "sum", "mul", "ave"]))


def make(keras, options, merge_mode, sequences):
    """A layer, or a pair of which the first reads backwards if the options say so."""
    layer, other = (
        keras.layers.LSTM(**options | {"go_backwards": backwards}, return_sequences=sequences)
        for backwards in (options["go_backwards"], not options["go_backwards"])
    )
    if merge_mode is None:
        return layer
    return keras.layers.Bidirectional(layer, merge_mode, backward_layer=other)


@given(layers, st.sampled_from(FILES[:3]), st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_lstms_have_their_outputs(keras, tmp_path_factory, layer, file, seed):
    (options, merge_mode), rng = layer, np.random.default_rng(seed)
    model = keras.Sequential([keras.layers.Input((6, 3)), make(keras, *layer, True)])
    randomise(model, rng)
    x = rng.standard_normal((4, 6, 3)).astype(np.float32)
    expected = outputs(model, x)
    path = save(model, tmp_path_factory.mktemp("keras"), file)
    for source in (path, model, model.layers[0]):
        lstm = cylstm.from_keras(source)
        y, _ = lstm(x)
        assert lstm.bias == options["use_bias"]
        if options["go_backwards"]:  # Keras's steps are in the order of processing
            y = y[:, ::-1]
        if merge_mode is not None:
            halves = np.split(y, 2, axis=2)
            first, second = halves[::-1] if options["go_backwards"] else halves
            y = {
                "concat": np.concatenate([first, second], axis=2),
                "sum": first + second,
                "mul": first * second,
                "ave": (first + second) / 2,
            }[merge_mode]
        np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCE)


def test_the_stored_bias_holds_the_forget_bias(keras):
    model = keras.Sequential([keras.layers.Input((None, 2)), keras.layers.LSTM(3)])
    np.testing.assert_array_equal(cylstm.from_keras(model).bias_l0, np.repeat([0, 1, 0, 0], 3))
    added = cylstm.from_keras(model, forget_bias=0.5).bias_l0
    np.testing.assert_array_equal(added, np.repeat([0, 1.5, 0, 0], 3))


def test_hard_sigmoid_is_what_the_version_meant(keras, tmp_path):
    model = keras.Sequential(
        [keras.layers.Input((None, 2)), keras.layers.LSTM(3, recurrent_activation="hard_sigmoid")]
    )
    model.save(tmp_path / "m.h5")
    slope = cylstm.from_keras(tmp_path / "m.h5").activations[0][1]
    assert slope == (1 / 6 if keras.__version__.startswith("3") else 0.2)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_weights_go_back(keras, rng, bidirectional, bias):
    lstm = random_lstm(
        rng,
        input_size=3,
        hidden_size=4,
        num_layers=2,
        bias=bias,
        bidirectional=bidirectional,
        batch_first=True,
    )
    merge_mode = "concat" if bidirectional else None
    layers = [
        make(keras, {"units": 4, "use_bias": bias, "go_backwards": False}, merge_mode, True)
        for _ in range(2)
    ]
    model = keras.Sequential([keras.layers.Input((None, 3)), *layers])
    model.set_weights(lstm.to_keras_weights())
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(outputs(model, x), lstm(x)[0], rtol=0, atol=TOLERANCE)


def test_what_keras_lacks_does_not_go_back():
    for option in ({"proj_size": 2}, {"peephole": True}, {"coupled": True}, {"clip": 1.0}):
        with pytest.raises(ValueError, match=next(iter(option))):
            cylstm.LSTM(3, 4, **option).to_keras_weights()


# Models ----------------------------------------------------------------------------------------

masks = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=4, max_size=4)


@given(
    st.lists(layers, min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([None, "embedding", "masking"]),
    masks,
    st.sampled_from(FILES),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=25)
def test_chains_score(keras, tmp_path_factory, chain, sequences, masked, mask, file, seed):
    rng, mask = np.random.default_rng(seed), np.array(mask)
    if file == "old_weights.h5" and keras.__version__.startswith("3"):
        file = "legacy.h5"  # Keras 3 writes no such file
    inner = keras.layers
    stack = [inner.Input((6,) if masked == "embedding" else (6, 3))]
    if masked == "embedding":
        stack.append(inner.Embedding(5, 3, mask_zero=True))
        x = rng.integers(1, 5, (4, 6)) * mask
    else:
        x = (rng.standard_normal((4, 6, 3)) * mask[:, :, None]).astype(np.float32)
    if masked == "masking":
        stack.append(inner.Masking(0.0))
    for i, (options, merge_mode) in enumerate(chain):
        stack.append(make(keras, options, merge_mode, sequences or i < len(chain) - 1))
        stack.append(inner.Dropout(0.5))
    if sequences:
        stack.append(inner.TimeDistributed(inner.Dense(4, activation="relu")))
    stack += [inner.Dense(5), inner.BatchNormalization(), inner.Activation("softmax")]
    model = keras.Sequential(stack)
    model.set_weights([np.abs(rng.standard_normal(w.shape)) * rng.choice([-1, 1], w.shape)
                       / np.sqrt(max(w.shape, default=1)) for w in model.get_weights()[:-1]]
                      + [rng.uniform(0.5, 2, 5)])  # fmt: skip
    assert_scores(model, save(model, tmp_path_factory.mktemp("chain"), file), x)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_sequences_of_no_step_score(keras, tmp_path, rng, bidirectional, sequences):
    inner, options = keras.layers, {"units": 3, "use_bias": True, "go_backwards": False}
    layer = make(keras, options, "concat" if bidirectional else None, sequences)
    model = keras.Sequential([inner.Input((4,)), inner.Embedding(5, 2, mask_zero=True), layer])
    randomise(model, rng)
    x = np.array([[0, 0, 0, 0], [0, 3, 0, 1], [1, 2, 3, 4]])
    assert_scores(model, save(model, tmp_path, "model.keras"), x)


@pytest.mark.parametrize("file", FILES[:3])
def test_functional_models_score(keras, tmp_path, rng, file):
    inner = keras.layers
    x = given = inner.Input((6, 4), name="given")
    x = inner.Permute((2, 1))(x)
    x = inner.Reshape((8, 3))(x)
    x = inner.Bidirectional(inner.LSTM(3, return_sequences=True), name="both")(x)
    x = inner.LSTM(4, name="last", return_sequences=True)(x)
    x = inner.Flatten()(x)
    x = inner.LeakyReLU()(x)
    x = inner.Dense(3, use_bias=False, activation="elu")(x)
    model = keras.Model(given, inner.Softmax()(x))
    randomise(model, rng)
    path = save(model, tmp_path, file)
    assert_scores(model, path, rng.standard_normal((2, 6, 4)).astype(np.float32))
    with pytest.raises(ValueError, match="expected one of 'both', 'last', got none"):
        cylstm.from_keras(path)
    assert cylstm.from_keras(path, "last").hidden_size == 4


def test_models_within_models_score(tmp_path, rng):
    keras = pytest.importorskip("keras")
    inner = keras.layers
    encoder = keras.Sequential(
        [inner.Input((5, 2)), inner.LSTM(3, return_sequences=True, name="own")], name="encoder"
    )
    model = keras.Sequential([inner.Input((5, 2)), encoder, inner.LSTM(2), inner.Dense(1)])
    randomise(model, rng)
    path = save(model, tmp_path, "model.keras")
    assert_scores(model, path, rng.standard_normal((3, 5, 2)).astype(np.float32))
    assert cylstm.from_keras(path, "encoder/own").hidden_size == 3


def test_half_precision_is_read(tmp_path, rng):
    keras = pytest.importorskip("keras")
    for dtype in ("float16", "bfloat16", "float64"):
        model = keras.Sequential(
            [
                keras.layers.Input((5, 2)),
                keras.layers.LSTM(3, recurrent_initializer="uniform", dtype=dtype),
            ]
        )
        path = save(model, tmp_path, "model.keras")
        lstm = cylstm.from_keras(path)
        kernel = keras.ops.cast(model.layers[0].cell.kernel, "float64")
        expected = keras.ops.convert_to_numpy(kernel)
        np.testing.assert_array_equal(lstm.weight_ih_l0.T, expected)
        assert lstm.dtype == ("float64" if dtype == "float64" else "float32")


@pytest.mark.parametrize("option", ["return_state", "stateful", "merge_mode"])
def test_what_does_not_score_is_named(keras, tmp_path, option):
    inner = keras.layers
    given = inner.Input(batch_shape=(1, 6, 4))
    if option == "return_state":
        out = inner.LSTM(3, name="mine", return_state=True)(given)[0]
    elif option == "stateful":
        out = inner.LSTM(3, name="mine", stateful=True)(given)
    else:
        out = inner.Bidirectional(inner.LSTM(3), merge_mode=None, name="mine")(given)
    path = save(keras.Model(given, out), tmp_path, "model.h5")
    with pytest.raises(ValueError, match=f"layer 'mine': {option}: .*from_keras"):
        cylstm.load(path)
    assert cylstm.from_keras(path, "mine").input_size == 4


# Files made here, without Keras ----------------------------------------------------------------

CONFIG = {
    "class_name": "Sequential",
    "keras_version": "2.2.4",
    "config": {
        "name": "model",
        "layers": [{"class_name": "LSTM", "config": {"name": "memory", "units": 2}}],
    },
}
ARRAYS = {
    "kernel": np.arange(24.0).reshape(3, 8),
    "recurrent": np.arange(16.0).reshape(2, 8),
    "bias": np.arange(8.0),
}


def write_legacy(path, arrays, config=CONFIG):
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = config["keras_version"]
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights/memory")
        group.parent.attrs["layer_names"] = [b"memory"]
        group.parent.attrs["keras_version"] = config["keras_version"]
        group.attrs["weight_names"] = [name.encode() for name in arrays]
        for name, array in arrays.items():
            group[name] = array


def test_a_legacy_file_is_read(tmp_path):
    write_legacy(tmp_path / "m.h5", ARRAYS)
    lstm = cylstm.from_keras(tmp_path / "m.h5")
    np.testing.assert_array_equal(lstm.weight_ih_l0, ARRAYS["kernel"].T)
    np.testing.assert_array_equal(lstm.weight_hh_l0, ARRAYS["recurrent"].T)
    np.testing.assert_array_equal(lstm.bias_l0, ARRAYS["bias"])


def test_keras_1_has_an_array_for_each_gate(tmp_path):
    units = {"class_name": "LSTM", "config": {
        "name": "memory", "output_dim": 2, "inner_activation": "hard_sigmoid", "activation": "tanh",
    }}  # fmt: skip
    config = {"class_name": "Sequential", "keras_version": "1.2.2", "config": [units]}
    order = [0, 2, 1, 3]  # i, c, f, o among i, f, c, o
    split = {name: np.split(array, 4, axis=-1) for name, array in ARRAYS.items()}
    arrays = {f"{name}_{gate}": split[name][gate] for gate in order for name in split}
    write_legacy(tmp_path / "m.h5", arrays, config)
    lstm = cylstm.from_keras(tmp_path / "m.h5")
    np.testing.assert_array_equal(lstm.weight_ih_l0, ARRAYS["kernel"].T)
    np.testing.assert_array_equal(lstm.weight_hh_l0, ARRAYS["recurrent"].T)
    np.testing.assert_array_equal(lstm.bias_l0, ARRAYS["bias"])
    assert lstm.activations == (("hard_sigmoid", 0.2, 0.5), "tanh", "tanh")


def test_cudnn_weights_are_read_as_keras_reads_them(tmp_path, rng):
    keras = pytest.importorskip("tf_keras")
    arrays = {
        "kernel": rng.standard_normal((3, 8)).astype(np.float32),
        "recurrent": rng.standard_normal((2, 8)).astype(np.float32),
        "bias": rng.standard_normal(16).astype(np.float32),
    }
    cell = {"class_name": "CuDNNLSTM", "config": {"name": "memory", "units": 2}}
    config = CONFIG | {"config": {"layers": [cell]}}
    write_legacy(tmp_path / "m.h5", arrays, config)
    model = keras.Sequential([keras.layers.Input((None, 3)), keras.layers.LSTM(2, name="memory")])
    model.load_weights(tmp_path / "m.h5")
    lstm = cylstm.from_keras(tmp_path / "m.h5")
    for ours, theirs in zip(lstm.to_keras_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# Bad files -------------------------------------------------------------------------------------


def replaced_by(link):
    def damage(path):
        with h5py.File(path, "a") as file:
            del file["model_weights/memory/kernel"]
            file["model_weights/memory/kernel"] = link

    return damage


def stored_elsewhere(path):
    with h5py.File(path, "a") as file:
        group = file["model_weights/memory"]
        del group["kernel"]
        other = str(path.parent / "elsewhere")
        group.create_dataset("kernel", (3, 8), "f4", external=[(other, 0, 96)])


def virtual(path):
    layout = h5py.VirtualLayout((3, 8), "f4")
    layout[:] = h5py.VirtualSource(str(path.parent / "elsewhere.h5"), "kernel", (3, 8))
    with h5py.File(path, "a") as file:
        group = file["model_weights/memory"]
        del group["kernel"]
        group.create_virtual_dataset("kernel", layout)


def huge(path):
    with h5py.File(path, "a") as file:
        group = file["model_weights/memory"]
        del group["kernel"]
        group.create_dataset("kernel", (2**20, 2**20), "f4", chunks=(64, 64), compression="gzip")


def described_by(config):
    def damage(path):
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = config

    return damage


DAMAGES = {
    "external link": (replaced_by(h5py.ExternalLink("elsewhere.h5", "/kernel")), "link to else"),
    "soft link": (replaced_by(h5py.SoftLink("/model_weights/memory/bias")), "link to elsewhere"),
    "external storage": (stored_elsewhere, "got other files"),
    "virtual dataset": (virtual, "got other files"),
    "bomb": (huge, "expected at most"),
    "truncated": (lambda path: os.truncate(path, 1000), "damaged HDF5"),
    "no JSON": (described_by("{"), "not valid JSON"),
    "no object": (described_by("[]"), "must be a JSON object"),
    "no model": (described_by("{}"), "class_name|config"),
    "other layers": (described_by('{"class_name": "Model", "config": {"layers": 3}}'), "layers"),
    "other units": (described_by(json.dumps(CONFIG).replace('"units": 2', '"units": 3')), "units"),
    "other activation": (
        described_by(json.dumps(CONFIG).replace('"units": 2', '"units": 2, "activation": "elu"')),
        "activations: expected one of",
    ),
    "nested": (described_by('{"a":' + "[" * 60_000), "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_bad_file_is_an_error_with_a_name(tmp_path, damage, message):
    path = tmp_path / "m.h5"
    write_legacy(path, ARRAYS)
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["kernel"] = ARRAYS["kernel"]
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        cylstm.from_keras(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 600 + len(str(path))


def test_layers_do_not_share_weights(tmp_path):
    (layer,) = CONFIG["config"]["layers"]
    config = CONFIG | {"config": {"layers": [layer] * 2000}}
    write_legacy(tmp_path / "m.h5", ARRAYS, config)
    with pytest.raises(ValueError, match="expected each name once, got 'memory' twice"):
        cylstm.load(tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("while True: pass", "does not end"),
        (
            "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass",
            "does not end",
        ),
        ("import os; os.abort()", "stops the HDF5 library"),
    ],
)
def test_what_happens_to_the_hdf5_library_is_contained(tmp_path, monkeypatch, program, message):
    write_legacy(tmp_path / "m.h5", ARRAYS)
    monkeypatch.setattr("cylstm.io.hdf5._START", 1)
    monkeypatch.setattr("cylstm.io.hdf5._PATIENCE", 3)
    monkeypatch.setattr("cylstm.io.hdf5._PROGRAM", program)
    with pytest.raises(ValueError, match=f"m.h5: a damaged HDF5 file: .*{message}"):
        cylstm.from_keras(tmp_path / "m.h5")


def test_a_compressed_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * 10**6)
        archive.writestr("metadata.json", b"{}")
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(ValueError, match="expected to be stored as it is"):
        cylstm.from_keras(tmp_path / "m.keras")


def test_a_configuration_elsewhere_is_not_read(tmp_path):
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "m.h5"
    write_legacy(path, ARRAYS)
    with h5py.File(path, "a") as file:
        del file.attrs["model_config"]
        file.attrs["layer_names"] = file["model_weights"].attrs["layer_names"]
        for name in list(file["model_weights"]):
            file.move(f"model_weights/{name}", name)
        del file["model_weights"]
    with pytest.raises(ValueError, match=r"expected config=, or m\.json or config\.json"):
        cylstm.from_keras(path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "inside" / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(ValueError, match="expected a file in the folder of"):
        cylstm.from_keras(path)
    for config in (CONFIG, json.dumps(CONFIG), tmp_path / "config.json"):
        assert cylstm.from_keras(path, config=config).hidden_size == 2
    (tmp_path / "inside" / "config.json").unlink()
    shutil.copy(tmp_path / "config.json", tmp_path / "inside" / "m.json")
    assert cylstm.from_keras(path).hidden_size == 2


def test_without_h5py_the_message_says_what_to_install(tmp_path, monkeypatch):
    write_legacy(tmp_path / "m.h5", ARRAYS)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'cylstm\[keras\]'"):
        cylstm.from_keras(tmp_path / "m.h5")


def test_other_sources_are_refused():
    with pytest.raises(TypeError, match="expected a layer or a path, got int"):
        cylstm.from_keras(3)
