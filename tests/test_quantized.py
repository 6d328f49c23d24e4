"""LSTMs and models of int8 and bfloat16 weights."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm.core.kernels import ISA
from cylstm.io.files import bfloat16
from cylstm.layers import Dropout, Embedding, Last, Linear, QuantizedLinear, Sequential
from cylstm.quantization import to_bfloat16, to_int8
from reference import assert_same_bits
from threads import threads_as_before

KINDS = ("int8", "bfloat16")
OPTIONS = (
    {},
    {"peephole": True},
    {"coupled": True},
    {"clip": 0.5},
    {"proj_size": 5},
    {"bias": False},
    {"activations": ("hard_sigmoid", "relu", "tanh")},
    {"reverse": True},
)
kinds = pytest.mark.parametrize("kind", KINDS)


def integers(rows):
    """Rows of float32 as the kernels round them: integers, and scales."""
    most = np.abs(rows).max(axis=1, initial=0)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most >= 2.0**-100)
    scale = np.where(most >= 2.0**-100, most / np.float32(127), np.float32(0))
    return np.rint(rows * inverse[:, None]).astype(np.int64), scale.astype(np.float64)


def product(rows, stored, name):
    """Rows times a matrix of the quantized LSTM, in float64, rounded as the kernels round."""
    weight = stored[name]
    if weight.dtype == np.int8:
        numbers, scale = integers(rows)
        sums = numbers @ weight.T.astype(np.int64)
        return sums * (scale[:, None] * stored[name + "_scale"].astype(np.float64))
    bits = to_bfloat16("rows", rows)
    return bfloat16(bits).astype(np.float64) @ bfloat16(weight).T.astype(np.float64)


def one_step(fast, x, h, c):
    """The first layer's step by the equations, from x (N, I), h (N, R) and c (N, H)."""
    stored, hidden = fast.state_dict(), fast.hidden_size
    names = fast._options.activations_of(0)
    gates, candidate, output = (activation(*spec) for spec in names)
    bound = np.inf if fast.clip is None else fast.clip
    z = product(x, stored, "weight_ih_l0") + product(h, stored, "weight_hh_l0")
    z = z + stored.get("bias_l0", np.zeros(4 * hidden)).astype(np.float64)
    i, f, g, o = (z[:, q * hidden : (q + 1) * hidden] for q in range(4))
    p = stored.get("weight_p_l0", np.zeros(3 * hidden)).astype(np.float64).reshape(3, hidden)
    i = gates(np.clip(i + p[0] * c, -bound, bound))
    f = 1 - i if fast.coupled else gates(np.clip(f + p[1] * c, -bound, bound))
    c = f * c + i * candidate(np.clip(g, -bound, bound))
    o = gates(np.clip(o + p[2] * c, -bound, bound))
    h = o * output(c)
    if fast.proj_size:
        h = product(h.astype(np.float32), stored, "weight_hr_l0")
    return h, c


def activation(name, slope, offset):
    return {
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "tanh": np.tanh,
        "relu": lambda z: np.maximum(z, 0),
        "hard_sigmoid": lambda z: np.clip(slope * z + offset, 0, 1),
    }[name]


def random_input(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def random_state(rng, lstm, size):
    count = lstm.num_layers * (2 if lstm.bidirectional else 1)
    width = lstm.proj_size or lstm.hidden_size
    return random_input(rng, count, size, width), random_input(rng, count, size, lstm.hidden_size)


def arrays(run):
    """y, h_n and c_n of what a call returned, or was cut out of it."""
    y, (h, c) = run
    return y, h, c


def fitting(options, hidden):
    """Without a projection to more than there is."""
    return {} if options.get("proj_size", 0) >= hidden else options


@kinds
@pytest.mark.parametrize("options", OPTIONS[:-1], ids=str)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 8), (5, 17, 33), (16, 64, 96), (7, 2, 70)])
def test_a_step_is_by_the_equations(kind, options, sizes):
    rows, inputs, hidden = sizes
    rng = np.random.default_rng(hidden)
    fast = cylstm.LSTM(inputs, hidden, seed=1, **fitting(options, hidden)).quantize(kind)
    x, (h, c) = random_input(rng, rows, inputs), random_state(rng, fast, rows)
    y, (h_n, c_n) = fast(x[None], (h, c))
    expected_h, expected_c = one_step(fast, x, h[0], c[0].astype(np.float64))
    # A projected h is rounded again: an integer more or less, where h lies at the half.
    atol = 2e-6 if not fast.proj_size else 2e-2 if kind == "bfloat16" else 1.5e-2
    np.testing.assert_allclose(c_n[0], expected_c, rtol=0, atol=5e-6)
    np.testing.assert_allclose(h_n[0], expected_h, rtol=0, atol=max(atol, 5e-6))
    assert_same_bits(y[0], h_n[0])


