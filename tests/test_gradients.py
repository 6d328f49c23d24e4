"""Every gradient against central differences of the reference, and what a tape promises."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
import reference
from reference import (
    assert_close,
    assert_gradients_close,
    assert_same_bits,
    flat,
    leaves,
    random_case,
)
from strategies import LAYOUTS, configs, seeds, shapes


def check(seed, steps, batch, lengths=None, **config):
    rng = np.random.default_rng(seed)
    while True:
        case = random_case(rng, steps, batch, lengths, **config)
        try:
            expected = case.numeric_gradients()
        except reference.KinkCrossed:
            continue  # with the next numbers of the same generator
        break
    assert_gradients_close(case.gradients(), expected)


@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (1, 3), (4, 1), (3, 2), (3, None)])
def test_each_option(options, steps, batch):
    check(0, steps, batch, **options)


@pytest.mark.parametrize(("batch", "lengths"), [(3, [2, 0, 3]), (None, 2)])
def test_each_option_with_lengths(options, batch, lengths):
    check(0, 3, batch, lengths, **options)


@settings(max_examples=50)
@given(configs(st.integers(1, 4)), shapes(max_steps=3, max_batch=2), seeds)
def test_any_shape_and_options(config, shape, seed):
    check(seed, *shape, **config)


@settings(max_examples=50)
@given(configs(), shapes(max_steps=12), st.integers(1, 13), seeds)
def test_in_segments(config, shape, segment, seed):
    case = random_case(np.random.default_rng(seed), *shape, **config)
    y, state, _ = case.lstm.forward(*case.inputs)
    again, again_state, _ = case.lstm.forward(*case.inputs, segment=segment)
    assert_close((again, again_state), (y, state))
    assert_gradients_close(case.gradients(segment=segment), case.gradients(), 1e-13)


# Numbers drawn once for all: a sum that cancels has no relative error to speak of.
@pytest.mark.parametrize("hidden_size", [4, 17, 33, 100])
def test_float32_against_float64(rng, options, hidden_size):
    case = random_case(rng, 5, 3, hidden_size=hidden_size, dtype="float32", **options)
    assert_gradients_close(case.gradients(), case.astype("float64").gradients(), 5e-5)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, None)])
def test_nothing_to_read(rng, options, steps, batch):
    case = random_case(rng, steps, batch, **options)
    expected = dict.fromkeys(case.gradients(), 0.0)
    for name, array in zip(("h_0", "c_0"), case.grad_state, strict=True):
        expected[name] = array
    for name, gradient in case.gradients().items():
        np.testing.assert_array_equal(gradient, expected[name])


def test_coupled_forget_gate_has_no_gradient(rng):
    case = random_case(rng, 4, 3, coupled=True, peephole=True)
    forget = slice(4, 8)
    for name, gradient in case.gradients().items():
        if "_l0" in name:
            assert not gradient[forget].any()
            assert gradient.any()


def test_all_clipped_has_no_gradient(rng):
    case = random_case(rng, 1, 3, clip=1e-6)
    gradients = case.gradients()
    assert gradients.pop("c_0").any()
    assert not any(gradient.any() for gradient in gradients.values())


# Backward knows a clipped gate by the bits of its output.
@pytest.mark.parametrize("clip", [0.3, 0.7, 1.1])
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("hidden_size", [4, 37])
def test_clipped_gates_have_no_gradient(rng, dtype, hidden_size, gate, clip):
    activations = (gate, "tanh", "tanh")
    config = {"clip": clip, "activations": activations, "dtype": dtype, "bias": False}
    case = random_case(rng, 1, 3, hidden_size=hidden_size, **config)
    case.x *= 1e6
    gradients = case.gradients()
    assert gradients.pop("c_0").any()
    assert not any(gradient.any() for gradient in gradients.values())


def test_no_gradient_of_the_state_is_zeros(rng, options):
    case = random_case(rng, 3, 2, **options)
    _, _, tape = case.lstm.forward(*case.inputs)
    zeros = tuple(map(np.zeros_like, case.grad_state))
    assert_same_bits(
        case.lstm.backward(tape, case.grad_y), case.lstm.backward(tape, case.grad_y, zeros)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout(rng, dtype, layout):
    case = random_case(rng, 4, 3, num_layers=2, bidirectional=True, dtype=dtype)
    expected = case.gradients()
    case.x, case.grad_y = layout(case.x), layout(case.grad_y)
    case.state, case.grad_state = (
        tuple(map(layout, case.state)),
        tuple(map(layout, case.grad_state)),
    )
    assert_same_bits(case.gradients(), expected)


def test_dtypes_and_names(rng, options, dtype):
    case = random_case(rng, 3, 2, dtype=dtype, **options)
    gradients = case.gradients()
    assert {gradient.dtype for gradient in gradients.values()} == {np.dtype(dtype)}
    assert list(gradients) == ["x", "h_0", "c_0", *case.lstm.state_dict()]


def test_backward_changes_nothing_that_it_reads(rng, options):
    case = random_case(rng, 3, 2, [1, 3], **options)
    _, _, tape = case.lstm.forward(*case.inputs)
    weights = case.grad_y.copy(), tuple(map(np.copy, case.grad_state))
    first = case.lstm.backward(tape, *weights)
    assert_same_bits(weights, (case.grad_y, case.grad_state))
    kept = tuple(gradient.copy() for gradient in leaves(first))
    for gradient in leaves(first):
        assert not any(np.shares_memory(gradient, weight) for weight in leaves(weights))
        gradient[...] = np.nan
    assert_same_bits(tuple(leaves(case.lstm.backward(tape, *weights))), kept)


def test_results_may_be_overwritten_before_backward(rng, options):
    case = random_case(rng, 3, 2, **options)
    expected = case.gradients()
    y, state, tape = case.lstm.forward(*case.inputs)
    for array in leaves((y, state)):
        array[...] = np.nan
    assert_same_bits(flat(case.lstm.backward(tape, case.grad_y, case.grad_state)), expected)


def test_tapes_are_independent(rng):
    case = random_case(rng, 3, 2)
    expected = case.gradients()
    _, _, tape = case.lstm.forward(*case.inputs)
    case.lstm.forward(case.x + 1)
    case.lstm(case.x + 2)
    assert_same_bits(flat(case.lstm.backward(tape, case.grad_y, case.grad_state)), expected)


def test_tape_of_another_lstm(rng):
    case = random_case(rng, 3, 2)
    _, _, tape = cylstm.LSTM(**case.config).forward(case.x)
    with pytest.raises(ValueError, match="tape"):
        case.lstm.backward(tape, case.grad_y)


def assign(lstm):
    lstm.weight_hh_l0 = lstm.weight_hh_l0 + 1


def edit(lstm):
    with lstm.edit() as parameters:
        parameters["bias_l0"] += 1


def load(lstm):
    lstm.load_state_dict({name: array + 1 for name, array in lstm.named_parameters()})


@pytest.mark.parametrize("change", [assign, edit, load])
def test_tape_of_old_parameters(rng, change):
    case = random_case(rng, 3, 2)
    _, _, tape = case.lstm.forward(*case.inputs)
    change(case.lstm)
    with pytest.raises(ValueError, match="tape"):
        case.lstm.backward(tape, case.grad_y)


def test_a_change_waits_for_backward(rng, monkeypatch):
    case = random_case(rng, 3, 2)
    _, _, tape = case.lstm.forward(*case.inputs)
    expected = flat(case.lstm.backward(tape, case.grad_y))
    direction = case.lstm._backward_direction
    changer = threading.Thread(target=assign, args=[case.lstm])

    def changed_meanwhile(*arguments):
        changer.start()
        changer.join(0.1)
        assert changer.is_alive()
        return direction(*arguments)

    monkeypatch.setattr(case.lstm, "_backward_direction", changed_meanwhile)
    assert_same_bits(flat(case.lstm.backward(tape, case.grad_y)), expected)
    changer.join()
    with pytest.raises(ValueError, match="tape"):
        case.lstm.backward(tape, case.grad_y)


def test_a_call_cannot_change_what_it_uses(rng, monkeypatch):
    case = random_case(rng, 3, 2)
    _, _, tape = case.lstm.forward(*case.inputs)
    monkeypatch.setattr(case.lstm, "_backward_direction", lambda *_: assign(case.lstm))
    with pytest.raises(RuntimeError, match="cannot change"):
        case.lstm.backward(tape, case.grad_y)


def test_calls_while_parameters_change(rng):
    """They are of the weights of before; their tapes are good for nothing."""
    case = random_case(rng, 3, 2)
    expected = case.lstm(*case.inputs)
    with case.lstm._in_place() as parameters:
        parameters["weight_hh_l0"] += 1
        assert_same_bits(case.lstm(*case.inputs), expected)
        _, _, tape = case.lstm.forward(*case.inputs)
        with pytest.raises(ValueError, match="tape"):
            case.lstm.backward(tape, case.grad_y)
    with pytest.raises(ValueError, match="tape"):
        case.lstm.backward(tape, case.grad_y)
    assert_close(case.lstm(*case.inputs), case.expected())


def test_changes_take_effect_when_edit_ends(rng):
    case = random_case(rng, 3, 2)
    _, _, tape = case.lstm.forward(*case.inputs)
    before, outputs = case.gradients(), case.lstm(*case.inputs)
    with case.lstm.edit() as parameters:
        parameters["bias_l0"] += 1
        assert_same_bits(case.lstm(*case.inputs), outputs)
        assert_same_bits(flat(case.lstm.backward(tape, case.grad_y, case.grad_state)), before)
    with pytest.raises(ValueError, match="tape"):
        case.lstm.backward(tape, case.grad_y)


def test_edit_that_fails_changes_nothing(rng):
    case = random_case(rng, 3, 2)
    _, _, tape = case.lstm.forward(*case.inputs)
    state = case.lstm.state_dict()

    def fail():
        with case.lstm.edit() as parameters:
            parameters["bias_l0"] += 1
            parameters["absent"] += 1

    with pytest.raises(KeyError, match="absent"):
        fail()
    assert_same_bits(case.lstm.state_dict(), state)
    case.lstm.backward(tape, case.grad_y)


def dropout_case(rng, dropout, **options):
    return random_case(
        rng, **{"steps": 1, "batch": 1, "num_layers": 2, "dropout": dropout} | options
    )


def dropped_input(case):
    """What the second layer read, seen through its gradients: weight_ih = outer(bias, input)."""
    gradients = case.gradients(rng=np.random.default_rng(5))
    return gradients["weight_ih_l1"][0] / gradients["bias_l1"][0]


def test_dropout_zeroes_and_scales_between_layers(rng):
    case = dropout_case(rng, 0.25, hidden_size=400)
    outputs = case.lstm(*case.inputs)[1][0][0, 0]
    inputs = dropped_input(case)
    kept = inputs != 0
    np.testing.assert_allclose(inputs[kept], outputs[kept] / 0.75, rtol=1e-12)
    # Five standard deviations of a binomial distribution.
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / 400)


def test_dropout_of_everything(rng):
    case = dropout_case(rng, 1.0)
    assert not dropped_input(case).any()


def test_dropout_differs_at_each_step_and_sequence(rng):
    case = dropout_case(rng, 0.5, steps=2, batch=2, hidden_size=50)
    case.x[...] = 1
    # Without memory both layers compute the same at each step of each sequence.
    with case.lstm.edit() as parameters:
        for layer in range(2):
            parameters[f"weight_hh_l{layer}"][...] = 0
            parameters[f"bias_l{layer}"][50:100] = -1e9
    plain = case.lstm(*case.inputs)[0].reshape(4, 50)
    dropped = case.lstm.forward(*case.inputs)[0].reshape(4, 50)
    assert len(np.unique(plain.round(9), axis=0)) == 1
    assert len(np.unique(dropped.round(9), axis=0)) == 4


def test_dropout_acts_in_forward_alone(rng):
    case = dropout_case(rng, 0.5, steps=3, batch=2)
    plain = cylstm.LSTM(**case.config | {"dropout": 0.0})
    plain.load_state_dict(case.lstm.state_dict())
    assert_same_bits(case.lstm(*case.inputs), plain(*case.inputs))
    assert not np.array_equal(case.lstm.forward(*case.inputs)[0], plain(*case.inputs)[0])


def test_dropout_needs_a_layer_above(rng):
    case = dropout_case(rng, 0.5, num_layers=1)
    assert_close(case.lstm.forward(*case.inputs)[:2], case.lstm(*case.inputs))


def test_dropout_is_of_the_seed(rng):
    case = dropout_case(rng, 0.5, hidden_size=50)
    twins = [cylstm.LSTM(**case.config, seed=3) for _ in range(2)]
    first, second = ([twin.forward(case.x)[0] for _ in range(2)] for twin in twins)
    assert_same_bits(tuple(first), tuple(second))
    assert not np.array_equal(*first)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}], ids=str)
def test_dropout_gradients(rng, options):
    case = dropout_case(rng, 0.4, steps=3, batch=2, **options)
    x, (h_0, c_0) = case.x.copy(), map(np.copy, case.state)
    parameters = case.lstm.state_dict()

    def loss():
        case.lstm.load_state_dict(parameters)
        y, state, _ = case.lstm.forward(x, (h_0, c_0), rng=np.random.default_rng(5))
        return reference.inner((y, state), (case.grad_y, case.grad_state))

    actual = case.gradients(rng=np.random.default_rng(5))
    arrays = {"x": x, "h_0": h_0, "c_0": c_0, **parameters}
    assert_gradients_close(actual, reference.numeric_gradient(loss, arrays))
