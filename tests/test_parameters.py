"""The parameters: names, first values, every way to read and to change them; repr and copies."""

import copy
import pickle

import numpy as np
import pytest

import cylstm
from reference import assert_close, assert_same_bits, random_case, random_lstm


@pytest.fixture
def lstm(rng):
    return random_lstm(rng, input_size=3, hidden_size=4, dtype="float64")


@pytest.fixture
def x(rng):
    return rng.standard_normal((5, 2, 3))


SHAPES = {
    "plain": ({}, {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "bias_l0": (16,)}),
    "no bias": ({"bias": False}, {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4)}),
    "everything": (
        {"num_layers": 2, "bidirectional": True, "proj_size": 2, "peephole": True},
        {
            f"{name}_l{layer}{direction}": shape
            for layer, inputs in enumerate([3, 4])
            for direction in ("", "_reverse")
            for name, shape in {
                "weight_ih": (16, inputs),
                "weight_hh": (16, 2),
                "bias": (16,),
                "weight_hr": (2, 4),
                "weight_p": (12,),
            }.items()
        },
    ),
}


@pytest.mark.parametrize(("options", "shapes"), SHAPES.values(), ids=SHAPES.keys())
def test_names_shapes_and_order(options, shapes, dtype):
    lstm = cylstm.LSTM(3, 4, dtype=dtype, **options)
    assert {name: array.shape for name, array in lstm.named_parameters()} == shapes
    assert {array.dtype for _, array in lstm.named_parameters()} == {np.dtype(dtype)}
    assert [name for name, _ in lstm.named_parameters()] == list(shapes) == list(lstm.state_dict())


@pytest.mark.parametrize(("sizes", "count"), [((1, 1), 12), ((1, 2), 32)])
def test_number_of_parameters(sizes, count):
    assert cylstm.LSTM(*sizes).num_parameters == count


def test_number_of_parameters_is_the_sum_of_sizes(options):
    lstm = cylstm.LSTM(3, 4, **options)
    assert lstm.num_parameters == sum(array.size for _, array in lstm.named_parameters())


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 5}], ids=str
)
def test_first_values(options, dtype):
    lstm = cylstm.LSTM(30, 40, forget_bias=0.5, dtype=dtype, seed=0, **options)
    gates = {name: np.split(a, 4) for name, a in lstm.named_parameters() if "_hr_" not in name}
    for name, (i, f, g, o) in gates.items():
        if name.startswith("bias"):
            assert (f == 0.5).all()
            assert not np.any([i, g, o])
            continue
        for block in (i, f, g, o):
            if name.startswith("weight_hh"):
                np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-5)
            else:
                bound = np.sqrt(6 / (block.shape[1] + 40))
                assert 0.95 * bound < np.abs(block).max() <= bound * (1 + 1e-6)


def test_default_forget_bias():
    np.testing.assert_array_equal(cylstm.LSTM(3, 2).bias_l0, [0, 0, 1, 1, 0, 0, 0, 0])


def test_seed():
    first, again, *others = (cylstm.LSTM(3, 4, seed=s).state_dict() for s in (1, 1, 2, None, None))
    assert_same_bits(first, again)
    assert len({state["weight_ih_l0"].tobytes() for state in (first, *others)}) == 4


def test_parameters_are_read_only(lstm):
    for name, array in lstm.named_parameters():
        assert array is getattr(lstm, name) or np.shares_memory(array, getattr(lstm, name))
        with pytest.raises(ValueError, match="read-only"):
            array += 1
        with pytest.raises(ValueError, match="read-only"):
            getattr(lstm, name)[...] = 0


def test_parameters_cannot_be_made_writable(lstm):
    with pytest.raises(ValueError, match="WRITEABLE"):
        lstm.bias_l0.flags.writeable = True


def test_parameters_may_change_places(rng):
    lstm = random_lstm(rng, input_size=4, hidden_size=4)
    own = dict(lstm.named_parameters())
    before = lstm.state_dict()
    lstm.load_state_dict(
        own | {"weight_ih_l0": own["weight_hh_l0"], "weight_hh_l0": own["weight_ih_l0"]}
    )
    assert_same_bits(lstm.weight_ih_l0, before["weight_hh_l0"])
    assert_same_bits(lstm.weight_hh_l0, before["weight_ih_l0"])


def zeros(lstm):
    return {name: np.zeros_like(array) for name, array in lstm.named_parameters()}


def by_assignment(lstm, values):
    for name, value in values.items():
        setattr(lstm, name, value)


def by_edit(lstm, values):
    with lstm.edit() as parameters:
        for name, value in values.items():
            parameters[name][...] = value


def by_loading(lstm, values):
    lstm.load_state_dict(values)


@pytest.mark.parametrize("change", [by_assignment, by_edit, by_loading])
def test_changes_are_seen_by_the_next_call(rng, options, change):
    case = random_case(rng, 4, 3, **options)
    values = random_lstm(rng, **case.config).state_dict()
    case.lstm(*case.inputs)
    case.lstm.forward(*case.inputs)
    change(case.lstm, values)
    assert_same_bits(case.lstm.state_dict(), values)
    assert_close(case.lstm(*case.inputs), case.expected())
    assert_close(case.lstm.forward(*case.inputs)[:2], case.expected())


@pytest.mark.parametrize("change", [by_assignment, by_edit, by_loading])
def test_changes_are_copied(lstm, x, change):
    values = zeros(lstm)
    change(lstm, values)
    for array in values.values():
        array[...] = np.nan
    assert_same_bits(lstm.state_dict(), zeros(lstm))
    assert not lstm(x)[0].any()


