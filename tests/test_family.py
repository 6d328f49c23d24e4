"""GRU and RNN: against their equations, their gradients, and the promise of bits, as the LSTM."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm.core import kernels
from cylstm.core.cell import Cell
from cylstm.io.files import bfloat16
from cylstm.layers import Embedding, Linear, Sequential
from cylstm.quantization import to_bfloat16
from cylstm.train import SGD, Adam, Batch, cross_entropy_loss, evaluate, fit
from reference import (
    KinkCrossed,
    assert_close,
    assert_gradients_close,
    assert_same_bits,
    flat,
    random_case,
    random_lstm,
)
from strategies import FAMILY, family, seeds, shapes
from threads import threads_as_before

GRADIENTS_OF_DTYPE = {"float32": 5e-5, "float64": 1e-11}
KINDS = ("GRU", "RNN")

kinds = pytest.mark.parametrize("kind", KINDS)
members = pytest.mark.parametrize(("kind", "options"), FAMILY.values(), ids=FAMILY)
bits = pytest.mark.skipif(kernels.PRODUCT == "blas", reason="BLAS promises no such thing")
widths = st.integers(1, 40) | st.sampled_from([64, 100, 160])


@pytest.fixture(autouse=True)
def _threads_as_before():
    with threads_as_before():
        yield


@members
@pytest.mark.parametrize("lengths", [None, [5, 0, 3]])
def test_forward(rng, kind, options, dtype, lengths):
    case = random_case(rng, 5, 3, lengths, kind, dtype=dtype, **options)
    assert_close(case.lstm(*case.inputs), case.expected())
    y, state, _ = case.lstm.forward(*case.inputs)
    assert_close((y, state), case.expected())


@members
@pytest.mark.parametrize("lengths", [None, [4, 0, 2]])
def test_gradients_are_those_of_differences(rng, kind, options, lengths):
    for _ in range(20):  # a difference may cross a kink of relu or clip
        case = random_case(rng, 4, 3, lengths, kind, **options)
        try:
            expected = case.numeric_gradients()
        except KinkCrossed:
            continue
        assert_gradients_close(case.gradients(), expected)
        return
    pytest.fail("every case was at a kink")


@members
@pytest.mark.parametrize("isa", kernels.ISAS)
@pytest.mark.parametrize("hidden", [4, 37, 80])
def test_on_each_isa(rng, monkeypatch, isa, dtype, kind, options, hidden):
    monkeypatch.setattr("cylstm.family.Cell", partial(Cell, isa=isa))
    case = random_case(rng, 4, 3, [4, 0, 3], kind, **{"hidden_size": hidden} | options, dtype=dtype)
    assert_close(case.lstm(*case.inputs), case.expected())
    exact = case.astype("float64")
    assert_gradients_close(case.gradients(), exact.gradients(), GRADIENTS_OF_DTYPE[dtype])


@kinds
@pytest.mark.parametrize("inputs", [1, 64, 65, 640])
def test_wide_layers_beside_blas(rng, monkeypatch, dtype, kind, inputs):
    config = {"input_size": inputs, "hidden_size": 128, "num_layers": 2, "bidirectional": True}
    case = random_case(rng, 3, 4, [3, 1, 2, 3], kind, dtype=dtype, **config)
    found = case.lstm(*case.inputs), case.gradients()
    monkeypatch.setattr("cylstm.family.Cell", partial(Cell, product="blas"))
    exact = case.astype("float64")
    assert_close(found[0], exact.lstm(*exact.inputs), 5e-6)
    assert_gradients_close(found[1], exact.gradients(), GRADIENTS_OF_DTYPE[dtype])


@settings(max_examples=100)
@given(member=family(), shape=shapes(), seed=seeds, data=st.data())
def test_any_options_and_shape(member, shape, seed, data):
    kind, config = member
    config["dtype"] = data.draw(st.sampled_from(["float32", "float64"]))
    case = random_case(np.random.default_rng(seed), *shape, kind, **config)
    assert_close(case.lstm(*case.inputs), case.expected())


@settings(max_examples=60)
@given(member=family(), shape=shapes(), seed=seeds, segment=st.integers(1, 5))
def test_segments_change_no_gradient(member, shape, seed, segment):
    kind, config = member
    case = random_case(np.random.default_rng(seed), *shape, kind, **config)
    assert_gradients_close(case.gradients(segment=segment), case.gradients(), 1e-12)


@st.composite
def ragged_cases(draw, streamable=False):
    kind, config = draw(family(widths))
    config |= {"dtype": draw(st.sampled_from(["float32", "float64"])), "batch_first": False}
    if streamable:
        config |= {"bidirectional": False, "reverse": False}
        config.pop("activations", None)
        config.pop("nonlinearity", None)
    steps, batch = draw(st.integers(1, 12)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(seeds))
    return random_case(rng, steps, batch, rng.integers(0, steps + 1, batch), kind, **config)


@bits
@settings(max_examples=60)
@given(case=ragged_cases(), threads=st.integers(2, 7))
def test_any_number_of_threads(case, threads):
    cylstm.set_num_threads(1)
    expected = case.lstm(*case.inputs), case.lstm(case.x), case.gradients()
    cylstm.set_num_threads(threads)
    assert_same_bits((case.lstm(*case.inputs), case.lstm(case.x), case.gradients()), expected)


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


def state_of(case, index):
    parts = tuple(part[:, index] for part in parts_of(case.state))
    return parts if case.kind == "LSTM" else parts[0]


@bits
@settings(max_examples=60)
@given(case=ragged_cases())
def test_alone_or_in_a_batch(case):
    y, state = case.lstm(*case.inputs)
    for n, length in enumerate(case.lengths):
        own = slice(n, n + 1)
        alone = case.lstm(np.ascontiguousarray(case.x[:length, own]), state_of(case, own))
        assert_same_bits(alone, (y[:length, own], [part[:, own] for part in parts_of(state)]))


@bits
@settings(max_examples=40)
@given(case=ragged_cases(streamable=True), data=st.data())
def test_in_parts_or_step_by_step(case, data):
    expected = case.lstm(case.x, case.state)
    cut = data.draw(st.integers(0, len(case.x)))
    first, state = case.lstm(case.x[:cut], case.state)
    second, state = case.lstm(case.x[cut:], state)
    assert_same_bits((np.concatenate([first, second]), state), expected)
    stream = case.lstm.stream(case.x.shape[1])
    stream.state = case.state
    steps = [stream.step(x_t) for x_t in case.x]
    assert_same_bits((np.stack(steps), stream.state), expected)


@bits
@kinds
@pytest.mark.parametrize("steps", [1, 95, 96, 97, 400])
def test_blocks_of_steps(rng, kind, steps):
    config = {"hidden_size": 33, "bidirectional": True, "dtype": "float32"}
    case = random_case(rng, steps, 2, None, kind, **config)
    y, _ = case.lstm(case.x)
    for n in range(2):
        assert_same_bits(case.lstm(case.x[:, n : n + 1])[0], y[:, n : n + 1])


@bits
@kinds
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("hidden", [40, 256])
def test_layers_with_threads(rng, kind, threads, batch, hidden):
    """Layers that follow each other, and members of a team, in one memory."""
    config = {"input_size": 40, "hidden_size": hidden, "num_layers": 4, "dtype": "float32"}
    case = random_case(rng, 150, batch, None, kind, **config)
    cylstm.set_num_threads(1)
    expected = case.lstm(*case.inputs), case.lstm(case.x)
    cylstm.set_num_threads(threads)
    for _ in range(5):
        assert_same_bits((case.lstm(*case.inputs), case.lstm(case.x)), expected)


@kinds
@pytest.mark.parametrize("scale", [1e2, 1e6, 1e30])
def test_arguments_far_out(rng, kind, scale):
    """Saturated gates: of x alone, so that no difference of large numbers is asked for."""
    case = random_case(rng, 6, 5, None, kind, hidden_size=20, dtype="float32")
    y, _ = case.lstm(np.float32(scale) * case.x)
    exact = case.astype("float64")
    assert_close(y, exact.lstm(np.float64(np.float32(scale)) * exact.x)[0], 1e-4)
    assert np.isfinite(y).all()


@kinds
def test_nan_stays_in_its_sequence(rng, kind):
    case = random_case(rng, 3, 2, None, kind, hidden_size=20, dtype="float32")
    case.x[1, 0, 0] = np.nan
    y, _ = case.lstm(case.x)
    assert np.isnan(y[1:, 0]).all()
    assert np.isfinite(y[:, 1]).all()


# Parameters and files


@members
def test_saved_pickled_copied(rng, tmp_path, kind, options):
    network = random_lstm(rng, kind, input_size=3, hidden_size=4, **options)
    network.save(tmp_path / "model.safetensors")
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    for again in (
        cylstm.load(tmp_path / "model.safetensors"),
        pickle.loads(pickle.dumps(network)),
        copy.deepcopy(network),
    ):
        assert type(again) is type(network)
        assert again.config == network.config
        assert_same_bits(again(x), network(x))
    assert repr(eval(repr(network), {kind: type(network)})) == repr(network)


def test_names_and_shapes():
    gru = cylstm.GRU(3, 4, 2, bidirectional=True)
    shapes = {name: array.shape for name, array in gru.named_parameters()}
    assert shapes["weight_ih_l1_reverse"] == (12, 8)
    assert shapes["bias_hn_l0"] == (4,)
    assert cylstm.GRU(1, 1).num_parameters == 10
    assert cylstm.RNN(1, 2, 1, "relu").num_parameters == 8
    assert not any("bias" in name for name, _ in cylstm.GRU(1, 1, bias=False).named_parameters())


@kinds
def test_first_values(kind):
    network = getattr(cylstm, kind)(5, 8, seed=0)
    for weights in np.split(network.weight_hh_l0, network._options.gates):
        np.testing.assert_allclose(weights @ weights.T, np.eye(8), atol=1e-6)
    assert not network.bias_l0.any()


@kinds
def test_the_state_is_h_alone(kind):
    network = getattr(cylstm, kind)(3, 4)
    x, h = np.ones((2, 1, 3), np.float32), np.ones((1, 1, 4), np.float32)
    with pytest.raises(TypeError, match="state: expected h_0 alone, got tuple"):
        network(x, (h, h))
    with pytest.raises(ValueError, match=r"h_0: expected shape"):
        network(x, h[0])
    stream = network.stream()
    assert isinstance(stream.state, np.ndarray)
    stream.step(x[0])
    stream.reset()
    assert not stream.state.any()


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("GRU", {"activations": "tanh"}, "activations: expected two"),
        ("GRU", {"activations": ("sigmoid", "tanh", "tanh")}, r"expected \(gates, candidate\)"),
        ("GRU", {"activations": ("sigmoid", "softmax")}, "activations: expected one of"),
        ("RNN", {"nonlinearity": "softmax"}, "nonlinearity: expected one of"),
        ("RNN", {"nonlinearity": ("tanh", "relu")}, "nonlinearity: expected one of"),
        ("RNN", {"hidden_size": 0}, "hidden_size"),
        ("GRU", {"clip": -1.0}, "clip"),
    ],
)
def test_wrong_arguments(kind, given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(cylstm, kind)(**{"input_size": 3, "hidden_size": 4} | given)


# Models and training


@kinds
def test_in_a_model(rng, tmp_path, kind):
    cls = getattr(cylstm, kind)
    model = Sequential(Embedding(5, 3, seed=0), cls(3, 8, seed=0), Linear(8, 5, seed=0))
    words = rng.integers(0, 5, (7, 2))
    expected = model(words)
    model.save(tmp_path / "m.safetensors")
    assert_same_bits(cylstm.load(tmp_path / "m.safetensors")(words), expected)
    stream = model.stream(2)
    assert_same_bits(np.stack([stream.step(step) for step in words]), expected)
    _, state = model.run(words[:3])
    assert_same_bits(model.run(words[3:], state)[0], expected[3:])


@kinds
def test_it_learns(tmp_path, kind):
    """To say the number before the last; on, from a checkpoint, to the same bits."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 4, (12, 64))
    target = np.roll(words, 1, axis=0)
    target[0] = -100  # not counted

    def trained(epochs, checkpoint=None):
        cls = getattr(cylstm, kind)
        model = Sequential(Embedding(4, 8, seed=0), cls(8, 24, seed=1), Linear(24, 4, seed=2))
        optimizer = Adam(model, lr=0.02)
        history = fit(
            model, (words, target), cross_entropy_loss, optimizer, epochs=epochs, seed=0,
            checkpoint=checkpoint,
        )  # fmt: skip
        return model, history

    model, history = trained(25)
    assert history.loss[-1] < 0.05 < 1 < history.loss[0]
    trained(10, tmp_path / "run")
    again, _ = trained(25, tmp_path / "run")
    assert_same_bits(again.state_dict(), model.state_dict())


