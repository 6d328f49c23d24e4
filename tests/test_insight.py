"""What insight measures: against differences, PyTorch, equations, and cases that are known."""

import numpy as np
import pytest

import cylstm
import reference
from cylstm import insight
from cylstm.insight.back import Cell
from cylstm.insight.models import cells_of
from cylstm.insight.remembered import lyapunov
from cylstm.layers import Dropout, Embedding, Last, Linear, Sequential
from strategies import FAMILY, OPTIONS

LENGTHS = [5, 2, 4]
GRU, RNN = reference.gru_cell, reference.rnn_cell


def set_parameters(lstm, **values):
    state = {name: np.zeros_like(p) for name, p in lstm.named_parameters()}
    lstm.load_state_dict(state | values)
    return lstm


# The gradient's way -------------------------------------------------------------------------------


def moved_other(kind, moves):
    """The reference's GRU or RNN, whose h at each step is moved by what `moves` says."""
    make = {"GRU": GRU, "RNN": RNN}[kind]

    def cell(parameters, suffix, *given):
        plain, calls = make(parameters, suffix, *given), iter(range(10**6))

        def step(x, h, c):
            h, c = plain(x, h, c)
            return h + moves.get((suffix, next(calls)), (0, 0))[0], c

        return step

    return cell


def moved_cell(moves):
    """The reference's LSTM, whose c and h at each step are moved by what `moves` says."""

    def cell(parameters, suffix, clip, activations, regions, coupled=False):
        w_ih, w_hh = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
        hidden = len(w_ih) // 4
        bias = parameters.get("bias" + suffix, np.zeros(4 * hidden))
        p_i, p_f, p_o = parameters.get("weight_p" + suffix, np.zeros(3 * hidden)).reshape(3, -1)
        projection = parameters.get("weight_hr" + suffix, np.eye(hidden))
        kinds = zip(activations, (clip, clip, np.inf), strict=True)
        gate, candidate, output = (reference.nonlinearity(*kind, regions) for kind in kinds)
        calls = iter(range(10**6))

        def step(x, h, c):
            move_h, move_c = moves.get((suffix, next(calls)), (0, 0))
            z_i, z_f, z_g, z_o = (w_ih @ x + w_hh @ h + bias).reshape(4, -1)
            i = gate(z_i + p_i * c)
            f = 1 - i if coupled else gate(z_f + p_f * c)
            c = f * c + i * candidate(z_g) + move_c
            o = gate(z_o + p_o * c)
            return projection @ (o * output(c)) + move_h, c

        return step

    return cell


def differences(case, loss, suffix, backwards, monkeypatch, step=1e-6):
    """(T, N): the norms of the loss's gradients by h and c, by moving each state at each step.

    NaN where a move goes over a kink of an activation.
    """
    lstm, steps, kind = case.lstm, case.x.shape[0], case.kind
    norms = np.zeros((2, steps, len(case.lengths)))
    places = [
        (t, n)
        for n, length in enumerate(case.lengths)
        for t in (reversed(range(length)) if backwards else range(length))
    ]
    widths = getattr(lstm, "proj_size", 0) or lstm.hidden_size, lstm.hidden_size
    for which, width in enumerate(widths if kind == "LSTM" else widths[:1]):
        for call, place in enumerate(places):
            slopes = []
            for unit in np.eye(width):
                values, regions = [], ([], [])
                for side, sign in enumerate((step, -step)):
                    move = [0, 0]
                    move[which] = sign * unit
                    moves = {(suffix, call): tuple(move)}
                    cell = moved_cell(moves) if kind == "LSTM" else moved_other(kind, moves)
                    monkeypatch.setattr(reference, f"{kind.lower()}_cell", cell)
                    y, _ = reference.forward(
                        dict(lstm.named_parameters()), case.x, None, case.lengths,
                        kind=kind, regions=regions[side], **case.config,
                    )  # fmt: skip
                    values.append(loss(y))
                smooth = np.array_equal(*map(np.concatenate, regions))
                slopes.append((values[0] - values[1]) / (2 * step) if smooth else np.nan)
            norms[which][place] = np.linalg.norm(np.array(slopes, float))
    return norms


MANY = ("batch first", "everything", "three layers")
PLAIN = {
    n: (kind, o)
    for n, (kind, o) in ({n: ("LSTM", o) for n, o in OPTIONS.items()} | FAMILY).items()
    if not n.endswith(MANY)
}


