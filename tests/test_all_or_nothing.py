"""What fails changes nothing, and what is given is believed nowhere."""

import copy
import pickle

import numpy as np
import pytest

import cylstm
from cylstm.train import (
    SGD,
    Adam,
    Dropout,
    Embedding,
    Last,
    Layer,
    Linear,
    RMSprop,
    RowGradient,
    Sequential,
    clip_grad_norm,
    clip_grad_value,
)
from reference import assert_same_bits

OPTIMIZERS = {
    "sgd": SGD,
    "momentum": lambda model: SGD(model, momentum=0.9),
    "adam": Adam,
    "rmsprop": RMSprop,
    "rmsprop with momentum": lambda model: RMSprop(model, momentum=0.9),
}


class Scale(Layer):
    """A layer with a way of its own to hold a parameter."""

    config = {}  # noqa: RUF012

    def __init__(self):
        self.factor = np.ones(1, np.float32)

    def forward(self, x):
        return x * self.factor, x

    def backward(self, tape, grad_y):
        return grad_y * self.factor, {"factor": np.array([(grad_y * tape).sum()], np.float32)}

    def named_parameters(self):
        yield "factor", self.factor

    def edit(self):
        class Lent(dict):
            __enter__ = lambda self: self  # noqa: E731
            __exit__ = lambda self, *_: None  # noqa: E731

        return Lent(factor=self.factor)


def lstm():
    return cylstm.LSTM(3, 4, seed=0)


def linear():
    return Linear(3, 2, seed=0)


def embedding():
    return Embedding(5, 3, seed=0)


def model():
    return Sequential(embedding(), Sequential(lstm(), Scale()), Linear(4, 2, seed=0))


MAKERS = [lstm, linear, embedding, model]


def states_of(made):
    return [made.state_dict()[name] for name in sorted(made.state_dict())]


def ones(made):
    return {name: np.ones_like(array) for name, array in made.named_parameters()}


def change(made, at_last):
    with made.edit() as parameters:
        for name in parameters:
            parameters[name] += 1
        at_last(parameters)


def shrink(parameters):
    array = parameters[next(iter(parameters))]
    array.resize((1,) * array.ndim, refcheck=False)


# edit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS)
def test_edit_takes_what_the_names_stand_for(make):
    made = make()
    before = made.state_dict()
    with made.edit() as parameters:
        first, *others = parameters
        parameters[first] = parameters[first] + 1
        for name in others:
            parameters[name] += 2
        assert_same_bits(states_of(made), [before[name] for name in sorted(before)])
    after = made.state_dict()
    np.testing.assert_array_equal(after[first], before[first] + 1)
    for name in others:
        np.testing.assert_array_equal(after[name], before[name] + 2)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("last", "error"),
    [
        (lambda array: np.zeros((7, 7), np.float32), ValueError),
        (lambda array: np.zeros(array.shape, complex), TypeError),
        (lambda array: np.full(array.shape, "text"), TypeError),
        (lambda array: np.ma.masked_all(array.shape, np.float32), (TypeError, ValueError)),
        (lambda array: None, TypeError),
    ],
)
def test_edit_that_ends_in_an_unusable_array(make, last, error):
    made = make()
    before = states_of(made)
    names = list(made.state_dict())
    with pytest.raises(error, match=names[-1]):
        change(made, lambda lent: lent.update({names[-1]: last(lent[names[-1]])}))
    assert_same_bits(states_of(made), before)


@pytest.mark.parametrize("make", MAKERS)
def test_edit_that_ends_by_an_exception(make):
    made = make()
    before = states_of(made)
    with pytest.raises(ZeroDivisionError):
        change(made, lambda lent: 1 / 0)
    assert_same_bits(states_of(made), before)


@pytest.mark.parametrize("make", MAKERS)
def test_edit_of_unknown_names(make):
    made = make()
    with made.edit() as parameters:
        for change in (
            lambda: parameters.update(unknown=np.ones(1)),
            lambda: parameters.setdefault("unknown", np.ones(1)),
        ):
            with pytest.raises(KeyError, match="unknown: expected one of"):
                change()
        for name in list(parameters):
            with pytest.raises(TypeError, match="cannot be deleted"):
                del parameters[name]


