"""A batch job: ragged sequences of tokens in memory, and from one Parquet file to another."""

import os
import shutil
import tempfile

import numpy as np

from .common import use

ROWS, SHORTEST, LONGEST = 5_000, 3, 60
WORDS, EMBEDDED, UNITS, CLASSES = 5_000, 32, 64, 5


class Jobs:
    params = [("sequence", "step"), (1, 2)]
    param_names = ("prediction of each", "threads")
    timeout = 300

    def setup(self, each, threads):
        use()
        import cylstm
        from cylstm.layers import Embedding, Last, Linear, Sequential

        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise NotImplementedError("pyarrow is not installed") from None  # skipped
        if not hasattr(cylstm, "score"):
            raise NotImplementedError("a commit before batch jobs")
        lstm = cylstm.LSTM(EMBEDDED, UNITS, bidirectional=True, seed=0)
        last = [Last()] if each == "sequence" else []
        embedding, linear = Embedding(WORDS, EMBEDDED, seed=1), Linear(2 * UNITS, CLASSES, seed=2)
        self.score, self.model = cylstm.score, Sequential(embedding, lstm, *last, linear)
        rng = np.random.default_rng(0)
        lengths = rng.integers(SHORTEST, LONGEST + 1, ROWS)
        self.offsets = np.concatenate(([0], np.cumsum(lengths)))
        self.tokens = rng.integers(0, WORDS, self.offsets[-1])
        column = pa.ListArray.from_arrays(self.offsets.astype(np.int32), self.tokens)
        self.folder = tempfile.TemporaryDirectory()
        self.source = os.path.join(self.folder.name, "in.parquet")
        self.target = os.path.join(self.folder.name, "out")
        pq.write_table(pa.table({"id": np.arange(ROWS), "tokens": column}), self.source)

    def teardown(self, *_):
        if hasattr(self, "folder"):  # not where setup has skipped
            self.folder.cleanup()

    def time_predict(self, each, threads):
        self.model.predict(self.tokens, self.offsets, threads=threads)

    def time_score(self, each, threads):
        shutil.rmtree(self.target, ignore_errors=True)
        self.score(self.model, self.source, self.target, threads=threads)
