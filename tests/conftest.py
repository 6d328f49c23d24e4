import os
import sys

import numpy as np
import pytest
from hypothesis import settings

from strategies import OPTIONS

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def rng():
    return np.random.default_rng(20250725)


@pytest.fixture(autouse=True)
def seeded_torch():
    """What PyTorch draws is the same in every run, where a test has imported it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS.keys())
def options(request):
    """The arguments of cylstm.LSTM beyond its sizes: each option in turn."""
    return request.param
