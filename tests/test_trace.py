"""Traces: the bits of forward, the equations of the cell at every step, and how arrays lie."""

import numpy as np
import pytest
from hypothesis import given

import cylstm
import reference
from cylstm import insight
from cylstm.layers import Last, Linear, Sequential
from strategies import cases

NAMES = ["i", "f", "g", "o", "c", "tanh_c", "h"]
NAMES_OF = {"LSTM": NAMES, "GRU": ["n", "r", "z", "hn", "h"], "RNN": ["h"]}


def without_dropout(lstm):
    same = cylstm.LSTM(**(lstm.config | {"dropout": 0.0}))
    same.load_state_dict(lstm.state_dict())
    return same


def as_rows(array, case):
    """An array (T, N, F) of any layout outside."""
    if case.x.ndim == 2:
        return array[:, None]
    return array.swapaxes(0, 1) if case.lstm.batch_first else array


def assert_gru_equations(case, trace, layer, direction):
    """h follows at every step from the gates and the h before it."""
    at = {n: as_rows(a, case).astype(float) for n, a in trace.of(layer, direction).items()}
    size, hidden = at["h"].shape[1:]
    directions = 2 if case.lstm.bidirectional else 1
    first = np.reshape(case.state, (-1, size, hidden))[layer * directions + direction]
    tolerance = 3e-6 if case.lstm.dtype == np.float32 else 1e-13
    for t, n, before in walked(case, trace, direction):
        h = first[n] if before is None else at["h"][before, n] if before >= 0 else 0 * first[n]
        expected = (1 - at["z"][t, n]) * at["n"][t, n] + at["z"][t, n] * h
        np.testing.assert_allclose(at["h"][t, n], expected, rtol=tolerance, atol=tolerance)
    for n, length in enumerate(trace.lengths):
        assert not any(array[length:, n].any() for array in at.values())


def walked(case, trace, direction):
    """Each step and sequence, and the step before it: None for the first, -1 after a reset."""
    backwards = case.lstm.reverse or direction == 1
    resets = None if case.resets is None else as_rows(case.resets[..., None], case)[..., 0]
    for n, length in enumerate(trace.lengths):
        before = None
        for t in reversed(range(length)) if backwards else range(length):
            start = t + 1 if backwards else t
            if resets is not None and start < length and resets[start, n]:
                before = -1
            yield t, n, before
            before = t


def assert_cell_equations(case, trace, layer, direction):
    """c, h and tanh_c follow at every step from the gates and the state before it."""
    if case.kind != "LSTM":
        return assert_gru_equations(case, trace, layer, direction) if case.kind == "GRU" else None
    lstm, at = case.lstm, {n: as_rows(a, case) for n, a in trace.of(layer, direction).items()}
    steps, size = at["c"].shape[:2]
    state = np.reshape(case.state[1], (-1, size, lstm.hidden_size))
    directions = 2 if lstm.bidirectional else 1
    projection = dict(lstm.named_parameters()).get(
        f"weight_hr{trace.endings[layer * directions + direction]}"
    )
    exact = {name: array.astype(np.float64) for name, array in at.items()}
    tolerance = 3e-6 if lstm.dtype == np.float32 else 1e-13
    first = state[layer * directions + direction].astype(np.float64)
    for t, n, before in walked(case, trace, direction):
        i, f, g, o, c, tanh_c, h = (exact[name][t, n] for name in NAMES)
        old = first[n] if before is None else exact["c"][before, n] if before >= 0 else 0 * c
        np.testing.assert_allclose(c, f * old + i * g, rtol=tolerance, atol=tolerance)
        out = o * tanh_c
        if projection is not None:
            out = projection.astype(np.float64) @ out
        np.testing.assert_allclose(h, out, rtol=tolerance, atol=tolerance)
    for n, length in enumerate(trace.lengths):
        assert not any(array[length:, n].any() for array in at.values())
    assert steps == case.x.shape[case.lstm.batch_first and case.x.ndim == 3]