def test_training_with_resets(rng):
    """Two sequences in a row train as two beside each other."""
    x = rng.standard_normal((10, 6, 3)).astype(np.float32)
    target = rng.integers(0, 4, (10, 6))
    resets = np.zeros((10, 6), bool)
    resets[4] = True
    lengths = np.array([4] * 6 + [6] * 6)
    apart = np.zeros((6, 12, 3), np.float32), np.full((6, 12), -1)
    for whole, both in zip((x, target), apart, strict=True):
        both[:4, :6], both[:, 6:] = whole[:4], whole[4:]
    found = []
    for batch in (Batch(x, target, resets=resets), Batch(*apart, lengths)):
        model = Sequential(
            cylstm.LSTM(3, 8, seed=0), cylstm.GRU(8, 8, seed=0), Linear(8, 4, seed=0)
        )
        fit(model, [batch], cross_entropy_loss, SGD(model, lr=0.1), epochs=3)
        found.append(model.state_dict())
        assert np.isfinite(evaluate(model, [batch], cross_entropy_loss))
    for name, array in found[0].items():
        np.testing.assert_allclose(array, found[1][name], atol=1e-6)
    with pytest.raises(ValueError, match="resets: expected none"):
        evaluate(Linear(3, 4), [Batch(x, target, resets=resets)], cross_entropy_loss)


