"""What this installation computes with."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
import scipy

from cylstm import _inference, _kernels


def show_config() -> None:
    """Print the versions, the CPU's instruction sets, and which of them is used.

    The best set that the CPU has is used, unless the environment variable ``CYLSTM_ISA`` named
    another when cylstm was imported.
    """
    blas = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    lines = {
        "cylstm": version("cylstm"),
        "Python": f"{platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}",
        "BLAS": f"{blas['name']} {blas['version']}, through SciPy",
        "Product": _inference.PRODUCT,
        "Threads": str(_inference.get_num_threads()),
        "ISA": f"{_kernels.ISA} (there are {', '.join(_kernels.ISAS)})",
    }
    for name, text in lines.items():
        print(f"{name + ':':8} {text}")
