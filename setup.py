"""Builds the extension modules; everything else of the build is in pyproject.toml.

The kernels (src/kernels.c) are compiled once for each (instruction set, format of weights), each
with the flags of its set, and linked into one module that picks among them at run time. A compiler
that does not know a set leaves that set out.
"""

import os
import platform
import tempfile
from importlib.util import find_spec
from pathlib import Path

import Cython
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

GENERATED = "build/cython"
X86 = platform.machine().lower() in ("x86_64", "amd64")
ARM = platform.machine().lower() in ("aarch64", "arm64")
SOURCES = sorted(
    str(path) for root in ("src", "cylstm/include") for path in Path(root).rglob("*.[ch]")
)
DEBUG = os.environ.get("CYLSTM_DEBUG_CYTHON") == "1"
SYMBOLS = DEBUG or os.environ.get("CYLSTM_SYMBOLS") == "1"

# -ffp-contract=fast lets the compiler fuse a multiplication and an addition; nothing else of the
# arithmetic may be changed by it. Python's own flags bring -fwrapv, with which GCC's addresses cost
# the kernels 4 % (GCC 12.2, Zen 4).
FLAGS = ["-O3", "-std=gnu11", "-g" if SYMBOLS else "-g0", "-fvisibility=hidden", "-fno-wrapv",
         "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]  # fmt: skip

# What `cylstm.show_config` tells.
BUILT_WITH = [
    ("CYLSTM_FLAGS", '"{}"'.format(" ".join([os.environ.get("CFLAGS", ""), *FLAGS]).strip())),
    ("CYLSTM_CYTHON", f'"{Cython.__version__}"'),
]

FORMATS = ("float", "double", "bfloat16", "int8")  # of weights

# name: (bytes of a vector, compiler flags, the formats that gain by it beside what is more general)
INSTRUCTION_SETS = {"baseline": (16, [], FORMATS)}
if X86:
    AVX2 = ["-mavx2", "-mfma"]
    AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"]
    INSTRUCTION_SETS |= {
        "avx2": (32, AVX2, FORMATS),
        "avxvnni": (32, [*AVX2, "-mavxvnni"], ("int8",)),
        "avx512": (64, AVX512, FORMATS),
        "avx512vnni": (64, [*AVX512, "-mavx512vnni"], ("int8",)),
        "avx512bf16": (64, [*AVX512, "-mavx512bf16"], ("bfloat16",)),
    }
elif ARM and platform.system() == "Linux":
    INSTRUCTION_SETS["dotprod"] = (16, ["-march=armv8.2-a+dotprod"], ("int8",))


class BuildKernels(build_ext):
    def build_extension(self, ext):
        if ext.name == "cylstm.core.kernels":
            for isa in filter(self.compiles, INSTRUCTION_SETS):
                ext.define_macros.append((f"HAVE_{isa}", None))
                ext.extra_objects += self.kernel_objects(isa)
        super().build_extension(ext)

    def compiles(self, isa):
        """Whether the compiler has this set's flags."""
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text("int probe;\n")
            try:
                self.compiler.compile([str(probe)], folder, extra_postargs=INSTRUCTION_SETS[isa][1])
            except CompileError:
                return False
        return True

    def kernel_objects(self, isa):
        width, flags, formats = INSTRUCTION_SETS[isa]
        objects = []
        for name in formats:
            macros = [("ISA", isa), ("FORMAT", name), (f"FORMAT_{name}", None),
                      ("VECTOR_BYTES", str(width)),
                      ("REAL_IS_DOUBLE", str(int(name == "double")))]  # fmt: skip
            objects += self.compiler.compile(
                ["src/kernels.c"],
                str(Path(self.build_temp, isa, name)),
                macros,
                extra_postargs=FLAGS + flags,
                depends=SOURCES,
            )
        return objects


def write_blas_int():
    """SciPy has exported its BLAS integer type since 1.18; before, it was int."""
    declarations = Path(find_spec("scipy.linalg").origin).with_name("cython_blas.pxd").read_text()
    has_it = "blas_int" in declarations
    line = "from scipy.linalg.cython_blas cimport blas_int" if has_it else "ctypedef int blas_int"
    folder = Path(GENERATED)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_blas_int.pxi").write_text(line + "\n")


def extension(name, *sources, openmp=False, macros=()):
    flags = ["-fopenmp"] if openmp else []
    strip = ["-Wl,-s"] if platform.system() == "Linux" and not SYMBOLS else []
    return Extension(
        f"cylstm.{name}",
        [f"cylstm/{name.replace('.', '/')}.pyx", *sources],
        include_dirs=["src", "cylstm/include", numpy.get_include()],
        depends=SOURCES,
        define_macros=[
            ("CYTHON_CCOMPLEX", "0"),
            ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
            *macros,
        ],
        extra_compile_args=FLAGS + flags,
        libraries=["m"],
        extra_link_args=flags + strip,
    )


write_blas_int()
setup(
    ext_modules=cythonize(
        [
            extension("core.access"),
            extension("core.affine"),
            extension("core.api"),
            extension("core.attend"),
            extension("core.backward"),
            extension("core.blas", "src/exclusive.c"),
            extension("core.cell"),
            extension("core.forward"),
            extension("core.kernels", "src/dispatch.c", macros=BUILT_WITH),
            extension("core.memory"),
            extension("core.network"),
            extension("core.plan"),
            extension("core.products"),
            extension("core.stack"),
            extension("core.team", "src/team.c", openmp=True),
            extension("core.training"),
            extension("core.weights"),
            extension("core.workspace"),
        ],
        build_dir=GENERATED,
        include_path=[GENERATED],
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
        },
    ),
    cmdclass={"build_ext": BuildKernels},
)
