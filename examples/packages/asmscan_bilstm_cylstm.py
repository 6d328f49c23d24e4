"""asmscan-bilstm, which finds amyloid signalling motifs, without TensorFlow.

    pip install --no-deps asmscan-bilstm && pip install "cylstm[keras]" progress
    python asmscan_bilstm_cylstm.py

The package averages six Keras models: an embedding, a bidirectional LSTM of 8 units, an LSTM of 4
and a dense layer, over each window of 40 amino acids. `cylstm.load` reads them whole.
"""

from types import SimpleNamespace

import numpy as np
from standing_in import Tensor, standing_in

import cylstm


class Tokenizer:
    """What the package's pickle wants of Keras's tokenizer of characters."""

    def texts_to_sequences(self, texts):
        index = self.word_index
        return [[index[c] for c in text.lower() if c in index] for text in texts]


def pad_sequences(sequences, length, padding):
    padded = np.zeros((len(sequences), length), np.int32)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded


def load_model(path):
    model = cylstm.load(path)
    return lambda data: Tensor(model(data))


TEXT = SimpleNamespace(Tokenizer=Tokenizer)
KERAS = SimpleNamespace(
    preprocessing=SimpleNamespace(text=TEXT, sequence=SimpleNamespace(pad_sequences=pad_sequences)),
    models=SimpleNamespace(Model=object, load_model=load_model),
)
WITHOUT = {
    "tensorflow": SimpleNamespace(keras=KERAS),
    "keras": SimpleNamespace(),
    "keras__src": SimpleNamespace(),
    "keras__src__preprocessing": SimpleNamespace(),
    "keras__src__preprocessing__text": TEXT,  # where the pickle looks for the tokenizer
}

with standing_in(**WITHOUT):
    from asmscan.bilstm import BiLSTM


def load():
    """What gives, of proteins, probabilities and the windows that have them."""
    with standing_in(**WITHOUT):
        return BiLSTM().predict


if __name__ == "__main__":
    from samples import proteins

    print(load()(proteins(3)))
