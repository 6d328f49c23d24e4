"""arabic-diacritizer without PyTorch: its pipeline as it is, our model.

    pip install --no-deps arabic-diacritizer && pip install cylstm click
    python arabic_diacritizer_cylstm.py

The model is an embedding, three bidirectional LSTM layers of 256 units, additive attention of each
character to all, and a linear layer.
"""

import numpy as np
from standing_in import NN, TORCH, standing_in

import cylstm
from cylstm.layers import Attention, Linear

with standing_in(torch=TORCH, torch__nn=NN):
    import diacritize
from diacritize.config import ID_TO_LABEL, MODELS_DIR
from diacritize.tokenizer import CharTokenizer
from diacritize.unicode_utils import apply_diacritics, strip_diacritics


class Model:
    """What the package's pipeline wants of a model: `diacritize`."""

    def __init__(self):
        path = MODELS_DIR / "bilstm_best.pt"
        tensors = cylstm.load_tensors(path)
        self.tokenizer, self.table = CharTokenizer(), tensors["embedding.weight"]
        self.lstm = cylstm.from_torch(path, batch_first=True)
        self.attention = Attention(512, score="additive", batch_first=True)
        self.attention.load_state_dict(
            {
                "weight_q": tensors["attention.W.weight"],
                "weight_m": tensors["attention.U.weight"],
                "weight_v": tensors["attention.v.weight"][0],
                "bias": np.zeros(512, np.float32),
            }
        )
        self.classifier = Linear(512, 15)
        self.classifier.load_state_dict(cylstm.load_tensors(path, "classifier."))

    def logits(self, text):
        ids = self.tokenizer.encode(text, add_special=False)
        y, _ = self.lstm(self.table[None, ids])
        return self.classifier(self.attention(y))[0]

    def diacritize(self, text):
        stripped = strip_diacritics(text)
        labels = self.logits(stripped).argmax(axis=-1)
        return apply_diacritics(stripped, [ID_TO_LABEL[label] for label in labels.tolist()])


def load():
    """What puts diacritics on a sentence, without the package's table of known sentences."""
    return diacritize.Diacritizer(Model()).diacritize


if __name__ == "__main__":
    from samples import ARABIC

    print(load()(ARABIC[0]))
