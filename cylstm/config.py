"""What this installation computes with."""

from __future__ import annotations

import numpy as np

from cylstm.core import kernels, team


def show_config() -> None:
    """Print the versions, the CPU's instruction sets, and which of them is used.

    The best set that the CPU has is used, unless the environment variable ``CYLSTM_ISA`` named
    another when cylstm was imported.
    """
    import platform  # all slow to import
    from importlib.metadata import version

    import scipy

    blas = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    lines = {
        "cylstm": version("cylstm"),
        "Python": f"{platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}",
        "BLAS": f"{blas['name']} {blas['version']}, through SciPy",
        "Product": kernels.PRODUCT,
        "Threads": str(team.get_num_threads()),
        "ISA": f"{kernels.ISA} (there are {', '.join(kernels.ISAS)})",
    }
    for name, text in lines.items():
        print(f"{name + ':':8} {text}")
