"""Make the seeds of the fuzz runs; it needs torch, keras, h5py and onnx."""

import collections
import os
import pathlib
import pickle
import zipfile

import keras
import numpy as np
import onnx
import torch
import torch.nn.utils.prune

import cylstm

FOLDER = pathlib.Path(__file__).parent / "corpus"


def place(kind, name):
    """Return the path of a seed."""
    (FOLDER / kind).mkdir(parents=True, exist_ok=True)
    return str(FOLDER / kind / name)


def make_torch():
    """Make what PyTorch saves."""
    lstm = torch.nn.LSTM(2, 3, num_layers=2, bidirectional=True)
    cell = torch.nn.LSTMCell(2, 2)
    half = torch.nn.LSTM(1, 2, proj_size=1).to(torch.bfloat16)
    legacy = {"_use_new_zipfile_serialization": False}
    torch.save(lstm.state_dict(), place("torch", "state.pt"))
    torch.save({"epoch": 1, "model": cell.state_dict()}, place("torch", "legacy.pt"), **legacy)
    torch.save(half.state_dict(), place("torch", "half.pt"))
    torch.save(torch.nn.LSTM(1, 1), place("torch", "module.pt"))
    torch.jit.script(torch.nn.LSTM(1, 1)).save(place("torch", "script.pt"))
    names = "weight_ih_l0", "weight_hh_l0"
    for kind, change in (
        ("pruned", torch.nn.utils.prune.identity),
        ("normed", torch.nn.utils.weight_norm),
        ("parametrized", torch.nn.utils.parametrizations.weight_norm),
    ):
        changed = torch.nn.LSTM(2, 2)
        for name in names:
            change(changed, name)
        torch.save(changed.state_dict(), place("torch", f"{kind}.pt"))
    dropped = {f"{name}_raw" if "hh" in name else name: w for name, w in lstm.state_dict().items()}
    torch.save(dropped, place("torch", "dropped.pt"))
    quantised = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.LSTM(2, 2)))
    torch.save(quantised.state_dict(), place("torch", "quantised.pt"))
    about = {"path": pathlib.PurePosixPath("a"), "seen": collections.Counter("ab")}
    torch.save(about | {"state_dict": half.state_dict()}, place("torch", "about.pt"))
    arrays = {name: weight.numpy() for name, weight in cell.state_dict().items()}
    np.savez(place("torch", "arrays.npz"), **arrays)
    pathlib.Path(place("torch", "arrays.pkl")).write_bytes(pickle.dumps(arrays))
    with zipfile.ZipFile(place("torch", "policy.zip"), "w") as archive:
        archive.write(place("torch", "half.pt"), "policy.pth")


def make_keras():
    """Make files, and configurations alone."""
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((3,)), layers.Embedding(4, 2, mask_zero=True),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True)), layers.LSTM(1),
        layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip
    for name in ("model.keras", "legacy.h5"):
        model.save(place("keras", name), include_optimizer=False)
    with open(place("keras_config", "sequential.json"), "w") as file:
        file.write(model.to_json())
    x = given = layers.Input((4, 2))
    for layer in (
        layers.Masking(),
        layers.LSTM(2, return_sequences=True),
        layers.Permute((2, 1)),
        layers.Reshape((4, 2)),
        layers.LeakyReLU(),
        layers.BatchNormalization(),
        layers.TimeDistributed(layers.Dense(2)),
        layers.Softmax(),
        layers.Flatten(),
    ):
        x = layer(x)
    with open(place("keras_config", "functional.json"), "w") as file:
        file.write(keras.Model(given, x).to_json())
    given = layers.Input((4, 2)), layers.Input((4, 2))
    x = layers.Concatenate()(given)
    x = layers.Add()([layers.Conv1D(4, 1)(x), layers.RNN(
        [layers.LSTMCell(4), layers.LSTMCell(4)], return_sequences=True)(x)])  # fmt: skip
    x = layers.LayerNormalization()(layers.MaxPooling1D(2)(x))
    outputs = layers.GlobalAveragePooling1D()(layers.Attention()([x, x])), keras.ops.mean(x, 1)
    with open(place("keras_config", "graph.json"), "w") as file:
        file.write(keras.Model(given, outputs).to_json())


class Chain(torch.nn.Module):
    """What scores words."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(3, 2)
        self.lstm = torch.nn.LSTM(2, 2, batch_first=True)

    def forward(self, x):
        """Return the softmax of the last step."""
        return torch.softmax(self.lstm(self.embedding(x))[0][:, -1], -1)


class Graph(torch.nn.Module):
    """What is no chain."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(2, 2, 2)

    def forward(self, x):
        """Return what stands beside the input, and the state."""
        y, (h, _) = self.lstm(x)
        return x + torch.nn.functional.gelu(y), h


def make_onnx():
    """Make single LSTMs, one with its weights beside, a chain, and a graph."""
    cylstm.LSTM(2, 2, num_layers=2, bidirectional=True).to_onnx(place("onnx", "lstm.onnx"))
    cylstm.LSTM(1, 1, peephole=True, coupled=True, clip=1.0).to_onnx(place("onnx", "all.onnx"))
    words, path = torch.zeros(1, 3, dtype=int), place("onnx", "chain.onnx")
    torch.onnx.export(Chain().eval(), words, path, dynamo=False)
    auto = torch.export.Dim.AUTO
    free = {0: auto, 1: auto}
    program = torch.onnx.export(
        Graph().eval(), (torch.zeros(4, 3, 2),), dynamo=True, dynamic_shapes=[free], verbose=False
    )
    graph = program.model_proto
    for node in graph.graph.node:  # which say where the model was made
        del node.metadata_props[:]
    del graph.graph.value_info[:]
    onnx.save(graph, place("onnx", "graph.onnx"))
    chosen = onnx.helper.make_node(
        "If", ["flag"], ["z"],
        then_branch=onnx.helper.make_graph(graph.graph.node[:], "a", [], graph.graph.output[:1]),
        else_branch=onnx.helper.make_graph(graph.graph.node[:], "b", [], graph.graph.output[:1]),
    )  # fmt: skip
    flag = onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])
    inner = [chosen], "if", [*graph.graph.input, flag], [onnx.ValueInfoProto(name="z")]
    branches = onnx.helper.make_graph(*inner, graph.graph.initializer)
    onnx.save(
        onnx.helper.make_model(branches, opset_imports=graph.opset_import),
        place("onnx", "branches.onnx"),
    )
    odd = onnx.load(place("onnx", "all.onnx"))
    onnx.save(odd, place("onnx", "external.onnx"), save_as_external_data=True, location="weights",
              size_threshold=0)  # fmt: skip
    os.remove(place("onnx", "weights"))


def make_safetensors():
    """Make one of cylstm's."""
    lstm = cylstm.LSTM(2, 2, num_layers=2, bidirectional=True)
    lstm.save(place("safetensors", "lstm.safetensors"))


if __name__ == "__main__":
    for make in (make_torch, make_keras, make_onnx, make_safetensors):
        make()
