"""What is in ONNX files, against ONNX Runtime and PyTorch; weights behind operators; bad files."""

import contextlib
import os
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from reference import random_lstm
from strategies import configs
from streamed import check_streamed

onnx = pytest.importorskip("onnx")
helper, from_array = onnx.helper, onnx.numpy_helper.from_array

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks
TOLERANCE = 1e-5
FLOAT = onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def runtime():
    return pytest.importorskip("onnxruntime")


def run(runtime, model, feed):
    content = model if isinstance(model, str) else model.SerializeToString()
    return runtime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feed)


def model_of(nodes, tensors, inputs, outputs, opset=14):
    """A model whose inputs and outputs are given as names and ranks."""

    def values(ranks):
        return [helper.make_tensor_value_info(n, FLOAT, [None] * r) for n, r in ranks.items()]

    own = [from_array(np.asarray(array), name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "test", values(inputs), values(outputs), own)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, ir_version=8, opset_imports=imports)


def save(model, folder, name="model.onnx", **options):
    path = os.path.join(folder, name)
    onnx.save(model, path, **options)
    return path


# LSTM nodes ------------------------------------------------------------------------------------

# As cylstm's, but what ONNX has not, and with what only ONNX has.
activations = st.sampled_from(
    [("Sigmoid", None), ("Tanh", None), ("Relu", None), ("HardSigmoid", (0.2, 0.5)),
     ("HardSigmoid", (0.3, 0.4))]
)  # fmt: skip
triples = st.tuples(activations.filter(lambda a: a[0] != "Relu"), activations, activations)
nodes = st.fixed_dictionaries(
    {
        "direction": st.sampled_from(["forward", "reverse", "bidirectional"]),
        "sizes": st.tuples(st.integers(1, 6), st.integers(1, 6)),
        "bias": st.booleans(),
        "peephole": st.booleans(),
        "clip": st.none() | st.floats(0.25, 4, width=32),
        "input_forget": st.sampled_from([None, 0, 1]),
        "triples": st.none() | st.tuples(triples, triples),
        "lengths": st.booleans(),
        "state": st.booleans(),
        "seed": st.integers(0, 2**32 - 1),
    }
)


def make_node(options, rng):
    """An LSTM node, and its weights."""
    (size, hidden), count = options["sizes"], 1 + (options["direction"] == "bidirectional")

    def draw(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    tensors = {"W": draw(count, 4 * hidden, size), "R": draw(count, 4 * hidden, hidden)}
    if options["bias"]:
        tensors["B"] = draw(count, 8 * hidden)
    if options["peephole"]:
        tensors["P"] = draw(count, 3 * hidden)
    attributes = {"hidden_size": hidden, "direction": options["direction"]}
    for name in ("clip", "input_forget"):
        if options[name] is not None:
            attributes[name] = options[name]
    if options["triples"]:
        used = [a for triple in options["triples"][:count] for a in triple]
        attributes["activations"] = [name for name, _ in used]
        numbers = [pair for _, pair in used if pair]
        if numbers and any(pair != (0.2, 0.5) for pair in numbers):
            for k, name in enumerate(("activation_alpha", "activation_beta")):
                attributes[name] = [pair[k] for pair in numbers]
    given = ["x", "W", "R", "B", "lens" if options["lengths"] else "", *(
        ("h_0", "c_0") if options["state"] else ("", "")), "P"]  # fmt: skip
    given = [n if n in tensors or n in ("x", "lens", "h_0", "c_0") else "" for n in given]
    return helper.make_node("LSTM", given, ["y", "h_n", "c_n"], "node", **attributes), tensors


def side_by_side(y):
    """(T, D, N, H) as (T, N, D H)."""
    return y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1)


@given(nodes)
@settings(max_examples=100)
def test_nodes_have_their_outputs(runtime, options):
    rng = np.random.default_rng(options["seed"])
    node, tensors = make_node(options, rng)
    (size, hidden), count = options["sizes"], len(tensors["W"])
    feed = {"x": rng.standard_normal((5, 3, size)).astype(np.float32)}
    ranks, lengths, state = {"x": 3}, None, None
    if options["lengths"]:
        tensors["lens"] = lengths = rng.integers(1, 6, 3).astype(np.int32)
    if options["state"]:
        state = tuple(rng.standard_normal((2, count, 3, hidden)).astype(np.float32))
        feed |= {"h_0": state[0], "c_0": state[1]}
        ranks |= {"h_0": 3, "c_0": 3}
    model = model_of([node], tensors, ranks, {"y": 4, "h_n": 3, "c_n": 3})
    expected = run(runtime, model, feed)
    y, (h_n, c_n) = cylstm.from_onnx(model)(feed["x"], state, lengths)
    actual = side_by_side(expected[0]), expected[1], expected[2]
    for ours, theirs in zip((y, h_n, c_n), actual, strict=True):
        scale = max(1, np.abs(theirs).max())  # relu is not bounded
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * scale)