@pytest.mark.parametrize("steps", ["last", "all"])
@pytest.mark.parametrize(("kind", "options"), PLAIN.values(), ids=PLAIN.keys())
def test_the_gradients_way_is_that_of_differences(rng, kind, options, steps, monkeypatch):
    sizes = {"input_size": 2, "hidden_size": 4}
    case = reference.random_case(rng, 5, 3, LENGTHS, kind=kind, **sizes, **options)
    target = rng.normal(size=case.grad_y.shape)
    t = np.arange(5)[:, None]
    last = t == np.array(LENGTHS) - 1
    counts = last if steps == "last" else t < np.array(LENGTHS)

    def loss(y):
        return np.sum(np.square(y - target)[counts]) / (counts.sum() * y.shape[2])

    ways = insight.gradient_way(case.lstm, case.x, target, lengths=LENGTHS, steps=steps)
    for way, (suffix, _, direction) in zip(ways, cells_of(case.lstm), strict=True):
        backwards = case.lstm.reverse or direction == 1
        h, c = differences(case, loss, suffix, backwards, monkeypatch)
        assert (way.c is None) == (kind != "LSTM")
        for found, expected in ((way.h, h), (way.c, c))[: len(way.states)]:
            smooth = np.isfinite(expected)
            assert smooth.mean() > 0.2
            np.testing.assert_allclose(found[smooth], expected[smooth], rtol=1e-6, atol=1e-9)


def test_the_gradients_way_is_pytorchs(rng):
    torch = pytest.importorskip("torch")
    lstm = cylstm.LSTM(3, 4, num_layers=2, dtype="float64", seed=0)
    x, target = rng.normal(size=(6, 2, 3)), rng.normal(size=(6, 2, 4))
    state = {name: torch.tensor(np.array(p)) for name, p in lstm.named_parameters()}
    inputs, kept = list(torch.tensor(x)), []
    for layer in range(2):
        cell = torch.nn.LSTMCell(len(inputs[0][0]), 4).double()
        own = {n: state[f"{n}_l{layer}"] for n in ("weight_ih", "weight_hh")}
        bias = state[f"bias_l{layer}"]
        cell.load_state_dict(own | {"bias_ih": bias, "bias_hh": 0 * bias})
        h = c = torch.zeros(2, 4, dtype=torch.float64)
        for t in range(6):
            h, c = cell(inputs[t], (h, c))
            for one in (h, c):
                one.retain_grad()
            kept.append((h, c))
            inputs[t] = h
    ((inputs[-1] - torch.tensor(target[-1])) ** 2).mean().backward()
    ways = insight.gradient_way(lstm, x, target)
    for layer, way in enumerate(ways):
        for t in range(6):
            h, c = (one.grad.norm(dim=1).numpy() for one in kept[6 * layer + t])
            np.testing.assert_allclose(way.h[t], h, rtol=1e-10)
            np.testing.assert_allclose(way.c[t], c, rtol=1e-10)


def test_the_way_leads_through_a_whole_model(rng):
    """Embedding, dropout, last step and linear map: what comes to the LSTM's output is theirs."""
    model = Sequential(
        Embedding(5, 3, dtype="float64", seed=0),
        Dropout(0.5),
        Sequential(cylstm.LSTM(3, 4, dropout=0.5, num_layers=2, dtype="float64", seed=1)),
        Last(),
        Linear(4, 2, dtype="float64", seed=2),
    )
    x, target = rng.integers(5, size=(6, 2)), np.array([0, 1])
    ways = insight.gradient_way(model, x, target)
    assert [way.name for way in ways] == ["layer 1", "layer 2"]
    lstm = cylstm.LSTM(3, 4, num_layers=2, dtype="float64", seed=1)
    y, _, tape = lstm.forward(model[0](x))
    logits, linear = model[4].forward(y[-1])
    grad = model[4].backward(linear, cylstm.train.cross_entropy_loss(logits, target)[1])[0]
    np.testing.assert_allclose(ways[1].h[-1], np.linalg.norm(grad, axis=1), rtol=1e-12)
    # By h_0 the gradient is what the first layer's first step gives it.
    grad_y = np.zeros_like(y)
    grad_y[-1] = grad
    _, (grad_h, _), _ = lstm.backward(tape, grad_y)
    assert (np.linalg.norm(grad_h, axis=2) > 0).all()
    assert ways[0].h[-1].shape == (2,)


