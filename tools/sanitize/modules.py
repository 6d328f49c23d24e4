"""The extension modules built with a sanitizer, in a folder of their own, and pytest upon them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

from tools.driver import ROOT

__all__ = ["Modules"]

# What must be in the process before all else; UBSan's library comes with the modules.
PRELOADED = {"address": ["libasan.so", "libstdc++.so"], "undefined": [], "thread": ["libtsan.so"]}
# CPython frees not all at its end, and some tests ask for more memory than there is.
OPTIONS = {
    "address": "detect_leaks=0:allocator_may_return_null=1",
    "undefined": "print_stacktrace=1",
    "thread": "allocator_may_return_null=1:die_after_fork=0:history_size=4:"
    f"suppressions={Path(__file__).with_name('thread.supp')}",
}
# The warning of a request that a test means to be refused.
NO_MEMORY = re.compile(r"\A==\d+==WARNING: \w+ failed to allocate 0x\w+ bytes\s*\Z")


class Modules:
    """cylstm built with a sanitizer.

    Parameters
    ----------
    sanitizer : str
    flags : list of str
        What the compiler and the linker are told beside the flags of setup.py.
    folder : path
        For what is built, a virtual environment that finds it, and reports.
    """

    def __init__(self, sanitizer: str, flags: Sequence[str], folder: Path) -> None:
        self.sanitizer, self.flags, self.folder = sanitizer, " ".join(flags), folder
        self.library, self.environment = folder / "lib", folder / "env"
        self.reports = folder / "reports"
        self.python = self.environment / "bin/python"

    def build(self, isas: Sequence[str]) -> None:
        """Compile what has changed, and make the environment.

        It is virtual so that programs which tests start, Python's isolated ones too, find what they
        are to find: this cylstm, then all that is installed beside the ordinary one.
        """
        subprocess.run(
            [sys.executable, "setup.py", "-q", "build", "--build-base", str(self.folder / "temp"),
             "--build-lib", str(self.library)],
            env=os.environ
            | {
                "CYLSTM_ISAS": " ".join(isas),
                "CYLSTM_SYMBOLS": "1",
                "CFLAGS": f"{self.flags} -fno-omit-frame-pointer",
                "LDFLAGS": self.flags,
            },
            cwd=ROOT,
            check=True,
        )  # fmt: skip
        if not self.python.exists():
            venv.create(self.environment, symlinks=True)
        paths = [self.library, sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), ROOT]
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        names = self.environment / f"lib/{version}/site-packages/sanitized.pth"
        names.write_text("".join(f"{path}\n" for path in paths))

    def run(self, arguments: Sequence[str], isa: str, product: str) -> list[str]:
        """Run pytest; return what failed, the sanitizer's reports first."""
        self.reports.mkdir(exist_ok=True)
        for path in self.reports.iterdir():
            path.unlink()
        done = subprocess.run(
            [self.python, "-I", "-m", "pytest", "-p", "tools.sanitize.skipped",
             "-p", "no:cacheprovider", "-q", *arguments],
            env=self.variables() | {"CYLSTM_ISA": isa, "CYLSTM_PRODUCT": product},
            cwd=ROOT,
            check=False,
        )  # fmt: skip
        texts = [path.read_text() for path in sorted(self.reports.iterdir())]
        failures = [text for text in texts if not NO_MEMORY.match(text)]
        if done.returncode:
            failures.append(f"pytest under {self.sanitizer}, {isa}, {product}: {done.returncode}")
        return failures

    def variables(self) -> dict[str, str]:
        """Return the environment of the tests; reports go to files, since pytest keeps stderr."""
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        options = {f"{name[0].upper()}SAN_OPTIONS": value for name, value in OPTIONS.items()}
        options["UBSAN_OPTIONS"] = options.pop("USAN_OPTIONS")
        log = f":log_path={self.reports / 'report'}"
        variables |= {name: value + log for name, value in options.items()}
        preloaded = [runtime(name) for name in PRELOADED[self.sanitizer]]
        if preloaded:
            variables["LD_PRELOAD"] = " ".join(preloaded)
        return variables | {"CYLSTM_SANITIZER": self.sanitizer, "MPLBACKEND": "Agg"}


def runtime(name: str) -> str:
    """Return where the compiler has a library of its own."""
    command = [os.environ.get("CC", "cc"), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