@given(nodes)
@settings(max_examples=20)
def test_layout_1_has_the_batch_first(options):
    rng = np.random.default_rng(options["seed"])
    node, tensors = make_node(options | {"lengths": False, "state": False}, rng)
    model = model_of([node], tensors, {"x": 3}, {"y": 4})
    lstm = cylstm.from_onnx(model)
    node.attribute.append(helper.make_attribute("layout", 1))
    turned = cylstm.from_onnx(model_of([node], tensors, {"x": 3}, {"y": 4}))
    assert turned.config == lstm.config | {"batch_first": True}
    x = rng.standard_normal((4, 2, lstm.input_size)).astype(np.float32)
    np.testing.assert_array_equal(turned(x.swapaxes(0, 1))[0].swapaxes(0, 1), lstm(x)[0])


@given(configs(), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_lstms_go_there_and_back(runtime, tmp_path_factory, config, with_state, seed):
    config["proj_size"] = 0  # ONNX has no projection
    rng = np.random.default_rng(seed)
    lstm = random_lstm(rng, **config)
    path = str(tmp_path_factory.mktemp("onnx") / "m.onnx")
    lstm.to_onnx(path, state=with_state)
    onnx.checker.check_model(path, full_check=True)
    lead = (2, 6) if lstm.batch_first else (6, 2)
    x = rng.standard_normal((*lead, lstm.input_size)).astype(np.float32)
    runs = lstm.num_layers * (1 + lstm.bidirectional)
    state = tuple(rng.standard_normal((2, runs, 2, lstm.hidden_size)).astype(np.float32))
    feed = {"x": x} | ({"h_0": state[0], "c_0": state[1]} if with_state else {})
    y, (h_n, c_n) = lstm(x, state if with_state else None)
    for ours, theirs in zip((y, h_n, c_n), run(runtime, path, feed), strict=True):
        scale = max(1, np.abs(ours).max(initial=0))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * scale)
    again = cylstm.from_onnx(path)
    single = {"activations", "clip", "batch_first"}  # kept as float32, and as Transpose nodes
    for name in lstm.config.keys() - single:
        assert again.config[name] == lstm.config[name]
    for name, array in lstm.named_parameters():
        np.testing.assert_array_equal(getattr(again, name), array)
    x = x.swapaxes(0, 1) if lstm.batch_first else x
    y = y.swapaxes(0, 1) if lstm.batch_first else y
    scale = max(1, np.abs(y).max(initial=0))
    np.testing.assert_allclose(
        again(x, state if with_state else None)[0], y, rtol=0, atol=TOLERANCE * scale
    )


def test_a_projection_does_not_go_there(tmp_path):
    with pytest.raises(ValueError, match="proj_size"):
        cylstm.LSTM(3, 4, proj_size=2).to_onnx(tmp_path / "m.onnx")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_what_pytorch_exports_is_one_lstm(runtime, tmp_path, layers, bidirectional, batch_first):
    torch = pytest.importorskip("torch")
    options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": batch_first}
    module = torch.nn.LSTM(3, 4, **options).eval()
    x, path = torch.randn(5, 2, 3), str(tmp_path / "m.onnx")
    torch.onnx.export(module, x, path, dynamo=False, input_names=["x"], dynamic_axes={"x": [0, 1]})
    lstm = cylstm.from_onnx(path)
    assert (lstm.num_layers, lstm.bidirectional) == (layers, bidirectional)
    given = x.numpy().swapaxes(0, 1) if batch_first else x.numpy()
    y, (h_n, _) = lstm(given)
    with torch.no_grad():
        expected, (h, _) = module(x)
    y = y.swapaxes(0, 1) if batch_first else y
    np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(h_n, h, rtol=0, atol=TOLERANCE)


# Where weights come from -----------------------------------------------------------------------

