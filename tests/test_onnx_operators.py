"""Each operator that a graph may hold, in each of its versions, against ONNX Runtime."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from cylstm.formats import onnx_operators  # noqa: E402
from cylstm.formats.onnx_file import opened  # noqa: E402
from cylstm.formats.onnx_network import network  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks
helper = onnx.helper
OPSETS = (7, 9, 11, 12, 13, 15, 18, 20, 21)

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 3, 4)).astype(np.float32)
Y = rng.standard_normal((3, 1)).astype(np.float32)
WIDE = np.array([[-300, -100, -20, -1, -0.0, 0, 0.3, 1, 20, 100]], np.float32)
WHOLE = np.array([[-7, 7, 5, -5], [2, 0, -3, 9]])
SOME = X > 0


def ints(*values):
    return np.array(values)


def case(operator, *inputs, first=7, last=99, outputs=1, id="", **attributes):
    """Inputs that are given at the call, but those in a list, which are stored."""
    name = f"{operator}{'-' * bool(id)}{id}"
    return pytest.param(operator, inputs, attributes, (first, last), outputs, id=name)


def same(names, *inputs, **options):
    return [case(name, *inputs, **options) for name in names.split()]


EIGHT = (X * 20).astype(np.int8)
SCALES = np.linspace(0.1, 0.3, X.shape[1], dtype=np.float32)
CASES = [
    *same(
        "Abs Ceil Exp Floor Neg Relu Sigmoid Softplus Softsign Tanh Identity Elu Selu LeakyRelu "
        "HardSigmoid Cos Sin Softmax LogSoftmax Reciprocal Flatten",
        WIDE,
    ),
    *same("Sign Erf", WIDE, first=9),
    case("Round", WIDE * 0.5, first=11),
    *same("HardSwish", WIDE, first=14),
    case("Mish", WIDE, first=18),
    case("Gelu", WIDE, first=20),
    case("Gelu", WIDE, first=20, approximate="tanh", id="tanh"),
    *same("Log Sqrt", np.abs(X) + 0.1),
    case("Elu", X, alpha=0.3, id="alpha"),
    case("LeakyRelu", X, alpha=0.3, id="alpha"),
    case("HardSigmoid", X, alpha=0.4, beta=0.1, id="numbers"),
    case("Selu", X, alpha=1.1, gamma=2.0, id="n"),
    *same("Softmax LogSoftmax", X),
    *same("Softmax LogSoftmax", X, axis=0, id="0"),
    *same("Softmax LogSoftmax", X, axis=2, id="2"),
    *same("Softmax LogSoftmax", X, axis=-2, id="back", first=11),
    *same("Add Sub Mul Div", X, Y),
    *same("Add Sub Mul", WHOLE, ints(3)),
    case("Div", WHOLE, ints(2), id="whole"),
    case("Div", WHOLE, ints(-2), id="negative"),
    case("Pow", np.abs(X), np.float32(1.5)),
    case("PRelu", X, Y),
    case("Mod", WHOLE, ints(3, 3, -3, 4), first=10),
    case("Mod", X, Y + 3, first=10, fmod=1, id="fmod"),
    *same("Max Min Sum Mean", X, Y, X * 2, first=8),
    *same("Max Min", WHOLE, WHOLE.T[:, :1].T, first=12),
    *same("Greater Less", X, Y, first=9),
    *same("GreaterOrEqual LessOrEqual", X, Y, first=12),
    case("Equal", WHOLE, ints(7), first=7),
    case("Not", SOME),
    *same("And Or Xor", SOME, ~SOME[:1]),
    case("Where", SOME, X, Y, first=9),
    case("Clip", X, last=10, min=-0.5, max=0.5),
    case("Clip", X, first=11, last=99),
    case("Clip", X, [np.float32(-0.5)], [np.float32(0.5)], first=11, id="both"),
    case("Clip", X, None, [np.float32(0.5)], first=11, id="upper"),
    case("DequantizeLinear", EIGHT, np.float32(0.1), first=10),
    case("DequantizeLinear", EIGHT, np.float32(0.1), np.int8(3), first=10, id="zero"),
    case("DequantizeLinear", EIGHT.view("u1"), np.float32(0.1), np.uint8(99), first=10, id="u"),
    case("DequantizeLinear", EIGHT, SCALES, EIGHT[0, :, 0].copy(), first=13, id="channels"),
    case("DequantizeLinear", EIGHT, SCALES, first=13, axis=-2, id="axis"),
    case("Cast", X * 3, to=7),
    case("Cast", WHOLE, to=1, id="float"),
    case("Cast", X, to=9, id="bool"),
    case("Concat", X, X + 1, axis=1),
    case("Concat", X, X + 1, axis=-1, first=11, id="back"),
    case("ConstantOfShape", ints(2, 3), first=9),
    case(
        "ConstantOfShape", ints(2), first=9, id="value", value=helper.make_tensor("v", 7, [1], [5])
    ),
    case("Expand", Y, ints(2, 3, 4), first=8),
    case("Tile", X, ints(1, 2, 1)),
    case("Range", np.array(1), np.array(9), np.array(3), first=11),
    case("Shape", X),
    case("Shape", X, first=15, start=1, end=-1, id="part"),
    case("Size", X),
    case("Reshape", X, ints(0, -1)),
    case("Transpose", X),
    case("Transpose", X, perm=[1, 0, 2], id="perm"),
    case("Flatten", X, axis=2, id="axis"),
    case("Squeeze", X[:, :1], last=12, axes=[1]),
    case("Squeeze", X[:, :1], ints(1), first=13),
    case("Squeeze", X[:, :1], id="all"),
    case("Unsqueeze", X, last=12, axes=[0, 2]),
    case("Unsqueeze", X, ints(0, 2), first=13),
    case("Slice", X, last=9, starts=[1], ends=[9], axes=[1]),
    case("Slice", X, ints(-1), ints(-9), ints(2), ints(-2), first=10),
    case("Split", X, last=12, outputs=2, axis=1, split=[1, 2]),
    case("Split", X, outputs=2, axis=2, last=17),
    case("Split", X, ints(1, 2), first=13, outputs=2, axis=1, id="sizes"),
    case("Split", X, first=18, outputs=3, axis=2, num_outputs=3, id="uneven"),
    case("Gather", X, ints(-1, 0), axis=1),
    case("Gather", X, np.array(1), axis=2, id="one"),
    case("GatherElements", X[0], np.array([[1, 0, 2, -1]]), first=11),
    case("GatherND", X, np.array([[1, 2]]), first=11),
    case("MatMul", X, X.swapaxes(1, 2)),
    case("MatMul", X, Y[:1].repeat(4, 0), id="matrix"),
    case("MatMul", X, X[0, 0], id="vector"),
    case("Gemm", X[0], X[1], first=11, transB=1, alpha=0.5),
    case("Gemm", X[0], X[1], Y, transB=1, beta=2.0, id="c"),
    case("Einsum", X, X, first=12, equation="bij,bkj->bik"),
    *same("ReduceMean ReduceMax ReduceMin ReduceProd ReduceL2", X, last=17, axes=[1]),
    *same("ReduceL1 ReduceLogSumExp ReduceSumSquare", X, last=17, axes=[-1], keepdims=0, first=11),
    case("ReduceSum", X, last=12, axes=[1], keepdims=0),
    *same("ReduceSum", X, ints(1), first=13),
    *same("ReduceSum ReduceMean", X, id="all"),
    *same(
        "ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSumExp "
        "ReduceSumSquare",
        X,
        ints(-2),
        first=18,
        keepdims=0,
    ),
    case("ReduceLogSum", np.abs(X), id="all"),
    case("ReduceSum", X, None, first=13, noop_with_empty_axes=1, id="noop"),
    *same("ArgMax ArgMin", X, axis=1),
    *same("ArgMax ArgMin", X, axis=2, keepdims=0, id="flat"),
    case("TopK", X, ints(2), first=11, outputs=2, axis=1),
    case("TopK", X, ints(2), first=11, outputs=2, largest=0, id="least"),
    case("CumSum", X, np.array(1), first=11),
    case("CumSum", X, np.array(2), first=11, exclusive=1, reverse=1, id="back"),
    case("Trilu", X, first=14),
    case("Trilu", X, np.array(1), first=14, upper=0, id="lower"),
    case("Pad", X, last=10, pads=[0, 1, 0, 0, 0, 2], mode="constant", value=0.5),
    case("Pad", X, ints(0, 1, 0, 0, 0, 2), [np.float32(2)], first=11),
    case("Pad", X, ints(0, 1, 0, 0, 0, 2), first=11, mode="reflect", id="reflect"),
    case("Pad", X, ints(0, 1, 0, 0, 0, 2), first=11, mode="edge", id="edge"),
    case("ReverseSequence", X, ints(2, 1, 3, 0)[:3], first=10, batch_axis=1, time_axis=0, last=9),
    case("ReverseSequence", X, ints(2, 3), first=10, batch_axis=0, time_axis=1),
    case("BatchNormalization", X, [X[0, :, 0]], [X[0, :, 1]], [X[0, :, 2]], [np.abs(X[0, :, 3])]),
    case("InstanceNormalization", X, [X[0, :, 0]], [X[0, :, 1]], epsilon=0.01),
    case("LayerNormalization", X, [X[0, 0]], [X[0, 1]], first=17),
    case("LayerNormalization", X, [X[0]], first=17, axis=1, id="axis"),
    case(
        "Conv",
        X,
        [rng.standard_normal((5, 3, 2)).astype("f4")],
        [rng.standard_normal(5).astype("f4")],
    ),
    case(
        "Conv",
        X,
        [rng.standard_normal((6, 1, 3)).astype("f4")],
        group=3,
        pads=[2, 1],
        strides=[2],
        dilations=[2],
        id="all",
    ),
    case(
        "Conv", X, [rng.standard_normal((5, 3, 3)).astype("f4")], auto_pad="SAME_UPPER", id="same"
    ),
    case("Conv", X[:, None], [rng.standard_normal((2, 1, 2, 2)).astype("f4")], id="plane"),
    case("MaxPool", X, kernel_shape=[2]),
    case("MaxPool", X, kernel_shape=[3], strides=[2], pads=[1, 1], id="strides"),
    *same("GlobalAveragePool GlobalMaxPool", X),
    case("Dropout", X),
    case("Dropout", X, first=12, outputs=2, id="mask"),
]


def make(operator, inputs, attributes, outputs, opset):
    """A model of the operator, and what is given to it."""
    names, feed, stored = [], {}, []
    for k, value in enumerate(inputs):
        names.append("" if value is None else f"v{k}")
        if isinstance(value, list):
            stored.append(onnx.numpy_helper.from_array(np.asarray(value[0]), f"v{k}"))
        elif value is not None:
            feed[f"v{k}"] = np.asarray(value)
    made = [f"out{k}" for k in range(outputs)]
    node = helper.make_node(operator, names, made, "node", **attributes)
    kinds = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feed.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in made]
    graph = helper.make_graph([node], "g", kinds, results, stored)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    ), feed


@pytest.mark.parametrize(("operator", "inputs", "attributes", "opsets", "outputs"), CASES)
def test_operators_have_the_numbers_of_onnx_runtime(operator, inputs, attributes, opsets, outputs):
    for opset in OPSETS:
        if not opsets[0] <= opset <= opsets[1]:
            continue
        model, feed = make(operator, inputs, attributes, outputs, opset)
        session = runtime.InferenceSession(model.SerializeToString())
        expected = session.run(None, feed)
        found = network(opened(model))(feed)
        for k, theirs in enumerate(expected):
            ours = found[f"out{k}"] if outputs > 1 else found
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), opset
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=f"{opset}")


def test_every_operator_is_tested():
    tested = {case.values[0] for case in CASES} | {"If", "GRU", "RNN"}  # those with the graphs
    assert tested >= onnx_operators._EVALUATED