# PyTorch


def of_torch(kind, options, dtype):
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, kind)(3, 5, **options)
    return torch, module.to(getattr(torch, dtype))


TORCH = pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GRU", {}),
        ("GRU", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        ("GRU", {"bias": False}),
        ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
        ("RNN", {"bidirectional": True}),
    ],
)


@TORCH
def test_torch_computes_the_same(rng, kind, options, dtype):
    torch, module = of_torch(kind, options, dtype)
    own = getattr(cylstm, kind)(3, 5, dtype=dtype, **options)
    own.load_state_dict(module.state_dict())
    runs = own.num_layers * own._options.directions
    x = rng.standard_normal((6, 4, 3)).astype(dtype)
    h = rng.standard_normal((runs, 6 if own.batch_first else 4, 5)).astype(dtype)
    inputs = [torch.from_numpy(array).requires_grad_() for array in (x, h)]
    y, h_n = module(*inputs)
    assert_close(own(x, h), (y.detach().numpy(), h_n.detach().numpy()))
    grad_y, grad_h = (rng.standard_normal(a.shape).astype(dtype) for a in (y, h_n))
    torch.autograd.backward((y, h_n), [torch.from_numpy(a) for a in (grad_y, grad_h)])
    _, _, tape = own.forward(x, h)
    grads = flat(own.backward(tape, grad_y, grad_h))
    expected = {"x": inputs[0].grad.numpy(), "h_0": inputs[1].grad.numpy()}
    for name, parameter in module.named_parameters():
        if not name.startswith("bias_hh"):
            expected[name.replace("bias_ih", "bias")] = parameter.grad.numpy()
        elif kind == "GRU":
            expected[name.replace("bias_hh", "bias_hn")] = parameter.grad.numpy()[10:]
    assert_gradients_close(grads, expected, GRADIENTS_OF_DTYPE[dtype])


