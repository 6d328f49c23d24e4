"""Models that others published, with their LSTM's outputs by each library in turn.

Each is judged by its own measure, on sounds and sentences that `examples/packages/samples.py` has;
what stands around the LSTM stays float32.
"""

import importlib.util
import math

import numpy as np

import cylstm

SOUND = 60  # seconds of each voice


def time_major(lstm):
    """The LSTM with its steps on the first axis, as the runners want it."""
    given = lstm.config | {"batch_first": False}
    made = cylstm.LSTM(**given)
    made.load_state_dict(lstm.state_dict())
    return made


def judged(lstm, inputs, runners, outputs, told):
    """Of each runner: what changes, and by how much outputs and h are off.

    `inputs` are (T, N, I), one a call; `outputs` makes what the model says of h (T, N, H) and of
    the input's place; `told` puts in words what changes from the first runner's outputs.
    """
    found, exact = {}, None
    for name, runner in runners.items():
        run = runner(lstm)
        hidden = [run(x) for x in inputs]
        said = [outputs(y, k) for k, y in enumerate(hidden)]
        exact = (hidden, said) if exact is None else exact
        squares = [
            np.mean((a - b).astype(float) ** 2) for a, b in zip(hidden, exact[0], strict=True)
        ]
        sizes = [y.size for y in hidden]
        off = math.sqrt(np.average(squares, weights=sizes))
        furthest = max(np.abs(a - b).max() for a, b in zip(said, exact[1], strict=True))
        found[name] = told(exact[1], said), float(furthest), off
    return found


def labels_changed(exact, said):
    """How many rows of logits have their largest elsewhere."""
    pairs = list(zip(exact, said, strict=True))
    changed = sum(int((a.argmax(-1) != b.argmax(-1)).sum()) for a, b in pairs)
    return f"{changed} of {sum(len(a) for a, _ in pairs)} labels"


def silero_vad(runners):
    from samples import VOICES, speech
    from silero_vad_cylstm import CONTEXT, WINDOW, Detector, frame_blocks

    model, inputs = Detector(), []
    for voice in range(len(VOICES)):
        blocks = frame_blocks(speech(SOUND, voice), WINDOW, CONTEXT, 512)
        inputs.append(np.concatenate([model.features(block) for block in blocks])[:, None])

    def flipped(exact, said):
        a, b = np.concatenate(exact), np.concatenate(said)
        return f"{int(((a > 0.5) != (b > 0.5)).sum())} of {a.size} windows"

    return judged(model.lstm, inputs, runners, lambda y, _: model.probabilities(y[:, 0]), flipped)


def resemblyzer(runners):
    from resemblyzer_cylstm import VoiceEncoder, resemblyzer
    from samples import VOICES, speech

    model, inputs = VoiceEncoder(), []
    for voice in range(len(VOICES)):
        mel = resemblyzer.wav_to_mel_spectrogram(speech(SOUND, voice))
        starts = range(0, len(mel) - 160 + 1, 80)  # windows of 1.6 s, as the package has them
        inputs.append(np.stack([mel[start : start + 160] for start in starts], axis=1))

    def embeddings(y, _):
        found = np.maximum(model.linear(y[-1]), 0)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def turned(exact, said):
        cosines = [np.sum(a * b, axis=1, dtype=float) for a, b in zip(exact, said, strict=True)]
        cosines = np.concatenate(cosines)
        return f"cosine {np.median(cosines):.4f}, least {cosines.min():.4f}"

    return judged(time_major(model.lstm), inputs, runners, embeddings, turned)


def arabic_diacritizer(runners):
    from arabic_diacritizer_cylstm import Model
    from samples import ARABIC

    model = Model()
    ids = [model.tokenizer.encode(sentence, add_special=False) for sentence in ARABIC]
    inputs = [model.table[own, None] for own in ids]

    def logits(y, _):
        return model.classifier(model.attention(y.swapaxes(0, 1)))[0]

    return judged(time_major(model.lstm), inputs, runners, logits, labels_changed)


def g2pm(runners):
    from g2pm_cylstm import FastG2pM
    from samples import CHINESE

    model, asked = FastG2pM(), []

    def predict(ids, places):  # what the package asks its model
        asked.append((model.get_embedding(ids)[0, :, None].astype(np.float32), places))
        return [0] * len(places)

    model.predict = predict
    for sentence in CHINESE:
        model(sentence)

    def logits(y, k):
        return model.fc_layer(y[asked[k][1], 0])

    inputs = [x for x, _ in asked]
    return judged(time_major(model.lstm), inputs, runners, logits, labels_changed)


PUBLISHED = {  # the package, what must be there, and who judges it
    "silero-vad": (["silero_vad"], silero_vad),
    "Resemblyzer": (["resemblyzer", "librosa", "webrtcvad"], resemblyzer),
    "arabic-diacritizer": (["diacritize"], arabic_diacritizer),
    "g2pM": (["g2pM"], g2pm),
}


def missing(name):
    """Which modules a published model lacks here."""
    wanted = PUBLISHED[name][0]
    return [module for module in wanted if importlib.util.find_spec(module) is None]
