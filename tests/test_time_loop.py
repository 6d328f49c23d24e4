"""No Python stands inside the time loops: read off the C that Cython makes of them."""

import re
from pathlib import Path

import pytest
from Cython.Compiler.Main import CompilationOptions, compile_single

ROOT = Path(__file__).parent.parent
LOOPS = ["run_packed_steps", "run_steps", "forward_steps", "backward_steps", "backward_products"]
PYTHON_CALL = re.compile(r"\b(Py[A-Z]\w*|__Pyx_Py\w*|__Pyx_\w*(?:GIL|Gil|XDECREF|INCREF)\w*)\s*\(")


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """The bodies of the C functions of _sequence.pyx, by name."""
    folder = tmp_path_factory.mktemp("c")
    (folder / "_blas_int.pxi").write_text("ctypedef int blas_int\n")
    to = folder / "_sequence.c"
    options = CompilationOptions(
        output_file=str(to), include_path=[str(folder)], language_level=3,
        compiler_directives={"boundscheck": False, "wraparound": False, "cdivision": True},
    )  # fmt: skip
    compile_single(str(ROOT / "cylstm" / "_sequence.pyx"), options, "cylstm._sequence")
    name = r"(?:__pyx_fuse_\d)?__pyx_f_6cylstm_9_sequence_(\w+)"
    definition = re.compile(
        rf"^static [^;{{}}]*?\b{name}\([^;{{}}]*\) \{{$(.*?)^\}}$", re.MULTILINE | re.DOTALL
    )
    text = to.read_text()
    return [(match[1], match[2]) for match in definition.finditer(text)]


@pytest.mark.parametrize("loop", LOOPS)
def test_no_python_call_in(functions, loop):
    bodies = [body for name, body in functions if name == loop]
    assert len(bodies) == 2, "expected one for each dtype"
    for body in bodies:
        assert re.search(r"for \(|while \(", body)
        assert not PYTHON_CALL.findall(body)


def test_a_python_call_would_be_found(functions):
    """The pattern finds those of a function that does call Python."""
    (body, *_) = [body for name, body in functions if name == "_forward_arrays"]
    assert PYTHON_CALL.findall(body)
