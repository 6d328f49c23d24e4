"""`python -m benchmarks.batch_jobs.scripts LIBRARY WAY ...`: the job in one library, one way."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.batch_jobs.data import CLASSES, EMBEDDED, UNITS, WORDS, Score, parameters, run


def of_cylstm(given: argparse.Namespace) -> float:
    """`cylstm.score`, or, `memory`, what the model alone takes for sequences in memory."""
    import pyarrow.parquet as pq

    import cylstm
    from cylstm.layers import Embedding, Last, Linear, Sequential

    lstm = cylstm.LSTM(EMBEDDED, UNITS, bidirectional=True)
    model = Sequential(Embedding(WORDS, EMBEDDED), lstm, Last(), Linear(2 * UNITS, CLASSES))
    names = {"embedding": "0", "lstm": "1", "linear": "3"}
    state = {}
    for name, array in parameters().items():
        layer, own = name.split(".")
        state[f"{names[layer]}.{own}"] = array
    model.load_state_dict(state)
    cylstm.set_num_threads(given.threads)
    if given.way == "memory":
        column = pq.read_table(given.source).column("tokens").combine_chunks()
        tokens, offsets = column.values.to_numpy().astype(np.int64), column.offsets.to_numpy()
        began = time.perf_counter()
        model.predict(tokens, offsets, threads=given.threads)
        return time.perf_counter() - began
    folder = given.target.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    cylstm.score(model, given.source, folder, threads=given.threads)
    took = time.perf_counter() - began
    pq.write_table(pq.read_table(folder), given.target)
    return took


def of_pytorch(given: argparse.Namespace) -> float:
    """With packed sequences, or dense batches of one length; threads within ops, or beside.

    `trimmed` does by hand what `cylstm.score` does by itself: of the direction that reads from the
    end it runs one step, as the last step's output wants no more.
    """
    import torch

    lstm = torch.nn.LSTM(EMBEDDED, UNITS, bidirectional=True)
    linear = torch.nn.Linear(2 * UNITS, CLASSES)
    own: dict[str, Any] = {name: torch.from_numpy(array) for name, array in parameters().items()}
    embedding = own["embedding.weight"]
    for ending in ("_l0", "_l0_reverse"):
        bias = own.pop(f"lstm.bias{ending}")
        own |= {f"lstm.bias_ih{ending}": bias, f"lstm.bias_hh{ending}": torch.zeros_like(bias)}
    lstm.load_state_dict({n[5:]: a for n, a in own.items() if n.startswith("lstm.")})
    linear.load_state_dict({n[7:]: a for n, a in own.items() if n.startswith("linear.")})
    beside = given.way.endswith("beside")
    torch.set_num_threads(1 if beside else given.threads)
    packed = given.way.startswith("packed")
    pack = torch.nn.utils.rnn.pack_padded_sequence

    both = dict(lstm.named_parameters())
    ahead, back = (torch.nn.LSTM(EMBEDDED, UNITS) for _ in range(2))
    ahead.load_state_dict({n: a for n, a in both.items() if not n.endswith("_reverse")})
    ends = {n.removesuffix("_reverse"): a for n, a in both.items() if n.endswith("_reverse")}
    back.load_state_dict(ends)

    @torch.inference_mode()
    def score(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        if given.way.startswith("trimmed"):
            x = torch.nn.functional.embedding(torch.from_numpy(tokens), embedding)
            y = torch.cat([ahead(x)[0][-1], back(x[-1:])[0][0]], dim=1)
            return linear(y).numpy()
        if not packed:
            y, _ = lstm(torch.nn.functional.embedding(torch.from_numpy(tokens), embedding))
            return linear(y[-1]).numpy()
        steps = pack(torch.from_numpy(tokens), torch.from_numpy(lengths))
        data = torch.nn.functional.embedding(steps.data, embedding)
        y, _ = lstm(torch.nn.utils.rnn.PackedSequence(data, steps.batch_sizes))
        begins = torch.cumsum(steps.batch_sizes, 0) - steps.batch_sizes
        last = begins[torch.from_numpy(lengths) - 1] + torch.arange(len(lengths))
        return linear(y.data[last]).numpy()

    return _run(score, given, alike=not packed, beside=beside)


def of_onnxruntime(given: argparse.Namespace) -> float:
    """Batches of one length; threads within operators, or beside."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    beside = given.way.endswith("beside")
    options.intra_op_num_threads = 1 if beside else given.threads
    options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    model = onnx_model(given.way.startswith("trimmed"))
    session = onnxruntime.InferenceSession(model, options, providers)

    def score(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return session.run(None, {"tokens": tokens})[0]

    return _run(score, given, alike=True, beside=beside)


def onnx_model(trimmed: bool) -> bytes:
    """The job's model, over tokens (T, N); `trimmed`, of the reverse direction one step."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from benchmarks.peers.libraries import reordered

    own = parameters()
    w, r, b = (
        np.stack([reordered(own[f"lstm.{n}{e}"], "iofg") for e in ("_l0", "_l0_reverse")])
        for n in ("weight_ih", "weight_hh", "bias")
    )
    constants = {
        "E": own["embedding.weight"], "W": w, "R": r,
        "B": np.concatenate([b, np.zeros_like(b)], axis=1), "last": np.array(-1),
        "shape": np.array([-1, 2 * UNITS]), "V": own["linear.weight"], "v": own["linear.bias"],
    }  # fmt: skip
    nodes = [helper.make_node("Gather", ["E", "tokens"], ["x"])]
    if trimmed:
        constants |= {f"{n}{d}": constants[n][d : d + 1] for n in "WRB" for d in (0, 1)}
        constants |= {"first": constants.pop("last").reshape(1)}
        for name in "WRB":
            del constants[name]
        for d, x in enumerate(("x", "x_last")):
            if d:
                nodes.append(helper.make_node("Gather", ["x", "first"], ["x_last"], axis=0))
            names = [x, *(f"{n}{d}" for n in "WRB")]
            nodes.append(helper.make_node("LSTM", names, ["", f"h{d}"], hidden_size=UNITS))
        nodes.append(helper.make_node("Concat", ["h0", "h1"], ["end"], axis=0))
    else:
        nodes += [
            helper.make_node("LSTM", ["x", "W", "R", "B"], ["y"], hidden_size=UNITS,
                             direction="bidirectional"),
            helper.make_node("Gather", ["y", "last"], ["end"], axis=0),
        ]  # fmt: skip
    nodes += [
        helper.make_node("Transpose", ["end"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["turned", "shape"], ["rows"]),
        helper.make_node("Gemm", ["rows", "V", "v"], ["out"], transB=1),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    taken = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["T", "N"])
    given = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(nodes, "job", [taken], [given], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _run(score: Score, given: argparse.Namespace, alike: bool, beside: bool) -> float:
    workers = given.threads if beside else 1
    return run(score, given.source, given.target, given.size, alike, workers)


LIBRARIES = {"cylstm": of_cylstm, "pytorch": of_pytorch, "onnxruntime": of_onnxruntime}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("way", choices=("score", "memory", "packed", "packed-beside", "alike",
                                        "alike-beside", "trimmed-beside"))  # fmt: skip
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=256, help="sequences in a batch")
    given = parser.parse_args()
    print(json.dumps({"seconds": LIBRARIES[given.library](given)}))


if __name__ == "__main__":
    main()
