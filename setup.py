"""Builds the extension modules; everything else of the build is in pyproject.toml.

The kernels (src/kernels.c) are compiled once for each (instruction set, format of weights), each
with the flags of its set, and linked into one module that picks among them at run time. A compiler
that does not know a set leaves that set out.

The compiler is GCC or Clang: the kernels are in their vector extensions. On Windows it is clang-cl,
which takes cl's place among Microsoft's tools.
"""

import os
import platform
import re
import shutil
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

import Cython
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError
from setuptools.modified import newer_group


def machine():
    """What is built for: this machine, or another that the tools were told of."""
    asked = set(re.findall(r"-arch\s+(\S+)", os.environ.get("ARCHFLAGS", "")))
    if len(asked) > 1:
        raise PlatformError(f"ARCHFLAGS: expected one architecture a build, got {sorted(asked)}")
    name = asked.pop() if asked else sysconfig.get_platform().rpartition("-")[2]
    return (platform.machine() if name == "universal2" else name).lower()


GENERATED = "build/cython"
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


def instruction_sets(machine, system):
    """name: (bytes of a vector, compiler flags, the formats that gain by it beside what is more
    general).
    """
    sets = {"baseline": (16, [], FORMATS)}
    if machine in ("x86_64", "amd64"):
        avx2 = ["-mavx2", "-mfma"]
        avx512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"]
        sets |= {
            "avx2": (32, avx2, FORMATS),
            "avxvnni": (32, [*avx2, "-mavxvnni"], ("int8",)),
            "avx512": (64, avx512, FORMATS),
            "avx512vnni": (64, [*avx512, "-mavx512vnni"], ("int8",)),
            "avx512bf16": (64, [*avx512, "-mavx512bf16"], ("bfloat16",)),
        }
    elif machine in ("aarch64", "arm64") and system == "Linux":  # Apple's all have it
        sets["dotprod"] = (16, ["-march=armv8.2-a+dotprod"], ("int8",))
    return sets


def macros_of(isa, width, format_name):
    """What src/kernels.c wants defined."""
    return [("ISA", isa), ("FORMAT", format_name), (f"FORMAT_{format_name}", None),
            ("VECTOR_BYTES", str(width)),
            ("REAL_IS_DOUBLE", str(int(format_name == "double")))]  # fmt: skip


# Those that take the other formats' kernels from one more general.
NEEDED = {"avxvnni": "avx2", "avx512vnni": "avx512", "avx512bf16": "avx512vnni"}


def wanted(sets, names):
    """Baseline, the instruction sets that ``CYLSTM_ISAS`` names, and what these need; all if it
    names none.
    """
    unknown = set(names.split()) - sets.keys()
    if unknown:
        raise PlatformError(f"CYLSTM_ISAS: expected some of {', '.join(sets)}, got {names!r}")
    chosen = {"baseline", *(names.split() or sets)}
    for name in reversed(sets):  # each comes after what it needs
        if name in chosen and name in NEEDED:
            chosen.add(NEEDED[name])
    return {name: value for name, value in sets.items() if name in chosen}


INSTRUCTION_SETS = wanted(
    instruction_sets(machine(), platform.system()), os.environ.get("CYLSTM_ISAS", "").strip()
)


class BuildKernels(build_ext):
    def build_extensions(self):
        if is_msvc(self.compiler):
            use_clang_cl(self.compiler)
        super().build_extensions()

    def build_extension(self, ext):
        if ext.name == "cylstm.core.kernels":
            for isa, (_, flags, _) in INSTRUCTION_SETS.items():
                if self.compiles(flags):
                    ext.define_macros.append((f"HAVE_{isa}", None))
                    ext.extra_objects += self.kernel_objects(isa)
        elif ext.name == "cylstm.core.team" and platform.system() == "Linux":
            openmp = ["-fopenmp"]
            if self.compiles(openmp, "#include <omp.h>\n"):
                ext.extra_compile_args = ext.extra_compile_args + openmp
                ext.extra_link_args = ext.extra_link_args + openmp
        ext.extra_compile_args = self.spelled(ext.extra_compile_args)
        super().build_extension(ext)

    def spelled(self, flags):
        """As this compiler has them."""
        return [f"/clang:{flag}" for flag in flags] if is_msvc(self.compiler) else flags

    def compiles(self, flags, code="int probe;\n"):
        """Whether the compiler has these flags."""
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text(code)
            try:
                self.compiler.compile([str(probe)], folder, extra_postargs=self.spelled(flags))
            except CompileError:
                return False
        return True

    def kernel_objects(self, isa):
        width, flags, formats = INSTRUCTION_SETS[isa]
        objects = []
        for name in formats:
            folder = Path(self.build_temp, isa, name)
            made = self.compiler.object_filenames(["src/kernels.c"], output_dir=str(folder))
            if self.force or newer_group([*SOURCES, "setup.py"], made[0]):
                made = self.compiler.compile(
                    ["src/kernels.c"],
                    str(folder),
                    macros_of(isa, width, name),
                    extra_postargs=self.spelled(FLAGS + flags),
                )
            objects += made
        return objects


def is_msvc(compiler):
    return compiler.compiler_type == "msvc"


def use_clang_cl(compiler):
    """In the place of cl, which has no vector extensions. ``CC`` may say where it is."""
    found = shutil.which(os.environ.get("CC", "clang-cl"))
    if found is None:
        raise PlatformError(
            "CC: expected clang-cl, which Visual Studio's installer and LLVM's have; "
            "cl has not the vector extensions that the kernels are written in"
        )
    if not compiler.initialized:
        compiler.initialize()
    compiler.cc = found
    # Optimization of the whole program is cl's own.
    compiler.compile_options = [flag for flag in compiler.compile_options if flag != "/GL"]


def write_blas_int():
    """SciPy has exported its BLAS integer type since 1.18; before, it was int."""
    declarations = Path(find_spec("scipy.linalg").origin).with_name("cython_blas.pxd").read_text()
    has_it = "blas_int" in declarations
    line = "from scipy.linalg.cython_blas cimport blas_int" if has_it else "ctypedef int blas_int"
    path = Path(GENERATED, "_blas_int.pxi")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != line + "\n":  # else what depends on it stays
        path.write_text(line + "\n")


def extension(name, *sources, macros=()):
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
        extra_compile_args=FLAGS,
        libraries=[] if platform.system() == "Windows" else ["m"],
        extra_link_args=strip,
    )


if __name__ == "__main__":
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
                extension("core.lookup"),
                extension("core.memory"),
                extension("core.network"),
                extension("core.plan"),
                extension("core.products"),
                extension("core.stack"),
                extension("core.sums"),
                extension("core.team", "src/team.c"),
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
                "freethreading_compatible": True,
            },
        ),
        cmdclass={"build_ext": BuildKernels},
    )