SIMPLE = {
    "direction": "forward", "sizes": (3, 2), "bias": True, "peephole": False, "clip": None,
    "input_forget": None, "triples": None, "lengths": False, "state": False,
}  # fmt: skip


def simple(rng, **changed):
    return make_node(SIMPLE | changed, rng)


def behind_constant(tensors):
    w = tensors.pop("W")
    return [helper.make_node("Constant", [], ["W"], value=from_array(w))]


def behind_identity(tensors):
    tensors["w"] = tensors.pop("W")
    return [helper.make_node("Identity", ["w"], ["v"]), helper.make_node("Identity", ["v"], ["W"])]


def behind_transpose(tensors):
    tensors["w"] = tensors.pop("W").transpose(2, 0, 1)
    return [helper.make_node("Transpose", ["w"], ["W"], perm=[1, 2, 0])]


def behind_slices(tensors):
    w = tensors.pop("W")
    tensors |= {"w": np.concatenate([w[0], np.ones((3, 3), "f4")])[::-1].copy(),
                "a": np.array([-1]), "b": np.array([2]), "k": np.array([0]), "s": np.array([-1]),
                "axes": np.array([0])}  # fmt: skip
    return [
        helper.make_node("Slice", ["w", "a", "b", "k", "s"], ["v"]),
        helper.make_node("Unsqueeze", ["v", "axes"], ["W"]),
    ]


def behind_concat(tensors):
    w = tensors.pop("W")
    tensors |= {"first": w[:, :3], "rest": w[:, 3:]}
    return [helper.make_node("Concat", ["first", "rest"], ["W"], axis=1)]


def behind_split(tensors):
    w = tensors.pop("W")
    tensors |= {"w": np.concatenate([w, w + 1]), "parts": np.array([1, 1])}
    return [helper.make_node("Split", ["w", "parts"], ["W", "other"], axis=0)]


def behind_reshape(tensors):
    tensors |= {"w": tensors.pop("W").ravel(), "shape": np.array([1, -1, 3])}
    return [helper.make_node("Reshape", ["w", "shape"], ["W"])]


def behind_gather(tensors):
    w = tensors.pop("W")
    tensors |= {"w": np.stack([w + 1, w]), "one": np.array(1)}
    return [helper.make_node("Gather", ["w", "one"], ["W"])]


def behind_cast(tensors):
    tensors["w"] = tensors["W"] = tensors["W"].astype(np.float16)
    del tensors["W"]
    return [helper.make_node("Cast", ["w"], ["W"], to=FLOAT)]


def behind_dequantize(tensors):
    w = tensors.pop("W")
    tensors |= {"w": (w * 40).astype(np.int8), "s": np.array(0.025, "f4"), "z": np.array(3, "i1")}
    return [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["W"])]


BEHIND = [behind_constant, behind_identity, behind_transpose, behind_slices, behind_concat,
          behind_split, behind_reshape, behind_gather, behind_cast, behind_dequantize]  # fmt: skip


@pytest.mark.parametrize("behind", BEHIND)
def test_weights_may_stand_behind_operators(runtime, rng, behind):
    node, tensors = simple(rng)
    before = behind(tensors)
    model = model_of([*before, node], tensors, {"x": 3}, {"y": 4})
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    (expected,) = run(runtime, model, {"x": x})
    y, _ = cylstm.from_onnx(model)(x)
    np.testing.assert_allclose(y, side_by_side(expected), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["float_data", "float16", "bfloat16", "double"])
def test_tensors_in_every_form(rng, kind):
    node, tensors = simple(rng)
    model = model_of([node], tensors, {"x": 3}, {"y": 4})
    expected = {n: a.astype(np.float16).astype("f4") for n, a in tensors.items()}
    types = {"float_data": FLOAT, "double": 11, "float16": 10, "bfloat16": 16}
    for tensor in model.graph.initializer:
        array = expected[tensor.name]
        if kind == "bfloat16":  # what it can hold
            array = (array.view("u4") & 0xFFFF0000).view("f4")
            expected[tensor.name] = array
        tensor.CopyFrom(helper.make_tensor(tensor.name, types[kind], array.shape, array.ravel()))
    lstm = cylstm.from_onnx(model)
    assert lstm.dtype == ("float64" if kind == "double" else "float32")
    order = np.r_[0:2, 4:6, 6:8, 2:4]  # i o f c to i f g o
    np.testing.assert_array_equal(lstm.weight_ih_l0, expected["W"][0, order])