@kinds
def test_a_run_is_its_steps(kind):
    """Each step of a stream by the equations, from the state that it really had."""
    rng = np.random.default_rng(0)
    fast = cylstm.LSTM(9, 40, seed=0).quantize(kind)
    x = random_input(rng, 30, 4, 9)
    y, _ = fast(x)
    stream = fast.stream(4)
    for t in range(30):
        h, c = stream.state
        assert_same_bits(stream.step(x[t]), y[t])
        expected, _ = one_step(fast, x[t], h[0], c[0].astype(np.float64))
        np.testing.assert_allclose(y[t], expected, rtol=0, atol=5e-6)


@kinds
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_bits_depend_on_the_sequence_alone(kind, options, data):
    """Alone or in a batch, padded, in chunks, with threads."""
    layers, both = data.draw(st.integers(1, 2)), data.draw(st.booleans())
    steps, size = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 14))
    inputs, hidden = data.draw(st.sampled_from([(1, 1), (3, 8), (16, 20), (33, 65)]))
    both = both and "reverse" not in options
    options = fitting(options, hidden)
    lstm = cylstm.LSTM(inputs, hidden, layers, bidirectional=both, seed=2, **options)
    fast = lstm.quantize(kind)
    rng = np.random.default_rng(steps * 100 + size)
    x, state = random_input(rng, steps, size, inputs), random_state(rng, lstm, size)
    lengths = rng.integers(0, steps + 1, size)
    together = fast(x, state, lengths)
    for n in range(size):
        alone = fast(x[: lengths[n], n], tuple(s[:, n] for s in state))
        padded = together[0][: lengths[n], n], tuple(s[:, n] for s in together[1])
        for one, other in zip(arrays(alone), arrays(padded), strict=True):
            assert_same_bits(one, other)
    if not both and "reverse" not in options:
        first, middle = fast(x[: steps // 2], state)
        second, last = fast(x[steps // 2 :], middle)
        whole = fast(x, state)
        assert_same_bits(np.concatenate([first, second]), whole[0])
        assert_same_bits(last[0], whole[1][0])
        assert_same_bits(last[1], whole[1][1])


@kinds
@pytest.mark.parametrize("sizes", [(40, 1, 300, 256), (30, 2, 16, 300), (20, 64, 64, 128)])
@pytest.mark.parametrize("options", [{}, {"proj_size": 100}, {"bidirectional": True}], ids=str)
def test_the_bits_do_not_depend_on_threads(kind, sizes, options):
    steps, size, inputs, hidden = sizes
    fast = cylstm.LSTM(inputs, hidden, 2, seed=0, **options).quantize(kind)
    x = random_input(np.random.default_rng(0), steps, size, inputs)
    with threads_as_before():
        runs = []
        for threads in (1, 2, 3, 8):
            cylstm.set_num_threads(threads)
            runs.append(arrays(fast(x)))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            assert_same_bits(one, other)


@kinds
@pytest.mark.parametrize("size", [1, 7])
def test_layouts_of_the_input(kind, size):
    rng = np.random.default_rng(0)
    fast = cylstm.LSTM(5, 24, seed=0).quantize(kind)
    first = cylstm.LSTM(5, 24, batch_first=True, seed=0).quantize(kind)
    x = random_input(rng, 12, size, 5)
    y, _ = fast(x)
    assert_same_bits(first(x.transpose(1, 0, 2).copy())[0].transpose(1, 0, 2), y)
    assert_same_bits(fast(np.asfortranarray(x))[0], y)
    strided = np.zeros((24, size, 10), np.float32)[::2, :, ::2]
    strided[...] = x
    assert_same_bits(fast(strided)[0], y)
    out = np.empty_like(y)
    assert fast(x, out=out)[0] is out
    assert_same_bits(out, y)


@kinds
def test_it_is_near_the_lstm(kind):
    lstm = cylstm.LSTM(64, 128, seed=0)
    x = random_input(np.random.default_rng(0), 100, 8, 64)
    difference = cylstm.compare(lstm, lstm.quantize(kind), x)
    assert 1e-5 < difference.relative < {"int8": 0.02, "bfloat16": 0.006}[kind]


def test_a_row_has_its_own_scale():
    """A loud sequence takes nothing from a quiet one's precision."""
    lstm = cylstm.LSTM(16, 32, seed=0)
    rng = np.random.default_rng(0)
    x = random_input(rng, 20, 2, 16)
    x[:, 0] *= 1000
    x[:, 1] *= 0.001
    fast = lstm.quantize("int8")
    difference = cylstm.compare(lstm, fast, x[:, 1:])
    assert difference.relative < 0.02
    assert_same_bits(fast(x)[0][:, 1:], fast(x[:, 1:])[0])


@pytest.mark.parametrize("magnitude", [0.0, 1e-45, 1e-38, 1e-20, 1e20, 3e38])
def test_inputs_of_any_magnitude(magnitude):
    lstm = cylstm.LSTM(8, 16, seed=0)
    x = np.full((3, 2, 8), magnitude, np.float32)
    y, (_, c) = lstm.quantize("int8")(x)
    assert np.isfinite(y).all()
    assert np.isfinite(c).all()
    if magnitude < 1:
        np.testing.assert_allclose(y, lstm(x)[0], atol=0.01)


@kinds
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_with_its_sequence(kind, value):
    fast = cylstm.LSTM(9, 20, seed=0).quantize(kind)
    x = random_input(np.random.default_rng(0), 6, 3, 9)
    clean = fast(x)[0]
    x[2, 1, 8] = value
    y = fast(x)[0]
    assert_same_bits(y[:, [0, 2]], clean[:, [0, 2]])
    assert_same_bits(y[:2], clean[:2])
    if kind == "int8" or np.isnan(value):
        assert np.isnan(y[2:, 1]).all()
    else:
        assert (y[2:, 1] != clean[2:, 1]).any()


def test_the_largest_sums_are_exact():
    """All weights and inputs at the ends of their range, in as many columns as there may be."""
    columns = 65793
    lstm = cylstm.LSTM(columns, 1, bias=False, seed=0)
    with lstm.edit() as parameters:
        parameters["weight_ih_l0"][...] = 2.0**-24 * np.array([1, -1, 1, -1])[:, None]
        parameters["weight_hh_l0"][...] = 0
    fast = lstm.quantize("int8")
    x = np.ones((1, 1, columns), np.float32)
    for sign in (1, -1):
        np.testing.assert_allclose(fast(sign * x)[0], lstm(sign * x)[0], rtol=1e-5)


def test_too_many_columns_are_refused():
    with pytest.raises(ValueError, match="weight_ih_l0: expected at most 65793 columns, got 65794"):
        cylstm.LSTM(65794, 1, seed=0).quantize("int8")
    cylstm.LSTM(65794, 1, seed=0).quantize("bfloat16")


@kinds
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-30, 1e30))
def test_weights_are_rounded_to_the_nearest(kind, seed, scale):
    weight = (np.random.default_rng(seed).standard_normal((5, 7)) * scale).astype(np.float32)
    if kind == "int8":
        numbers, scales = to_int8("weight", weight)
        assert (np.abs(numbers).max(axis=1) == 127).all()
        error = np.abs(numbers * scales[:, None].astype(np.float64) - weight)
        assert (error <= scales[:, None] * 0.50001).all()
    else:
        error = np.abs(bfloat16(to_bfloat16("weight", weight)).astype(np.float64) - weight)
        assert (error <= np.abs(weight) * 2.0**-8).all()


def test_bfloat16_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 10000, np.uint32)
    numbers = bits.view(np.float32)
    numbers = numbers[np.abs(numbers) < 3.38e38]
    expected = torch.from_numpy(numbers).bfloat16().float().numpy()
    assert_same_bits(bfloat16(to_bfloat16("numbers", numbers)), expected)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-20, 1e20), columns=st.integers(2, 300))
