"""Vectors that a recurrent layer looks up: the same bits out, and the same gradients."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cylstm
from cylstm.core import kernels
from cylstm.core.cell import Cell
from cylstm.core.network import Network
from cylstm.core.workspace import Workspace
from cylstm.layers import Dropout, Embedding, Last, Linear, Sequential, embedding
from cylstm.lookup import LookedUp, pays_in_training
from cylstm.predict.model import Predictor

pytestmark = pytest.mark.skipif(
    kernels.PRODUCT == "blas", reason="products by BLAS write where x's share is read"
)
KINDS = (cylstm.LSTM, cylstm.GRU, cylstm.RNN)


@st.composite
def cases(draw, dtypes=("float32", "float64")):
    """A model that looks vectors up, ids for it, and lengths or None."""
    kind = draw(st.sampled_from(KINDS))
    options = {
        "num_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "dtype": draw(st.sampled_from(dtypes)),
    }
    if kind is cylstm.LSTM:
        options |= draw(st.sampled_from([{}, {"proj_size": 2}, {"peephole": True}, {"clip": 0.3}]))
    size, words = draw(st.integers(1, 19)), draw(st.integers(1, 40))
    steps, batch = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    lstm = kind(size, draw(st.integers(3, 20)), seed=draw(st.integers(0, 9)), **options)
    model = Sequential(Embedding(words, size, seed=1, dtype=options["dtype"]), lstm)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = (batch, steps) if options["batch_first"] else (steps, batch)
    ids = rng.integers(0, words, shape, draw(st.sampled_from([np.int64, np.uint8, np.int32])))
    if draw(st.booleans()):
        ids = np.repeat(ids, 2, axis=0)[::2]  # strided
    lengths = rng.integers(0, steps + 1, batch) if draw(st.booleans()) else None
    return model, ids, lengths


def tables_of(model, ids):
    tables = model[1]._network.tables_for(model[0].looked_up(ids))
    assert tables is not None
    return tables


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@given(cases())
def test_inference_has_the_bits_of_vectors_that_were_taken(case):
    model, ids, lengths = case
    y, state = model[1](model[0](ids), None, lengths)
    first, _ = model.run(ids, lengths=lengths)
    tables_of(model, ids)
    again, (_, after) = model.run(ids, lengths=lengths)
    np.testing.assert_array_equal(first, y)
    np.testing.assert_array_equal(again, y)
    for own, other in zip(parts(after), parts(state), strict=True):
        np.testing.assert_array_equal(own, other)


@given(cases(["float32"]), st.sampled_from(["int8", "bfloat16"]))
def test_weights_of_fewer_bits_have_the_same_bits_too(case, weights):
    model, ids, lengths = case
    fast = model.quantize(weights)
    tables_of(fast, ids)
    np.testing.assert_array_equal(
        fast(ids, lengths=lengths), fast[1](fast[0](ids), None, lengths)[0]
    )


@given(cases())
def test_a_state_and_resets_are_taken_in(case):
    model, ids, _ = case
    lstm = model[1]
    _, state = lstm(np.ones((*ids.shape, lstm.input_size), lstm.dtype))
    resets = np.random.default_rng(3).random(ids.shape) < 0.3
    tables_of(model, ids)
    y = model(ids, [None, state], resets=resets)
    np.testing.assert_array_equal(y, lstm(model[0](ids), state, resets=resets)[0])


@given(cases(["float64"]), st.sampled_from([None, 1, 3]), st.booleans())
def test_gradients_are_those_of_vectors_that_were_taken(case, segment, resetting):
    model, ids, lengths = case
    resets = np.random.default_rng(3).random(ids.shape) < 0.3 if resetting else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "pays_in_training", lambda *sizes: True)
        y, tape = model.forward(ids, lengths=lengths, segment=segment, resets=resets)
        assert isinstance(tape[0], embedding.Occurring)
        patch.setattr(embedding, "pays_in_training", lambda *sizes: False)
        plain_y, plain_tape = model.forward(ids, lengths=lengths, resets=resets)
        assert isinstance(plain_tape[0], np.ndarray)
    np.testing.assert_array_equal(y, plain_y)
    grad_y = np.random.default_rng(4).standard_normal(y.shape)
    grads, plain = (model.backward(one, grad_y)[1] for one in (tape, plain_tape))
    assert grads.keys() == plain.keys()
    for name, grad in plain.items():
        given_grad = grads[name]
        if name == "0.weight":
            np.testing.assert_array_equal(given_grad.rows, grad.rows)
            given_grad, grad = given_grad.dense(), grad.dense()
        np.testing.assert_allclose(given_grad, grad, rtol=1e-9, atol=1e-11, err_msg=name)


def model_of(words=30, size=24, hidden=16, **options):
    return Sequential(Embedding(words, size, seed=0), cylstm.LSTM(size, hidden, seed=0, **options))


def test_gradients_have_the_same_bits_with_any_number_of_threads():
    model = model_of(hidden=128, bidirectional=True)
    ids = np.random.default_rng(0).integers(0, 30, (40, 32))
    before, found = cylstm.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            cylstm.set_num_threads(threads)
            y, tape = model.forward(ids)
            assert isinstance(tape[0], embedding.Occurring)
            found.append(model.backward(tape, np.ones_like(y))[1])
    finally:
        cylstm.set_num_threads(before)
    for grads in found[1:]:
        for name, grad in grads.items():
            first = found[0][name]
            if name == "0.weight":
                grad, first = grad.values, first.values
            np.testing.assert_array_equal(grad, first, err_msg=name)


def test_the_padding_vector_does_not_learn():
    lookup = Embedding(9, 24, padding_idx=2, seed=0)
    model = Sequential(lookup, cylstm.LSTM(24, 8, seed=0))
    y, tape = model.forward(np.array([[2, 5]] * 20))
    assert isinstance(tape[0], embedding.Occurring)
    assert model.backward(tape, np.ones_like(y))[1]["0.weight"].rows.tolist() == [5]


@pytest.mark.parametrize("changed", [0, 1])
def test_tables_are_made_anew_when_parameters_change(changed):
    model = model_of()
    ids = np.random.default_rng(0).integers(0, 30, (20, 3))
    before = model(ids)
    first = tables_of(model, ids)
    assert tables_of(model, ids) is first
    with model[changed].edit() as parameters:
        for parameter in parameters.values():
            parameter[...] += 0.1
    y = model(ids)
    assert tables_of(model, ids) is not first
    assert not np.array_equal(y, before)
    np.testing.assert_array_equal(y, model[1](model[0](ids))[0])


def test_only_what_occurs_is_multiplied():
    model = model_of(words=50)
    network = model[1]._network
    workspace = Workspace()
    state = network.zero_state(2)

    def is_there(*ids):
        version = model[0]._store.version
        return network.step_row(np.array(ids), version, *state, workspace) is not None

    assert not is_there(3, 4)
    network.tables_for(model[0].looked_up(np.array([[4, 7]])))
    assert is_there(7, 4)
    assert not is_there(3, 4)
    assert not is_there(-1, 4)
    assert not is_there(50, 4)


def test_threads_that_want_the_same_rows_have_the_same_bits():
    words, size = 3000, 64
    ids = np.random.default_rng(0).integers(0, words, (40, 50))
    lookup, lstm = Embedding(words, size, seed=0), cylstm.LSTM(size, 64, seed=0)
    expected = lstm(lookup(ids))[0]
    for _ in range(30):
        model = Sequential(lookup, pickle.loads(pickle.dumps(lstm)))
        with ThreadPoolExecutor(4) as pool:
            for y in pool.map(model, [ids] * 8):
                np.testing.assert_array_equal(y, expected)


@given(cases())
def test_a_stream_has_the_bits_of_vectors_that_were_taken(case):
    model, ids, _ = case
    lstm = model[1]
    if lstm.bidirectional:
        return
    ids = ids.T if lstm.batch_first else ids
    plain, stream = lstm.stream(ids.shape[1]), model.stream(ids.shape[1])
    for step in ids:
        np.testing.assert_array_equal(stream.step(step), plain.step(model[0](step)))
    other = pickle.loads(pickle.dumps(copy.copy(stream)))
    stream.reset(0)
    plain.reset(0)
    np.testing.assert_array_equal(stream.step(ids[0]), plain.step(model[0](ids[0])))
    plain = lstm.stream(ids.shape[1])
    for step in (*ids, ids[0]):
        last = plain.step(model[0](step))
    np.testing.assert_array_equal(other.step(ids[0]), last)


def test_a_stream_sees_a_change_at_its_next_step():
    model = model_of()
    stream, word = model.stream(), np.array([5])
    for layer in (0, 1):
        stream.step(word)
        with model[layer].edit() as parameters:
            for parameter in parameters.values():
                parameter[...] += 0.1
        plain = model[1].stream()
        plain.state = stream._steps[1].state
        np.testing.assert_array_equal(stream.step(word), plain.step(model[0](word)))


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 3), int), np.zeros((1, 1, 24), int), np.array([30]), np.array([1.0])]
)
def test_a_stream_refuses_what_is_no_step_of_ids(bad):
    stream = model_of().stream()
    for _ in range(2):
        with pytest.raises((ValueError, TypeError), match="x: expected"):
            stream.step(bad)
        stream.step(np.array([3]))


def test_tables_that_would_be_too_large_are_not_made():
    model = Sequential(Embedding(40_000, 1, seed=0), cylstm.LSTM(1, 64, seed=0))
    looked = model[0].looked_up(np.zeros((1000, 50), int))  # 40 MB
    assert model[1]._network.tables_for(looked) is None


def test_an_lstm_that_serves_two_embeddings_gives_each_its_own():
    lstm = cylstm.LSTM(4, 8, seed=0)
    models = [Sequential(Embedding(9, 4, seed=seed), lstm) for seed in (1, 2)]
    ids = np.random.default_rng(0).integers(0, 9, (20, 3))
    for _ in range(3):
        for model in models:
            np.testing.assert_array_equal(model(ids), lstm(model[0](ids))[0])


def test_vectors_are_not_looked_up_where_a_layer_is_between():
    model = Sequential(Embedding(9, 24, seed=0), Dropout(0.5), cylstm.LSTM(24, 8, seed=0))
    _, tape = model.forward(np.zeros((30, 2), int))
    assert isinstance(tape[0], np.ndarray)


def test_copies_and_pickles_look_up_for_themselves():
    model = model_of()
    ids = np.random.default_rng(0).integers(0, 30, (20, 3))
    tables_of(model, ids)
    y = model(ids)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(ids), y)
        with other[0].edit() as parameters:
            parameters["weight"][...] = 0
        np.testing.assert_array_equal(model(ids), y)


@pytest.mark.parametrize("bad", [[[0, 30]], [[-1, 2]]])
def test_ids_out_of_range_are_refused(bad):
    model = model_of()
    for call in (model, model.forward):
        with pytest.raises(ValueError, match="x: expected 0 to 29"):
            call(np.array(bad))
    ids = np.array(bad, np.intp)[..., None]
    network = model[1]._network
    tables = network.tables(model[0]._store.views["weight"])
    y, (h, c) = np.zeros((*ids.shape[:2], 16), np.float32), network.zero_state(2)
    batch = cylstm.batch.Batch(1, 2)
    with pytest.raises(ValueError, match="ids: expected 0 to 29"):
        network.run(ids, y, h, c, batch, None, tables)


def test_ids_of_another_rank_are_refused_as_before():
    model = model_of()
    for call in (model, model.forward):
        with pytest.raises(ValueError, match="x: expected"):
            call(np.zeros((2, 3, 4), int))
        with pytest.raises(ValueError, match="x: expected"):
            call(np.array(3))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}])
def test_the_last_step_alone_has_the_same_bits(options):
    width = 32 if options.get("bidirectional") else 16
    model = Sequential(*model_of(**options), Last(), Linear(width, 3, seed=0))
    ids = np.random.default_rng(0).integers(0, 30, (20, 5))
    lengths = np.array([20, 3, 1, 7, 12])
    predictor = Predictor(model)
    expected = model(ids, lengths=lengths)
    for _ in range(3):
        np.testing.assert_array_equal(predictor.run_last(ids, lengths), expected)


def test_products_for_vectors_pay_where_they_occur_often():
    assert pays_in_training(1536, 96, 48)
    assert not pays_in_training(700, 680, 64)
    assert not pays_in_training(1536, 96, 4)


def test_what_was_looked_up_can_be_taken():
    looked = LookedUp(np.arange(6.0).reshape(3, 2), np.array([2, 0]))
    np.testing.assert_array_equal(looked.taken(), [[4, 5], [0, 1]])
    assert replace(looked, ids=np.array([1])).taken().tolist() == [[2, 3]]


def test_a_network_of_products_by_blas_looks_nothing_up():
    lstm = cylstm.LSTM(3, 4, seed=0)
    memory = lstm._store.memory()
    activations = (("sigmoid", 0, 0), ("tanh", 0, 0), ("tanh", 0, 0))
    cell = Cell(
        {name.removesuffix("_l0"): array for name, array in memory.items()},
        kind="LSTM", reverse=False, clip=float("inf"), activations=activations, product="blas",
    )  # fmt: skip
    assert not Network([[cell]], False, lstm._store).may_look_up