def test_of_several_lstms_each_is_named_and_followed(rng):
    """Two in a model are the two layers of one."""
    lstm = cylstm.LSTM(3, 4, num_layers=2, dtype="float64", seed=0)
    parts = [cylstm.LSTM(width, 4, dtype="float64") for width in (3, 4)]
    for layer, part in enumerate(parts):
        own = {n: p for n, p in lstm.state_dict().items() if n.endswith(f"l{layer}")}
        part.load_state_dict({n.replace(f"l{layer}", "l0"): p for n, p in own.items()})
    x, target = rng.normal(size=(5, 3, 3)), rng.normal(size=(5, 3, 4))
    ways = insight.gradient_way(Sequential(parts[0], Sequential(Dropout(), parts[1])), x, target)
    assert [way.name for way in ways] == ["part 0, layer 1", "part 1.1, layer 1"]
    for way, other in zip(ways, insight.gradient_way(lstm, x, target), strict=True):
        np.testing.assert_allclose(way.h, other.h, rtol=1e-12)
        np.testing.assert_allclose(way.c, other.c, rtol=1e-12)


def test_batch_first_is_the_same_way(rng):
    lstm = cylstm.LSTM(3, 4, num_layers=2, bidirectional=True, seed=0)
    turned = cylstm.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    turned.load_state_dict(lstm.state_dict())
    x, target = (rng.normal(size=(5, 3, width)).astype("f4") for width in (3, 8))
    ways = insight.gradient_way(lstm, x, target, lengths=LENGTHS)
    swapped = (array.swapaxes(0, 1) for array in (x, target))
    for way, other in zip(
        ways, insight.gradient_way(turned, *swapped, lengths=LENGTHS), strict=True
    ):
        np.testing.assert_allclose(way.h, other.h, rtol=1e-12)
        np.testing.assert_allclose(way.c, other.c, rtol=1e-12)


def test_a_gradient_that_halves_at_each_step(rng):
    """No weights, and a forget gate at 1/2: by c it is halved by each step, exactly."""
    lstm = cylstm.LSTM(1, 2, dtype="float64")
    set_parameters(lstm, bias_l0=np.array([0, 0, 0, 0, 1, 1, 0, 0.0]))
    way = insight.gradient_way(lstm, np.zeros((20, 1, 1)), np.ones((20, 1, 2)))[0]
    by_lag = way.by_lag()
    np.testing.assert_allclose(by_lag / by_lag[0], 0.5 ** np.arange(20), rtol=1e-12)
    assert way.halving() == 2  # at lag 1 it is the half, not less
    assert way.verdict == "vanishes"
    assert way.factor() == pytest.approx(0.5, rel=1e-12)
    assert way.left() == pytest.approx(0.5**19, rel=1e-12)


def test_lags_of_sequences_of_different_lengths():
    norms = np.array([[1.0, 5.0], [2.0, 7.0], [4.0, 0.0]])
    way = insight.GradientWay("layer 1", 10 * norms, norms, np.array([3, 2]))
    np.testing.assert_array_equal(way.by_lag(), [(4 + 7) / 2, (2 + 5) / 2, 1])
    np.testing.assert_array_equal(way.by_lag("h"), 10 * way.by_lag())
    assert way.halving() == 2
    assert way.left() == 1 / 5.5


@pytest.mark.parametrize(
    ("norms", "halving", "left", "verdict"),
    [
        ([0, 8, 6, 3], 3, 3 / 8, "holds"),
        ([8, 0, 0, 0], 1, 0, "does not reach"),
        ([0, 0, 0, 0], None, 0, "does not reach"),
        ([8, 1, 1e-200, 0], 1, 0, "vanishes"),
        ([1, 10, 500, 900], None, 900, "explodes"),
        ([1], None, 1, "does not reach"),
    ],
)
def test_verdicts_on_norms(norms, halving, left, verdict):
    norms = np.array(norms, float)[::-1, None]
    way = insight.GradientWay("layer 1", norms, norms, np.array([len(norms)]))
    assert (way.halving(), way.left(), way.verdict) == (halving, left, verdict)
    assert np.isfinite(way.factor())