@pytest.mark.parametrize("make", MAKERS)
def test_what_edit_lent_is_of_no_use_later(make):
    made = make()
    with made.edit() as parameters:
        lent = dict(parameters)
    for name, array in lent.items():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(RuntimeError, match="has ended"):
            parameters[name] = array


@pytest.mark.parametrize("make", [lstm, linear, model])
def test_a_lent_array_that_shrinks(make):
    made = make()
    before = states_of(made)
    with pytest.raises(ValueError, match="expected shape"):
        change(made, shrink)
    assert_same_bits(states_of(made), before)


# load_state_dict and step -------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("value", ["text", None, 1j, [[1.0], [1.0, 2.0]]], ids=repr)
def test_load_of_an_unusable_value(make, value):
    made = make()
    state, before = made.state_dict(), states_of(made)
    for array in state.values():
        array += 1
    last = list(state)[-1]
    shape = state[last].shape
    state[last] = value if isinstance(value, list) else np.full(shape, value)  # the list is ragged
    with pytest.raises((TypeError, ValueError), match=last):
        made.load_state_dict(state)
    assert_same_bits(states_of(made), before)


BAD_GRADIENTS = {
    "integers": lambda array: np.ones(array.shape, int),
    "half": lambda array: np.ones(array.shape, np.float16),
    "complex": lambda array: np.ones(array.shape, complex),
    "shape": lambda array: np.ones((9, 9), array.dtype),
    "masked": lambda array: np.ma.masked_all(array.shape, array.dtype),
    "nothing": lambda array: None,
    "rows": lambda array: RowGradient(np.array([0]), np.ones((1, 9), array.dtype), (9, 9)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("bad", BAD_GRADIENTS.values(), ids=BAD_GRADIENTS)
def test_step_with_a_bad_last_gradient(optimizer, bad):
    made = model()
    grads, before = ones(made), states_of(made)
    chosen = optimizer(made)
    last = list(grads)[-1]
    grads[last] = bad(grads[last])
    with pytest.raises((TypeError, ValueError), match=r"grads\['2\.bias'\]"):
        chosen.step(grads)
    assert_same_bits(states_of(made), before)
    assert chosen.steps == 0
    assert all(not kept.any() for kept in chosen.state_dict().values())


@pytest.mark.parametrize("clip", [clip_grad_norm, clip_grad_value])
@pytest.mark.parametrize("bad", ["integers", "half", "complex", "masked", "nothing"])
def test_clipping_with_a_bad_last_gradient(clip, bad):
    grads = {"first": np.full(3, 5.0, np.float32), "last": BAD_GRADIENTS[bad](np.ones(2))}
    with pytest.raises((TypeError, ValueError), match=r"grads\['last'\]: expected"):
        clip(grads, 1.0)
    np.testing.assert_array_equal(grads["first"], 5)


def test_clipping_of_a_read_only_gradient():
    grads = {"first": np.full(3, 5.0), "last": np.full(3, 5.0)}
    grads["last"].flags.writeable = False
    for clip in (clip_grad_norm, clip_grad_value):
        with pytest.raises(ValueError, match=r"grads\['last'\]: expected a writable array"):
            clip(grads, 1.0)
    np.testing.assert_array_equal(grads["first"], 5)


@pytest.mark.parametrize("value", [np.full((2, 4), "text"), np.ones((2, 4), complex), np.ones(1)])
def test_optimizer_state_of_an_unusable_value(value):
    made = Linear(4, 2, seed=0)
    adam = Adam(made)
    adam.step(ones(made))
    state = adam.state_dict()
    before = copy.deepcopy(state)
    changed = {name: array + 1 for name, array in state.items()} | {"square.weight": value}
    with pytest.raises((TypeError, ValueError), match=r"square\.weight"):
        adam.load_state_dict(changed, 7)
    assert adam.steps == 1
    assert_same_bits(list(adam.state_dict().values()), list(before.values()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Adam(5), "model: expected a Layer or an LSTM, got int"),
        (lambda: SGD(None), "model: expected a Layer or an LSTM, got NoneType"),
        (lambda: Adam(linear(), betas=5), "betas: expected two numbers, got 5"),
    ],
)
def test_what_an_optimizer_is_made_of(call, message):
    with pytest.raises(TypeError, match=message):
        call()


# Claims -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("changed", [1000, -100, 2**40])
def test_ids_that_change_before_backward(optimizer, changed):
    """The tape is of the ids as they were."""
    table = Embedding(1000, 64, seed=0)
    ids = np.array([[1, 2, 3]])
    y, tape = table.forward(ids)
    ids[...] = changed
    grads = table.backward(tape, np.ones_like(y))[1]
    np.testing.assert_array_equal(grads["weight"].rows, [1, 2, 3])
    optimizer(table).step(grads)
    with pytest.raises(ValueError, match="read-only"):
        tape[...] = changed


@pytest.mark.parametrize(
    ("rows", "values", "message"),
    [
        ([1000], (1, 64), "rows: expected rising numbers from 0 to 999"),
        ([-1], (1, 64), "rows: expected rising numbers from 0 to 999"),
        ([2**62], (1, 64), "rows: expected rising numbers from 0 to 999"),
        ([3, 3], (2, 64), "rows: expected rising numbers"),
        ([3, 1], (2, 64), "rows: expected rising numbers"),
        ([1, 2], (1, 64), r"values: expected shape \(2, 64\), got \(1, 64\)"),
        ([1], (2, 64), r"values: expected shape \(1, 64\), got \(2, 64\)"),
        ([1], (1, 63), r"values: expected shape \(1, 64\), got \(1, 63\)"),
        ([[1]], (1, 64), r"rows: expected shape \(K,\)"),
    ],
)
def test_a_row_gradient_of_false_claims(rows, values, message):
    with pytest.raises(ValueError, match=message):
        RowGradient(np.array(rows), np.ones(values, np.float32), (1000, 64))


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(
    "forge",
    [
        {"rows": np.array([1000])},
        {"rows": np.array([-1])},
        {"rows": np.array([2, 1])},
        {"values": np.ones((1, 3), np.float32)},
        {"values": np.ones((5, 64), np.float32)},
    ],
    ids=str,
)
def test_a_forged_row_gradient_is_refused_where_it_is_used(optimizer, forge):
    """The compiled code looks itself, whatever was checked before."""
    table = Embedding(1000, 64, seed=0)
    gradient = RowGradient(np.array([1]), np.ones((1, 64), np.float32), (1000, 64))
    for name, value in forge.items():
        object.__setattr__(gradient, name, value)
    before = table.state_dict()["weight"]
    with pytest.raises(ValueError, match=r"rows|gradient"):
        optimizer(table).step({"weight": gradient})
    np.testing.assert_array_equal(table.state_dict()["weight"], before)


@pytest.mark.parametrize("make", [lstm, linear])
def test_x_that_changes_before_backward(make):
    made, x = make(), np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    y, *_, tape = made.forward(x)
    expected = made.backward(tape, np.ones_like(y))[-1]
    x[...] = 7
    found = made.backward(tape, np.ones_like(y))[-1]
    assert_same_bits([found[name] for name in expected], list(expected.values()))


def test_a_tape_of_old_parameters_of_a_linear():
    made, x = linear(), np.ones((2, 3), np.float32)
    _, tape = made.forward(x)
    SGD(made).step(ones(made))
    with pytest.raises(ValueError, match="tape: the parameters have changed"):
        made.backward(tape, np.ones((2, 2), np.float32))


# Streams ------------------------------------------------------------------------------------------


class Mean(Layer):
    """Of all steps: it needs them at once."""

    config = {}  # noqa: RUF012
    keeps_time = False

    def forward(self, x):
        return x.mean(axis=0), x.shape

    def backward(self, tape, grad_y):
        return np.broadcast_to(grad_y / tape[0], tape), {}


class Cumulative(Layer):
    """Of the steps until now: it says nothing of how it is streamed."""

    config = {}  # noqa: RUF012

    def forward(self, x):
        return np.cumsum(x, axis=0), None

    def backward(self, tape, grad_y):
        return np.cumsum(grad_y[::-1], axis=0)[::-1], {}


class Square(Layer):
    config = {}  # noqa: RUF012
    steps_alone = True

    def forward(self, x):
        return x * x, x

    def backward(self, tape, grad_y):
        return 2 * tape * grad_y, {}


STREAMED = {
    "lstm": lambda: Sequential(lstm()),
    "nested": lambda: Sequential(Sequential(lstm()), Sequential(Sequential(Linear(4, 2)))),
    "nested deeper": lambda: Sequential(Sequential(lstm(), Sequential(cylstm.LSTM(4, 5, seed=1)))),
    "square": lambda: Sequential(lstm(), Square(), Dropout(0.5), Linear(4, 2, seed=1)),
}


@pytest.mark.parametrize("make", STREAMED.values(), ids=STREAMED)
@pytest.mark.parametrize("size", [1, 3])
def test_a_stream_is_the_whole(make, size, rng):
    made = make()
    x = rng.normal(size=(6, size, 3)).astype(np.float32)
    stream = made.stream(size)
    steps = [stream.step(x_t) for x_t in x]
    np.testing.assert_allclose(np.stack(steps), made(x), rtol=0, atol=1e-6)
    stream.reset()
    assert_same_bits(stream.step(x[0]), steps[0])


@pytest.mark.parametrize("nested", [False, True])
def test_a_stream_of_the_last_step_so_far(nested, rng):
    first = lstm(), Last()
    made = Sequential(*([Sequential(*first)] if nested else first), Linear(4, 2, seed=1))
    x = rng.normal(size=(6, 2, 3)).astype(np.float32)
    stream = made.stream(2)
    for t in range(6):
        y = stream.step(x[t])
        np.testing.assert_allclose(y, made(x[: t + 1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((Mean(),), r"layers\[0\]: stream: Mean does not say"),
        ((lstm(), Cumulative()), r"layers\[1\]: stream: Cumulative does not say"),
        ((Sequential(lstm(), Mean()),), r"layers\[0\]: layers\[1\]: stream: Mean does not say"),
        ((cylstm.LSTM(3, 2, bidirectional=True),), "reads from the end"),
        ((Sequential(cylstm.LSTM(3, 2, reverse=True)),), "reads from the end"),
        ((lstm(), Last(), cylstm.LSTM(4, 2)), r"layers\[2\]: .* cannot be streamed after a layer"),
        ((Sequential(lstm(), Last()), Cumulative()), r"layers\[1\]: Cumulative cannot be streamed"),
    ],
)
def test_what_does_not_say_how_it_streams(layers, message):
    with pytest.raises(ValueError, match=message):
        Sequential(*layers).stream()


@pytest.mark.parametrize("size", [-1, 1.5, True, "2"])
@pytest.mark.parametrize("make", [lstm, linear, lambda: Sequential(linear()), Last])
def test_sizes_of_streams(make, size):
    with pytest.raises((TypeError, ValueError), match="batch_size: expected an integer"):
        make().stream(size)


def test_several_steps_at_once_are_refused():
    stream = Sequential(lstm(), Last()).stream(2)
    with pytest.raises(ValueError, match="x: expected one step"):
        stream.step(np.zeros((4, 2, 3), np.float32))


@pytest.mark.parametrize("made", [lstm(), Sequential(lstm(), Linear(4, 2, seed=0))])
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))]
)
def test_a_copy_of_a_stream_has_its_own_state(made, copied, rng):
    stream, x = made.stream(), rng.normal(size=(3, 1, 3)).astype(np.float32)
    stream.step(x[0])
    other = copied(stream)
    expected = stream.step(x[1])
    stream.step(x[2])
    assert_same_bits(other.step(x[1]), expected)
