"""Keras's configurations without the arrays of a file: what the fuzzer and the tests damage."""

import contextlib

import numpy as np

from cylstm.formats import keras, keras_config, keras_files, keras_model
from cylstm.io import files, hdf5

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
        for use in (lambda m: keras_model.model_of(m).stream(), lambda m: keras._pick(m, None, 1)):
            with contextlib.suppress(ValueError):
                use(model)