def test_weights_that_were_integers_stay_so(seed, scale, columns):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(-128, 128, (4, columns))
    scales = (scale * rng.uniform(1, 10, 4)).astype(np.float32)
    weight = (numbers * scales[:, None]).astype(np.float32)
    again, units = to_int8("weight", weight)
    np.testing.assert_allclose(again * units[:, None].astype(np.float64), weight, rtol=5e-7)
    if columns > 100:  # that have no divisor in common
        np.testing.assert_array_equal(again, numbers)


@pytest.mark.filterwarnings("ignore")  # of what PyTorch deprecates
def test_pytorchs_integers_stay_so():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.LSTM(24, 40, 2))
    small = torch.ao.quantization.quantize_dynamic(module, {torch.nn.LSTM})
    fast = cylstm.from_torch(small).quantize("int8")
    weights = small[0].get_weight()
    assert len(weights) == 4
    for name, tensor in weights.items():
        assert_same_bits(getattr(fast, name), tensor.int_repr().numpy())


def test_onnx_runtimes_integers_stay_so(tmp_path):
    onnx = pytest.importorskip("onnx")
    quantization = pytest.importorskip("onnxruntime.quantization")
    cylstm.LSTM(24, 40, seed=0).to_onnx(tmp_path / "plain.onnx")
    quantization.quantize_dynamic(
        tmp_path / "plain.onnx", tmp_path / "small.onnx",
        op_types_to_quantize=["LSTM"], weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    fast = cylstm.from_onnx(tmp_path / "small.onnx").quantize("int8")
    arrays = {
        tuple(sorted(array.shape)): array
        for array in map(
            onnx.numpy_helper.to_array, onnx.load(tmp_path / "small.onnx").graph.initializer
        )
        if array.dtype == np.int8 and array.ndim == 3
    }
    for name, size in (("weight_ih_l0", 24), ("weight_hh_l0", 40)):
        i, o, f, g = np.split(arrays[1, size, 160][0].T, 4)
        assert_same_bits(getattr(fast, name), np.concatenate([i, f, g, o]))


@kinds
def test_dequantize_gives_the_weights_that_are_used(kind):
    lstm = cylstm.LSTM(6, 16, 2, proj_size=4, peephole=True, seed=0)
    fast = lstm.quantize(kind)
    again = fast.dequantize()
    for name, array in again.named_parameters():
        np.testing.assert_allclose(array, getattr(lstm, name), atol=0.01)
    # Weights that need no rounding are not rounded again.
    for name, array in again.quantize(kind).named_parameters():
        if array.dtype != np.float32:
            assert_same_bits(array, fast.state_dict()[name])


@kinds
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_save_load_pickle_copy(kind, options, tmp_path):
    fast = cylstm.LSTM(6, 16, 2, seed=0, dropout=0.5, **options).quantize(kind)
    x = random_input(np.random.default_rng(0), 5, 3, 6)
    fast.save(tmp_path / "fast.safetensors")
    for again in (
        cylstm.load(tmp_path / "fast.safetensors"),
        pickle.loads(pickle.dumps(fast)),
        copy.deepcopy(fast),
    ):
        assert isinstance(again, cylstm.QuantizedLSTM)
        assert again.config == fast.config
        assert repr(again) == repr(fast)
        assert_same_bits(again(x)[0], fast(x)[0])


def test_files_are_smaller(tmp_path):
    lstm = cylstm.LSTM(128, 256, seed=0)
    sizes = {}
    for name, model in [("float32", lstm), *((kind, lstm.quantize(kind)) for kind in KINDS)]:
        model.save(tmp_path / name)
        sizes[name] = (tmp_path / name).stat().st_size
    assert sizes["int8"] < 0.27 * sizes["float32"]
    assert sizes["bfloat16"] < 0.51 * sizes["float32"]


def test_a_file_is_read_by_the_safetensors_library(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    fast = cylstm.LSTM(3, 8, seed=0).quantize("int8")
    fast.save(tmp_path / "fast")
    tensors = safetensors.load_file(tmp_path / "fast")
    assert_same_bits(tensors["weight_hh_l0"], fast.weight_hh_l0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: c.update(weights="int4"), "weights: expected one of int8, bfloat16"),
        (lambda c, t: c.pop("weights"), "weights: expected one of int8, bfloat16"),
        (lambda c, t: c.update(weights="bfloat16"), "tensors do not fit"),
        (lambda c, t: c.update(dtype="float64"), "dtype: expected float32"),
        (lambda c, t: c.update(color="red"), r"has unknown \['color'\]"),
        (lambda c, t: t.pop("weight_hh_l0_scale"), "weight_hh_l0_scale"),
        (lambda c, t: t.update(more=np.zeros(1, np.float32)), "more"),
        (
            lambda c, t: t.update(weight_hh_l0=t["weight_hh_l0"].astype(np.float32)),
            "weight_hh_l0",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, message):
    from cylstm.io.safetensors import write_model

    fast = cylstm.LSTM(3, 8, seed=0).quantize("int8")
    config, tensors = fast.config, fast.state_dict()
    change(config, tensors)
    write_model(tmp_path / "fast", "QuantizedLSTM", config, tensors)
    with pytest.raises(ValueError, match=message):
        cylstm.load(tmp_path / "fast")


def test_a_file_of_other_numbers_than_bfloat16s_is_refused(tmp_path):
    from cylstm.io.safetensors import write_model

    fast = cylstm.LSTM(3, 8, seed=0).quantize("bfloat16")
    tensors = fast.state_dict() | {"weight_hh_l0": np.full((32, 8), 0.1, np.float32)}
    write_model(tmp_path / "fast", "QuantizedLSTM", fast.config, tensors)
    with pytest.raises(ValueError, match="weight_hh_l0: expected numbers of bfloat16"):
        cylstm.load(tmp_path / "fast")


@kinds
def test_it_does_not_train(kind):
    lstm = cylstm.LSTM(3, 8, seed=0)
    fast = lstm.quantize(kind)
    x = np.ones((4, 2, 3), np.float32)
    with pytest.raises(TypeError, match=f"forward: {kind} weights do not train"):
        fast.forward(x)
    with pytest.raises(TypeError, match=f"backward: {kind} weights do not train"):
        fast.backward(None, x)
    with pytest.raises(AttributeError, match="bias_l0: a quantized LSTM does not change"):
        fast.bias_l0 = np.zeros(32)
    with pytest.raises(ValueError, match="read-only"):
        fast.bias_l0[0] = 1
    before = fast(x)[0]
    lstm.bias_l0 = np.ones(32)
    assert_same_bits(fast(x)[0], before)


@pytest.mark.parametrize("weights", ["int4", None, 8, "INT8"])
def test_other_formats_are_refused(weights):
    with pytest.raises(ValueError, match="weights: expected one of int8, bfloat16"):
        cylstm.LSTM(3, 8).quantize(weights)


@kinds
def test_what_cannot_be_quantized_is_refused(kind):
    with pytest.raises(ValueError, match="expected float32 to quantize, got float64"):
        cylstm.LSTM(3, 8, dtype="float64").quantize(kind)
    lstm = cylstm.LSTM(3, 8, seed=0)
    for value in (np.nan, np.inf):
        lstm.weight_hh_l0 = np.full((32, 8), value)
        with pytest.raises(ValueError, match="weight_hh_l0: expected finite numbers to quantize"):
            lstm.quantize(kind)
    lstm.weight_hh_l0 = np.full((32, 8), np.finfo(np.float32).max)
    if kind == "bfloat16":
        with pytest.raises(ValueError, match="weight_hh_l0: expected numbers that bfloat16 holds"):
            lstm.quantize(kind)


# Whole models ----------------------------------------------------------------------------------


def tagger(**options):
    return Sequential(
        Embedding(30, 12, seed=0),
        cylstm.LSTM(12, 20, bidirectional=True, seed=0),
        Dropout(0.5),
        Linear(40, 7, seed=0, **options),
    )


@kinds
def test_a_model(kind, tmp_path):
    model = tagger()
    fast = model.quantize(kind)
    words = np.random.default_rng(0).integers(0, 30, (9, 5))
    lengths = [9, 3, 1, 0, 7]
    logits = fast(words, lengths=lengths)
    np.testing.assert_allclose(logits, model(words, lengths=lengths), atol=0.05)
    fast.save(tmp_path / "fast")
    assert_same_bits(cylstm.load(tmp_path / "fast")(words, lengths=lengths), logits)
    assert_same_bits(pickle.loads(pickle.dumps(fast))(words, lengths=lengths), logits)
    with pytest.raises(TypeError, match="do not train"):
        fast.forward(words)
    with pytest.raises(TypeError, match="quantized weights do not change"), fast.edit():
        pass


@kinds
def test_a_model_streams(kind):
    model = Sequential(
        Embedding(30, 12, seed=0), cylstm.LSTM(12, 20, seed=0), Linear(20, 9, seed=0)
    )
    fast = model.quantize(kind)
    words = np.random.default_rng(0).integers(0, 30, (9, 5))
    stream = fast.stream(5)
    assert_same_bits(np.stack([stream.step(word) for word in words]), fast(words))


@kinds
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 400), inputs=st.integers(1, 70), outputs=st.integers(1, 90),
    bias=st.booleans(),
)  # fmt: skip
def test_a_linear_layer(kind, rows, inputs, outputs, bias):
    linear = Linear(inputs, outputs, bias, seed=0)
    fast = QuantizedLinear.of(linear, kind)
    x = random_input(np.random.default_rng(rows), rows, inputs)
    stored = fast.state_dict()
    expected = product(x, stored, "weight") + stored.get("bias", np.float32(0))
    np.testing.assert_allclose(fast(x), expected, rtol=0, atol=1e-5)
    if rows:
        assert_same_bits(fast(x[-1:]), fast(x)[-1:])