def test_graphs_in_graphs_are_searched_and_the_same_lstm_counts_once(rng):
    node, tensors = simple(rng)
    value = helper.make_tensor_value_info("y", FLOAT, None)
    other = helper.make_node("LSTM", node.input, ["y"], "other", hidden_size=2)
    branches = {"then_branch": helper.make_graph([node], "then", [], [value]),
                "else_branch": helper.make_graph([other], "else", [], [value])}  # fmt: skip
    chosen = helper.make_node("If", ["flag"], ["z"], "if", **branches)
    tensors["flag"] = np.array(True)
    assert cylstm.from_onnx(model_of([chosen], tensors, {"x": 3}, {"z": 4})).hidden_size == 2
    other.input[2] = "R2"
    branches["else_branch"] = helper.make_graph([other], "else", [], [value])
    chosen = helper.make_node("If", ["flag"], ["z"], "if", **branches)
    model = model_of([chosen], tensors | {"R2": tensors["R"] + 1}, {"x": 3}, {"z": 4})
    with pytest.raises(ValueError, match="node: expected one of 'other', 'node', got none"):
        cylstm.from_onnx(model)
    first, second = (cylstm.from_onnx(model, name) for name in ("node", "other"))
    np.testing.assert_array_equal(second.weight_hh_l0, first.weight_hh_l0 + 1)


def test_a_later_node_begins_there(tmp_path, rng):
    cylstm.LSTM(3, 4, num_layers=3).to_onnx(tmp_path / "m.onnx")
    names = [n.name for n in onnx.load(tmp_path / "m.onnx").graph.node if n.op_type == "LSTM"]
    layers = [cylstm.from_onnx(tmp_path / "m.onnx", name).num_layers for name in names]
    assert layers == [3, 2, 1]


def test_stored_initial_states_are_told_of(rng):
    node, tensors = simple(rng, state=True)
    tensors |= {"h_0": np.zeros((1, 2, 2), "f4"), "c_0": np.zeros((1, 2, 2), "f4")}
    model = model_of([node], tensors, {"x": 3}, {"y": 4})
    cylstm.from_onnx(model)
    tensors["c_0"][0, 0, 1] = 1
    with pytest.warns(UserWarning, match="the model holds its initial state"):
        cylstm.from_onnx(model_of([node], tensors, {"x": 3}, {"y": 4}))


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_quantised_weights_are_dequantised(runtime, rng, kind, by_channel):
    node, tensors = simple(rng, direction="bidirectional")
    given, whole = dict(tensors), dict(tensors)
    for name in ("W", "R"):
        w = tensors[name].swapaxes(1, 2)
        axes = 1 if by_channel else (1, 2)
        low, high = np.minimum(w.min(axes), 0), np.maximum(w.max(axes), 0)
        scale = ((high - low) / 255).astype(np.float32)
        if by_channel:  # ONNX Runtime takes a scale for each column only without a zero point
            scale = (np.abs(w).max(axes) / 127).astype(np.float32)
        bound = np.iinfo(kind)
        zero = np.zeros_like(scale) if by_channel else np.round(bound.min - low / scale)
        if by_channel and kind == "uint8":
            zero += 128
        s, z = (a.reshape(2, 1, -1) for a in (scale, zero))
        given[name] = np.clip(np.round(w / s) + z, bound.min, bound.max).astype(kind)
        given |= {f"{name}_scale": scale, f"{name}_zero": zero.astype(kind)}
        whole[name] = ((given[name] - z) * s).swapaxes(1, 2).astype(np.float32)
    inputs = ["x", "W", "R", "B", "", "", "", "", "W_scale", "W_zero", "R_scale", "R_zero"]
    quantised = helper.make_node("DynamicQuantizeLSTM", inputs, ["y"], domain="com.microsoft",
                                 hidden_size=2, direction="bidirectional")  # fmt: skip
    lstm = cylstm.from_onnx(model_of([quantised], given, {"x": 3}, {"y": 4}))
    expected = cylstm.from_onnx(model_of([node], whole, {"x": 3}, {"y": 4}))
    for name, array in expected.named_parameters():
        np.testing.assert_allclose(getattr(lstm, name), array, rtol=1e-6, atol=1e-7)
    if not by_channel:
        x = rng.standard_normal((4, 2, 3)).astype(np.float32)
        (y,) = run(runtime, model_of([quantised], given, {"x": 3}, {"y": 4}), {"x": x})
        # The runtime rounds x and h to 8 bits too.
        np.testing.assert_allclose(lstm(x)[0], side_by_side(y), rtol=0, atol=0.05)


