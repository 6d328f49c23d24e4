"""The bits of inference on another machine: the same wherever multiply-adds are fused."""

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cylstm
from cylstm.core.kernels import ISAS, PRODUCT

NETWORKS = (
    lambda **given: cylstm.LSTM(7, 33, **given),
    lambda **given: cylstm.LSTM(7, 33, peephole=True, clip=1.0, **given),
    lambda **given: cylstm.LSTM(
        7, 33, coupled=True, activations=("hard_sigmoid", "relu", "tanh"), **given
    ),
    lambda **given: cylstm.LSTM(7, 33, activations=("sigmoid", "tanh", "sigmoid"), **given),
    lambda **given: cylstm.LSTM(7, 33, 2, proj_size=5, bidirectional=True, **given),
    lambda **given: cylstm.GRU(7, 33, **given),
    lambda **given: cylstm.RNN(7, 33, **given),
)
# Of each kind of weights the results of all networks. GCC 12 and Clang 22 gave these on x86-64,
# from AVX2 to AVX-512 with VNNI, and on 64-bit ARM, with `sdot` and without.
DIGESTS = {
    "float32": "18d5df1225e9",
    "float64": "a46dc88e17ca",
    "int8": "312ee9b2d7ea",
    "bfloat16": "2f8bbf986848",
}


def known_numbers(shape, scale):
    """Without a random number, or a function that another machine rounds otherwise."""
    count = int(np.prod(shape))
    return ((np.arange(count) * 7919 % 521 - 260) / 256 * scale).reshape(shape)


def digest(kind):
    found = hashlib.sha256()
    dtype = kind if kind.startswith("float") else "float32"
    x = known_numbers((20, 8, 7), 2).astype(dtype)
    for make in NETWORKS:
        network = make(dtype=dtype)
        network.load_state_dict(
            {name: known_numbers(p.shape, 0.5) for name, p in network.state_dict().items()}
        )
        if kind != dtype:
            network = network.quantize(kind)
        for given, lengths in ((x, [20, 3, 9, 17, 17, 17, 1, 0]), (x[:, :1], None)):
            y, state = network(given, lengths=lengths)
            for array in (y, *(state if isinstance(state, tuple) else [state])):
                found.update(array.tobytes())
    return found.hexdigest()[:12]


def fuses(isa):
    return isa != "baseline" or platform.machine().lower() not in ("x86_64", "amd64")


@pytest.mark.parametrize("isa", [isa for isa in ISAS if fuses(isa)])
@pytest.mark.parametrize("kind", DIGESTS)
def test_bits_are_the_same_on_every_machine_that_fuses(isa, kind):
    if kind.startswith("float") and PRODUCT == "blas":
        pytest.skip("BLAS sums in an order of its own")
    if kind == "bfloat16" and isa == "avx512bf16":
        pytest.skip("its instruction rounds the sum of two products once")
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        f"import test_machines; print(test_machines.digest({kind!r}))"
    )
    command, environment = [sys.executable, "-I", "-c", code], os.environ | {"CYLSTM_ISA": isa}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == DIGESTS[kind]