def test_models_without_such_weights_are_refused():
    with pytest.raises(ValueError, match="layers: expected an LSTM or a Linear to quantize"):
        Sequential(Last()).quantize()
    with pytest.raises(ValueError, match=r"layers\[3\]: .*float32"):
        tagger(dtype="float64").quantize()


@pytest.mark.parametrize("bad", ["int8", "x"])
def test_a_damaged_model_is_refused(tmp_path, bad):
    from cylstm.io.safetensors import write_model

    model = tagger().quantize("int8")
    config, tensors = model.config, model.state_dict()
    if bad == "x":
        config["layers"][3]["config"]["weights"] = "x"
    else:
        tensors["3.weight"] = tensors["3.weight"].astype(np.float32)
    write_model(tmp_path / "m", "Sequential", config, tensors)
    with pytest.raises(ValueError, match=r"layers\[3\]: .*(weights|weight)"):
        cylstm.load(tmp_path / "m")


# Comparing -------------------------------------------------------------------------------------


def test_compare():
    x = np.ones((2, 3), np.float32)
    same = cylstm.compare(lambda x: x, lambda x: x, x)
    assert (same.largest, same.rms, same.relative) == (0, 0, 0)
    more = cylstm.compare(lambda x: x, lambda x: 1.5 * x, x)
    assert (more.largest, more.rms, more.relative) == (0.5, 0.5, 0.5)
    assert "50.00%" in str(more)
    with pytest.raises(ValueError, match=r"other: expected outputs of shape \(2, 3\), got \(3,\)"):
        cylstm.compare(lambda x: x, lambda x: x[0], x)
    with pytest.raises(ValueError, match="reference: expected outputs that are finite numbers"):
        cylstm.compare(lambda x: x * np.nan, lambda x: x, x)


def test_the_isa_in_use_is_one_of_those_there(capsys):
    cylstm.show_config()
    assert ISA in capsys.readouterr().out