@given(case=cases())
def test_a_trace_is_the_forward_pass(case):
    trace = case.lstm.trace(*case.inputs, **case.more)
    y, state, _ = case.lstm.forward(*case.inputs, **case.more)
    reference.assert_same_bits((trace.y, trace.state), (y, state))
    directions = 2 if case.lstm.bidirectional else 1
    last = case.lstm.num_layers - 1
    beside = [trace.of(last, d)["h"] for d in range(directions)]
    np.testing.assert_array_equal(np.concatenate(beside, -1), y)
    for layer in range(case.lstm.num_layers):
        for direction in range(directions):
            assert list(trace.of(layer, direction)) == NAMES_OF[case.kind]
            assert_cell_equations(case, trace, layer, direction)


def test_gates_and_states_are_the_references(rng, options, monkeypatch):
    """The gates of the reference's equations, for every option, within its tolerance."""
    case = reference.random_case(rng, 5, 3, [5, 2, 0], **options)
    seen = {}

    def watched(parameters, suffix, *given, **named):
        step = plain(parameters, suffix, *given, **named)
        seen[suffix] = []

        def noting(x, h, c):
            out = step(x, h, c)
            seen[suffix].append(out)
            return out

        return noting

    plain = reference.lstm_cell
    monkeypatch.setattr(reference, "lstm_cell", watched)
    case.expected()
    trace = case.lstm.trace(*case.inputs)
    for number, ending in enumerate(trace.endings):
        layer, direction = divmod(number, 2 if case.lstm.bidirectional else 1)
        at = {n: as_rows(a, case) for n, a in trace.of(layer, direction).items()}
        backwards = case.lstm.reverse or direction == 1
        places = [
            (t, n)
            for n, length in enumerate(case.lengths)
            for t in (reversed(range(length)) if backwards else range(length))
        ]
        for (t, n), (h, c) in zip(places, seen[ending], strict=True):
            np.testing.assert_allclose(at["h"][t, n], h.astype(float), rtol=1e-11, atol=1e-11)
            np.testing.assert_allclose(at["c"][t, n], c.astype(float), rtol=1e-11, atol=1e-11)


def test_gates_are_pytorchs(rng):
    """Beside equations in PyTorch's order: i, f, g, o."""
    lstm = cylstm.LSTM(3, 4, dtype="float64", seed=0)
    x = rng.normal(size=(1, 2, 3))
    z = (x[0] @ lstm.weight_ih_l0.T + lstm.bias_l0).reshape(2, 4, 4)
    trace = lstm.trace(x)
    for k, name in enumerate("ifgo"):
        expected = np.tanh(z[:, k]) if name == "g" else 1 / (1 + np.exp(-z[:, k]))
        np.testing.assert_allclose(trace[f"{name}_l0"][0], expected, rtol=1e-14)
    np.testing.assert_allclose(trace["tanh_c_l0"], np.tanh(trace["c_l0"]), rtol=1e-14)


def test_a_grus_gates_are_pytorchs(rng):
    """Beside equations in PyTorch's order: r, z, n, with h_0 that the reset gate lets through."""
    gru = reference.random_lstm(rng, "GRU", input_size=3, hidden_size=4, dtype="float64")
    x, h = rng.normal(size=(1, 2, 3)), rng.normal(size=(1, 2, 4))
    of_x = (x[0] @ gru.weight_ih_l0.T + gru.bias_l0).reshape(2, 3, 4)
    of_h = (h[0] @ gru.weight_hh_l0.T).reshape(2, 3, 4)
    r, z = (1 / (1 + np.exp(-of_x[:, k] - of_h[:, k])) for k in (0, 1))
    hn = of_h[:, 2] + gru.bias_hn_l0
    trace = gru.trace(x, h)
    expected = {"r": r, "z": z, "hn": hn, "n": np.tanh(of_x[:, 2] + r * hn)}
    for name, value in expected.items():
        np.testing.assert_allclose(trace[f"{name}_l0"][0], value, rtol=1e-13)