@TORCH
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("saved", ["module", "state", "script"])
def test_files_of_torch(rng, tmp_path, kind, options, saved):
    torch, module = of_torch(kind, options, "float32")
    given = {}
    if saved == "script":
        torch.jit.script(module).save(tmp_path / "m.pt")
    elif saved == "module":
        torch.save(module, tmp_path / "m.pt")
    else:
        torch.save({"net": module.state_dict()}, tmp_path / "m.pt")
        given["batch_first"] = module.batch_first
        if kind == "RNN":
            with pytest.raises(ValueError, match="nonlinearity: a state dict does not say"):
                cylstm.from_torch(tmp_path / "m.pt", **given)
            given["nonlinearity"] = module.nonlinearity
    own = cylstm.from_torch(tmp_path / "m.pt", **given)
    assert type(own) is getattr(cylstm, kind)
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    y, h_n = module(torch.from_numpy(x))
    assert_close(own(x), (y.detach().numpy(), h_n.detach().numpy()))
    assert_same_bits(cylstm.from_torch(module)(x), own(x))


@kinds
def test_modules_of_torch_beside_others(kind):
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict(
        {"lstm": torch.nn.LSTM(3, 4), "other": getattr(torch.nn, kind)(2, 5)}
    )
    assert type(cylstm.from_torch(model)) is cylstm.LSTM
    other = cylstm.from_torch(model, "other")
    assert (type(other).__name__, other.hidden_size) == (kind, 5)
    cell = cylstm.from_torch(getattr(torch.nn, f"{kind}Cell")(3, 4))
    assert (type(cell).__name__, cell.hidden_size) == (kind, 4)