@pytest.mark.parametrize(("slope", "verdict"), [(1.0, "holds"), (1.5, "explodes")])
def test_other_verdicts(slope, verdict):
    """A forget gate of constant slope is made by relu gates: c grows by it at each step."""
    lstm = cylstm.LSTM(1, 1, activations=("relu", "tanh", "relu"), dtype="float64")
    set_parameters(lstm, bias_l0=np.array([1, slope, 1, 1.0]))
    way = insight.gradient_way(lstm, np.zeros((30, 1, 1)), np.zeros((30, 1, 1)))[0]
    assert way.verdict == verdict
    assert way.halving() is None
    assert way.factor() == pytest.approx(slope, rel=1e-12)


def test_a_direction_that_has_read_one_step_alone(rng):
    lstm = cylstm.LSTM(3, 4, bidirectional=True, seed=0)
    ways = insight.gradient_way(
        lstm, rng.normal(size=(9, 2, 3)).astype("f4"), np.ones((9, 2, 8), "f4")
    )
    assert [way.name for way in ways] == ["layer 1", "layer 1, backward"]
    assert ways[1].verdict == "does not reach"


# Saturation, time scales, influence, Lyapunov's exponent ----------------------------------------


def test_saturation_counts_steps(rng):
    lstm = reference.random_lstm(rng, input_size=3, hidden_size=5, bidirectional=True)
    x = 3 * rng.normal(size=(7, 3, 3)).astype("f4")
    lengths = [7, 1, 4]
    trace = lstm.trace(x, lengths=lengths)
    for one, direction in zip(insight.saturation(trace, 0.2, 0.7), (0, 1), strict=True):
        for gate in "ifo":
            array = trace.of(0, direction)[gate]
            rows = np.concatenate([array[:length, n] for n, length in enumerate(lengths)])
            below = [np.mean([value < 0.2 for value in unit]) for unit in rows.T]
            above = [np.mean([value > 0.7 for value in unit]) for unit in rows.T]
            np.testing.assert_allclose(one.below[gate], below)
            np.testing.assert_allclose(one.above[gate], above)


def test_time_scales_are_of_the_mean_gate(rng):
    lstm = cylstm.LSTM(3, 4, seed=0)
    trace = lstm.trace(rng.normal(size=(9, 2, 3)).astype("f4"), lengths=[9, 3])
    f = np.concatenate([trace["f_l0"][:9, 0], trace["f_l0"][:3, 1]]).astype(float)
    np.testing.assert_allclose(insight.time_scales(trace)["_l0"], -1 / np.log(f.mean(0)))


def test_influence_of_units_that_do_not_feed_back(rng):
    """Without recurrent weights a change of c is multiplied by the forget gates, and no more."""
    lstm = cylstm.LSTM(3, 4, num_layers=2, dtype="float64", seed=0)
    state = lstm.state_dict()
    for layer in range(2):
        state[f"weight_hh_l{layer}"][...] = 0
    lstm.load_state_dict(state)
    x = rng.normal(size=(12, 1, 3))
    found = insight.memory(lstm, x, reach=11, places=1)
    for layer, one in enumerate(found):
        f = lstm.trace(x)[f"f_l{layer}"][:, 0]
        expected = np.concatenate([np.ones((1, 4)), np.cumprod(f[1:], 0)])
        np.testing.assert_allclose(one.influence, expected, rtol=1e-7)


def test_the_measured_time_scale_is_the_gates(rng):
    """Constant forget gates: three measures of one number."""
    lstm = cylstm.LSTM(1, 3, dtype="float64")
    scales = np.array([2.0, 5.0, 12.0])
    f = np.exp(-1 / scales)
    bias = np.zeros(12)
    bias[3:6] = np.log(f / (1 - f))
    set_parameters(lstm, bias_l0=bias)
    one = insight.memory(lstm, np.zeros((1000, 2, 1)))[0]
    np.testing.assert_allclose(one.by_gate, scales, rtol=1e-12)
    np.testing.assert_allclose(one.measured, scales, rtol=1e-4)
    assert one.lyapunov == pytest.approx(-1 / 12, abs=1e-3)


@pytest.mark.parametrize("backwards", [False, True])
def test_lyapunovs_exponent_of_a_linear_map(backwards):
    lstm = cylstm.LSTM(1, 1, dtype="float64", reverse=backwards)
    set_parameters(lstm, bias_l0=np.array([0, 1.0, 0, 0]))
    x = np.zeros((50, 3, 1))
    found = insight.memory(lstm, x, lengths=[50, 20, 2])[0]
    assert found.lyapunov == pytest.approx(np.log(1 / (1 + np.exp(-1))), rel=1e-9)
    assert found.lyapunov_error < 1e-9