# Chains ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["step", "state", "all"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_chains_of_pytorch_score(tmp_path, last, layers, bidirectional):
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(11, 3)
            self.lstm = torch.nn.LSTM(3, 4, layers, bidirectional=bidirectional, batch_first=True)
            self.head = torch.nn.Sequential(
                torch.nn.Linear(4 if last == "state" else 4 * (1 + bidirectional), 5),
                torch.nn.LeakyReLU(0.2), torch.nn.Dropout(0.5), torch.nn.Linear(5, 2),
            )  # fmt: skip

        def forward(self, x):
            y, (h, _) = self.lstm(self.embedding(x))
            y = {"step": y[:, -1], "state": h[-1], "all": y}[last]
            return torch.softmax(self.head(y), dim=-1)

    model, path = Model().eval(), str(tmp_path / "m.onnx")
    x = torch.randint(0, 11, (3, 6))
    torch.onnx.export(model, x, path, dynamo=False, input_names=["x"], dynamic_axes={"x": [0, 1]})
    loaded = cylstm.load(path)
    for ids in (x, torch.randint(0, 11, (2, 9))):
        with torch.no_grad():
            expected = model(ids)
        np.testing.assert_allclose(loaded(ids.numpy()), expected, rtol=0, atol=TOLERANCE)


@given(nodes, st.sampled_from([0, 1, 2]))
@settings(max_examples=50)
def test_chains_of_operators_score(runtime, options, output):
    rng = np.random.default_rng(options["seed"])
    node, tensors = make_node(options, rng)
    size, hidden = options["sizes"]
    count = len(tensors["W"])
    if options["lengths"]:
        tensors["lens"] = rng.integers(1, 6, 3).astype(np.int32)
    if options["state"]:
        states = rng.standard_normal((2, count, 3, hidden)).astype(np.float32)
        tensors |= dict(zip(["h_0", "c_0"], states, strict=True))
    width = (5 if output == 0 else 1) * count * hidden
    tensors |= {
        "flat": np.array([3, -1]), "M": rng.standard_normal((width, 4)).astype("f4") / 5,
        "m": rng.standard_normal(4).astype("f4"), "G": rng.standard_normal((2, 4)).astype("f4"),
        "g": rng.standard_normal(2).astype("f4"), "axes": np.array([1]),
    }  # fmt: skip
    perm = [2, 0, 1, 3] if output == 0 else [1, 0, 2]
    chain = [
        helper.make_node("Identity", ["given"], ["x"]),
        node,
        helper.make_node("Transpose", [["y", "h_n", "c_n"][output]], ["t"], perm=perm),
        helper.make_node("Reshape", ["t", "flat"], ["r"]),
        helper.make_node("Elu", ["r"], ["e"], alpha=0.5),
        helper.make_node("HardSigmoid", ["e"], ["s"], alpha=0.3),
        helper.make_node("MatMul", ["s", "M"], ["p"]),
        helper.make_node("Add", ["m", "p"], ["q"]),
        helper.make_node("Unsqueeze", ["q", "axes"], ["u"]),
        helper.make_node("Squeeze", ["u", "axes"], ["v"]),
        helper.make_node("Gemm", ["v", "G", "g"], ["w"], transB=1, alpha=0.5, beta=2.0),
        helper.make_node("LogSoftmax", ["w"], ["out"], axis=1),
    ]
    model = model_of(chain, tensors, {"given": 3}, {"out": 2})
    x = rng.standard_normal((5, 3, size)).astype(np.float32)
    (expected,) = run(runtime, model, {"given": x})
    with tempfile.TemporaryDirectory() as folder:
        read = cylstm.load(save(model, folder))
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(read(x), expected, rtol=0, atol=TOLERANCE * scale)
    streams = check_streamed(read, x, expected, TOLERANCE * scale, time=0)
    assert not (streams and (options["lengths"] or output == 0))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("output", ["y", "h_n", "c_n"])
