"""Graphs that are no chains, with LSTMs in them, against ONNX Runtime; what is refused."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

import cylstm  # noqa: E402
from cylstm.formats.onnx_chain import chain  # noqa: E402
from cylstm.formats.onnx_file import opened  # noqa: E402
from cylstm.formats.onnx_network import Network, network  # noqa: E402
from cylstm.formats.onnx_shapes import Size  # noqa: E402
from test_onnx import (  # noqa: E402
    FLOAT,
    TOLERANCE,
    attribute,
    changed,
    make_node,
    model_of,
    nodes,
    run,
    runtime,
    save,
    side_by_side,
    simple,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks
__all__ = ["runtime"]  # the fixture
helper = onnx.helper
DATA = os.path.join(os.path.dirname(__file__), "data")
OUTPUTS = {"y": 4, "h_n": 3, "c_n": 3}


def assert_same(model, runtime, feed):
    """The graph gives the numbers of ONNX Runtime."""
    expected = run(runtime, model, feed)
    found = network(opened(model))(feed)
    found = list(found.values()) if isinstance(found, dict) else [found]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        scale = max(1, np.abs(theirs).max(initial=0))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * scale)


def with_lengths(model):
    """The model, with the lengths as an input of the graph."""
    model.graph.input.append(helper.make_tensor_value_info("lens", onnx.TensorProto.INT32, [None]))
    return model


@given(nodes)
@settings(max_examples=60)
def test_nodes_in_graphs_have_their_outputs(runtime, options):
    rng = np.random.default_rng(options["seed"])
    node, tensors = make_node(options, rng)
    (size, hidden), count = options["sizes"], len(tensors["W"])
    feed = {"x": rng.standard_normal((5, 3, size)).astype(np.float32)}
    if options["state"]:
        states = rng.standard_normal((2, count, 3, hidden)).astype(np.float32)
        feed |= dict(zip(["h_0", "c_0"], states, strict=True))
    model = model_of([node], tensors, dict.fromkeys(feed, 3), OUTPUTS)
    if options["lengths"]:
        feed["lens"] = rng.integers(1, 6, 3).astype(np.int32)
        model = with_lengths(model)
    assert_same(model, runtime, feed)


@pytest.mark.parametrize("wanted", [["y"], ["h_n"], ["c_n"], ["c_n", "y"]], ids="".join)
def test_outputs_without_a_name_are_none(runtime, rng, wanted):
    node, tensors = simple(rng, bias=False)
    node.output[:] = [name if name in wanted else "" for name in OUTPUTS]
    again, _ = simple(rng, bias=False)
    again.name = "again"
    again.output[:] = ["z"]  # its inputs that are not given are not what the first left out
    again.input[:] = ["x", "W", "R", "", "", "", ""]
    outputs = {name: OUTPUTS[name] for name in wanted} | {"z": 4}
    model = model_of([node, again], tensors, {"x": 3}, outputs)
    assert_same(model, runtime, {"x": rng.standard_normal((5, 2, 3)).astype(np.float32)})


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_layout_1_has_the_batch_first(rng, direction):
    node, tensors = simple(rng, direction=direction, state=True)
    count = len(tensors["W"])
    ranks = {"x": 3, "h_0": 3, "c_0": 3}
    feed = {"x": rng.standard_normal((5, 3, 3)).astype(np.float32)}
    feed |= {n: rng.standard_normal((count, 3, 2)).astype(np.float32) for n in ("h_0", "c_0")}
    plain = network(opened(model_of([node], tensors, ranks, OUTPUTS)))(feed)
    node.attribute.append(helper.make_attribute("layout", 1))  # which the runtime does not know
    turned = network(opened(model_of([node], tensors, ranks, OUTPUTS)))
    found = turned({name: array.swapaxes(0, 1) for name, array in feed.items()})
    np.testing.assert_array_equal(found["y"].transpose(1, 2, 0, 3), plain["y"])
    for name in ("h_n", "c_n"):
        np.testing.assert_array_equal(found[name].swapaxes(0, 1), plain[name])


@pytest.mark.parametrize("name", ["two", "bi2", "tagger"])
def test_chains_score_the_same_as_graphs(rng, name):
    path = f"{DATA}/torch_{name}.onnx"
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    x = np.abs(x[..., 0]).astype(int) if name == "tagger" else x
    np.testing.assert_allclose(
        chain(opened(path))(x), network(opened(path))(x), rtol=0, atol=TOLERANCE
    )


def test_a_branch_is_chosen(runtime, rng):
    node, tensors = simple(rng)
    value = helper.make_tensor_value_info("y", FLOAT, None)
    other = helper.make_node("LSTM", [*node.input], ["y"], "other", hidden_size=2)
    other.input[1] = "V"
    own = [onnx.numpy_helper.from_array(tensors["W"] * 2, "V")]
    branches = {"then_branch": helper.make_graph([node], "then", [], [value]),
                "else_branch": helper.make_graph([other], "else", [], [value], own)}  # fmt: skip
    before = helper.make_node("Tanh", ["given"], ["x"])
    chosen = helper.make_node("If", ["flag"], ["z"], "if", **branches)
    model = model_of([before, chosen], tensors, {"given": 3}, {"z": 4})
    model.graph.input.append(helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []))
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    for flag in (True, False):
        assert_same(model, runtime, {"given": x, "flag": np.array(flag)})


def test_layers_in_a_branch_are_one_lstm():
    two = onnx.load(f"{DATA}/torch_two.onnx")
    graph = two.graph
    body = helper.make_graph(graph.node, "body", [], graph.output, graph.initializer)
    node = helper.make_node("If", ["flag"], ["z"], then_branch=body, else_branch=body)
    flag = helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])
    whole = [node], "whole", [*graph.input, flag], [onnx.ValueInfoProto(name="z")]
    model = helper.make_model(helper.make_graph(*whole), opset_imports=two.opset_import)
    assert cylstm.from_onnx(model).num_layers == 2


def other_node(rng, kind, direction, **about):
    """A GRU or RNN, and its tensors."""
    count, gates = 1 + (direction == "bidirectional"), {"GRU": 3, "RNN": 1}[kind]
    shapes = {"W": (count, gates * 2, 3), "R": (count, gates * 2, 2), "B": (count, gates * 4),
              "h": (count, 4, 2)}  # fmt: skip
    tensors = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    node = helper.make_node(kind, ["x", "W", "R", "B", "", "h"], ["y", "h_n"], hidden_size=2,
                            direction=direction, **about)  # fmt: skip
    return node, tensors


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("kind", "about"), [("GRU", {"linear_before_reset": 1}), ("RNN", {})])
def test_other_recurrent_nodes_run(runtime, rng, kind, about, direction):
    node, tensors = other_node(rng, kind, direction, **about)
    outputs = {"y": 4, "h_n": 3}
    x = rng.standard_normal((5, 4, 3)).astype(np.float32)
    assert_same(model_of([node], tensors, {"x": 3}, outputs), runtime, {"x": x})
    node.attribute.append(helper.make_attribute("clip", 0.5))
    assert_same(model_of([node], tensors, {"x": 3}, outputs), runtime, {"x": x})
    node.input[4] = "lens"
    model = with_lengths(model_of([node], tensors, {"x": 3}, outputs))
    assert_same(model, runtime, {"x": x, "lens": np.array([5, 2, 1, 4], np.int32)})


def test_a_gru_that_resets_before_runs_by_other_means(runtime, rng):
    node, tensors = other_node(rng, "GRU", "forward")
    outputs = {"y": 4, "h_n": 3}
    model = model_of([node], tensors, {"x": 3}, outputs)
    assert_same(model, runtime, {"x": rng.standard_normal((5, 4, 3)).astype(np.float32)})
    with pytest.raises(ValueError, match="linear_before_reset: expected 1"):
        cylstm.from_onnx(model)
    node.attribute.append(helper.make_attribute("clip", 1.0))
    with pytest.raises(ValueError, match="GRU: expected none with clip"):
        network(opened(model_of([node], tensors, {"x": 3}, outputs)))
    del node.attribute[-1]
    node.input[4] = "lens"
    with pytest.raises(ValueError, match="GRU: expected none with sequence_lens"):
        network(opened(with_lengths(model_of([node], tensors, {"x": 3}, outputs))))


def test_quantised_nodes_are_run_with_their_weights_in_float32(rng):
    tensors = {n: rng.integers(-99, 99, (1, rows, 8)).astype(np.int8)
               for n, rows in (("W", 3), ("R", 2))}  # fmt: skip
    tensors |= {f"{n}_scale": np.array([0.01], np.float32) for n in "WR"}
    tensors |= {f"{n}_zero": np.array([3], np.int8) for n in "WR"}
    inputs = ["x", "W", "R", "", "", "", "", "", "W_scale", "W_zero", "R_scale", "R_zero"]
    node = helper.make_node("DynamicQuantizeLSTM", inputs, ["y"], hidden_size=2,
                            domain="com.microsoft")  # fmt: skip
    model = model_of([node], tensors, {"x": 3}, {"y": 4})
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    found = network(opened(model))(x)
    np.testing.assert_array_equal(side_by_side(found), cylstm.from_onnx(model)(x)[0])


def test_lstms_of_which_only_the_states_are_used_are_all_found(rng):
    first, tensors = simple(rng)
    first.output[:] = ["", "h"]
    second, _ = simple(rng)
    second.name, second.output[:] = "second", ["", "k"]
    second.input[2] = "S"
    model = model_of([first, second], tensors | {"S": tensors["R"] + 1}, {"x": 3}, {"h": 3, "k": 3})
    with pytest.raises(ValueError, match="node: expected one of 'node', 'second', got none"):
        cylstm.from_onnx(model)


# Calls -----------------------------------------------------------------------------------------


def two_inputs(rng, folder):
    """A graph of two inputs and two outputs."""
    node, tensors = simple(rng)
    both = helper.make_node("Add", ["y", "other"], ["z"], "both")
    return save(model_of([node, both], tensors, {"x": 3, "other": 4}, {"z": 4, "y": 4}), folder)


def test_inputs_are_given_by_name(tmp_path, rng):
    model = cylstm.load(two_inputs(rng, tmp_path))
    x = rng.standard_normal((5, 2, 3))
    other = rng.standard_normal((5, 1, 2, 2))
    found = model(x=x, other=other)
    assert list(found) == ["z", "y"]
    np.testing.assert_allclose(found["z"], found["y"] + other, rtol=1e-6)
    again = model({"x": x, "other": other})
    np.testing.assert_array_equal(found["z"], again["z"])
    for wrong in ({"x": x}, {"x": x, "other": other, "more": x}):
        with pytest.raises(TypeError, match=r"expected the inputs \['x', 'other'\], got"):
            model(wrong)
    with pytest.raises(TypeError, match=r"expected the inputs \['x', 'other'\] by name"):
        model(x)


def test_what_comes_back_is_the_callers(tmp_path, rng):
    node, tensors = simple(rng)
    passed = helper.make_node("Identity", ["x"], ["z"])
    outputs = {"y": 4, "z": 3, "R": 3}
    model = cylstm.load(save(model_of([node, passed], tensors, {"x": 3}, outputs), tmp_path))
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    first = model(x)
    for array in first.values():
        array[...] = 7
    np.testing.assert_array_equal(model(x)["R"], tensors["R"])
    np.testing.assert_array_equal(model(x)["z"], x)
    assert not (x == 7).any()


def test_models_are_pickled_and_serve_many_threads(tmp_path, rng):
    model = cylstm.load(two_inputs(rng, tmp_path))
    assert isinstance(model, Network)
    feeds = [{"x": rng.standard_normal((5, n, 3)), "other": rng.standard_normal((5, 1, n, 2))}
             for n in range(1, 9)]  # fmt: skip
    expected = [model(feed)["z"] for feed in feeds]
    again = pickle.loads(pickle.dumps(model))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for ours, theirs in zip(pool.map(again, feeds), expected, strict=True):
                np.testing.assert_array_equal(ours["z"], theirs)


@pytest.mark.parametrize("as_graph", [False, True], ids=["chain", "graph"])
def test_inputs_are_such_as_the_file_declares(rng, as_graph):
    node, tensors = simple(rng)
    model = model_of([node], tensors, {"x": 3}, {"y": 4})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
    score = (network if as_graph else chain)(opened(model))
    assert score(np.zeros((5, 2, 3))).dtype == np.float32
    for wrong in ((4, 2, 3), (5, 3), (5, 2, 3, 1)):
        with pytest.raises(ValueError, match=r"x: expected the shape \(5, any, any\), got"):
            score(np.zeros(wrong))
    with pytest.raises(TypeError, match="x: expected float32, got complex128"):
        score(np.zeros((5, 2, 3), complex))


# What is refused -------------------------------------------------------------------------------

BAD = {
    "an attribute": (
        attribute("recurrent_dropout", 0.5),
        "node 'node': attribute 'recurrent_dropout' of 'LSTM'",
    ),
    "layout": (attribute("layout", 2), "layout: expected 0 or 1, got 2"),
    "coupled": (attribute("input_forget", 3), "input_forget: expected 0 or 1, got 3"),
    "inputs": (lambda n, t: n.input.append("W"), "expected at most 8 inputs of an LSTM, got 9"),
    "outputs": (lambda n, t: n.output.append("z"), "expected at most 3 outputs of an LSTM, got 4"),
    "twice": (lambda n, t: n.attribute.append(n.attribute[0]), "attribute .* not understood"),
    "made twice": (lambda n, t: n.output.__setitem__(1, "y"), "each value to be made once"),
    "projection": (
        lambda n, t: (n.input.__setitem__(6, "c"), t.update(c=np.zeros((1, 2, 4), "f4"))),
        r"initial_c: expected the shape \(1, N, 2\) of R's units, got \(1, 2, 4\)",
    ),
    "numbers": (
        lambda n, t: (
            attribute("activations", ["HardSigmoid", "Tanh", "Tanh"])(n, t),
            n.attribute.append(helper.make_attribute("activation_alpha", [0.2, 0.1, 0.1])),
        ),
        "activation_alpha, activation_beta: expected one for each HardSigmoid",
    ),
}


@pytest.mark.parametrize("read", [cylstm.from_onnx, cylstm.load])
@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_not_understood_of_a_node_is_refused(tmp_path, rng, read, change, message):
    path = save(changed(rng, change), tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_projections_state_of_a_computed_shape_is_refused(rng):
    node, tensors = simple(rng, state=True)
    tensors |= {"zero": np.float32(0), "at": np.array([1]), "one": np.array([1]),
                "end": np.array([2]), "four": np.array([4])}  # fmt: skip
    before = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "at", "end"], ["n"]),
        helper.make_node("Concat", ["one", "n", "four"], ["wide"], axis=0),
        helper.make_node("Expand", ["zero", "wide"], ["c_0"]),
    ]
    model = model_of([*before, node], tensors, {"x": 3, "h_0": 3}, {"y": 4})
    with pytest.raises(ValueError, match=r"initial_c: .* got \(1, any, 4\)"):
        cylstm.from_onnx(model)


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        cylstm.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_loops_are_refused(tmp_path, rng):
    node, tensors = simple(rng)
    count = helper.make_tensor_value_info("k", onnx.TensorProto.INT64, [])
    go = helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, [])
    same = helper.make_node("Identity", ["go"], ["on"])
    on = helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, [])
    body = helper.make_graph([same], "body", [count, go], [on])
    loop = helper.make_node("Loop", ["", "yes", "y"], ["z"], "endless", body=body)
    model = model_of([node, loop], tensors | {"yes": np.array(True)}, {"x": 3}, {"z": 4})
    refused(save(model, tmp_path), "node 'endless': operator 'Loop'")


def test_weights_that_are_inputs_are_refused(tmp_path, rng):
    node, tensors = simple(rng)
    del tensors["R"]
    model = model_of([node], tensors, {"x": 3, "R": 3}, {"y": 4})
    refused(save(model, tmp_path), "node 'node': expected R to be constant")


def test_values_that_are_not_there_are_refused(tmp_path, rng):
    node, tensors = simple(rng)
    late = helper.make_node("Add", ["y", "late"], ["z"], "early")
    then = helper.make_node("Exp", ["x"], ["late"])
    model = model_of([node, late, then], tensors, {"x": 3}, {"z": 4})
    refused(save(model, tmp_path), "node 'early': expected 'late' to be made by a node before")


@pytest.mark.parametrize("opset", [6, 999])
def test_graphs_of_other_opsets_are_refused(tmp_path, rng, opset):
    node, tensors = simple(rng)
    both = helper.make_node("Add", ["y", "y"], ["z"])
    model = model_of([node, both], tensors, {"x": 3}, {"z": 4}, opset)
    refused(save(model, tmp_path), f"opset: expected 7 to .*, got {opset}")


def test_a_damaged_shape_is_told_of(tmp_path, rng):
    node, tensors = simple(rng)
    again = helper.make_node("Reshape", ["y", "s"], ["z"])
    model = model_of([node, again], tensors | {"s": np.array([0, -1])}, {"x": 3}, {"z": 2})
    model.graph.initializer[-1].raw_data = b"short"
    for read in (cylstm.from_onnx, cylstm.load):
        with pytest.raises(ValueError, match="tensor 's': expected 16 bytes"):
            read(save(model, tmp_path))


def test_dropout_that_acts_is_refused(tmp_path, rng):
    node, tensors = simple(rng)
    tensors |= {"half": np.float32(0.5), "yes": np.array(True)}
    drop = helper.make_node("Dropout", ["y", "half", "yes"], ["z"], "drop")
    model = model_of([node, drop], tensors, {"x": 3}, {"z": 4})
    refused(save(model, tmp_path), "node 'drop': expected a Dropout that passes all on")


# Sizes -----------------------------------------------------------------------------------------

sizes = st.recursive(
    st.integers(-3, 3) | st.integers(1, 3).map(lambda n: f"n{n}"),
    lambda parts: st.tuples(st.sampled_from("+-*"), parts, parts),
    max_leaves=5,
)


def value_of(tree, unknown):
    if isinstance(tree, str):
        return unknown[int(tree[1:]) - 1]
    if isinstance(tree, int):
        return tree
    a, b = (value_of(part, unknown) for part in tree[1:])
    return a + b if tree[0] == "+" else a - b if tree[0] == "-" else a * b


@given(sizes, sizes, st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_sizes_are_numbers_that_are_not_known(one, other, numbers):
    symbols = [Size({(k,): 1}) for k in range(3)]
    a, b = value_of(one, symbols), value_of(other, symbols)
    if isinstance(a, Size):
        found = sum(
            count * int(np.prod([numbers[k] for k in factors]))
            for factors, count in a.terms.items()
        )
    else:
        found = a
    assert found == value_of(one, numbers)
    if a == b:
        assert value_of(one, numbers) == value_of(other, numbers)
