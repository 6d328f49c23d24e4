"""An encoder and a decoder with attention learn to turn dates in words into ISO dates.

"the 3rd of march, 1964" becomes "1964-03-03", character by character. The encoder reads the words
in both directions; the decoder writes, and at each step looks back at what it needs: additive
attention over the encoder's outputs. The dates that it is judged by are none that it has learnt.
Where it looks is drawn.

D. Bahdanau, K. Cho, Y. Bengio, "Neural machine translation by jointly learning to align and
translate", ICLR 2015.

    python examples/dates.py            # half a minute
    python examples/dates.py --help
"""

import calendar
import datetime

import numpy as np
from report import claim, parse_arguments

from cylstm import LSTM, insight, load
from cylstm.layers import Attention, Embedding, Layer, Linear, Sequential
from cylstm.train import Adam, Batch, Cosine, cross_entropy_loss, fit

READ = "abcdefghijklmnopqrstuvwxyz0123456789 ,./"
WRITTEN = "0123456789-"
BEGIN = len(WRITTEN)  # what the decoder is given first
LENGTH = 10  # of an ISO date
MONTHS = [name.lower() for name in calendar.month_name[1:]]
DAYS = [name.lower() for name in calendar.day_name]
FIRST = datetime.date(1900, 1, 1)
SPAN = 73_000  # days from then on, one in ten of which is kept to judge by

EMBEDDING, HIDDEN, BATCH, LEARNING_RATE = 16, 64, 64, 5e-3


def in_words(date, rng):
    """One of the ways to write a date."""
    month, day = MONTHS[date.month - 1], date.day
    ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return [
        f"{day} {month} {date.year}",
        f"{month} {day}, {date.year}",
        f"{day} {month[:3]} {date.year}",
        f"{DAYS[date.weekday()]}, {month} {day}{ending}, {date.year}",
        f"the {day}{ending} of {month}, {date.year}",
        f"{day:02}.{date.month:02}.{date.year}",
        f"{date.month}/{day}/{date.year}",
    ][rng.integers(7)]


def dates(rng, kept):
    """Pairs without end: a date in words and as it is to be written; judged dates, or others."""
    while True:
        day = int(rng.integers(SPAN))
        if (day % 10 == 0) == kept:
            date = FIRST + datetime.timedelta(days=day)
            yield in_words(date, rng), date.isoformat()


def numbers(words):
    """(T, N) and lengths: characters as numbers, the shorter ones padded."""
    lengths = np.array([len(word) for word in words])
    x = np.zeros((lengths.max(), len(words)), np.int32)
    for n, word in enumerate(words):
        x[: len(word), n] = [READ.index(character) for character in word]
    return x, lengths


def batches(seed):
    """Batches to learn from, without end."""
    source = dates(np.random.default_rng(seed), kept=False)
    while True:
        words, isos = zip(*(next(source) for _ in range(BATCH)), strict=True)
        x, lengths = numbers(words)
        target = np.array([[WRITTEN.index(c) for c in iso] for iso in isos]).T
        given = np.concatenate([np.full((1, BATCH), BEGIN), target[:-1]])
        yield Batch(np.concatenate([x, given.astype(np.int32)]), target, lengths)


