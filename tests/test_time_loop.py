"""No Python stands inside the time loops: read off the C that Cython makes of them."""

import re
from functools import cache
from pathlib import Path

import pytest
from Cython.Compiler.Main import CompilationOptions, compile_single

ROOT = Path(__file__).parent.parent
PYTHON_CALL = re.compile(r"\b(Py[A-Z]\w*|__Pyx_Py\w*|__Pyx_\w*(?:GIL|Gil|XDECREF|INCREF)\w*)\s*\(")
LOOPS = [
    ("forward", "run_task"),
    ("backward", "run_blocks"),
    ("backward", "run_portion"),
    ("sums", "prepare_sums"),
    ("sums", "add_to_table"),
    ("sums", "run_table"),
    ("products", "add_rows"),
    ("products", "multiply_deep"),
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
        source = str(ROOT / "cylstm" / "core" / f"{module}.pyx")
        compile_single(source, options, f"cylstm.core.{module}")
        name = rf"(?:__pyx_fuse_\d)?__pyx_f_6cylstm_4core_{len(module)}{module}_(\w+)"
        definition = re.compile(
            rf"^static [^;{{}}]*?\b{name}\([^;{{}}]*\) \{{$(.*?)^\}}$", re.MULTILINE | re.DOTALL
        )
        return [(match[1], match[2]) for match in definition.finditer(to.read_text())]

    return functions_of


@pytest.mark.parametrize(("module", "loop"), LOOPS)
def test_no_python_call_in(functions_of, module, loop):
    bodies = [body for name, body in functions_of(module) if name == loop]
    assert bodies
    for body in bodies:
        assert re.search(r"for \(|while \(", body)
        assert not PYTHON_CALL.findall(body)


def test_a_python_call_would_be_found(functions_of):
    """The pattern finds those of a function that does call Python."""
    body = next(body for name, body in functions_of("backward") if name == "run_backward")
    assert PYTHON_CALL.findall(body)