def test_lyapunovs_exponent_of_a_chaotic_map():
    """The tent map, u -> m min(u, 1 - u), whose exponent is log m, as an LSTM of two units.

    Its units are relu(v) and relu(v - m / 2), with v the map of the step before; the forget gates
    are shut, the others open.
    """
    m = 1.9
    lstm = cylstm.LSTM(1, 2, activations=("hard_sigmoid", "relu", "relu"), dtype="float64")
    bias = np.array([9, 9, -9, -9, 0, -0.5, 9, 9.0])
    weight = np.zeros((8, 2))
    weight[4:6] = [m, -2 * m]
    set_parameters(lstm, bias_l0=bias, weight_hh_l0=weight)
    start = np.array([0.3141, 0.0])
    x = np.zeros((400, 1, 1))
    y, _ = lstm(x, (start.reshape(1, 1, 2), np.zeros((1, 1, 2))))
    u, expected = start[0], []
    for _ in range(20):
        u = m * min(u, 1 - u)
        expected.append(u)
    np.testing.assert_allclose(y[:20, 0, 0], expected, rtol=1e-9)

    kick = set_parameters(
        cylstm.LSTM(1, 2, activations=("hard_sigmoid", "relu", "relu"), dtype="float64"),
        bias_l0=bias, weight_hh_l0=weight, weight_ih_l0=np.array([[0, 0, 0, 0, 1, 1, 0, 0.0]]).T,
    )  # fmt: skip
    x[0] = 0.3141  # from zero, the input kicks it to its start
    cell = Cell(kick, "_l0", x, np.array([400]))
    assert lyapunov(cell)[0] == pytest.approx(np.log(m), rel=1e-3)


@pytest.mark.parametrize(("weight", "verdict"), [(0.5, "vanishes"), (1.0, "holds")])
def test_an_rnn_is_followed_by_its_output(weight, verdict):
    """A relu unit that hands on `weight` of itself: every measure is of one number."""
    rnn = cylstm.RNN(1, 1, nonlinearity="relu", dtype="float64")
    set_parameters(rnn, weight_hh_l0=np.array([[weight]]), bias_l0=np.ones(1))
    x = np.zeros((30, 2, 1))
    way = insight.gradient_way(rnn, x, np.zeros_like(x))[0]
    assert (way.verdict, way.c) == (verdict, None)
    assert way.factor() == pytest.approx(weight, rel=1e-12)
    found = insight.memory(rnn, x, reach=10)[0]
    np.testing.assert_allclose(found.influence[:, 0], weight ** np.arange(11.0), rtol=1e-6)
    assert found.lyapunov == pytest.approx(np.log(weight), abs=1e-12)
    assert np.isnan(found.by_gate).all()


def test_a_gru_keeps_by_its_update_gate():
    gru = cylstm.GRU(1, 3, dtype="float64")
    scales = np.array([2.0, 5.0, 12.0])
    z = np.exp(-1 / scales)
    set_parameters(gru, bias_l0=np.concatenate([np.zeros(3), np.log(z / (1 - z)), np.zeros(3)]))
    found = insight.memory(gru, np.zeros((1000, 2, 1)))[0]
    np.testing.assert_allclose(found.by_gate, scales, rtol=1e-12)
    np.testing.assert_allclose(found.measured, scales, rtol=1e-4)
    assert found.lyapunov == pytest.approx(-1 / 12, abs=1e-3)


# Saliency -----------------------------------------------------------------------------------------


def test_saliency_of_a_linear_model_is_exact(rng):
    """Of a sum of products the integrated gradients, and gradient times input, are the terms."""
    model = Sequential(Linear(3, 1, bias=False, dtype="float64", seed=0))
    x = rng.normal(size=(5, 2, 3))

    def total(prediction, target):
        return prediction.sum(), np.ones_like(prediction)

    found = insight.saliency(model, x, np.zeros(1), total)
    terms = x * model.state_dict()["0.weight"][0]
    np.testing.assert_allclose(found.gradient, terms, rtol=1e-12)
    np.testing.assert_allclose(found.integrated, terms, rtol=1e-12)
    assert found.error < 1e-14


