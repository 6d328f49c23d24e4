"""dksplit, which splits domain names into words, without ONNX Runtime: its Viterbi, our model.

    pip install --no-deps dksplit && pip install cylstm
    python dksplit_cylstm.py convert    # once, where onnx is installed: writes dksplit.safetensors
    python dksplit_cylstm.py

The package ships an int8 ONNX model: an embedding, three bidirectional LSTM layers of 384 units,
and a linear layer. The LSTMs' integers are kept as they are. ONNX Runtime rounds x and h with one
scale for a whole batch, so its answers change with the batch, and the package runs names one by
one. Ours do not change, and a batch is run at once.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from standing_in import standing_in

import cylstm
from cylstm.layers import Embedding, Linear, Sequential

with standing_in(onnxruntime=SimpleNamespace()):
    import dksplit

MODELS = Path(dksplit.__file__).parent / "models"
CONVERTED = Path("dksplit.safetensors")


def convert(path=CONVERTED):
    """Write the package's model as cylstm reads it without the onnx package."""
    import onnx

    source = MODELS / "dksplit-int8.onnx"
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer}

    def numbers(name):
        integers, zero = stored[f"{name}_quantized"], stored[f"{name}_zero_point"]
        return (integers - np.float32(zero)) * stored[f"{name}_scale"]

    embedding, linear = Embedding(38, 384), Linear(768, 2)
    embedding.load_state_dict({"weight": numbers("embedding.weight")})
    (weight,) = (name[:-10] for name in stored if name.endswith("MatMul_584_quantized"))
    bias = stored["hidden2tag.bias"]
    linear.load_state_dict({"weight": numbers(weight).T, "bias": bias})
    lstm = cylstm.from_onnx(source).quantize("int8")
    Sequential(embedding, lstm, linear).save(path)


class Splitter(dksplit.Splitter):
    """The package's, which calls `session.run` for the scores of each character."""

    def __init__(self, path=CONVERTED):
        self.model, self.session = cylstm.load(path), self
        for name, array in np.load(MODELS / "dksplit.npz").items():
            setattr(self, name, array.astype(np.float32))  # of the Viterbi

    def run(self, outputs, inputs):
        return [self.model(inputs["chars"].T).swapaxes(0, 1)]

    def split_batch(self, texts, batch_size=256, *, exact=False):
        return super().split_batch(texts, batch_size, exact=exact)


def load(path=CONVERTED):
    """What splits a list of names."""
    return Splitter(path).split_batch


if __name__ == "__main__":
    if sys.argv[1:] == ["convert"]:
        convert()
    else:
        print(load()(["openaikey", "microsoftoffice", "chatgptlogin"]))
