"""An LSTM learns to foretell the next word: of a nursery rhyme, and of a book.

The rhyme is short: its words go in as one-hot vectors, and the LSTM learns it by heart, which a
trigram model cannot, for one of its lines goes on in another way each time it comes back. The book,
*The Adventures of Sherlock Holmes*, is long: its words go in through an embedding, and the model is
judged by a story that it has not seen. Perplexity says among how many equally likely words the
model is in doubt; it stands beside that of trigram models with back-off that learnt the same text.

    python examples/next_word.py            # about five minutes
    python examples/next_word.py --help
"""

import os
import re
from collections import Counter
from itertools import chain
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
    AdamW,
    Batch,
    Cosine,
    Dropout,
    Embedding,
    Linear,
    Sequential,
    Streams,
    cross_entropy_loss,
    evaluate,
    fit,
)

DATA = Path(__file__).parent / "data"
WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*|--|[.,;:!?\"]|\n")
UNKNOWN = "<unknown>"
ORDER = 3  # of the baseline

HIDDEN = 256
DROPOUT = 0.6
BATCH = 16
STEPS = 35  # that the gradient goes back
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.1


class Vocabulary:
    """The words that a text has at least `often` times, by falling frequency."""

    def __init__(self, words, often):
        counts = Counter(words)
        self.words = [UNKNOWN, *(word for word, n in counts.most_common() if n >= often)]
        self.numbers = {word: number for number, word in enumerate(self.words)}

    def __len__(self):
        return len(self.words)

    def encode(self, words):
        return np.array([self.numbers.get(word, 0) for word in words])


def words_of(text):
    return WORD.findall(text.lower())


# The rhyme ----------------------------------------------------------------------------------------


def learn_by_heart(epochs):
    """Return the LSTM's perplexity on the rhyme that it learnt, and the trigram model's."""
    words = words_of((DATA / "house.txt").read_text())
    vocabulary = Vocabulary(words, often=1)
    numbers, size = vocabulary.encode(words), len(vocabulary)
    one_hot = np.eye(size, dtype=np.float32)[numbers[:-1], None]  # (T, 1, size)
    batch = Batch(one_hot, numbers[1:, None])
    model = Sequential(LSTM(size, 48, seed=0), Linear(48, size, seed=0))
    fit(model, [batch], cross_entropy_loss, Adam(model, 1e-2), epochs=epochs, clip_norm=1.0)
    lstm = np.exp(evaluate(model, [batch], cross_entropy_loss))
    return lstm, perplexity(NGram(numbers, ORDER, size).probabilities(numbers))


def perplexity(probabilities):
    return float(np.exp(-np.log(probabilities).mean()))


# The book -----------------------------------------------------------------------------------------


def read_book(stories):
    """Return the words of the book: some stories to learn, one to watch, one to judge."""
    book = [words_of(story) for story in (DATA / "holmes.txt").read_text().split("\n\n")]
    return list(chain.from_iterable(book[:stories])), book[-2], book[-1]


def build_model(size):
    model = Sequential(
        Embedding(size, HIDDEN, seed=0),
        Dropout(DROPOUT),
        LSTM(HIDDEN, HIDDEN, seed=0),
        Dropout(DROPOUT),
        Linear(HIDDEN, size, seed=0),
    )
    with model.edit() as parameters:
        parameters["0.weight"] *= 0.1
    return model


def next_words(numbers, batch_size=1):
    """Return batches in which each word's target is the one after it."""
    return Streams(numbers[:-1], numbers[1:], batch_size, steps=STEPS)


def train(model, learnt, watched, epochs):
    source = next_words(learnt, BATCH)
    return fit(
        model,
        source,
        cross_entropy_loss,
        AdamW(model, weight_decay=WEIGHT_DECAY),
        epochs=epochs,
        validation=next_words(watched),
        patience=3,
        schedule=Cosine(LEARNING_RATE, epochs * len(source), warmup=50),
        clip_norm=1.0,
        seed=0,
        progress=True,
    )


