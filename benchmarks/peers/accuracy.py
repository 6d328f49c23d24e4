"""What models lose by weights of fewer bits, beside PyTorch's and ONNX Runtime's int8.

    python -m benchmarks.peers.accuracy [--quick] [--published]

The models of the examples are trained, then judged on what they have not seen, with the LSTM's
outputs computed in turn by each library; the layers around it stay float32. With `--published` the
models are those of packages on PyPI, of which those that are not installed are passed over.
"""

import argparse
import importlib
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

import cylstm
from benchmarks.peers.published import PUBLISHED, missing
from benchmarks.peers.quantized import module_of, session_of
from benchmarks.peers.tables import add_output, as_text, keep

EXAMPLES = Path(__file__).parents[2] / "examples"


def torch_int8(lstm):
    import torch

    module = module_of(lstm, "int8")

    def run(x):
        with torch.no_grad():
            return module(torch.from_numpy(x))[0].numpy()

    return run


def onnxruntime_int8(lstm):
    session = session_of(lstm)
    return lambda x: session.run(["y"], {"x": x})[0]


def ours(kind):
    def prepared(lstm):
        fast = lstm.quantize(kind)
        return lambda x: fast(x)[0]

    return prepared


RUNNERS = {
    "float32": lambda lstm: lambda x: lstm(x)[0],
    "bfloat16": ours("bfloat16"),
    "int8": ours("int8"),
    "PyTorch int8": torch_int8,
    "ONNX Runtime int8": onnxruntime_int8,
}


def split(model):
    """What stands before a model's LSTM, the LSTM, and what stands after it."""
    layers = [layer for layer in model if type(layer).__name__ != "Dropout"]
    k = next(k for k, layer in enumerate(layers) if isinstance(layer, cylstm.LSTM))
    return layers[:k], layers[k], layers[k + 1 :]


def outputs(model, x, runner):
    before, lstm, after = split(model)
    for layer in before:
        x = layer(x)
    y = runner(lstm)(x)
    hidden = y
    for layer in after:
        y = layer(y)
    return hidden, y


def perplexity(logits, targets):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return float(np.exp(np.mean(np.log(np.exp(logits).sum(axis=-1)) - chosen)))


def judge_text(model, numbers):
    """Perplexity, and the root of the mean square by which h is off, of each runner."""
    found, exact = {}, None
    for name, runner in RUNNERS.items():
        hidden, logits = outputs(model, numbers[:-1, None], runner)
        exact = hidden if exact is None else exact
        off = math.sqrt(np.mean((hidden - exact).astype(np.float64) ** 2))
        found[name] = perplexity(logits, numbers[1:, None]), off
    return found


def characters(quick):
    example = importlib.import_module("characters")
    learnt, watched, judged = example.read_source(200_000 if quick else 1_000_000)
    model = example.build_model()
    with tempfile.TemporaryDirectory() as folder:
        example.train(model, learnt, watched, 1 if quick else 2, Path(folder))
    return judge_text(model, example.encode(judged))


def words(quick):
    example = importlib.import_module("next_word")
    learnt, watched, judged = example.read_book(1 if quick else 10)
    vocabulary = example.Vocabulary(learnt, often=2)
    learnt, watched, judged = map(vocabulary.encode, (learnt, watched, judged))
    model = example.build_model(len(vocabulary))
    example.train(model, learnt, watched, 2 if quick else 14)
    return judge_text(model, judged)


def sunspots(quick):
    """RMSE a year ahead, in sunspot numbers."""
    example = importlib.import_module("forecast_sunspots")
    _, spots = example.read_series()
    first = len(spots) - round(example.HELD_OUT * len(spots))
    scale = example.Scale(spots[:first])
    scaled = scale.apply(spots)
    model = example.train(scaled[:first], scale.apply(0), 0, 10 if quick else 40)
    found, exact = {}, None
    for name, runner in RUNNERS.items():
        hidden, change = outputs(model, scaled[:, None, None], runner)
        exact = hidden if exact is None else exact
        off = math.sqrt(np.mean((hidden - exact).astype(np.float64) ** 2))
        forecasts = scale.undo(scaled[:, None] + change[:, 0])
        found[name] = example.errors(forecasts, spots, first)[-1], off
    return found


MODELS = {
    "next character, perplexity": characters,
    "next word, perplexity": words,
    "sunspots a year ahead, RMSE": sunspots,
}


def judge_published():
    """Print what changes in packages' models."""
    sys.path.insert(0, str(EXAMPLES / "packages"))
    rows = []
    for name, (_, judge) in PUBLISHED.items():
        if missing(name):
            print(f"{name}: not installed: {', '.join(missing(name))}", file=sys.stderr)
            continue
        title = name
        for weights, (changes, furthest, off) in judge(RUNNERS).items():
            rows.append([title, weights, changes, f"{furthest:.1e}", f"{off:.1e}"])
            title = ""
    headers = ["package", "weights of the LSTM", "changes", "output off by (max)", "h off by (rms)"]
    print(as_text(headers, rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small models, for a test")
    parser.add_argument("--models", nargs="*", choices=[name.split(",")[0] for name in MODELS])
    add_output(parser)
    parser.add_argument("--published", action="store_true", help="packages' models instead")
    arguments = parser.parse_args()
    if arguments.published:
        judge_published()
        return
    sys.path.insert(0, str(EXAMPLES))
    rows = []
    for title, judge in MODELS.items():
        if arguments.models and title.split(",")[0] not in arguments.models:
            continue
        found = judge(arguments.quick)
        exact = found["float32"][0]
        for name, (value, off) in found.items():
            rows.append([title, name, f"{value:.4f}", f"{value / exact - 1:+.3%}", f"{off:.1e}"])
            title = ""
    headers = ["model", "weights of the LSTM", "value", "beside float32", "h off by (rms)"]
    print(as_text(headers, rows))
    keep(arguments.output, "accuracy", headers, rows)


if __name__ == "__main__":
    main()
