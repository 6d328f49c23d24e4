"""No Python stands inside the time loops: read off the C that Cython makes of them."""

import re
from functools import cache
from pathlib import Path

import pytest
from Cython.Compiler.Main import CompilationOptions, compile_single

ROOT = Path(__file__).parent.parent
PYTHON_CALL = re.compile(r"\b(Py[A-Z]\w*|__Pyx_Py\w*|__Pyx_\w*(?:GIL|Gil|XDECREF|INCREF)\w*)\s*\(")
LOOPS = [
    ("_sequence", "run_steps", 2),  # one for each dtype
    ("_sequence", "forward_steps", 2),
    ("_sequence", "backward_steps", 2),
    ("_sequence", "sum_steps", 2),
    ("_inference", "run_task", 1),
    ("_backward", "run_task", 1),
    ("_backward", "prepare_sums", 1),
]


@pytest.fixture(scope="module")
def functions_of(tmp_path_factory):
    """From a module's name to the names and bodies of its C functions."""
    folder = tmp_path_factory.mktemp("c")
    (folder / "_blas_int.pxi").write_text("ctypedef int blas_int\n")

    @cache
    def functions_of(module):
        to = folder / f"{module}.c"
        options = CompilationOptions(
            output_file=str(to),
            include_path=[str(folder)],
            language_level=3,
            compiler_directives={"boundscheck": False, "wraparound": False, "cdivision": True},
        )
        compile_single(str(ROOT / "cylstm" / f"{module}.pyx"), options, f"cylstm.{module}")
        name = rf"(?:__pyx_fuse_\d)?__pyx_f_6cylstm_{len(module)}{module}_(\w+)"
        definition = re.compile(
            rf"^static [^;{{}}]*?\b{name}\([^;{{}}]*\) \{{$(.*?)^\}}$", re.MULTILINE | re.DOTALL
        )
        return [(match[1], match[2]) for match in definition.finditer(to.read_text())]

    return functions_of


@pytest.mark.parametrize(("module", "loop", "count"), LOOPS)
def test_no_python_call_in(functions_of, module, loop, count):
    bodies = [body for name, body in functions_of(module) if name == loop]
    assert len(bodies) == count
    for body in bodies:
        assert re.search(r"for \(|while \(", body)
        assert not PYTHON_CALL.findall(body)


def test_a_python_call_would_be_found(functions_of):
    """The pattern finds those of a function that does call Python."""
    body = next(body for name, body in functions_of("_sequence") if name == "_forward_arrays")
    assert PYTHON_CALL.findall(body)