def test_integrated_gradients_are_complete_as_the_points_grow(rng):
    lstm = reference.random_lstm(rng, input_size=3, hidden_size=4, dtype="float64")
    x, target = 2 * rng.normal(size=(8, 2, 3)), rng.normal(size=(8, 2, 4))
    found = [insight.saliency(lstm, x, target, points=n, baseline=0.1) for n in (10, 100)]
    assert found[1].error < 0.02 * found[0].error
    loss = cylstm.train.mse_loss
    assert found[0].value == loss(lstm.forward(x)[0], target)[0]
    assert found[0].baseline_value == loss(lstm.forward(np.full_like(x, 0.1))[0], target)[0]


def test_gradient_times_input_is_that_of_differences(rng):
    from gradient_check import central_differences

    lstm = cylstm.LSTM(2, 3, dtype="float64", batch_first=True, seed=0)
    x, target = rng.normal(size=(2, 4, 2)), rng.normal(size=(2, 4, 3))
    found = insight.saliency(lstm, x, target, lengths=[4, 2], points=1)
    counts = np.arange(4) < np.array([[4], [2]])

    def loss():
        return np.square(lstm(x, lengths=[4, 2])[0] - target)[counts].sum() / (6 * 3)

    expected = (central_differences(loss, x) * x).swapaxes(0, 1)
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-6, atol=1e-9)
    assert not found.steps[2:, 1].any()


def test_of_an_embedding_the_vectors_are_the_input(rng):
    model = Sequential(
        Embedding(5, 3, seed=0), Dropout(0.5), cylstm.LSTM(3, 4, seed=1), Last(), Linear(4, 2)
    )
    found = insight.saliency(model, rng.integers(5, size=(6, 2)), np.array([0, 1]))
    assert found.integrated.shape == (6, 2, 3)
    assert found.error < 1e-3


# Units --------------------------------------------------------------------------------------------


def test_correlations_are_numpys(rng):
    states, wanted = rng.normal(size=(6, 5, 3)), rng.integers(2, size=(6, 5))
    expected = [np.corrcoef(states[..., k].ravel(), wanted.ravel())[0, 1] for k in range(3)]
    np.testing.assert_allclose(insight.correlations(states, wanted), expected, rtol=1e-12)


# What is refused ----------------------------------------------------------------------------------


def test_what_cannot_be_looked_at_is_refused(rng):
    lstm = cylstm.LSTM(3, 4, seed=0)
    x, target = np.ones((5, 2, 3), "f4"), np.ones((5, 2, 4), "f4")
    with pytest.raises(TypeError, match="model: expected an LSTM, GRU, RNN or a Sequential"):
        insight.gradient_way(Linear(3, 4), x, target)
    with pytest.raises(ValueError, match="steps: expected 'last' or 'all', got 'first'"):
        insight.gradient_way(lstm, x, target, steps="first")
    with pytest.raises(ValueError, match="lengths: expected at least one step in each"):
        insight.gradient_way(lstm, x, target, lengths=[5, 0])
    with pytest.raises(ValueError, match=r"x: expected sequences side by side \(T, N, ...\)"):
        insight.gradient_way(lstm, x[:, 0], target[:, 0])
    with pytest.raises(ValueError, match="expected a sequence of at least two steps"):
        insight.memory(lstm, x[:1])
    with pytest.raises(ValueError, match="baseline: expected the shape"):
        insight.saliency(lstm, x, target, baseline=np.ones(2))
    with pytest.raises(TypeError, match="x: expected real numbers, or an embedding first"):
        insight.saliency(Sequential(Last(), Linear(3, 4)), np.ones((5, 2, 3), int), target)
    with pytest.raises(ValueError, match="low: expected at most high"):
        insight.saturation(lstm.trace(x), 0.9, 0.1)
    with pytest.raises(ValueError, match="property_: expected a number for each step"):
        insight.correlations(np.ones((5, 2)), np.ones(4))
    with pytest.raises(ValueError, match="property_: expected one that changes"):
        insight.correlations(np.ones((5, 2)), np.ones(5))


def test_a_way_of_a_state_that_is_not_there(rng):
    x = rng.normal(size=(4, 2, 3))
    (way,) = insight.gradient_way(cylstm.GRU(3, 2, dtype="float64"), x, np.zeros((4, 2, 2)))
    np.testing.assert_array_equal(way.by_lag("h"), way.by_lag())
    with pytest.raises(ValueError, match="state: expected one of h, got 'c'"):
        way.by_lag("c")
