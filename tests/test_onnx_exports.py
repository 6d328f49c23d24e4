"""Models as PyTorch's two exporters write them, with fixed and with free sizes."""

import glob
import os

import numpy as np
import pytest

import cylstm
from streamed import check_streamed

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks
TOLERANCE = 1e-5
SIZE, H = 3, 4
DATA = os.path.join(os.path.dirname(__file__), "data")


def make(name):
    """One of the models, by its name."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Model(nn.Module):
        def __init__(self, body, **modules):
            super().__init__()
            self.body = body
            for key, module in modules.items():
                setattr(self, key, module)

        def forward(self, *given):
            return self.body(self, *given)

    def lstm(*layers, **options):
        return nn.LSTM(SIZE, H, *layers, **{"batch_first": True} | options)

    def pooled(y):
        return torch.cat([y.mean(1), y.max(1)[0], y[:, -1]], -1)

    def attended(m, x):
        y, (h, _) = m.l(x)
        scores = torch.bmm(y, h[-1].unsqueeze(2))
        return torch.bmm(torch.softmax(scores, 1).transpose(1, 2), y).squeeze(1)

    def seq(m, x):
        return m.l(x)[0]

    def head(m, x):
        return m.o(m.l(x)[0])

    def linear(size=2):
        return nn.Linear(H, size)

    models = {
        "plain": lambda: Model(seq, l=lstm()),
        "steps first": lambda: Model(seq, l=lstm(2, batch_first=False)),
        "two layers": lambda: Model(seq, l=lstm(2)),
        "three layers": lambda: Model(seq, l=lstm(3, dropout=0.3)),
        "both directions": lambda: Model(seq, l=lstm(bidirectional=True)),
        "both twice": lambda: Model(seq, l=lstm(2, bidirectional=True)),
        "no bias": lambda: Model(seq, l=lstm(2, bias=False)),
        "last step": lambda: Model(lambda m, x: m.o(m.l(x)[0][:, -1]), l=lstm(2), o=linear()),
        "h_n": lambda: Model(lambda m, x: m.o(m.l(x)[1][0][-1]), l=lstm(2), o=linear()),
        "c_n": lambda: Model(lambda m, x: m.l(x)[1][1], l=lstm(2)),
        "h_n of both": lambda: Model(
            lambda m, x: torch.cat([m.l(x)[1][0][-2], m.l(x)[1][0][-1]], 1),
            l=lstm(bidirectional=True),
        ),
        "all outputs": lambda: Model(
            lambda m, x: (lambda y, s: (y, *s))(*m.l(x)), l=lstm(2, bidirectional=True)
        ),
        "words": lambda: Model(
            lambda m, x: torch.log_softmax(m.o(m.l(m.e(x))[0]), -1),
            e=nn.Embedding(7, SIZE), l=lstm(2, bidirectional=True), o=nn.Linear(2 * H, 5),
        ),
        "dense": lambda: Model(
            head, l=lstm(), o=nn.Sequential(linear(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 2))
        ),
        "layer norm": lambda: Model(head, l=lstm(), o=nn.LayerNorm(H)),
        "layer norm between": lambda: Model(
            lambda m, x: m.k(m.o(m.l(x)[0]))[0], l=lstm(), o=nn.LayerNorm(H),
            k=nn.LSTM(H, H, batch_first=True),
        ),
        "batch norm": lambda: Model(
            lambda m, x: m.n(m.l(x)[0].transpose(1, 2)), l=lstm(), n=nn.BatchNorm1d(H)
        ),
        "mean": lambda: Model(lambda m, x: m.o(m.l(x)[0].mean(1)), l=lstm(), o=linear()),
        "max": lambda: Model(lambda m, x: m.o(m.l(x)[0].max(1)[0]), l=lstm(2), o=linear()),
        "pooled": lambda: Model(lambda m, x: pooled(m.l(x)[0]), l=lstm()),
        "attention": lambda: Model(attended, l=lstm()),
        "residual": lambda: Model(lambda m, x: x + m.o(m.l(x)[0]), l=lstm(), o=linear(SIZE)),
        "conv": lambda: Model(
            lambda m, x: m.l(torch.relu(m.c(x.transpose(1, 2))).transpose(1, 2))[0],
            c=nn.Conv1d(SIZE, SIZE, 3, padding=1), l=lstm(),
        ),
        "gelu": lambda: Model(lambda m, x: nn.functional.gelu(head(m, x)), l=lstm(), o=linear()),
        "silu": lambda: Model(lambda m, x: nn.functional.silu(head(m, x)), l=lstm(), o=linear()),
        "decoder": lambda: Model(lambda m, x: m.d(x, m.l(x)[1])[0], l=lstm(), d=lstm()),
        "two inputs": lambda: Model(lambda m, x, z: seq(m, x) + m.k(z)[0], l=lstm(), k=lstm()),
        "given state": lambda: Model(lambda m, x, h, c: m.l(x, (h, c)), l=lstm(2)),
        "view": lambda: Model(
            lambda m, x: m.o(m.l(x)[0].reshape(-1, H)).view(x.size(0), x.size(1), 2),
            l=lstm(2), o=linear(),
        ),
        "flip": lambda: Model(lambda m, x: m.l(x.flip(1))[0], l=lstm()),
    }  # fmt: skip
    return models[name]().eval()


NAMES = [
    "plain", "steps first", "two layers", "three layers", "both directions", "both twice",
    "no bias", "last step", "h_n", "c_n", "h_n of both", "all outputs", "words", "dense",
    "layer norm", "layer norm between", "batch norm", "mean", "max", "pooled", "attention",
    "residual", "conv", "gelu", "silu", "decoder", "two inputs", "given state", "view", "flip",
]  # fmt: skip
STREAM_IF_FREE = {
    "plain", "steps first", "two layers", "three layers", "no bias", "last step", "h_n", "c_n",
    "dense",
}  # fmt: skip
BY_DEFAULT = ["two layers", "words", "layer norm", "mean", "decoder"]  # it takes seconds each


def given_to(names, rng, sequences, steps):
    """What a model takes whose inputs have these names."""
    feed = {"x": rng.standard_normal((sequences, steps, SIZE)).astype(np.float32)}
    if "z" in names:
        feed["z"] = feed["x"][::-1].copy()
    if "h" in names:
        states = rng.standard_normal((2, 2, sequences, H)).astype(np.float32)
        feed |= dict(zip("hc", states, strict=True))
    return feed


def export(name, path, free, by_default):
    """Write a model with one of the exporters."""
    torch = pytest.importorskip("torch")
    names = {"two inputs": "xz", "given state": "xhc"}.get(name, "x")
    feed = given_to(names, np.random.default_rng(0), 2, 5)
    if name == "words":
        feed["x"] = np.abs(feed["x"][..., 0]).astype(np.int64)
    given = tuple(torch.from_numpy(feed[n]) for n in names)
    axes = {n: {1: "n"} if n in "hc" else {0: "a", 1: "b"} for n in names}
    if not by_default:
        options = {"dynamo": False} | ({"dynamic_axes": axes} if free else {})
    else:
        pytest.importorskip("onnxscript")
        auto = torch.export.Dim.AUTO
        shapes = tuple(dict.fromkeys(axes[n], auto) for n in names)
        options = {"dynamo": True, "verbose": False, "external_data": False}
        options |= {"dynamic_shapes": (shapes,)} if free else {}
    torch.onnx.export(make(name), given, path, input_names=list(names), **options)
    return feed


def assert_same(path, feed, time=1):
    """The model read by cylstm gives the numbers of ONNX Runtime, by the same names.

    Return whether it streams.
    """
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True)
    )
    model = cylstm.load(path)
    found = model(**feed) if len(feed) > 1 else model(*feed.values())
    if len(expected) == 1:
        assert isinstance(found, np.ndarray)
        found = dict(zip(expected, [found], strict=True))
    assert list(found) == list(expected)
    for name, theirs in expected.items():
        assert (found[name].dtype, found[name].shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(found[name], theirs, rtol=0, atol=TOLERANCE)
    (x, *_), (y, *_) = feed.values(), found.values()
    return check_streamed(model, x, y, TOLERANCE, time)


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("name", NAMES)
def test_what_the_older_exporter_writes(tmp_path, name, free):
    path = str(tmp_path / "m.onnx")
    streams = assert_same(path, export(name, path, free, False), int(name != "steps first"))
    assert streams == (name in (STREAM_IF_FREE if free else STREAM_IF_FREE - {"h_n", "c_n"}))


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_what_the_default_exporter_writes(tmp_path, name):
    path = str(tmp_path / "m.onnx")
    assert_same(path, export(name, path, True, True))


@pytest.mark.parametrize("sizes", [(2, 5), (3, 7), (1, 1)], ids=str)
@pytest.mark.parametrize("path", sorted(glob.glob(f"{DATA}/torch_*.onnx")), ids=os.path.basename)
def test_what_the_default_exporter_wrote(rng, path, sizes):
    names = [value.name for value in onnx.load(path).graph.input]
    feed = given_to(names, rng, *sizes)
    if "tagger" in path:
        feed["x"] = np.abs(feed["x"][..., 0]).astype(np.int64)
    assert_same(path, feed)


@pytest.mark.parametrize(("name", "both"), [("two", False), ("bi2", True), ("given_state", False)])
def test_layers_with_computed_shapes_between_are_one_lstm(name, both):
    lstm = cylstm.from_onnx(f"{DATA}/torch_{name}.onnx")
    assert (lstm.num_layers, lstm.bidirectional) == (2, both)