def probabilities_of(model, numbers):
    """Return what the model gives each word but the first."""
    logits = model(numbers[:-1, None])[:, 0].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(logits)), numbers[1:]]
    return np.exp(chosen) / np.exp(logits).sum(axis=1)


def write(model, vocabulary, begin, count, rng):
    """Let the model go on with a text, one word after the other."""
    stream, words = model.stream(), words_of(begin)
    for number in vocabulary.encode(words):
        logits = stream.step(np.array([number]))[0]
    for _ in range(count):
        logits[0] = -np.inf  # no unknown words
        weights = np.cumsum(np.exp(logits.astype(np.float64) - logits.max()))
        number = np.searchsorted(weights, rng.random() * weights[-1])
        words.append(vocabulary.words[number])
        logits = stream.step(np.array([number]))[0]
    return re.sub(r" ([.,;:!?\n])", r"\1", " ".join(words))


def draw(history, baselines, path):
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    epochs = np.arange(1, len(history.loss) + 1)
    axes.plot(epochs, np.exp(history.validation), "o-", label="LSTM")
    for name, value in baselines.items():
        axes.axhline(value, linestyle=":", color="0.5")
        axes.text(epochs[-1], value, name, ha="right", va="bottom")
    axes.set(title="A story of which nothing was learnt", xlabel="epoch", ylabel="perplexity")
    axes.set(yscale="log")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    arguments = parse_arguments(
        __doc__,
        epochs=(14, "times to read the book"),
        stories=(10, "how many of its twelve stories to learn from, up to ten"),
    )
    if arguments.quick:
        arguments.epochs, arguments.stories = 4, 1

    lstm, trigram = learn_by_heart(epochs=150 if arguments.quick else 300)
    print_table("the rhyme, learnt by heart", ["perplexity"], {
        "3-gram, with back-off": [trigram], "LSTM, one-hot": [lstm],
    })  # fmt: skip
    claim(lstm < trigram, "the LSTM knows the rhyme better than the trigram model can")

    learnt, watched, judged = read_book(arguments.stories)
    vocabulary = Vocabulary(learnt, often=2)
    learnt, watched, judged = map(vocabulary.encode, (learnt, watched, judged))
    print(f"\nthe book: {len(learnt):,} words to learn, {len(vocabulary):,} different ones")
    model = build_model(len(vocabulary))
    history = train(model, learnt, watched, arguments.epochs)

    ngrams = {f"{n}-gram": NGram(learnt, n, len(vocabulary)) for n in (1, 2, ORDER)}

    def by_ngram(name, numbers):
        given = ORDER - ngrams[name].order  # all are judged on the words after the first
        return ngrams[name].probabilities(numbers[given:])

    text = np.concatenate([learnt[-ORDER + 1 :], judged])
    mixture = (by_ngram("3-gram", text) + probabilities_of(model, text[ORDER - 2 :])) / 2
    scores = {name: perplexity(by_ngram(name, text)) for name in ngrams}
    scores["LSTM"] = perplexity(probabilities_of(model, text[ORDER - 2 :]))
    scores["LSTM and 3-gram, half each"] = perplexity(mixture)
    print_table("a story held out", ["perplexity"], {name: [s] for name, s in scores.items()})
    claim(scores["LSTM"] < scores["1-gram"], "the LSTM is less in doubt than single words are")
    if not arguments.quick:
        claim(scores["LSTM"] < scores["3-gram"], "and less than the trigram model with back-off")

    path = arguments.out / "next_word.safetensors"
    model.save(path)
    loaded = load(path)
    same = np.array_equal(loaded(judged[:200, None]), model(judged[:200, None]))
    claim(same, f"loaded again from {path}, the model gives the same bits")
    print("\n" + write(loaded, vocabulary, '"My dear Watson,', 60, np.random.default_rng(0)) + "\n")
    draw(history, {name: perplexity(by_ngram(name, np.concatenate([learnt[-2:], watched])))
                   for name in ngrams}, arguments.out / "next_word.png")  # fmt: skip
    print(f"the picture is {arguments.out / 'next_word.png'}")


if __name__ == "__main__":
    main()
