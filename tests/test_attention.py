"""Attention: against float64 and PyTorch, gradients by differences, masks, bits, files."""

import copy
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cylstm
from cylstm.core.kernels import PRODUCT
from cylstm.layers import Attention, Last, Linear, Sequential
from cylstm.train import mse_loss
from gradient_check import assert_gradient, central_differences
from threads import threads_as_before

KINDS = {
    "dot": {"score": "dot"},
    "scaled": {"score": "dot", "scale": 0.7},
    "additive": {"score": "additive"},
    "additive, narrow": {"score": "additive", "attention_size": 2},
    "batch first": {"score": "additive", "batch_first": True},
}
LENGTHS = [5, 0, 3]


def make(kind, dtype="float64", width=4):
    attention = Attention(width, **KINDS[kind], dtype=dtype, seed=1)
    rng = np.random.default_rng(3)
    with attention.edit() as parameters:
        for parameter in parameters.values():
            parameter += rng.normal(scale=0.3, size=parameter.shape)
    return attention


def drawn(rng, attention, steps=2, length=5, size=3):
    queries, memory = (
        rng.normal(size=(t, size, attention.query_size)).astype(attention.dtype)
        for t in (steps, length)
    )
    return [a.swapaxes(0, 1).copy() if attention.batch_first else a for a in (queries, memory)]


def expected(attention, queries, memory, lengths):
    """The context and the weights (T, N, S), query by query in float64."""
    if attention.batch_first:
        queries, memory = queries.swapaxes(0, 1), memory.swapaxes(0, 1)
    p = {name: array.astype(float) for name, array in attention.named_parameters()}
    steps, size, _ = queries.shape
    context, weights = np.zeros(queries.shape), np.zeros((steps, size, len(memory)))
    for n, length in enumerate(lengths):
        for t, q in enumerate(queries[:, n].astype(float)):
            rows = memory[:length, n].astype(float)
            if attention.score == "dot":
                scale = 1 / np.sqrt(len(q)) if attention.scale is None else attention.scale
                scores = [scale * np.dot(q, m) for m in rows]
            else:
                scores = [
                    np.tanh(p["weight_q"] @ q + p["weight_m"] @ m + p["bias"]) @ p["weight_v"]
                    for m in rows
                ]
            if length:
                shares = np.exp(scores) / np.sum(np.exp(scores))
                weights[t, n, :length], context[t, n] = shares, shares @ rows
    if attention.batch_first:
        return context.swapaxes(0, 1), weights.swapaxes(0, 1)
    return context, weights


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_context_and_weights(kind, dtype, rng):
    attention = make(kind, dtype)
    queries, memory = drawn(rng, attention)
    context, weights = expected(attention, queries, memory, LENGTHS)
    atol = 2e-6 if dtype == "float32" else 1e-14
    given, _ = attention.attend(queries, memory, LENGTHS)
    np.testing.assert_allclose(given, context, rtol=0, atol=atol)
    found = attention.weights(queries, memory, LENGTHS)
    np.testing.assert_allclose(found, weights, rtol=0, atol=atol)
    assert found.dtype == given.dtype == dtype


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients(kind, lengths, rng):
    attention = make(kind)
    queries, memory = drawn(rng, attention)
    context, tape = attention.attend(queries, memory, lengths)
    grad = rng.normal(size=context.shape)
    grad_queries, grad_memory, grads = attention.attend_backward(tape, grad)

    def loss():
        return np.sum(grad * attention.attend(queries, memory, lengths)[0])

    assert_gradient(grad_queries, central_differences(loss, queries))
    assert_gradient(grad_memory, central_differences(loss, memory))
    state = attention.state_dict()

    def loss_of_parameters():
        attention.load_state_dict(state)
        return loss()

    assert grads.keys() == state.keys()
    for name, found in grads.items():
        assert_gradient(found, central_differences(loss_of_parameters, state[name]))


def test_as_a_layer_each_step_looks_at_all(kind, rng):
    attention = make(kind)
    x, _ = drawn(rng, attention, steps=5)
    y, tape = attention.forward(x, LENGTHS)
    context, _ = expected(attention, x, x, LENGTHS)
    time = context.swapaxes(0, 1) if attention.batch_first else context
    for n, length in enumerate(LENGTHS):
        time[length:, n] = 0
    np.testing.assert_allclose(y, context, rtol=0, atol=1e-14)
    grad = rng.normal(size=y.shape)
    grad_x, _ = attention.backward(tape, grad)

    def loss():
        return np.sum(grad * attention(x, lengths=LENGTHS))

    assert_gradient(grad_x, central_differences(loss, x))


