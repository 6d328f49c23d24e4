"""Models that others published: silero-vad's voice detector, from the package of that name."""

import importlib.util
import pathlib

import numpy as np
import pytest

import cylstm

TOLERANCE = 1e-5
SECONDS, RATE, WINDOW, CONTEXT = 60, 16000, 512, 64

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks


@pytest.fixture(scope="module")
def folder():
    found = importlib.util.find_spec("silero_vad")  # not imported: it wants much else
    if found is None:
        pytest.skip("silero-vad is not installed")
    return pathlib.Path(found.origin).parent / "data"


@pytest.fixture(scope="module")
def audio():
    """A minute of something like voice, with pauses, in noise."""
    t = np.arange(SECONDS * RATE) / RATE
    pitch = np.cumsum(120 + 30 * np.sin(np.pi * t)) / RATE
    voice = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20))
    noise = np.random.default_rng(0).standard_normal(t.size)
    return (0.05 * voice * (np.sin(4 * np.pi * t) > -0.3) + 0.002 * noise).astype(np.float32)


def windows(audio):
    """Each window of the audio, after the end of the one before."""
    before = np.zeros((1, CONTEXT), np.float32)
    for k in range(0, audio.size - WINDOW + 1, WINDOW):
        x = np.concatenate([before, audio[None, k : k + WINDOW]], axis=1)
        before = x[:, -CONTEXT:]
        yield x


@pytest.fixture(scope="module")
def expected(folder, audio):
    """What TorchScript's encoder gives the LSTM, and what its LSTM makes of it, with state."""
    torch = pytest.importorskip("torch")
    model = torch.jit.load(folder / "silero_vad.jit")._model
    features, outputs, state = [], [], (torch.zeros(1, 128),) * 2
    with torch.no_grad():
        for x in windows(audio):
            given = model.encoder(model.stft(torch.from_numpy(x)))[:, :, 0]
            state = model.decoder.rnn(given, state)
            features.append(given.numpy())
            outputs.append(state[0].numpy())
    return features, outputs


@pytest.mark.parametrize(
    ("read", "name", "needs"),
    [
        (lambda path: cylstm.from_torch(path, "_model.decoder.rnn"), "silero_vad.jit", "torch"),
        (cylstm.from_onnx, "silero_vad_16k_op15.onnx", "onnx"),
    ],
    ids=["TorchScript", "ONNX"],
)
def test_a_minute_with_state_as_torchscript(folder, expected, read, name, needs):
    pytest.importorskip(needs)
    stream = read(folder / name).stream()
    for features, output in zip(*expected, strict=True):
        np.testing.assert_allclose(stream.step(features), output, rtol=0, atol=TOLERANCE)


def test_a_minute_with_state_as_onnx_runtime(folder, audio):
    runtime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    path = folder / "silero_vad_16k_sequence.onnx"
    model = onnx.load(path)
    (node,) = (n for n in model.graph.node if n.op_type == "LSTM")
    features, state = node.input[0], list(node.output[1:3])
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(features))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    audio_input = next(i.name for i in session.get_inputs() if i.name not in ("h", "c"))
    lstm, h, c = cylstm.from_onnx(path), *np.zeros((2, 1, 1, 128), np.float32)
    stream = lstm.stream()
    for x in windows(audio):
        outputs = [features, node.output[0], *state]
        given, y, h, c = session.run(outputs, {audio_input: x, "h": h, "c": c})
        actual = np.stack([stream.step(step) for step in given])
        np.testing.assert_allclose(actual, y[:, 0], rtol=0, atol=TOLERANCE)


def test_a_minute_with_state_as_safetensors(folder, audio):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    path = folder / "silero_vad_16k.safetensors"
    tensors = library.load_file(path)
    cell = torch.nn.LSTMCell(128, 128)
    cell.load_state_dict({n[10:]: t for n, t in tensors.items() if n.startswith("lstm_cell.")})
    state, stream = (torch.zeros(1, 128),) * 2, cylstm.from_torch(path).stream()

    def convolve(x, name, **options):
        return torch.conv1d(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), **options)

    def features(x):
        x = torch.nn.functional.pad(torch.from_numpy(x)[:, None], (0, CONTEXT), "reflect")
        x = torch.hypot(*convolve(x, "stft_conv", stride=128).chunk(2, dim=1))
        for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
            x = convolve(x, name, stride=stride, padding=1).relu()
        return x[:, :, 0]

    with torch.no_grad():
        for x in windows(audio):
            given = features(x)
            state = cell(given, state)
            y = stream.step(given.numpy())
            np.testing.assert_allclose(y, state[0], rtol=0, atol=TOLERANCE)


def test_several_rates_are_listed(folder):
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match=r"node: expected one of 'If_0_else.*', 'If_0_then.*'"):
        cylstm.from_onnx(folder / "silero_vad.onnx")
    with pytest.raises(ValueError, match=r"prefix: expected one of '_model_8k\..*', '_model\."):
        cylstm.from_torch(folder / "silero_vad.jit")
