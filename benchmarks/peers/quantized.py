"""Weights of fewer bits against each other, PyTorch's and ONNX Runtime's, in turns.

    python -m benchmarks.peers.quantized [--threads N] [--cells REGEX] [--seconds S]

All run in this one process; each call of one is followed by a call of the next, so that a change of
the machine's speed meets all alike. Each one's least and median time are told, in us, and the least
that this machine could take with int8 and bfloat16 weights, which is measured first. PyTorch, onnx
and ONNX Runtime must be installed; OpenVINO's bfloat16 is left out where it is not installed, or
computes in float32 although it was asked for bfloat16, as it does where the CPU has no such
instructions.
"""

import argparse
import logging
import os
import re
import statistics
import tempfile
import time

import numpy as np

import cylstm
from benchmarks.benchmarks import limit
from benchmarks.benchmarks.common import Shape
from benchmarks.peers.tables import add_output, as_text, keep
from cylstm.core import kernels

# steps, sequences, features, units, layers (in both directions where there are two)
CELLS = [
    *((1, 1, size, size, 1) for size in (128, 256, 512)),
    *((100, 1, size, size, 1) for size in (64, 128, 256, 512, 1024)),
    (100, 4, 256, 256, 1),
    (100, 8, 128, 128, 1),
    (50, 16, 256, 256, 1),
    (50, 32, 16, 64, 1),
    (50, 32, 128, 128, 1),
    (50, 64, 256, 256, 1),
    (50, 64, 512, 512, 1),
    (50, 256, 64, 128, 1),
    (50, 16, 256, 256, 2),
]
LEAST = 0.004  # seconds of calls in a row


def name_of(cell):
    steps, sequences, inputs, hidden, layers = cell
    size = f"H={hidden}" if inputs == hidden else f"({inputs}, {hidden})"
    return f"T={steps} N={sequences} {size}{' 2 layers, both ways' if layers == 2 else ''}"


def ours(lstm, x):
    if len(x) == 1:
        stream = lstm.stream(x.shape[1])
        return lambda: stream.step(x[0])
    return lambda: lstm(x)


def session_of(lstm, state=False, threads=0):
    """ONNX Runtime's dynamic quantization of an LSTM."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    with tempfile.TemporaryDirectory() as folder:
        plain, small = f"{folder}/plain.onnx", f"{folder}/small.onnx"
        lstm.to_onnx(plain, state=state)
        quantize_dynamic(plain, small, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
        return onnxruntime.InferenceSession(small, options, ["CPUExecutionProvider"])


def module_of(lstm, kind):
    """PyTorch's module of an LSTM: dynamically quantized, or of bfloat16."""
    import torch

    both = lstm.bidirectional
    module = torch.nn.LSTM(lstm.input_size, lstm.hidden_size, lstm.num_layers, bidirectional=both)
    module.load_state_dict(lstm.to_torch())
    if kind == "bfloat16":
        return module.bfloat16()
    whole = torch.nn.Sequential(module)
    return torch.ao.quantization.quantize_dynamic(whole, {torch.nn.LSTM})[0]


def onnxruntime_int8(lstm, x, threads):
    session = session_of(lstm, state=True, threads=threads)
    count = lstm.num_layers * (2 if lstm.bidirectional else 1)
    h = c = np.zeros((count, x.shape[1], lstm.hidden_size), np.float32)
    return lambda: session.run(None, {"x": x, "h_0": h, "c_0": c})


def pytorch(lstm, x, threads, kind):
    import torch

    torch.set_num_threads(threads)
    module, given = module_of(lstm, kind), torch.from_numpy(x)
    if kind == "bfloat16":
        given = given.bfloat16()

    def call():
        with torch.inference_mode():
            return module(given)

    return call


