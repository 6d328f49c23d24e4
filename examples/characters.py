"""An LSTM learns to write Python, character by character, from the standard library's source.

The source is on every machine that has Python. Whole files are held out; on them the bits that the
model needs for a character are compared with those of a 5-gram model that learnt from the same
files, and with what lzma needs for them after those. Then the model writes, a character at a time,
through a stream.

    python examples/characters.py            # about ten minutes
    python examples/characters.py --help
"""

import lzma
import math
import os
import sysconfig
import time
from pathlib import Path

# Products as small as these gain little from several threads, and on busy cores lose much.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib

matplotlib.use("Agg")  # a picture in a file needs no screen
import matplotlib.pyplot as plt
import numpy as np
from ngram import NGram
from report import claim, parse_arguments, print_table

from cylstm import LSTM, load
from cylstm.train import (
    Adam,
    Cosine,
    Embedding,
    Linear,
    Sequential,
    Streams,
    cross_entropy_loss,
    evaluate,
    fit,
)

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
NUMBERS = {character: number for number, character in enumerate(ALPHABET)}
HELD_OUT = 0.05  # of the files, to judge by; as many to watch the training with
ORDER = 5  # of the baseline

EMBEDDING = 48
HIDDEN = 256
BATCH = 24
STEPS = 64  # that the gradient goes back
LEARNING_RATE = 5e-3
TEMPERATURES = 0.5, 0.8, 1.0


def read_source(size):
    """Return about `size` characters of the standard library: to learn, to watch, to judge."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    order = np.random.default_rng(0).permutation(len(files))
    texts = [clean(files[n].read_text("utf-8", "replace")) for n in order]
    while sum(map(len, texts)) > size and len(texts) > 3:
        texts.pop()
    few = max(1, round(HELD_OUT * len(texts)))
    return ["".join(part) for part in (texts[2 * few :], texts[few : 2 * few], texts[:few])]


def clean(text):
    """Return a text of the alphabet alone."""
    return "".join(c if c in NUMBERS else "?" for c in text.replace("\t", "    "))


def encode(text):
    return np.array([NUMBERS[character] for character in text], np.int32)


def build_model():
    size = len(ALPHABET)
    return Sequential(
        Embedding(size, EMBEDDING, seed=0),
        LSTM(EMBEDDING, HIDDEN, seed=0),
        Linear(HIDDEN, size, seed=0),
    )


def next_characters(text, batch_size=1, steps=STEPS):
    """Return batches in which each character's target is the one after it."""
    numbers = encode(text)
    return Streams(numbers[:-1], numbers[1:], batch_size, steps=steps)


def train(model, learnt, watched, epochs, folder):
    """Train the model; return the history."""
    source = next_characters(learnt, BATCH)
    optimizer = Adam(model)
    return fit(
        model,
        source,
        cross_entropy_loss,
        optimizer,
        epochs=epochs,
        validation=next_characters(watched),
        schedule=Cosine(LEARNING_RATE, epochs * len(source), warmup=100, final=1e-4),
        clip_norm=1.0,
        seed=0,
        checkpoint=folder / "characters.checkpoint",
        checkpoint_every=200,
        progress=True,
    )


def bits_of_lzma(learnt, judged):
    """Return the bits that lzma adds for each character of a text that comes after another."""
    packed = [
        len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
        for text in (learnt, learnt + judged)
    ]
    return 8 * (packed[1] - packed[0]) / len(judged)


def bits_of_ngram(learnt, judged, order):
    model = NGram(encode(learnt), order, len(ALPHABET))
    given = learnt[len(learnt) - order + 1 :]
    return -np.log2(model.probabilities(encode(given + judged))).mean()


def bits_of_lstm(model, learnt, judged):
    """Return the bits of the model, which has just read a little of what it learnt."""
    return evaluate(model, next_characters(learnt[-1:] + judged), cross_entropy_loss) / math.log(2)


def write(model, begin, count, temperature, rng):
    """Let the model go on with a text, one character after the other."""
    stream, text = model.stream(), list(begin)
    for number in encode(begin):
        logits = stream.step(np.array([number]))[0]
    for _ in range(count):
        weights = np.cumsum(np.exp((logits - logits.max()) / temperature))
        number = min(np.searchsorted(weights, rng.random() * weights[-1]), len(ALPHABET) - 1)
        text.append(ALPHABET[number])
        logits = stream.step(np.array([number]))[0]
    return "".join(text)


def draw(history, bars, path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    history.plot(left)
    left.set(title="Learning", ylabel="nats per character")
    right.barh(list(bars), list(bars.values()), color="0.6")
    right.set(title="Held-out source files", xlabel="bits per character")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    arguments = parse_arguments(
        __doc__,
        size=(2_000_000, "characters of source to read"),
        epochs=(3, "times to read it"),
    )
    if arguments.quick:
        arguments.size, arguments.epochs = 200_000, 1
    learnt, watched, judged = read_source(arguments.size)
    print(f"{len(learnt):,} characters to learn, {len(judged):,} to judge")

    model = build_model()
    history = train(model, learnt, watched, arguments.epochs, arguments.out)
    (arguments.out / "characters.checkpoint").unlink()
    bits = {f"{order}-gram": bits_of_ngram(learnt, judged, order) for order in (1, 3, ORDER)}
    bits["lzma"] = bits_of_lzma(learnt, judged)
    bits["LSTM"] = bits_of_lstm(model, learnt, judged)
    print_table("held-out files", ["bits/character"], {name: [b] for name, b in bits.items()})
    claim(bits["LSTM"] < bits["1-gram"], "the LSTM needs fewer bits than single characters do")
    if not arguments.quick:
        claim(bits["LSTM"] < bits[f"{ORDER}-gram"], f"and fewer than the {ORDER}-gram model")

    path = arguments.out / "characters.safetensors"
    model.save(path)
    loaded = load(path)
    begin, count = "def read_", 100 if arguments.quick else 400
    for temperature in TEMPERATURES:
        started = time.perf_counter()
        text = write(loaded, begin, count, temperature, np.random.default_rng(1))
        speed = count / (time.perf_counter() - started)
        print(f"\n--- temperature {temperature}: {speed:,.0f} characters a second\n{text}")
    same = write(model, begin, count, 0.5, np.random.default_rng(1)) == write(
        loaded, begin, count, 0.5, np.random.default_rng(1)
    )
    print()
    claim(same, f"loaded again from {path}, the model writes the same")
    draw(history, bits, arguments.out / "characters.png")
    print(f"the picture is {arguments.out / 'characters.png'}")


if __name__ == "__main__":
    main()
