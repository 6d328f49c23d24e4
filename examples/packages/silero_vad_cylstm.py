"""silero-vad, a detector of voices, without PyTorch: its functions as they are, our model.

    pip install --no-deps silero-vad && pip install cylstm packaging
    python silero_vad_cylstm.py

The model, of TorchScript, is an STFT, four convolutions, an LSTM cell and a linear layer. The LSTM
is cylstm's; the others are products of matrices. All windows of a recording go through it in one
call, or one by one, as a stream, with the same state. (The package's safetensors file is of another
release: it answers otherwise.)
"""

from importlib.resources import files

import numpy as np
from standing_in import TORCH, standing_in

import cylstm

with standing_in(torch=TORCH):
    import silero_vad
from silero_vad.sequence_vad import frame_blocks

RATE, WINDOW, CONTEXT = 16000, 512, 64  # samples; of the window before, as context
HOP, FRAME, FREQUENCIES = 128, 256, 129
REFLECTED = np.pad(np.arange(CONTEXT + WINDOW), (0, CONTEXT), "reflect")
FRAMES = REFLECTED[HOP * np.arange(4)[:, None] + np.arange(FRAME)]  # the samples of each


class Detector:
    """The model, as ``load_silero_vad()`` returns it (called) or with ``sequence=True``."""

    def __init__(self):
        path = files("silero_vad.data") / "silero_vad.jit"
        self.lstm = cylstm.from_torch(path, "_model.decoder.rnn")
        tensors = cylstm.load_tensors(path, "_model.")
        self.stft = tensors["stft.forward_basis_buffer"][:, 0].T.copy()
        self.convolutions = []
        for k, stride in enumerate((1, 2, 2, 1)):
            weight = tensors[f"encoder.{k}.reparam_conv.weight"].transpose(2, 1, 0)
            rows = weight.reshape(-1, weight.shape[2]).copy()  # three taps, one under the other
            self.convolutions.append((rows, tensors[f"encoder.{k}.reparam_conv.bias"], stride))
        self.weight = tensors["decoder.decoder.2.weight"].ravel()
        self.bias = tensors["decoder.decoder.2.bias"]
        self.reset_states()

    def reset_states(self):
        self.stream, self.context = self.lstm.stream(), np.zeros(CONTEXT, np.float32)

    def __call__(self, window, sampling_rate=RATE):
        """The probability of speech in the next window of a stream."""
        check_rate(sampling_rate)
        window = np.concatenate([self.context, np.ravel(window)], dtype=np.float32)
        self.context = window[-CONTEXT:]
        return self.probabilities(self.stream.step(self.features(window[None])))

    def audio_forward(self, audio, sampling_rate=RATE, max_frames=None):
        """The probability of speech in each window of a recording."""
        check_rate(sampling_rate)
        found, state = [np.zeros(0, np.float32)], None
        for windows in frame_blocks(audio, WINDOW, CONTEXT, max_frames or 512):
            y, state = self.lstm(self.features(windows)[:, None], state)
            found.append(self.probabilities(y[:, 0]))
        return np.concatenate(found)

    def features(self, windows):
        """What the LSTM is given of each window."""
        waves = windows[:, FRAMES].reshape(-1, FRAME) @ self.stft
        x = np.hypot(waves[:, :FREQUENCIES], waves[:, FREQUENCIES:])
        x = x.reshape(len(windows), -1, FREQUENCIES)
        for weight, bias, stride in self.convolutions:
            x = convolve(x, weight, bias, stride)
        return x[:, 0]

    def probabilities(self, h):
        return 1 / (1 + np.exp(-(np.maximum(h, 0) @ self.weight + self.bias)))


def convolve(x, rows, bias, stride):
    """Convolve (N, T, C) with zeros around; what is below zero is cut off."""
    count, steps, channels = x.shape
    padded = np.zeros((count, steps + 2, channels), x.dtype)
    padded[:, 1:-1] = x
    starts = np.arange(0, steps, stride)
    taken = padded[:, starts[:, None] + np.arange(3)].reshape(-1, len(rows))
    return np.maximum(taken @ rows + bias, 0).reshape(count, len(starts), -1)


def check_rate(sampling_rate):
    if sampling_rate != RATE:
        raise ValueError(f"sampling_rate: expected {RATE}, got {sampling_rate!r}")


def load():
    """What tells, of audio at 16 kHz, where speech is."""
    model = Detector()
    return lambda audio: silero_vad.get_speech_timestamps_sequence(audio, model)


def load_stream():
    """The same, window by window."""
    model = Detector()
    return lambda audio: silero_vad.get_speech_timestamps(audio, model)


if __name__ == "__main__":
    from samples import speech

    print(load()(speech(10)))