def test_sequences_of_no_step_score(runtime, tmp_path, rng, direction, output):
    node, tensors = simple(rng, direction=direction, lengths=True)
    tensors["lens"] = np.array([0, 4, 2], np.int32)
    model = model_of([node], tensors, {"x": 3}, {output: 4 if output == "y" else 3})
    x = rng.standard_normal((4, 3, 3)).astype(np.float32)
    (expected,) = run(runtime, model, {"x": x})
    actual = cylstm.load(save(model, tmp_path))(x)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("output", [0, 1, 2])
def test_stored_states_of_layers_are_theirs(runtime, tmp_path, rng, layout, output):
    first, second = ([f"x{k}", f"W{k}", f"R{k}", "", "", f"h{k}", f"c{k}"] for k in (0, 1))
    names = [f"{name}1" for name in ("y", "h_n", "c_n")]
    nodes = [
        helper.make_node("LSTM", first, ["y0"], hidden_size=4),
        helper.make_node("Squeeze", ["y0", "axis"], ["x1"]),
        helper.make_node("LSTM", second, names, hidden_size=4),
        helper.make_node("Identity", [names[output]], ["out"]),
    ]
    tensors = {"axis": np.array([1])}
    for k in (0, 1):
        for name, rows in (("W", 16), ("R", 16), ("h", 2), ("c", 2)):
            tensors[f"{name}{k}"] = rng.standard_normal((1, rows, 4)).astype(np.float32)
    x = rng.standard_normal((5, 2, 4)).astype(np.float32)
    model = model_of(nodes, tensors, {"x0": 3}, {"out": 4 if output == 0 else 3})
    (expected,) = run(runtime, model, {"x0": x})
    if layout:  # which the runtime does not know
        for node in (nodes[0], nodes[2]):
            node.attribute.append(helper.make_attribute("layout", 1))
        tensors["axis"] = np.array([2])
        for name in ("h0", "c0", "h1", "c1"):
            tensors[name] = tensors[name].swapaxes(0, 1)
        model = model_of(nodes, tensors, {"x0": 3}, {"out": 4 if output == 0 else 3})
        x, order = x.swapaxes(0, 1), (2, 0, 1, 3) if output == 0 else (1, 0, 2)
        expected = expected.transpose(order)
    read = cylstm.load(save(model, tmp_path))
    np.testing.assert_allclose(read(x), expected, rtol=0, atol=TOLERANCE)
    assert check_streamed(read, x, expected, TOLERANCE, time=layout)
    with pytest.raises(ValueError, match="batch_size: expected 2, of the initial state, got 3"):
        read.stream(3)
    stream = read.stream(2)
    first = stream.step(x.take(0, layout))
    stream.step(x.take(1, layout))
    stream.reset([1])
    again = np.moveaxis(stream.step(x.take(0, layout)), 1 - layout, 0)
    first = np.moveaxis(first, 1 - layout, 0)
    np.testing.assert_array_equal(again[1], first[1])
    assert np.any(again[0] != first[0])


def test_what_cannot_be_run_is_named(tmp_path, rng):
    node, tensors = simple(rng)
    odd = helper.make_node("RandomNormalLike", ["y"], ["z"], "odd one")
    path = save(model_of([node, odd], tensors, {"x": 3}, {"z": 4}), tmp_path)
    with pytest.raises(ValueError, match=r"node 'odd one': operator 'RandomNormalLike': not one"):
        cylstm.load(path)
    custom = helper.make_node("LSTM", node.input, ["y"], "custom", domain="com.other")
    path = save(model_of([custom], tensors, {"x": 3}, {"y": 4}), tmp_path)
    with pytest.raises(ValueError, match=r"node 'custom': operator 'com.other.LSTM': not one"):
        cylstm.load(path)
    with pytest.raises(ValueError, match=r"found \['com.other.LSTM'\], and cylstm reads ONNX's"):
        cylstm.from_onnx(path)


# External data and bad files -------------------------------------------------------------------


def external(folder, rng, location="weights.bin", **about):
    """A model whose weights lie in another file."""
    os.makedirs(folder, exist_ok=True)
    node, tensors = simple(rng)
    model = model_of([node], tensors, {"x": 3}, {"y": 4})
    with open(os.path.join(folder, "weights.bin"), "wb") as file:
        for tensor in model.graph.initializer:
            place = {"location": location, "offset": str(file.tell()),
                     "length": str(len(tensor.raw_data))} | about  # fmt: skip
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
    return save(model, folder), tensors