def test_a_coupled_forget_gate_is_one_minus_the_input_gate(rng):
    lstm = cylstm.LSTM(3, 4, coupled=True, seed=0)
    trace = lstm.trace(rng.normal(size=(5, 2, 3)).astype("f4"))
    np.testing.assert_array_equal(trace["f_l0"], 1 - trace["i_l0"])


def test_dropout_is_off(rng):
    lstm = cylstm.LSTM(3, 4, num_layers=3, dropout=0.5, seed=0)
    x = rng.normal(size=(6, 2, 3)).astype("f4")
    y, state, _ = without_dropout(lstm).forward(x)
    trace = lstm.trace(x)
    reference.assert_same_bits((trace.y, trace.state), (y, state))


@pytest.mark.parametrize("batch_first", [False, True])
def test_equal_lengths_are_not_copied(rng, batch_first):
    lstm = cylstm.LSTM(3, 4, batch_first=batch_first, seed=0)
    trace = lstm.trace(rng.normal(size=(6, 2, 3)).astype("f4"))
    i, f = trace["i_l0"], trace["f_l0"]
    assert i.base is not None
    assert abs(f.__array_interface__["data"][0] - i.__array_interface__["data"][0]) == 4 * 4
    assert trace["i_l0"] is i


def test_a_trace_is_a_mapping(rng):
    lstm = cylstm.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, seed=0)
    trace = lstm.trace(rng.normal(size=(6, 2, 3)).astype("f4"), lengths=[2, 5])
    assert len(trace) == 4 * 7
    assert {name.removesuffix("_l1_reverse") for name in trace if "l1_r" in name} == set(NAMES)
    assert trace["h_l0_reverse"].shape == (6, 2, 2)
    assert trace["c_l0"].shape == (6, 2, 4)
    assert trace.lengths.tolist() == [2, 5]
    with pytest.raises(KeyError, match="q_l0: expected one of i_l0, f_l0"):
        trace["q_l0"]
    with pytest.raises(ValueError, match="layer, direction: expected one of _l0, _l0_reverse"):
        trace.of(2)


def test_a_trace_of_nothing():
    lstm = cylstm.LSTM(3, 4, seed=0)
    assert lstm.trace(np.ones((0, 2, 3), "f4"))["c_l0"].shape == (0, 2, 4)
    assert lstm.trace(np.ones((5, 0, 3), "f4"))["c_l0"].shape == (5, 0, 4)
    trace = lstm.trace(np.ones((5, 2, 3), "f4"), lengths=[0, 0])
    assert not trace["c_l0"].any()
    assert trace["c_l0"].shape == (5, 2, 4)


def test_bad_input_is_refused_as_in_a_call():
    lstm = cylstm.LSTM(3, 4)
    with pytest.raises(TypeError, match="x: expected dtype float32, got float64"):
        lstm.trace(np.ones((5, 2, 3)))
    with pytest.raises(ValueError, match="lengths: expected 0 to 5"):
        lstm.trace(np.ones((5, 2, 3), "f4"), lengths=[6, 1])


def test_quantized_weights_leave_no_trace():
    fast = cylstm.LSTM(3, 4, seed=0).quantize("int8")
    with pytest.raises(TypeError, match="trace: int8 weights keep no gates"):
        fast.trace(np.ones((5, 2, 3), "f4"))
    with pytest.raises(TypeError, match="model: expected an LSTM, GRU, RNN or a Sequential"):
        insight.gradient_way(fast, np.ones((5, 2, 3), "f4"), np.ones((5, 2, 4), "f4"))
    for layers in ([cylstm.LSTM(3, 4)], [Last(), Linear(3, 4)]):
        model = Sequential(*layers).quantize("int8")
        with pytest.raises(TypeError, match=r"model: layer \d has quantized weights"):
            insight.gradient_way(model, np.ones((5, 2, 3), "f4"), np.ones((5, 2, 4), "f4"))