def test_dot_is_pytorchs(rng):
    torch = pytest.importorskip("torch")
    attention = Attention(8, dtype="float64", batch_first=True)
    queries, memory = rng.normal(size=(3, 2, 8)), rng.normal(size=(3, 5, 8))
    q, m = (torch.tensor(a, requires_grad=True) for a in (queries, memory))
    mask = torch.arange(5) < torch.tensor([5, 1, 3])[:, None, None]
    theirs = torch.nn.functional.scaled_dot_product_attention(q, m, m, attn_mask=mask)
    grad = rng.normal(size=theirs.shape)
    theirs.backward(torch.tensor(grad))
    ours, tape = attention.attend(queries, memory, [5, 1, 3])
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-14)
    grad_queries, grad_memory, _ = attention.attend_backward(tape, grad)
    np.testing.assert_allclose(grad_queries, q.grad.numpy(), rtol=0, atol=1e-13)
    np.testing.assert_allclose(grad_memory, m.grad.numpy(), rtol=0, atol=1e-13)


@pytest.mark.filterwarnings("ignore")  # those of the framework
def test_additive_is_kerass(rng):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    attention = Attention(6, score="additive", batch_first=True, seed=0)
    with attention.edit() as parameters:
        for name in ("weight_q", "weight_m"):
            parameters[name] = np.eye(6)
    layer = keras.layers.AdditiveAttention()
    queries, memory = (rng.normal(size=(2, t, 6)).astype("f4") for t in (3, 5))
    layer([queries, memory])
    layer.set_weights([attention.state_dict()["weight_v"]])
    theirs = keras.ops.convert_to_numpy(layer([queries, memory]))
    ours, _ = attention.attend(queries, memory)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


def test_what_is_past_the_end_is_not_read(kind, rng):
    attention = make(kind)
    queries, memory = drawn(rng, attention)
    time = memory.swapaxes(0, 1) if attention.batch_first else memory
    clean, tape = attention.attend(queries, memory, LENGTHS)
    before = attention.attend_backward(tape, clean)
    for n, length in enumerate(LENGTHS):
        time[length:, n] = np.nan
    context, tape = attention.attend(queries, memory, LENGTHS)
    np.testing.assert_array_equal(context, clean)
    after = attention.attend_backward(tape, clean)
    np.testing.assert_array_equal(after[1], before[1])
    grad = after[1].swapaxes(0, 1) if attention.batch_first else after[1]
    weights = attention.weights(queries, memory, LENGTHS)
    weights = weights.swapaxes(0, 1) if attention.batch_first else weights
    for n, length in enumerate(LENGTHS):
        assert not grad[length:, n].any()
        assert not weights[:, n, length:].any()


