"""What the build is told: a release has no symbols, what is to be debugged has them."""

import platform
import runpy
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "setup.py"

pytest.importorskip("Cython")
pytestmark = pytest.mark.skipif(not SETUP.exists(), reason="of the source tree")


@pytest.fixture
def told(monkeypatch, tmp_path):
    """The flags of all compilations, and of all links, under environment variables."""

    def build(**variables):
        for name in ("CYLSTM_SYMBOLS", "CYLSTM_DEBUG_CYTHON"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        made = {}
        monkeypatch.setattr("Cython.Build.cythonize", lambda modules, **_: modules)
        monkeypatch.setattr("setuptools.setup", lambda **given: made.update(given))
        (tmp_path / "src").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path)
        flags = runpy.run_path(str(SETUP), run_name="__main__")[
            "FLAGS"
        ]  # of the kernels, which are compiled apart
        extensions = made["ext_modules"]
        return (
            [flags, *(extension.extra_compile_args for extension in extensions)],
            [extension.extra_link_args for extension in extensions],
        )

    return build


def test_a_release_has_no_symbols(told):
    compilations, links = told()
    assert all("-g0" in flags and "-g" not in flags for flags in compilations)
    assert platform.system() != "Linux" or all("-Wl,-s" in flags for flags in links)


@pytest.mark.parametrize("variable", ["CYLSTM_SYMBOLS", "CYLSTM_DEBUG_CYTHON"])
def test_symbols_stay_where_they_are_asked_for(told, variable):
    compilations, links = told(**{variable: "1"})
    assert all("-g" in flags and "-g0" not in flags for flags in compilations)
    assert not any("-Wl,-s" in flags for flags in links)


def test_zig_has_flags_of_its_own(monkeypatch):
    monkeypatch.syspath_prepend(str(SETUP.parent))
    from tools.zig import as_zig

    given = ["-O3", "-march=armv8.2-a+dotprod", "-L/usr/lib", "-Wl,-rpath=/opt/lib", "-shared"]
    assert as_zig(given) == ["-O3", "-mcpu=generic+dotprod", "-shared"]


def test_instruction_sets_that_are_wanted():
    setup = runpy.run_path(str(SETUP))
    sets = setup["instruction_sets"]("x86_64", "Linux")
    assert setup["wanted"](sets, "") == sets
    assert list(setup["wanted"](sets, "avx2")) == ["baseline", "avx2"]
    for name in sets:
        got = setup["wanted"](sets, name)
        needed = setup["NEEDED"].get(name, "baseline")
        assert {"baseline", name, needed} <= got.keys(), name
        assert setup["wanted"](sets, needed).keys() <= got.keys()
        formats = {kind for some in got.values() for kind in some[2]}
        assert formats == set(setup["FORMATS"])
    with pytest.raises(setup["PlatformError"], match="CYLSTM_ISAS: expected some of baseline, "):
        setup["wanted"](sets, "avx2 avx3")


def test_pytests_arguments_go_through_a_sanitizers_command(monkeypatch):
    monkeypatch.syspath_prepend(str(SETUP.parent))
    from tools.sanitize.__main__ import understood

    options = ["--isas", "avx2", "--products", "packed", "blas", "--", "-n", "2", "tests/a.py"]
    given = understood(["address", *options])
    assert (given.sanitizer, given.products) == ("address", ["packed", "blas"])
    assert given.pytest == ["-n", "2", "tests/a.py"]
    assert understood(["thread"]).pytest == []
