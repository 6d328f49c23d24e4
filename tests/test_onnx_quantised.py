"""Whole models that ONNX Runtime quantized: their integers as they are, x and h in float32."""

import numpy as np
import pytest

import cylstm

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks
WORDS, FEATURES, HIDDEN, LABELS = 30, 8, 16, 5


@pytest.fixture(params=[False, True], ids=["one scale", "a scale for each channel"])
def quantized(request, tmp_path, rng):
    """An embedding, an LSTM and a linear layer, as `quantize_dynamic` writes them."""
    from onnxruntime.quantization import quantize_dynamic

    tensors = {
        "table": rng.standard_normal((WORDS, FEATURES)),
        "W": rng.standard_normal((1, 4 * HIDDEN, FEATURES)) / 3,
        "R": rng.standard_normal((1, 4 * HIDDEN, HIDDEN)) / 4,
        "M": rng.standard_normal((HIDDEN, LABELS)),
        "b": rng.standard_normal(LABELS),
    }
    stored = [numpy_helper.from_array(a.astype("f4"), n) for n, a in tensors.items()]
    stored.append(numpy_helper.from_array(np.array([1]), "one"))
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"], name="gather"),
        helper.make_node("LSTM", ["e", "W", "R"], ["h"], name="lstm", hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["h", "one"], ["s"], name="squeeze"),
        helper.make_node("MatMul", ["s", "M"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "b"], ["y"], name="add"),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["T", "N"])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["T", "N", LABELS])
    graph = helper.make_graph(nodes, "graph", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "plain.onnx")
    path = tmp_path / "int8.onnx"
    # (7 bits, since of 8 ONNX Runtime's sums saturate where the CPU has no instruction for them)
    quantize_dynamic(tmp_path / "plain.onnx", path, per_channel=request.param, reduce_range=True)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert kinds > {"DequantizeLinear", "DynamicQuantizeLSTM", "MatMulInteger"}
    return path


def by_hand(path, x):
    """The model with the numbers that its integers stand for."""
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}

    def numbers(name):
        integers, zero = stored[f"{name}_quantized"].astype("f4"), stored[f"{name}_zero_point"]
        return (integers - zero) * stored[f"{name}_scale"]

    y, _ = cylstm.from_onnx(path)(numbers("table")[x])
    return y @ numbers("M") + stored["b"]


def as_graph(path):
    """The same with a second output, so that it is no chain."""
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("e", onnx.TensorProto.FLOAT, None))
    return model


def test_it_scores_as_its_integers_say(quantized, rng):
    x = rng.integers(WORDS, size=(12, 3))
    model = cylstm.load(quantized)
    np.testing.assert_allclose(model(x), by_hand(quantized, x), rtol=0, atol=1e-5)
    session = runtime.InferenceSession(quantized, providers=["CPUExecutionProvider"])
    (rounded,) = session.run(["y"], {"x": x})
    assert np.abs(model(x) - rounded).max() < 0.1


def test_it_streams(quantized, rng):
    x = rng.integers(WORDS, size=(12, 3))
    model = cylstm.load(quantized)
    stream = model.stream(3)
    np.testing.assert_array_equal([stream.step(step) for step in x], model(x))


def test_it_scores_as_a_graph(quantized, tmp_path, rng):
    onnx.save(as_graph(quantized), tmp_path / "graph.onnx")
    x = rng.integers(WORDS, size=(12, 3))
    found = cylstm.load(tmp_path / "graph.onnx")(x=x)
    np.testing.assert_allclose(found["y"], by_hand(quantized, x), rtol=0, atol=1e-5)
    assert found["e"].shape == (12, 3, FEATURES)


def test_a_product_of_other_scales_is_not_taken_for_one(quantized, tmp_path):
    model = onnx.load(quantized)
    (scales,) = (n for n in model.graph.node if n.op_type == "Mul" and "M_scale" in n.input)
    scales.input[list(scales.input).index("M_scale")] = "table_scale"
    scales.input[1 - list(scales.input).index("table_scale")] = "table_scale"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="operator 'DynamicQuantizeLinear': not one that cylstm"):
        cylstm.load(tmp_path / "other.onnx")
