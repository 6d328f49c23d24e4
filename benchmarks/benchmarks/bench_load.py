"""What comes before the first result: the import, making an LSTM, reading and writing it."""

import os
import pickle
import tempfile

from .common import STREAMS, make_lstm, make_problem, use


class Load:
    params = [STREAMS]
    param_names = ("shape",)

    def setup(self, shape):
        use()
        import cylstm

        self.load = cylstm.load
        self.problem = make_problem(shape)
        self.lstm = make_lstm(self.problem)
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "model.safetensors")
        self.lstm.save(self.path)

    def teardown(self, *_):
        if hasattr(self, "folder"):  # not where setup has skipped
            self.folder.cleanup()

    def time_make(self, *_):
        make_lstm(self.problem)

    def time_save(self, *_):
        self.lstm.save(self.path)

    def time_load(self, *_):
        self.load(self.path)

    def time_pickle(self, *_):
        pickle.loads(pickle.dumps(self.lstm))


class Import:
    def timeraw_import(self):
        return "import cylstm"

    def timeraw_import_after_numpy_and_scipy(self):
        return "import cylstm", "import numpy, scipy.linalg.cython_blas"

    def timeraw_import_after_numpy(self):
        return "import cylstm", "import numpy"


class FirstAnswer:
    """From a fresh process that has NumPy to what a saved LSTM gives."""

    def setup_cache(self):
        use()
        path = os.path.abspath("model.safetensors")
        make_lstm(make_problem(STREAMS[0])).save(path)
        return path

    def timeraw_first_answer_after_numpy(self, path):
        size = STREAMS[0].input_size
        code = f"import cylstm; cylstm.load({path!r})(numpy.zeros((1, {size}), 'f'))"
        return code, "import numpy"