def openvino_bfloat16(lstm, x, threads):
    """OpenVINO's call, or None where there is none in bfloat16."""
    try:
        import openvino
    except ImportError:
        return None
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16",
    }
    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        lstm.to_onnx(f"{folder}/model.onnx", state=True)
        model = core.read_model(f"{folder}/model.onnx")
        count = lstm.num_layers * (2 if lstm.bidirectional else 1)
        state = [count, x.shape[1], lstm.hidden_size]
        model.reshape({"x": list(x.shape), "h_0": state, "c_0": state})
        compiled = core.compile_model(model, "CPU", settings)
    if compiled.get_property("INFERENCE_PRECISION_HINT") != openvino.Type.bf16:
        return None
    request, zero = compiled.create_infer_request(), np.zeros(state, np.float32)
    for name, array in (("x", x), ("h_0", zero), ("c_0", zero)):
        request.set_tensor(name, openvino.Tensor(array))
    return request.infer


def runners(cell, threads):
    steps, sequences, inputs, hidden, layers = cell
    lstm = cylstm.LSTM(inputs, hidden, layers, bidirectional=layers == 2, seed=0)
    x = np.random.default_rng(0).standard_normal((steps, sequences, inputs)).astype(np.float32)
    found = {
        "float32": ours(lstm, x),
        "bfloat16": ours(lstm.quantize("bfloat16"), x),
        "int8": ours(lstm.quantize("int8"), x),
        "ONNX Runtime int8": onnxruntime_int8(lstm, x, threads),
        "PyTorch int8": pytorch(lstm, x, threads, "int8"),
        "PyTorch bfloat16": pytorch(lstm, x, threads, "bfloat16"),
        "OpenVINO bfloat16": openvino_bfloat16(lstm, x, threads),
    }
    return {name: call for name, call in found.items() if call is not None}


def timed(calls, seconds):
    """Least and median seconds of a call of each, in turns."""
    counts, times = {}, {name: [] for name in calls}
    for name, call in calls.items():
        call()
        started = time.perf_counter()
        call()
        counts[name] = max(1, int(LEAST / (time.perf_counter() - started)))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["int8"]) < 5:
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - started) / counts[name])
    return {name: (min(all_of), statistics.median(all_of)) for name, all_of in times.items()}


def limits(threads):
    """The machine's, with weights of each kind."""
    return {
        weights: limit.measure(kernels.ISA, threads, weights=weights)
        for weights in ("int8", "bfloat16")
    }


def judgement(cell, found, machines):
    """By kind of weights the best peer's time over ours; the least possible, and our share."""
    steps, sequences, inputs, hidden, layers = cell
    shape = Shape(steps, sequences, inputs, hidden, layers, layers)
    least = {w: limit.least_seconds(shape, machine) for w, machine in machines.items()}
    ratios = []
    for weights in least:
        peers = [time for name, (time, _) in found.items() if name.endswith(f" {weights}")]
        ratios.append(f"{min(peers) / found[weights][0]:.2f}")
    return [*ratios, *(f"{1e6 * least[w]:,.4g} ({least[w] / found[w][0]:.0%})" for w in least)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cells", default="", help="those whose names match")
    parser.add_argument("--seconds", type=float, default=3, help="for each cell")
    add_output(parser)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # ONNX Runtime's advice
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    cylstm.set_num_threads(arguments.threads)
    machines, rows, kept, headers = limits(arguments.threads), [], [], []
    for weights, machine in machines.items():
        print(f"{weights}: {machine.flops / 2e9:.3g} billion products a second and thread at most")
    for cell in CELLS:
        if not re.search(arguments.cells, name_of(cell)):
            continue
        found = timed(runners(cell, arguments.threads), arguments.seconds)
        judged = judgement(cell, found, machines)
        shown = [f"{1e6 * least:,.4g} / {1e6 * median:,.4g}" for least, median in found.values()]
        rows.append([name_of(cell), *shown, *judged])
        kept.append(
            [name_of(cell), *(f"{1e6 * least:,.4g}" for least, _ in found.values()), *judged]
        )
        ratios = [f"best peer's {weights} / ours" for weights in machines]
        bounds = [f"least possible, {weights} (we reach)" for weights in machines]
        headers = ["cell", *found, *ratios, *bounds]
    print(as_text(headers, rows))
    threads = arguments.threads
    name = "quantized" if threads == 1 else f"quantized-{threads}-threads"
    keep(arguments.output, name, headers, kept)


if __name__ == "__main__":
    main()