@pytest.mark.skipif(PRODUCT == "blas", reason="BLAS promises no such thing")
@given(
    kind=st.sampled_from(list(KINDS)),
    width=st.sampled_from([1, 3, 16, 33]),
    steps=st.integers(1, 20),
    length=st.integers(1, 40),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_the_same_bits_alone_and_in_any_batch(kind, width, steps, length, threads, seed):
    rng = np.random.default_rng(seed)
    attention = make(kind, "float32", width)
    queries, memory = drawn(rng, attention, steps, length + 3)
    if attention.batch_first:
        queries, memory = queries.swapaxes(0, 1), memory.swapaxes(0, 1)

    def attend(queries, memory, lengths=None):
        turned = [a.swapaxes(0, 1) if attention.batch_first else a for a in (queries, memory)]
        context, _ = attention.attend(*turned, lengths)
        return context.swapaxes(0, 1) if attention.batch_first else context

    with threads_as_before():
        cylstm.set_num_threads(threads)
        whole = attend(queries, memory, [length, 1, length + 3])
        t = steps // 2
        alone = attend(queries[t : t + 1, :1], memory[:length, :1])
    np.testing.assert_array_equal(whole[t, 0], alone[0, 0])


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_steps_are_taken_in_blocks(dtype, first, rng):
    """More than a unit of work has, of queries and of the memory, and other ends."""
    width, ends, query_ends = 5, [200, 97, 0, 1], [130, 96, 7, 0]
    queries, memory, grad = (
        rng.normal(size=(steps, 4, width)).astype(dtype) for steps in (130, 200, 130)
    )

    def turned(array):
        return np.moveaxis(array, 0, 1) if first else array

    attention = Attention(width, dtype=dtype, batch_first=first)
    found = []
    with threads_as_before():
        for threads in (1, 2):
            cylstm.set_num_threads(threads)
            context, tape = attention.attend(
                turned(queries), turned(memory), ends, query_lengths=query_ends
            )
            *grads, _ = attention.attend_backward(tape, turned(grad))
            found.append([turned(array) for array in (context, *grads)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    for n, (end, last) in enumerate(zip(ends, query_ends, strict=True)):
        q, m, g = (a.astype(float) for a in (queries[:last, n], memory[:end, n], grad[:last, n]))
        weights = np.exp(q @ m.T / np.sqrt(width))
        weights /= weights.sum(1, keepdims=True)
        by_weights = g @ m.T
        scores = weights * (by_weights - (weights * by_weights).sum(1, keepdims=True))
        scores /= np.sqrt(width)
        expected = weights @ m, scores @ m, scores.T @ q + weights.T @ g
        for own, array, steps in zip(expected, found[0], (last, last, end), strict=True):
            atol = 3e-5 if dtype == "float32" else 1e-13
            np.testing.assert_allclose(array[:steps, n], own, rtol=0, atol=atol)
            assert not array[steps:, n].any()


def test_a_tape_keeps_what_was_there(rng):
    attention = make("dot")
    queries, memory = drawn(rng, attention)
    context, tape = attention.attend(queries, memory)
    before = attention.attend_backward(tape, context)
    queries[...] = memory[...] = np.nan
    for one, other in zip(attention.attend_backward(tape, context)[:2], before[:2], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("turn", [lambda a: a[::-1], lambda a: a[..., ::-1], np.asfortranarray])
def test_any_layout(turn, rng):
    attention = make("scaled")
    queries, memory = drawn(rng, attention, steps=5)
    views = [turn(array) for array in (queries, memory)]
    copies = [np.ascontiguousarray(array) for array in views]
    grad = turn(rng.normal(size=queries.shape))
    given, tape = attention.attend(*views)
    expected, other = attention.attend(*copies)
    np.testing.assert_array_equal(given, expected)
    for one, two in zip(
        attention.attend_backward(tape, grad)[:2],
        attention.attend_backward(other, np.ascontiguousarray(grad))[:2],
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_in_a_model_that_is_saved(tmp_path, kind, rng):
    first = KINDS[kind].get("batch_first", False)
    model = Sequential(
        cylstm.LSTM(3, 4, batch_first=first, dtype="float64", seed=0),
        make(kind),
        Last(batch_first=first),
        Linear(4, 2, dtype="float64", seed=2),
    )
    model.save(tmp_path / "model.safetensors")
    loaded = cylstm.load(tmp_path / "model.safetensors")
    assert repr(loaded) == repr(model)
    x = rng.normal(size=(5, 5, 3))
    y = model.run(x, lengths=[5, 4, 3, 2, 1])[0]
    np.testing.assert_array_equal(loaded.run(x, lengths=[5, 4, 3, 2, 1])[0], y)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.run(x, lengths=[5, 4, 3, 2, 1])[0], y)
    with pytest.raises(ValueError, match=r"layers\[1\]: stream: Attention does not say"):
        model.stream()


def test_a_model_with_attention_learns(rng):
    model = Sequential(
        cylstm.LSTM(2, 8, seed=0), Attention(8, score="additive", seed=1), Last(), Linear(8, 1)
    )
    x = rng.normal(size=(6, 64, 2)).astype("f4")
    target = x[..., 0].max(0)[:, None]
    adam = cylstm.train.Adam(model, lr=1e-2)
    history = cylstm.train.fit(model, (x, target), mse_loss, adam, epochs=30, seed=0)
    assert history.loss[-1] < 0.2 * history.loss[0]


def test_a_stale_tape_is_refused(rng):
    attention = make("additive")
    queries, memory = drawn(rng, attention)
    context, tape = attention.attend(queries, memory)
    attention.load_state_dict(attention.state_dict())
    with pytest.raises(ValueError, match="tape: the parameters have changed"):
        attention.attend_backward(tape, context)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"score": "cosine"}, "score: expected one of dot, additive, got 'cosine'"),
        ({"memory_size": 3}, "memory_size: expected query_size, 4, for dot scores, got 3"),
        ({"attention_size": 3}, "attention_size: expected none for dot scores, got 3"),
        ({"score": "additive", "scale": 1.0}, "scale: expected none for additive scores"),
        ({"scale": np.inf}, "scale: expected a finite number"),
        ({"memory_size": 0}, "memory_size: expected an integer from 1"),
    ],
)
def test_arguments_that_are_refused(arguments, error):
    with pytest.raises(ValueError, match=error):
        Attention(4, **arguments)


def test_arrays_that_are_refused(rng):
    attention = make("dot")
    queries, memory = drawn(rng, attention)
    with pytest.raises(TypeError, match="queries: expected dtype float64, got float32"):
        attention.attend(queries.astype("f4"), memory)
    with pytest.raises(ValueError, match=r"memory: expected shape \(T, N, 4\), got \(5, 3, 3\)"):
        attention.attend(queries, memory[..., :3])
    with pytest.raises(ValueError, match="memory: expected as many sequences as queries, 3, got 2"):
        attention.attend(queries, memory[:, :2])
    with pytest.raises(ValueError, match="query_lengths: expected 0 to 2"):
        attention.attend(queries, memory, query_lengths=[3, 1, 1])
    with pytest.raises(ValueError, match="lengths: expected 0 to 5"):
        attention.attend(queries, memory, [6, 1, 1])
    other = Attention(4, 3, score="additive", dtype="float64")
    with pytest.raises(ValueError, match="x: expected queries and a memory, of 4 and 3 features"):
        other.forward(queries)


@pytest.mark.parametrize("change", [("attention_size", 10**9), ("query_size", 5)])
def test_a_file_that_claims_another_size(tmp_path, change, rng):
    attention = make("additive")
    config = attention.config | dict([change])
    with pytest.raises(ValueError, match="weight_q: expected shape"):
        Attention.from_saved(config, attention.state_dict())
