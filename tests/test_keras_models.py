"""Whole Keras models against Keras itself: layers around an LSTM, branches, and damaged files."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cylstm
from cylstm.formats.keras_scoring import Recurrent
from test_keras import assert_scores, outputs, randomise, save

h5py = pytest.importorskip("h5py")
keras = pytest.importorskip("keras")
inner = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks
FORMATS = ["model.keras", "legacy.h5", "model.weights.h5"]
STEPS, FEATURES = 9, 4


def lstm(units=3, **options):
    return inner.LSTM(units, return_sequences=True, **options)


CHAINS = {
    "conv": lambda: [inner.Conv1D(6, 3, activation="relu"), inner.LSTM(3)],
    "conv same": lambda: [inner.Conv1D(6, 3, strides=2, padding="same"), inner.LSTM(3)],
    "conv causal": lambda: [inner.Conv1D(6, 3, padding="causal", dilation_rate=2), inner.LSTM(3)],
    "conv groups": lambda: [inner.Conv1D(6, 2, groups=2, use_bias=False), inner.LSTM(3)],
    "max pool": lambda: [inner.MaxPooling1D(2), inner.LSTM(3)],
    "max pool same": lambda: [inner.MaxPooling1D(3, strides=2, padding="same"), inner.LSTM(3)],
    "average pool": lambda: [inner.AveragePooling1D(3, padding="same"), inner.LSTM(3)],
    "global max": lambda: [lstm(), inner.GlobalMaxPooling1D(), inner.Dense(2)],
    "global average": lambda: [lstm(), inner.GlobalAveragePooling1D(), inner.Dense(2)],
    "layer norm": lambda: [inner.LayerNormalization(), inner.LSTM(3), inner.LayerNormalization()],
    "unscaled": lambda: [lstm(), inner.LayerNormalization(scale=False, center=False)],
    "repeat": lambda: [inner.LSTM(3), inner.RepeatVector(5), lstm(2)],
    "padding": lambda: [inner.ZeroPadding1D((2, 1)), inner.Cropping1D((1, 0)), inner.LSTM(3)],
    "up": lambda: [inner.UpSampling1D(2), inner.SpatialDropout1D(0.5), inner.LSTM(3)],
    "cell": lambda: [inner.RNN(inner.LSTMCell(3), return_sequences=True), inner.Dense(2)],
    "cells": lambda: [inner.RNN([inner.LSTMCell(3), inner.LSTMCell(3)], return_sequences=True)],
    "cells of different units": lambda: [inner.RNN([inner.LSTMCell(3), inner.LSTMCell(2)])],
    "gru cell": lambda: [inner.RNN(inner.GRUCell(3), return_sequences=True), inner.Dense(2)],
    "gru cells": lambda: [inner.RNN([inner.GRUCell(3), inner.GRUCell(3)], go_backwards=True)],
    "gru cells of different units": lambda: [inner.RNN([inner.GRUCell(3), inner.GRUCell(2)])],
    "gru cell both": lambda: [inner.Bidirectional(inner.RNN(inner.GRUCell(3, use_bias=False)))],
    "rnn cell": lambda: [inner.RNN(inner.SimpleRNNCell(3), return_sequences=True)],
    "rnn cells": lambda: [inner.RNN([inner.SimpleRNNCell(3), inner.SimpleRNNCell(3, "sigmoid")])],
    "gru": lambda: [inner.GRU(3, return_sequences=True), inner.Dense(2)],
    "gru bare": lambda: [inner.GRU(3, use_bias=False, activation="relu", go_backwards=True)],
    "gru both": lambda: [inner.Bidirectional(inner.GRU(3), merge_mode="sum"), inner.Dense(2)],
    "gru masked": lambda: [inner.Masking(0.25), inner.GRU(3, return_sequences=True)],
    "rnn": lambda: [inner.SimpleRNN(3, return_sequences=True), inner.Dense(2)],
    "rnn masked": lambda: [inner.Masking(0.25), inner.SimpleRNN(3, activation="sigmoid")],
    "rnn both": lambda: [inner.Bidirectional(inner.SimpleRNN(3, return_sequences=True))],
    "nested": lambda: [keras.Sequential([lstm(), keras.Sequential([lstm(2)])]), inner.Dense(2)],
    "functional within": lambda: [lstm(), functional((STEPS, 3)), inner.Dense(2)],
}  # fmt: skip


def functional(shape):
    given = inner.Input(shape)
    return keras.Model(given, inner.Dense(2, activation="tanh")(lstm(2)(given)), name="within")


STREAM = {
    "layer norm", "unscaled", "cell", "cells", "cells of different units", "nested",
    "functional within", "gru", "gru masked", "rnn", "rnn masked", "gru cell",
    "gru cells of different units", "rnn cell", "rnn cells",
}  # fmt: skip


@pytest.mark.parametrize("file", ["model.keras", "legacy.h5"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain(name, file, tmp_path, rng):
    model = keras.Sequential([inner.Input((STEPS, FEATURES)), *CHAINS[name]()])
    randomise(model, rng)
    path = save(model, tmp_path, file)
    x = rng.standard_normal((3, STEPS, FEATURES)).astype(np.float32)
    assert assert_scores(model, path, x) == (name in STREAM)


def residual(given):
    x = lstm(FEATURES)(given)
    return inner.Dense(2)(inner.Add()([x, given]))


def both_ways(given):
    forwards, backwards = lstm(3)(given), lstm(3, go_backwards=True)(given)
    return inner.LSTM(2)(inner.Concatenate()([forwards, backwards]))


def attended(given):
    x = lstm(3)(given)
    return inner.GlobalAveragePooling1D()(inner.Attention()([x, x]))


def attended_scaled(given):
    x = lstm(3)(given)
    return inner.Attention(use_scale=True, score_mode="concat")([lstm(3)(x), x])


def attended_additively(given):
    x, keys = lstm(3)(given), lstm(3)(given)
    return inner.AdditiveAttention()([x, x, keys])


def gated(given):
    x = lstm(3)(given)
    return inner.Multiply()([x, inner.Dense(3, activation="sigmoid")(x)])


def compared(given):
    x, y = lstm(3)(given), lstm(3)(given)
    parts = [inner.Subtract()([x, y]), inner.Average()([x, y]), inner.Maximum()([x, y])]
    return inner.Concatenate(axis=1)([*parts, inner.Minimum()([x, y])])


def shared(given):
    layer = lstm(FEATURES)
    return layer(layer(given))


def by_operators(given):
    x = lstm(FEATURES)(given)
    y = 2.0 * x + given * x - 1
    return inner.Dense(2)(y[:, -1]) / 3 + keras.ops.relu(inner.Dense(2)(y[:, 1:-1:2, :][:, 0]))


def reduced(given):
    x = lstm(3)(given)
    parts = [f(x, axis=1) for f in (keras.ops.mean, keras.ops.max, keras.ops.min)]
    parts += [keras.ops.squeeze(keras.ops.sum(x, axis=[1], keepdims=True), 1)]
    return keras.ops.concatenate(parts, axis=-1)


def attended_by_operators(given):
    x = lstm(3)(given)
    scores = keras.ops.matmul(x, keras.ops.transpose(x, axes=(0, 2, 1))) / np.sqrt(3)
    found = keras.ops.matmul(keras.ops.softmax(scores, axis=-1), x)
    return keras.ops.stack([keras.ops.reshape(found, (-1, 3 * STEPS))] * 2, axis=1)


GRAPHS = [
    *(residual, both_ways, attended, attended_scaled, attended_additively, gated, compared),
    shared,
]
OPERATIONS = [by_operators, reduced, attended_by_operators]


@pytest.mark.parametrize(
    ("make", "file"),
    [(make, file) for make in GRAPHS for file in FORMATS]
    + [(make, file) for make in OPERATIONS for file in FORMATS if file != "legacy.h5"],
)
def test_a_graph(make, file, tmp_path, rng):
    given = inner.Input((STEPS, FEATURES))
    model = keras.Model(given, make(given))
    randomise(model, rng)
    path = save(model, tmp_path, file)
    assert_scores(model, path, rng.standard_normal((3, STEPS, FEATURES)).astype(np.float32))


@pytest.mark.parametrize("file", FORMATS)
def test_several_inputs_and_outputs(file, tmp_path, rng):
    words, numbers = inner.Input((STEPS,), name="words"), inner.Input((2,), name="numbers")
    x = inner.LSTM(3)(inner.Embedding(7, 4)(words))
    both = inner.Concatenate()([x, numbers])
    model = keras.Model(
        [words, numbers], [inner.Dense(2, name="a")(both), inner.Dense(1, name="b")(x)]
    )
    randomise(model, rng)
    given = {
        "words": rng.integers(0, 7, (3, STEPS)),
        "numbers": rng.standard_normal((3, 2)).astype(np.float32),
    }
    expected = model([given["words"], given["numbers"]])
    scored = cylstm.load(save(model, tmp_path, file))
    for found in (scored(given), scored(**given), scored([given["words"], given["numbers"]])):
        assert list(found) == ["a", "b"]
        for name, y in zip("ab", expected, strict=True):
            np.testing.assert_allclose(found[name], outputs(lambda y: y, y), rtol=0, atol=1e-5)
    with pytest.raises(TypeError, match="expected the inputs"):
        scored(given["words"])


def test_operations_of_a_legacy_file_are_refused(tmp_path):
    """It does not tell the function Add from the layer Add."""
    given = inner.Input((STEPS, FEATURES))
    model = keras.Model(given, lstm(FEATURES)(given) + given)
    with pytest.raises(ValueError, match=r"expected 'add.*' among them"):
        cylstm.load(save(model, tmp_path, "legacy.h5"))


def cells():
    return inner.RNN([inner.LSTMCell(3), inner.LSTMCell(2, activation="relu")])


@pytest.mark.parametrize("make", [lambda: inner.GlobalAveragePooling1D(), lambda: lstm(2), cells])
def test_a_mask_that_goes_on(make, tmp_path, rng):
    model = keras.Sequential(
        [inner.Input((STEPS,)), inner.Embedding(7, 4, mask_zero=True), lstm(), make()]
    )
    randomise(model, rng)
    words = rng.integers(1, 7, (4, STEPS)) * (np.arange(STEPS) < [[9], [5], [1], [7]])
    assert_scores(model, save(model, tmp_path, "model.keras"), words)


@pytest.mark.parametrize("layer", [lambda: inner.Conv1D(2, 2), lambda: inner.MaxPooling1D()])
def test_a_mask_where_versions_differ_is_refused(layer, tmp_path, rng):
    model = keras.Sequential(
        [inner.Input((STEPS,)), inner.Embedding(7, 4, mask_zero=True), lstm(), layer()]
    )
    scored = cylstm.load(save(model, tmp_path, "model.keras"))
    with pytest.raises(ValueError, match="expected an input all of whose steps count"):
        scored(np.array([[1, 2, 3, 0, 0, 0, 0, 0, 0]]))


@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}])
def test_no_mask_is_one_by_which_all_steps_count(options, sequences, zero_output, rng):
    lstm = cylstm.LSTM(FEATURES, 3, num_layers=2, batch_first=True, seed=0, **options)
    layer = Recurrent(lstm, sequences, bool(options), "concat", zero_output)
    x = rng.standard_normal((3, STEPS, FEATURES)).astype(np.float32)
    expected, mask = layer.follow(x, np.ones((3, STEPS), bool))
    np.testing.assert_array_equal(layer(x), expected)
    assert layer.follow(x, None)[1] is None
    assert mask is None or mask.all()


def test_initial_states_are_refused(tmp_path):
    given, h, c = inner.Input((STEPS, 4)), inner.Input((3,)), inner.Input((3,))
    model = keras.Model([given, h, c], inner.LSTM(3, name="own")(given, initial_state=[h, c]))
    for file in ("model.keras", "legacy.h5"):
        with pytest.raises(ValueError, match=r"'own'.*from_keras takes the LSTM"):
            cylstm.load(save(model, tmp_path, file))


def test_cells_of_several_kinds_are_refused(tmp_path):
    own = inner.RNN([inner.LSTMCell(3), inner.GRUCell(3)], name="own")
    model = keras.Sequential([inner.Input((STEPS, 4)), own])
    expected = "'own': .*cells: expected cells of one kind, got GRUCell, LSTMCell"
    with pytest.raises(ValueError, match=expected):
        cylstm.load(save(model, tmp_path, "model.keras"))


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("layer", ["GRU", "SimpleRNN"])
def test_other_layers_alone(layer, file, tmp_path, rng):
    both = inner.Bidirectional(getattr(inner, layer)(3, return_sequences=True))
    cell = inner.RNN(getattr(inner, f"{layer}Cell")(3), return_sequences=True)
    for own in (getattr(inner, layer)(3, return_sequences=True), both, cell):
        model = keras.Sequential([inner.Input((STEPS, FEATURES)), own])
        randomise(model, rng)
        config = {"config": model.to_json()} if file.endswith("weights.h5") else {}
        network = cylstm.from_keras(save(model, tmp_path, file), **config)
        assert type(network).__name__ == layer.removeprefix("Simple")
        x = rng.standard_normal((3, STEPS, FEATURES)).astype(np.float32)
        np.testing.assert_allclose(network(x)[0], model.predict(x, verbose=0), atol=1e-5)
        np.testing.assert_array_equal(cylstm.from_keras(model)(x)[0], network(x)[0])


@pytest.mark.parametrize("cell", [False, True])
def test_a_gru_that_resets_before_is_refused(cell, tmp_path):
    before = {"reset_after": False}
    own = (
        inner.RNN(inner.GRUCell(3, **before), name="own")
        if cell
        else inner.GRU(3, **before, name="own")
    )
    model = keras.Sequential([inner.Input((STEPS, 4)), own])
    with pytest.raises(ValueError, match="reset_after: expected True"):
        cylstm.from_keras(model)
    with pytest.raises(ValueError, match=r"'own'.*reset_after: expected True"):
        cylstm.load(save(model, tmp_path, "model.keras"))


def test_a_gru_of_cudnn(rng):
    """As Keras 2 loads one into a GRU: kernels transposed within each gate, two biases in a row."""
    own = inner.GRU(3, return_sequences=True)
    model = keras.Sequential([inner.Input((STEPS, FEATURES)), own])
    randomise(model, rng)
    kernel, recurrent, bias = own.get_weights()

    class CuDNNGRU:
        name = "own"

        def get_config(self):
            return {"units": 3, "return_sequences": True}

        def get_weights(self):
            gates = [gate.T.reshape(gate.shape) for gate in np.split(kernel, 3, axis=1)]
            turned = [gate.T for gate in np.split(recurrent, 3, axis=1)]
            return [np.hstack(gates), np.hstack(turned), bias.ravel()]

    x = rng.standard_normal((3, STEPS, FEATURES)).astype(np.float32)
    network = cylstm.from_keras(CuDNNGRU())
    np.testing.assert_allclose(network(x)[0], model.predict(x, verbose=0), atol=1e-5)


def test_an_unknown_option_is_refused(tmp_path):
    model = keras.Sequential([inner.Input((STEPS, 4)), inner.LSTM(3, name="own")])
    model.save_weights(tmp_path / "model.weights.h5")
    config = json.loads(model.to_json())
    config["config"]["layers"][1]["config"]["zoneout"] = 0.5
    with pytest.raises(ValueError, match=r"'own': 'zoneout': expected no such option, got 0\.5"):
        cylstm.load(tmp_path / "model.weights.h5", config=config)


# Damage -------------------------------------------------------------------------------------------


def damaged_model():
    return keras.Sequential(
        [
            inner.Input((STEPS, FEATURES)),
            keras.Sequential([lstm(FEATURES), lstm(FEATURES)], name="within"),
            inner.Bidirectional(lstm(FEATURES), merge_mode="sum"),
            inner.Dense(FEATURES),
        ]
    )


def answer_or_error(path, x, config=None):
    """Return what the file gives for x, or None if it is refused, by its name."""
    try:
        return cylstm.load(path, config=config)(x)
    except ValueError as error:
        message = str(error)
    assert message.startswith(str(path)), message
    return None


def paths_of(file):
    found = []
    file.visit(found.append)
    return found


def deleted(file, path):
    del file[path]


def renamed(file, path):
    file.move(path, f"{path}_2")


def added(file, path):
    group = file[path] if isinstance(file[path], h5py.Group) else file[path].parent
    group["more"] = np.ones((FEATURES, 4 * FEATURES), np.float32)


def linked(file, path):
    file[f"{path}_3"] = file[path]


@pytest.mark.parametrize("damage", [deleted, renamed, added, linked])
@pytest.mark.parametrize("name", ["legacy.h5", "model.weights.h5"])
def test_no_damage_gives_another_answer_in_silence(damage, name, tmp_path, rng):
    """Each group and array of a file in turn: an error, or what it gave before."""
    model = damaged_model()
    randomise(model, rng)
    path = save(model, tmp_path, name)
    x = rng.standard_normal((2, STEPS, FEATURES)).astype(np.float32)
    expected = cylstm.load(path)(x)
    config = tmp_path / "config.json"
    with h5py.File(path) as file:
        places = paths_of(file)

    def tried(number, place):
        changed = tmp_path / f"changed{number}.h5"
        shutil.copy(path, changed)
        with h5py.File(changed, "a") as file:
            damage(file, place)
        return answer_or_error(changed, x, config if "weights" in name else None)

    with ThreadPoolExecutor() as pool:  # each file is read by another process
        answers = list(pool.map(tried, range(len(places)), places))
    for place, y in zip(places, answers, strict=True):
        if y is not None:
            np.testing.assert_array_equal(y, expected, err_msg=place)
    assert sum(y is None for y in answers) >= len(places) // 4


@pytest.mark.parametrize("attribute", ["layer_names", "weight_names"])
def test_no_damaged_list_gives_another_answer_in_silence(attribute, tmp_path, rng):
    model = damaged_model()
    randomise(model, rng)
    path = save(model, tmp_path, "legacy.h5")
    x = rng.standard_normal((2, STEPS, FEATURES)).astype(np.float32)
    expected = cylstm.load(path)(x)

    def without_one(names):
        return names[:-1]

    def one_twice(names):
        return [*names, names[0]]

    def one_for_another(names):
        return [*names[:-1], names[0]]

    with h5py.File(path) as file:
        places = [p for p in paths_of(file) if len(file[p].attrs.get(attribute, [])) > 0]
    assert places
    for place in places:
        for change in (without_one, one_twice, one_for_another):
            changed = tmp_path / "changed.h5"
            shutil.copy(path, changed)
            with h5py.File(changed, "a") as file:
                names = list(file[place].attrs[attribute])
                if len(names) < 2 and change is one_for_another:
                    continue
                file[place].attrs[attribute] = change(names)
            with pytest.raises(ValueError, match="expected"):
                cylstm.load(changed)
    np.testing.assert_array_equal(cylstm.load(path)(x), expected)
