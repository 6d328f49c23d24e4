"""Resemblyzer, which compares voices, without PyTorch: its functions as they are, our LSTM.

    pip install --no-deps Resemblyzer && pip install cylstm librosa webrtcvad "setuptools<81"
    python resemblyzer_cylstm.py

The encoder is three LSTM layers of 256 units over mel spectrograms, and a linear layer.
"""

from pathlib import Path

import numpy as np
from standing_in import NN, TORCH, Tensor, standing_in

import cylstm
from cylstm.layers import Linear

with standing_in(torch=TORCH, torch__nn=NN):
    import resemblyzer


class VoiceEncoder(resemblyzer.VoiceEncoder):
    """The encoder, of which the package calls `forward`."""

    def __init__(self):
        path = Path(resemblyzer.__file__).with_name("pretrained.pt")
        self.device = "cpu"
        self.lstm = cylstm.from_torch(path, batch_first=True)
        self.linear = Linear(256, 256)
        self.linear.load_state_dict(cylstm.load_tensors(path, "model_state.linear."))

    def forward(self, mels):
        _, (h, _) = self.lstm(np.asarray(mels))
        embeddings = np.maximum(self.linear(h[-1]), 0)
        return Tensor(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))


def load():
    """What gives a voice's embedding, of audio at 16 kHz."""
    return VoiceEncoder().embed_utterance


if __name__ == "__main__":
    from samples import speech

    embed = load()
    voices = [embed(speech(5, voice)) for voice in (0, 0, 1)]
    print(f"same voice {voices[0] @ voices[1]:.3f}, another {voices[0] @ voices[2]:.3f}")