def test_external_data_are_read(tmp_path, rng):
    path, tensors = external(tmp_path, rng)
    lstm = cylstm.from_onnx(path)
    np.testing.assert_array_equal(lstm.weight_hh_l0[:2], tensors["R"][0, :2])
    with pytest.raises(ValueError, match="expected a path to find"):
        cylstm.from_onnx(onnx.load(path, load_external_data=False))


def test_external_data_count_as_the_models_size(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("cylstm.io.files._FREE", 0)
    lstm = cylstm.LSTM(30, 40, seed=0)
    lstm.to_onnx(tmp_path / "whole.onnx")
    model = onnx.load(tmp_path / "whole.onnx")
    options = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    path = save(model, tmp_path, **options)
    assert 16 * os.path.getsize(path) < os.path.getsize(tmp_path / "weights")
    np.testing.assert_array_equal(cylstm.from_onnx(path).weight_hh_l0, lstm.weight_hh_l0)


@pytest.mark.parametrize(
    "location",
    ["../outside.bin", "/etc/passwd", "sub/../../outside.bin", "link.bin", "linked/outside.bin"],
)
def test_external_data_elsewhere_are_not_read(tmp_path, rng, location):
    (tmp_path / "outside.bin").write_bytes(b"\0" * 10_000)
    os.makedirs(tmp_path / "inside" / "sub")
    os.symlink(tmp_path / "outside.bin", tmp_path / "inside" / "link.bin")
    os.symlink(tmp_path, tmp_path / "inside" / "linked")
    path, _ = external(tmp_path / "inside", rng, location)
    with pytest.raises(ValueError, match="expected a file in the folder of"):
        cylstm.from_onnx(path)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"offset": "1000"}, "got a file of"),
        ({"offset": "-8"}, "got a file of"),
        ({"offset": "x"}, "invalid literal"),
        ({"length": "1" * 30}, "expected 96 bytes|expected 64 bytes"),
        ({"location": "."}, "expected a plain file"),
        ({"location": "pipe"}, "expected a plain file"),
    ],
)
def test_external_data_that_lie_are_refused(tmp_path, rng, about, message):
    os.mkfifo(tmp_path / "pipe")
    path, _ = external(tmp_path, rng, **about)
    with pytest.raises(ValueError, match=message):
        cylstm.from_onnx(path)


def changed(rng, change, **options):
    node, tensors = simple(rng, **options)
    change(node, tensors)
    return model_of([node], tensors, {"x": 3}, {"y": 4})


def attribute(name, value):
    def change(node, tensors):
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


