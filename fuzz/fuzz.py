"""A coverage-guided fuzz run of one reader: it may raise ValueError, and nothing else.

usage: python fuzz/fuzz.py READER FOLDER fuzz/corpus/READER [libFuzzer options]

READER is torch, keras, keras_config, onnx or safetensors. It needs atheris (and h5py, onnx). New
inputs go to FOLDER; the seeds were made by fuzz/make_corpus.py. What it finds is left as a file
``crash-*``, ``timeout-*`` or ``oom-*``. The HDF5 of keras is read in another process, of which the
fuzzer sees nothing; keras_config is the rest of that reader, given the configuration alone.
"""

import os
import sys
import tempfile
import warnings

import atheris

with atheris.instrument_imports(
    include=["cylstm.io", "cylstm.formats", "zipfile", "pickletools", "json"]
):
    import cylstm
    from configurations import read_configuration
    from cylstm.formats import keras, onnx, onnx_chain, onnx_network, parts, torch  # noqa: F401
    from cylstm.io import safetensors, unpickle  # noqa: F401

READERS = {
    "torch": [cylstm.from_torch],
    "keras": [cylstm.from_keras],
    "onnx": [cylstm.from_onnx, lambda path: onnx_chain.load_onnx(path).stream()],
    "safetensors": [cylstm.load, cylstm.from_torch],
}


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
