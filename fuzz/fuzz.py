"""A coverage-guided fuzz run of one reader: it may raise ValueError, and nothing else.

usage: python fuzz/fuzz.py READER FOLDER fuzz/corpus/READER [libFuzzer options]

READER is torch, keras, keras_config, onnx or safetensors. It needs atheris (and h5py, onnx). New
inputs go to FOLDER; the seeds were made by fuzz/make_corpus.py. What it finds is left as a file
``crash-*``, ``timeout-*`` or ``oom-*``. The HDF5 of keras is read in another process, of which the
fuzzer sees nothing; keras_config is the rest of that reader, given the configuration alone.
"""

import contextlib
import os
import sys
import tempfile
import warnings

import atheris

with atheris.instrument_imports(include=["cylstm.io", "zipfile", "pickletools", "json"]):
    import numpy as np

    import cylstm
    from cylstm.io import (  # noqa
        files,
        hdf5,
        keras,
        keras_config,
        keras_files,
        keras_model,
        onnx,
        onnx_chain,
        onnx_network,
        parts,
        safetensors,
        torch,
        unpickle,
    )

READERS = {
    "torch": [cylstm.from_torch],
    "keras": [cylstm.from_keras],
    "onnx": [cylstm.from_onnx, onnx_chain.load_onnx],
    "safetensors": [cylstm.load, cylstm.from_torch],
}
CELL = [np.ones((2, 8), np.float32), np.ones((2, 8), np.float32), np.ones(8, np.float32)]


class AnyArrays(hdf5.Hdf5):
    """A file in which every layer has the arrays of an LSTM of two units, whatever it is."""

    def __init__(self):
        super().__init__([], {}, {}, [], files.Budget(0))

    def has(self, path):
        """Tell that the groups of Keras 3 are there."""
        return not path.endswith("_dependencies")

    def array(self, path):
        """Return one of them."""
        return CELL[int(path[-1])]

    def variables(self, path):
        """Return their paths."""
        return [f"{path}/{number}" for number in range(3)]


def read_configuration(data):
    """Read a model as of these bytes of JSON, in either format."""
    for describe in (keras_files.described_by_order, keras_files.described_by_name):
        try:
            model = describe(keras_config.json_object(data), "2.4", AnyArrays())
        except ValueError:
            continue
        for use in (keras_model.model_of, lambda m: keras._pick(m, None, 1.0)):
            with contextlib.suppress(ValueError):
                use(model)


def main():
    """Run."""
    kind = sys.argv.pop(1)
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    path = os.path.join(folder, "input")
    warnings.simplefilter("ignore")

    def read_file(data):
        with open(path, "wb") as file:
            file.write(data)
        for read in READERS[kind]:
            try:
                read(path)
            except ValueError:
                pass
            except FileNotFoundError:  # external data that are not there
                if kind != "onnx":
                    raise

    atheris.Setup(sys.argv, read_configuration if kind == "keras_config" else read_file)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