BAD = {
    "direction": (attribute("direction", "sideways"), "direction: expected one of three"),
    "activation": (attribute("activations", ["Sigmoid", "Softsign", "Tanh"]), "got 'Softsign'"),
    "type": (attribute("direction", 3), "direction: expected ONNX's type 3, got 2"),
    "activations": (attribute("activations", ["Sigmoid"]), "activations: expected 3"),
    "hidden size": (attribute("hidden_size", 3), "expected hidden_size units"),
    "rank": (lambda n, t: t.update(W=t["W"][0]), "W: expected 1 directions"),
    "shape": (lambda n, t: t.update(R=t["R"][:, :, :1]), "units|shape"),
    "integers": (lambda n, t: t.update(W=t["W"].astype(int)), "expected real numbers"),
    "bias": (lambda n, t: t.update(B=t["B"][:, :7]), "expected two biases"),
    "weights missing": (lambda n, t: t.pop("W"), "expected W to be constant"),
    "empty": (lambda n, t: t.update(W=np.zeros((1, 8, 0), "f4")), "input_size"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_node_is_an_error_with_a_name(tmp_path, rng, change, message):
    path = save(changed(rng, change), tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        cylstm.from_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("behind", [
    [helper.make_node("Constant", [], ["h"], value="text")],
    [helper.make_node("Constant", [], ["c"], value_ints=[0, 0]),
     helper.make_node("Split", ["c"], ["d", "e", "h"], split=[1, 1])],
    [helper.make_node("ConstantOfShape", ["x"], ["h"], value="text")],
], ids=["text", "too few parts", "text of a shape"])  # fmt: skip
@pytest.mark.parametrize("read", [cylstm.from_onnx, cylstm.load])
def test_a_bad_operator_behind_a_state_is_an_error(tmp_path, rng, read, behind):
    node, tensors = simple(rng, state=True)
    node.input[5] = node.input[6] = "h"
    path = save(model_of([*behind, node], tensors, {"x": 3}, {"y": 4}), tmp_path)
    if read is cylstm.from_onnx and behind[0].op_type == "ConstantOfShape":
        assert read(path).hidden_size == 2  # a state that depends on the input is none of its own
    else:
        with pytest.raises(
            ValueError, match=r"node .*: (value: expected|list index|operator|attr)"
        ):
            read(path)


def doubled(count):
    """A value that doubles with each of so many nodes."""
    return [helper.make_node("Concat", [f"v{k}"] * 2, [f"v{k + 1}"], axis=0) for k in range(count)]


def test_bombs_are_refused(tmp_path, rng):
    node, tensors = simple(rng)
    node.input[1] = "v40"
    model = model_of([*doubled(40), node], tensors | {"v0": tensors["W"]}, {"x": 3}, {"y": 4})
    with pytest.raises(ValueError, match="expected at most"):
        cylstm.from_onnx(model)
    node.input[1] = "v"
    rows = helper.make_node("Gather", ["M", "index"], ["v"])
    tensors |= {"M": np.ones((1, 10**5), "f4"), "index": np.zeros(10**5, int)}
    with pytest.raises(ValueError, match="far more than it has"):
        cylstm.from_onnx(model_of([rows, node], tensors, {"x": 3}, {"y": 4}))


def test_weights_that_many_nodes_share_are_bounded(tmp_path):
    tensors = {"W": np.zeros((1, 8, 10**5), "f4"), "R": np.zeros((1, 8, 2), "f4")}
    nodes = [
        helper.make_node("LSTM", [f"x{k}", "W", "R"], [f"y{k}"], clip=1.0 + k, hidden_size=2)
        for k in range(100)
    ]
    inputs, outputs = ({f"{name}{k}": 3 for k in range(100)} for name in "xy")
    path = save(model_of(nodes, tensors, inputs, outputs), tmp_path)
    with pytest.raises(ValueError, match="expected at most"):
        cylstm.from_onnx(path)


def test_circles_and_depths_end(rng):
    node, tensors = simple(rng)
    node.input[1] = "v"
    circle = [
        helper.make_node("Identity", ["u"], ["v"]),
        helper.make_node("Identity", ["v"], ["u"]),
    ]
    with pytest.raises(ValueError, match="expected W to be constant"):
        cylstm.from_onnx(model_of([*circle, node], tensors, {"x": 3}, {"y": 4}))
    long = [helper.make_node("Identity", [f"v{k}"], [f"v{k + 1}"]) for k in range(10**4)]
    node.input[1] = f"v{10**4}"
    with pytest.raises(ValueError, match="expected W to be constant"):
        cylstm.from_onnx(
            model_of([*long, node], tensors | {"v0": tensors["W"]}, {"x": 3}, {"y": 4})
        )


def test_tensors_that_lie_are_refused(tmp_path, rng):
    node, tensors = simple(rng)
    model = model_of([node], tensors, {"x": 3}, {"y": 4})
    for dims, message in (
        ([1, 8, 4], "expected 128 bytes"),
        ([2**40, 2**20, 3], "expected a shape"),
        ([2**30, 2**30, 2**30], "expected at most"),
        ([-1, 8, 3], "expected a shape"),
    ):
        model.graph.initializer[0].dims[:] = dims
        with pytest.raises(ValueError, match=message):
            cylstm.from_onnx(save(model, tmp_path))


@given(st.data())
@settings(max_examples=100)
def test_a_changed_byte_is_read_or_refused(tmp_path_factory, data):
    node, tensors = simple(np.random.default_rng(0))
    content = bytearray(model_of([node], tensors, {"x": 3}, {"y": 4}).SerializeToString())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("flip") / "m.onnx"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    for read in (cylstm.from_onnx, cylstm.load):
        with contextlib.suppress(ValueError, FileNotFoundError):  # any other fails the test
            read(path)


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(TypeError, match="source: expected a path or a ModelProto, got int"):
        cylstm.from_onnx(3)
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ValueError, match="text: expected an ONNX model"):
        cylstm.from_onnx(tmp_path / "text")


def test_without_onnx_the_message_says_what_to_install(tmp_path, monkeypatch):
    cylstm.LSTM(3, 4).to_onnx(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for use in (cylstm.from_onnx, cylstm.load, cylstm.LSTM(3, 4).to_onnx):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'cylstm\[onnx\]'"):
            use(tmp_path / "m.onnx")
