"""What this installation is, for reports and for builds that depend on it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from cylstm.core import kernels, team

OPTIONAL = (  # packages that some of cylstm reads, writes, draws or compares with
    "h5py",
    "onnx",
    "onnxruntime",
    "torch",
    "keras",
    "tensorflow",
    "jax",
    "pyarrow",
    "matplotlib",
    "tqdm",
    "threadpoolctl",
)
VARIABLES = ("CYLSTM_", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "BLIS_", "KERAS_BACKEND")


def get_include() -> str:
    """Return the folder of ``cylstm.h``, for extension modules that compute with a network in C.

    Returns
    -------
    str
        For ``include_dirs`` of a `setuptools.Extension`.

    Examples
    --------
    >>> import pathlib
    >>> (pathlib.Path(cylstm.get_include()) / "cylstm.h").exists()
    True
    """
    return str(Path(__file__).with_name("include"))


def show_config(mode: str = "stdout") -> dict[str, dict[str, Any]] | None:
    """Print, or return, what a report of a problem should tell of this installation.

    The best instruction set that the CPU has is used, unless the environment variable
    ``CYLSTM_ISA`` named another when cylstm was imported.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, default "stdout"
        Whether to print, or to return a dict of dicts; as of `numpy.show_config`.

    Returns
    -------
    dict of str to dict, or None

    Raises
    ------
    ValueError
        If `mode` is another.

    Examples
    --------
    >>> config = cylstm.show_config(mode="dicts")
    >>> config["Kernels"]["product"] in ("packed", "blas")
    True
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode: expected 'stdout' or 'dicts', got {mode!r}")
    found = {
        "cylstm": {"version": _version("cylstm"), "folder": str(Path(__file__).parent)},
        "Python": _python(),
        "Platform": _platform(),
        "Kernels": {"isa": kernels.ISA, "isas": list(kernels.ISAS), "product": kernels.PRODUCT},
        "Threads": {"number": team.get_num_threads(), "from": team.where_threads_come_from()},
        "Build": kernels.built_with(),
        "BLAS": _blas(),
        "Packages": {name: _version(name) for name in ("numpy", "scipy", *OPTIONAL)},
        "Environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)
        },
    }
    if mode == "dicts":
        return found
    for title, lines in found.items():
        print(f"{title}:")
        for name, value in lines.items():
            text = ", ".join(value) if isinstance(value, list) else value
            print(f"  {name}: {'not installed' if text is None else text}")
    return None


def _version(name: str) -> str | None:
    """Of a package, without importing it; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _python() -> dict[str, Any]:
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {
        "version": sys.version.replace("\n", " "),
        "implementation": sys.implementation.name,
        "GIL": has_gil,
    }


def _platform() -> dict[str, Any]:
    import platform  # slow to import

    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "CPU": _cpu() or platform.processor() or "unknown",
        "CPUs": os.cpu_count(),
        "usable CPUs": os.cpu_count() if usable is None else len(usable),
    }


def _cpu() -> str | None:
    """Its name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


def _blas() -> dict[str, Any]:
    """SciPy's, which computes where ``CYLSTM_PRODUCT=blas`` asks for it."""
    import scipy  # slow to import

    built = scipy.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {name: str(built.get(name, "unknown")) for name in ("name", "version")}