class Translator(Layer):
    """Encoder, decoder and attention; its input is both what is read and what is to be written.

    x is (T + 10, N): the words, T of them, then what the decoder is given at each step: the sign to
    begin, and the characters before. The output is the logits of the characters, (10, N, 11).
    """

    config = None  # it is not saved: its parts are
    takes = frozenset({"lengths"})
    keeps_time = False

    def __init__(self, seed=0):
        self.parts = Sequential(
            Embedding(len(READ), EMBEDDING, seed=seed),
            LSTM(EMBEDDING, HIDDEN // 2, bidirectional=True, seed=seed + 1),
            Embedding(len(WRITTEN) + 1, EMBEDDING, seed=seed + 2),
            LSTM(EMBEDDING, HIDDEN, seed=seed + 3),
            Attention(HIDDEN, score="additive", seed=seed + 4),
            Linear(2 * HIDDEN, len(WRITTEN), seed=seed + 5),
        )
        self.named_parameters, self.edit = self.parts.named_parameters, self.parts.edit

    def forward(self, x, lengths=None):
        words, encoder, characters, decoder, attention, output = self.parts
        seen, words_tape = words.forward(x[:-LENGTH])
        memory, _, encoder_tape = encoder.forward(seen, lengths=lengths)
        before, characters_tape = characters.forward(x[-LENGTH:])
        h, _, decoder_tape = decoder.forward(before)
        context, attention_tape = attention.attend(h, memory, lengths)
        logits, output_tape = output.forward(np.concatenate([h, context], axis=2))
        tapes = words_tape, encoder_tape, characters_tape, decoder_tape, attention_tape, output_tape
        return logits, tapes

    def backward(self, tapes, grad_logits):
        words, encoder, characters, decoder, attention, output = self.parts
        grads = [{}] * len(tapes)
        grad, grads[5] = output.backward(tapes[5], grad_logits)
        grad_h, grad_context = grad[..., :HIDDEN], grad[..., HIDDEN:]
        more, grad_memory, grads[4] = attention.attend_backward(tapes[4], grad_context)
        grad_before, _, grads[3] = decoder.backward(tapes[3], grad_h + more)
        _, grads[2] = characters.backward(tapes[2], grad_before)
        grad_seen, _, grads[1] = encoder.backward(tapes[1], grad_memory)
        grad_x, grads[0] = words.backward(tapes[0], grad_seen)
        return grad_x, {f"{i}.{n}": g for i, own in enumerate(grads) for n, g in own.items()}


def write(parts, words):
    """The dates, a character at a time, and where the attention is, (10, N, T)."""
    embed_words, encoder, characters, decoder, attention, output = parts
    x, lengths = numbers(words)
    memory, _ = encoder(embed_words(x), lengths=lengths)
    stream, given = decoder.stream(len(words)), np.full(len(words), BEGIN, np.int32)
    written, weights = [], []
    for _ in range(LENGTH):
        h = stream.step(characters(given))[None]
        context, _ = attention.attend(h, memory, lengths)
        weights.append(attention.weights(h, memory, lengths)[0])
        given = output(np.concatenate([h, context], axis=2))[0].argmax(-1).astype(np.int32)
        written.append(given)
    return ["".join(WRITTEN[c] for c in one) for one in np.transpose(written)], np.array(weights)


def main():
    arguments = parse_arguments(__doc__, steps=(600, "training steps"))
    steps = 60 if arguments.quick else arguments.steps
    model = Translator()
    history = fit(
        model, batches(1), cross_entropy_loss, Adam(model), epochs=10, steps_per_epoch=steps // 10,
        schedule=Cosine(LEARNING_RATE, steps, warmup=steps // 10), clip_norm=1.0, seed=0,
        progress=True,
    )  # fmt: skip
    print("loss, in tenths of the training:", " ".join(f"{loss:.3f}" for loss in history.loss))

    source = dates(np.random.default_rng(2), kept=True)
    words, isos = zip(*(next(source) for _ in range(1000)), strict=True)
    written, weights = write(model.parts, words)
    right = np.mean([ours == iso for ours, iso in zip(written, isos, strict=True)])
    print(f"of 1000 dates that it has not learnt {right:.1%} are right")
    for read, ours, iso in list(zip(words, written, isos, strict=True))[:6]:
        print(f"  {read:30} {ours}  {'' if ours == iso else 'not ' + iso}")
    claim(history.loss[-1] < 0.8 * history.loss[0], "it learns")
    if not arguments.quick:
        claim(right > 0.99, "more than 99 % of the dates are right")

    path = arguments.out / "dates.safetensors"
    model.parts.save(path)
    claim(write(load(path), words)[0] == written, f"loaded again from {path}, it writes the same")
    drawn = int(np.argmax([word.startswith("the ") for word in words]))
    shown = weights[:, drawn, : len(words[drawn])]
    title = f"Where the decoder looks as it writes {written[drawn]}"
    figure = insight.draw_attention(shown, words[drawn], written[drawn], title=title)
    figure.savefig(arguments.out / "attention.png", dpi=100)


if __name__ == "__main__":
    main()