@kinds
def test_what_torch_lacks(kind):
    network = getattr(cylstm, kind)(3, 4, clip=1.0)
    with pytest.raises(ValueError, match=f"clip: expected an? {kind} as PyTorch has it"):
        network.to_torch()
    with pytest.raises(ValueError, match="forget_bias: expected 0"):
        cylstm.from_torch(
            getattr(cylstm, kind)(3, 4).to_torch(), forget_bias=1, batch_first=True,
            nonlinearity="tanh",
        )  # fmt: skip


@TORCH
def test_torch_takes_the_state_dict(rng, kind, options):
    torch, module = of_torch(kind, options, "float32")
    own = random_lstm(rng, kind, input_size=3, hidden_size=5, **options)
    state = {name: torch.from_numpy(a) for name, a in own.state_dict(torch=True).items()}
    module.load_state_dict(state)
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    y, h_n = module(torch.from_numpy(x))
    assert_close(own(x), (y.detach().numpy(), h_n.detach().numpy()))
    again = getattr(cylstm, kind)(3, 5, **options)
    again.load_state_dict(own.state_dict(torch=True))
    assert_same_bits(again(x), own(x))


# ONNX


def onnx_model(rng, kind, inputs=3, hidden=5, direction="forward", **attributes):
    """A model of one node, and what runs it."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    gates, directions = {"GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    shapes = {
        "W": (gates * hidden, inputs),
        "R": (gates * hidden, hidden),
        "B": (2 * gates * hidden,),
    }
    arrays = {
        name: rng.standard_normal((directions, *shape)).astype(np.float32) / 2
        for name, shape in shapes.items()
    }
    node = onnx.helper.make_node(
        kind, ["X", "W", "R", "B"], ["Y", "Y_h"], name="rec", hidden_size=hidden,
        direction=direction, **attributes,
    )  # fmt: skip
    real = onnx.TensorProto.FLOAT
    given = [onnx.helper.make_tensor_value_info("X", real, ["T", "N", inputs])]
    made = [
        onnx.helper.make_tensor_value_info("Y", real, ["T", directions, "N", hidden]),
        onnx.helper.make_tensor_value_info("Y_h", real, [directions, "N", hidden]),
    ]
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()]
    graph = onnx.helper.make_graph([node], "g", given, made, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)])
    model.ir_version = 8
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return model, lambda x: session.run(None, {"X": x})


ONNX = pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"linear_before_reset": 1, "direction": "bidirectional", "clip": 0.7}),
        ("GRU", {"linear_before_reset": 1, "direction": "reverse"}),
        ("RNN", {}),
        ("RNN", {"direction": "bidirectional", "activations": ["Relu", "Tanh"]}),
        ("RNN", {"activations": ["Sigmoid"], "clip": 0.5}),
    ],
)


@ONNX
def test_nodes_of_onnx(rng, tmp_path, kind, attributes):
    model, run = onnx_model(rng, kind, **attributes)
    own = cylstm.from_onnx(model)
    assert type(own).__name__ == kind
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    y, y_h = run(x)
    assert_close(own(x), (y.swapaxes(1, 2).reshape(6, 4, -1), y_h))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    whole = cylstm.load(path)(x)
    assert_close(whole, {"Y": y, "Y_h": y_h})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_layers_that_torch_exports(rng, tmp_path, kind):
    pytest.importorskip("onnx")
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, kind)(3, 5, num_layers=2, bidirectional=True)
    x = torch.from_numpy(rng.standard_normal((6, 4, 3)).astype(np.float32))
    path = tmp_path / "m.onnx"
    h = torch.from_numpy(rng.standard_normal((4, 4, 5)).astype(np.float32))
    torch.onnx.export(module, (x, h), str(path), dynamo=False, opset_version=14)
    own = cylstm.from_onnx(path)
    assert (type(own).__name__, own.num_layers) == (kind, 2)
    y, h_n = module(x, h)
    assert_close(own(x.numpy(), h.numpy()), (y.detach().numpy(), h_n.detach().numpy()))


def test_a_chain_of_onnx_streams(rng, tmp_path):
    onnx = pytest.importorskip("onnx")
    model, run = onnx_model(rng, "GRU", linear_before_reset=1)
    del model.graph.output[1]
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    chain = cylstm.load(path)
    assert_close(chain(x), run(x)[0])
    stream = chain.stream(4)
    assert_close(np.stack([stream.step(step) for step in x]), run(x)[0])
    assert onnx.__version__


def test_the_other_reset_of_onnx(rng, tmp_path):
    """from_onnx refuses it; a whole model runs it by other means."""
    pytest.importorskip("onnx")
    model, run = onnx_model(rng, "GRU")
    with pytest.raises(ValueError, match="linear_before_reset: expected 1"):
        cylstm.from_onnx(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    y, y_h = run(x)
    assert_close(cylstm.load(path)(x), {"Y": y, "Y_h": y_h})


@members
@pytest.mark.parametrize("state", [False, True])
def test_written_as_onnx(rng, tmp_path, kind, options, state):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    own = random_lstm(rng, kind, input_size=3, hidden_size=5, **options)
    path = tmp_path / "m.onnx"
    own.to_onnx(path, state=state)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    rows, size = own.num_layers * own._options.directions, 6 if own.batch_first else 4
    h = rng.standard_normal((rows, size, 5)).astype(np.float32) if state else None
    y, h_n = session.run(None, {"x": x} | ({"h_0": h} if state else {}))
    assert_close(own(x, h), (y, h_n))
    if own.batch_first is False:
        again = cylstm.from_onnx(path)
        assert_same_bits(again(x, h), own(x, h))


@kinds
def test_weights_for_keras_and_back(rng, kind):
    for options in ({}, {"bidirectional": True}, {"bias": False}):
        own = random_lstm(rng, kind, input_size=3, hidden_size=5, batch_first=True, **options)

        class Layer:
            name = "own"

            def get_config(self):
                config = {"units": 5, "use_bias": own.bias}  # noqa: B023
                keras = "SimpleRNN" if kind == "RNN" else kind
                if kind == "GRU":
                    config["reset_after"] = True
                inner = {"class_name": keras, "config": config}
                return {"layer": inner} if own.bidirectional else config  # noqa: B023

            def get_weights(self):
                return own.to_keras_weights()  # noqa: B023

        Layer.__name__ = "Bidirectional" if own.bidirectional else (
            "SimpleRNN" if kind == "RNN" else kind
        )  # fmt: skip
        x = rng.standard_normal((4, 6, 3)).astype(np.float32)
        assert_same_bits(cylstm.from_keras(Layer())(x), own(x))
    with pytest.raises(ValueError, match=f"clip: expected an? {kind} as Keras has it"):
        getattr(cylstm, kind)(3, 4, clip=1.0).to_keras_weights()


# Weights of fewer bits


def rounded_rows(weights, v):
    """What a product takes of rows, as numbers."""
    if weights == "bfloat16":
        return bfloat16(to_bfloat16("v", np.asarray(v, np.float32))).astype(np.float64)
    most = np.abs(v).max(axis=-1, keepdims=True).astype(np.float32)
    inverse = np.divide(np.float32(127), most, where=most > 0, out=np.zeros_like(most))
    return np.rint(np.asarray(v, np.float32) * inverse) * (most / np.float32(127)).astype(
        np.float64
    )


def twin(network, weights, x, h):
    """A layer of the dequantized weights, step by step, whose products take rounded rows."""
    p = {name[:-3]: a.astype(np.float64) for name, a in network.dequantize().named_parameters()}
    hidden, steps = network.hidden_size, []
    for x_t in x:
        of_x = rounded_rows(weights, x_t) @ p["weight_ih"].T + p["bias"]
        of_h = rounded_rows(weights, h) @ p["weight_hh"].T
        if "bias_hn" in p:
            r, z = (
                1 / (1 + np.exp(-(of_x + of_h)[:, k * hidden : (k + 1) * hidden])) for k in range(2)
            )
            n = np.tanh(of_x[:, 2 * hidden :] + r * (of_h[:, 2 * hidden :] + p["bias_hn"]))
            h = (1 - z) * n + z * h
        else:
            h = np.tanh(of_x + of_h)
        steps.append(h)
    return np.stack(steps)


@kinds
@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
@pytest.mark.parametrize("isa", kernels.ISAS)
@pytest.mark.parametrize(("inputs", "hidden", "batch"), [(3, 5, 1), (20, 37, 2), (33, 64, 7)])
def test_weights_of_fewer_bits(rng, monkeypatch, kind, weights, isa, inputs, hidden, batch):
    """Against the twin; a number that falls between two of few bits may go either way."""
    monkeypatch.setattr("cylstm.family.Cell", partial(Cell, isa=isa))
    network = random_lstm(rng, kind, input_size=inputs, hidden_size=hidden).quantize(weights)
    assert type(network).__name__ == f"Quantized{kind}"
    x = rng.standard_normal((6, batch, inputs)).astype(np.float32)
    h = rng.standard_normal((1, batch, hidden)).astype(np.float32)
    y, h_n = network(x, h)
    assert np.abs(y - twin(network, weights, x, h[0])).max() < 0.02
    assert np.abs(y[0] - twin(network, weights, x[:1], h[0])[0]).max() < 1e-5
    np.testing.assert_array_equal(h_n[0], y[-1])


@bits
@kinds
@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
def test_bits_of_fewer_bits(rng, tmp_path, kind, weights):
    config = {"input_size": 20, "hidden_size": 80, "num_layers": 2, "bidirectional": True}
    network = random_lstm(rng, kind, **config).quantize(weights)
    x = rng.standard_normal((9, 5, 20)).astype(np.float32)
    lengths = np.array([9, 0, 4, 7, 9])
    cylstm.set_num_threads(1)
    y, h_n = network(x, lengths=lengths)
    for n, length in enumerate(lengths):
        alone, last = network(np.ascontiguousarray(x[:length, n : n + 1]))
        assert_same_bits((alone[:, 0], last[:, 0]), (y[:length, n], h_n[:, n]))
    cylstm.set_num_threads(2)
    assert_same_bits(network(x, lengths=lengths), (y, h_n))
    network.save(tmp_path / "m.safetensors")
    assert_same_bits(cylstm.load(tmp_path / "m.safetensors")(x), network(x))
    assert_same_bits(pickle.loads(pickle.dumps(network))(x), network(x))
    one_way = random_lstm(rng, kind, input_size=20, hidden_size=80).quantize(weights)
    stream = one_way.stream(5)
    assert_same_bits(np.stack([stream.step(step) for step in x]), one_way(x)[0])
    with pytest.raises(TypeError, match=f"forward: {weights} weights do not train"):
        network.forward(x)


@kinds
def test_a_model_of_fewer_bits(rng, tmp_path, kind):
    cls = getattr(cylstm, kind)
    model = Sequential(Embedding(5, 3, seed=0), cls(3, 8, seed=0), Linear(8, 5, seed=0))
    small = model.quantize("int8")
    words = rng.integers(0, 5, (7, 2))
    assert type(small[1]).__name__ == f"Quantized{kind}"
    assert np.abs(small(words) - model(words)).max() < 0.1
    small.save(tmp_path / "m.safetensors")
    assert_same_bits(cylstm.load(tmp_path / "m.safetensors")(words), small(words))