def test_state_dict_is_a_copy(lstm, x):
    expected = lstm(x)
    for state in lstm.state_dict(), lstm.state_dict(torch=True):
        for array in state.values():
            array[...] = np.nan
    assert_same_bits(lstm(x), expected)


def test_edit_ends_with_its_block(lstm):
    with lstm.edit() as parameters:
        assert list(parameters) == list(lstm.state_dict())
        array = parameters["bias_l0"]
        array[...] = 7
    with pytest.raises(ValueError, match="read-only"):
        array[...] = 8
    assert (lstm.bias_l0 == 7).all()


def test_edit_ends_with_an_exception_too(lstm, x):
    def interrupted():
        with lstm.edit() as parameters:
            parameters["bias_l0"][...] = 7
            raise KeyboardInterrupt

    lstm(x)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not lstm.bias_l0.flags.writeable
    twin = cylstm.LSTM(3, 4, dtype="float64")
    twin.load_state_dict(lstm.state_dict())
    assert_same_bits(lstm(x), twin(x))


def test_state_dict_for_torch(lstm):
    own, torch = lstm.state_dict(), lstm.state_dict(torch=True)
    assert list(torch) == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    assert_same_bits(torch["bias_ih_l0"], own["bias_l0"])
    assert_same_bits(torch["bias_hh_l0"], np.zeros(16))


def test_the_two_biases_of_torch_are_summed(rng, lstm):
    state = lstm.state_dict(torch=True)
    state["bias_ih_l0"], state["bias_hh_l0"] = rng.standard_normal((2, 16))
    lstm.load_state_dict(state)
    assert_same_bits(lstm.bias_l0, state["bias_ih_l0"] + state["bias_hh_l0"])


@pytest.mark.parametrize("torch", [False, True])
def test_state_dict_goes_round(rng, options, torch):
    case = random_case(rng, 4, 3, **options)
    twin = cylstm.LSTM(**case.config)
    twin.load_state_dict(case.lstm.state_dict(torch=torch))
    assert_same_bits(twin(*case.inputs), case.lstm(*case.inputs))


def without(name):
    return lambda state: state.pop(name)


def adding(name, shape=(1,)):
    return lambda state: state.update({name: np.zeros(shape)})


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (without("weight_hh_l0"), KeyError, "missing.*weight_hh_l0"),
        (adding("weight_hh_l1"), KeyError, "unexpected.*weight_hh_l1"),
        (adding("bias_hh_l0", 16), KeyError, "bias_hh_l0"),
        (adding("weight_hh_l0", (16, 5)), ValueError, r"weight_hh_l0.*\(16, 4\).*\(16, 5\)"),
        (adding("bias_l0", (16, 1)), ValueError, r"bias_l0.*\(16,\).*\(16, 1\)"),
    ],
)
def test_a_bad_state_dict_changes_nothing(lstm, x, spoil, error, message):
    before, expected = lstm.state_dict(), lstm(x)
    state = zeros(lstm)
    spoil(state)
    with pytest.raises(error, match=message):
        lstm.load_state_dict(state)
    assert_same_bits(lstm.state_dict(), before)
    assert_same_bits(lstm(x), expected)


def test_a_bad_state_dict_is_reported_whole(lstm):
    with pytest.raises(KeyError) as error:
        lstm.load_state_dict({"weight_ih_l0": lstm.weight_ih_l0, "first": 1, "second": 2})
    for name in ("weight_hh_l0", "bias_l0", "first", "second"):
        assert name in str(error.value)


@pytest.mark.parametrize("value", [np.zeros(15), np.zeros((4, 4)), np.zeros(())], ids=np.shape)
def test_a_bad_assignment_changes_nothing(lstm, value):
    before = lstm.state_dict()
    with pytest.raises(ValueError, match="bias_l0"):
        lstm.bias_l0 = value
    assert_same_bits(lstm.state_dict(), before)


@pytest.mark.parametrize(
    ("lstm", "text"),
    [
        (cylstm.LSTM(4, 8), "LSTM(4, 8)"),
        (
            cylstm.LSTM(4, 8, num_layers=2, bidirectional=True),
            "LSTM(4, 8, num_layers=2, bidirectional=True)",
        ),
        (
            cylstm.LSTM(4, 8, bias=False, clip=3.0, dtype="float64"),
            "LSTM(4, 8, bias=False, clip=3.0, dtype='float64')",
        ),
    ],
    ids=str,
)
def test_repr(lstm, text):
    assert repr(lstm) == text


def test_repr_makes_the_same_lstm(rng, options):
    case = random_case(rng, 4, 3, **options)
    twin = eval(repr(case.lstm), {"LSTM": cylstm.LSTM})
    twin.load_state_dict(case.lstm.state_dict())
    assert_same_bits(twin(*case.inputs), case.lstm(*case.inputs))
    assert repr(twin) == repr(case.lstm)


def pickled(lstm):
    return pickle.loads(pickle.dumps(lstm))


CLONES = [copy.copy, copy.deepcopy, pickled]


@pytest.mark.parametrize("clone", CLONES)
def test_copies_are_equal_and_independent(rng, options, clone):
    case = random_case(rng, 4, 3, **options)
    expected = case.lstm(*case.inputs)
    twin = clone(case.lstm)
    assert repr(twin) == repr(case.lstm)
    assert_same_bits(twin(*case.inputs), expected)
    by_edit(twin, zeros(twin))
    assert_same_bits(case.lstm(*case.inputs), expected)


@pytest.mark.parametrize("clone", CLONES)
def test_copies_drop_out_alike(rng, clone):
    case = random_case(rng, 4, 3, num_layers=2, dropout=0.5)
    twin = clone(case.lstm)
    assert_same_bits(twin.forward(case.x)[0], case.lstm.forward(case.x)[0])
