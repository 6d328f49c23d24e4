"""g2p-en's pronunciations of new words, its two GRUs run by cylstm.GRU.

g2p-en (https://pypi.org/project/g2p-en) looks English words up in the CMU dictionary, and predicts
the others letter by letter, with an encoder and a decoder that are loops over steps in NumPy. The
class below is the package's own but for `predict`: whoever calls `G2p()` gets the same
pronunciations, sooner. `predict_all` takes many words at once.

    python -m pip install cylstm g2p-en
    python examples/packages/pronounce.py recurrent cythonized
    python examples/packages/pronounce.py           # the words of Python's help, and times

The dictionary and the tagger are data of NLTK's, which the package downloads when it is imported.
Without them every word is predicted here, and `G2p()(sentence)` is the error that it is with the
package itself.
"""

import argparse
import re
import sys
import time
from pydoc_data.topics import topics

import numpy as np

import cylstm
from cylstm.layers import Embedding, Linear

try:
    from g2p_en import g2p
except ModuleNotFoundError as error:
    sys.exit(f"{error}: python -m pip install g2p-en")

BEGIN, END, MOST = 2, 3, 20  # phonemes' numbers; how many a word has at most


class Speller:
    """The encoder and decoder: numbers of letters to numbers of phonemes."""

    def __init__(self, weights):
        self.letters, self.phonemes = (self.embedding(weights[f"{n}_emb"]) for n in ("enc", "dec"))
        self.encoder, self.decoder = (self.gru(weights, name) for name in ("enc", "dec"))
        size, width = weights["fc_w"].shape
        self.logits = Linear(width, size)
        self.logits.load_state_dict({"weight": weights["fc_w"], "bias": weights["fc_b"]})

    @staticmethod
    def embedding(table):
        made = Embedding(*table.shape)
        made.load_state_dict({"weight": table})
        return made

    @staticmethod
    def gru(weights, name):
        """Its gates are in PyTorch's order, r, z, n, and so are its two biases."""
        rows, inputs = weights[f"{name}_w_ih"].shape
        made = cylstm.GRU(inputs, rows // 3)
        parts = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
        made.load_state_dict({f"{ours}_l0": weights[f"{name}_{n}"] for ours, n in parts.items()})
        return made

    def __call__(self, words):
        """The phonemes of each word, given as letters that end with </s>; all words at once."""
        lengths = np.array([len(word) for word in words])
        letters = np.zeros((lengths.max(), len(words)), np.int64)
        for n, word in enumerate(words):
            letters[: len(word), n] = word
        _, h = self.encoder(self.letters(letters), lengths=lengths)
        found = [[] for _ in words]
        running, last = np.arange(len(words)), np.full(len(words), BEGIN)
        for _ in range(MOST):
            y, h = self.decoder(self.phonemes(last[None]), h)
            last = self.logits(y)[0].argmax(-1)
            going = last != END
            running, last, h = running[going], last[going], h[:, going]
            if not len(running):
                break
            for n, phoneme in zip(running, last, strict=True):
                found[n].append(int(phoneme))
        return found


class G2p(g2p.G2p):
    """The package's `G2p`, which predicts by cylstm."""

    def __init__(self):
        try:
            super().__init__()
        except LookupError:  # no dictionary: what the package's own does after reading it
            self.cmu = {}
            self.load_variables()
            self.homograph2features = g2p.construct_homograph_dictionary()
        self.speller = Speller(self.variables)

    def predict(self, word):
        return self.predict_all([word])[0]

    def predict_all(self, words):
        """The pronunciation of each word."""
        unknown = self.g2idx["<unk>"]
        letters = [[*(self.g2idx.get(c, unknown) for c in w), self.g2idx["</s>"]] for w in words]
        return [[self.idx2p[n] for n in phonemes] for phonemes in self.speller(letters)]


def words_of_the_help():
    """The words of Python's help topics: English, and names that no dictionary has."""
    return sorted(set(re.findall("[a-z]{2,}", " ".join(topics.values()).lower())))


def compare(model, words):
    """Print how fast each is; return the words that are not pronounced alike by all."""
    found = {}
    for name, run in {
        "g2p-en": lambda: [g2p.G2p.predict(model, word) for word in words],
        "cylstm, word by word": lambda: [model.predict(word) for word in words],
        "cylstm, all at once": lambda: model.predict_all(words),
    }.items():
        begin = time.perf_counter()
        found[name] = run()
        print(f"{name:<24}{len(words) / (time.perf_counter() - begin):>8.0f} words a second")
    own, *ours = found.values()
    return [word for word, *three in zip(words, own, *ours, strict=True) if three != three[:1] * 3]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="what to pronounce (default: compare, and time)")
    parser.add_argument("--quick", action="store_true", help="compare few words: a test run")
    arguments = parser.parse_args()
    model = G2p()
    if arguments.words:
        for word, phonemes in zip(arguments.words, model.predict_all(arguments.words), strict=True):
            print(word, " ".join(phonemes))
        return
    words = words_of_the_help()[:: 30 if arguments.quick else 1]
    different = compare(model, words)
    print(f"{len(words)} words, of which {len(different)} are pronounced otherwise", *different)
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
