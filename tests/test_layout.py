"""Imports run one way: no circle, and nothing knows what stands above it; files have one job."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What each folder may import, beside itself; "" are the modules that stand in none.
BELOW = {
    "core": set(),
    "io": {"", "core"},
    "": {"core", "io"},
    "layers": {"", "core", "io"},
    "formats": {"", "core", "io", "layers"},
    "train": {"", "core", "io", "layers"},
    "insight": {"", "core", "io", "layers", "train"},
    "predict": {"", "core", "layers"},
    "jobs": {"", "core", "io", "predict"},
    "cli": {"", "core", "jobs", "layers", "predict"},
}
DOORS = {"cylstm", "cylstm.__main__", "cylstm.opening"}  # they lead to all kinds of files
MOST_LINES = 540  # with docstrings


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    name_of(path): path
    for path in sorted((ROOT / "cylstm").rglob("*.p*"))
    if path.suffix in (".py", ".pyx")
    or (path.suffix == ".pxd" and not path.with_suffix(".pyx").exists())
}


def imported(path):
    """Our modules that are imported with one, not later within a function."""
    text = path.read_text()
    if path.suffix != ".py":  # both kinds of import stand at the beginning of lines
        found = {line.split()[1] for line in text.splitlines() if line.startswith("from cylstm")}
        return found - {name_of(path)}  # its own .pxd
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner or {node.module} & MODULES.keys()
    return found


def folder_of(name):
    parts = MODULES[name].relative_to(ROOT / "cylstm").parts
    return parts[0] if len(parts) > 1 else ""


def test_no_circle():
    TopologicalSorter({name: imported(path) for name, path in MODULES.items()}).prepare()


@pytest.mark.parametrize("name", sorted(MODULES.keys() - DOORS))
def test_a_module_imports_what_is_below_it(name):
    own = folder_of(name)
    others = {folder_of(other) for other in imported(MODULES[name])} - {own}
    assert others <= BELOW[own]


@pytest.mark.parametrize("name", MODULES)
def test_a_file_can_be_read(name):
    assert len(MODULES[name].read_text().splitlines()) <= MOST_LINES


def test_what_scores_imports_no_optimizer():
    """Nor does what runs an LSTM import layers."""
    for name in ("cylstm.formats.onnx_chain", "cylstm.formats.keras_scoring"):
        assert not any(other.startswith("cylstm.train") for other in all_imported(name))
    assert not any(other.startswith("cylstm.layers") for other in all_imported("cylstm.lstm"))


def all_imported(name):
    found, new = set(), {name}
    while new:
        found |= new
        new = set().union(*(imported(MODULES[one]) for one in new)) - found
    return found


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in MODULES
        if name.startswith("cylstm.layers") or name.startswith("cylstm.train")
    ],
)
def test_no_product_by_numpy_in(name):
    """Its BLAS would leave threads spinning on the CPUs that ours want."""
    tree = ast.parse(MODULES[name].read_text())
    products = {"dot", "einsum", "inner", "linalg", "matmul", "tensordot", "vdot", "vecdot"}
    for node in ast.walk(tree):
        assert not (
            isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.MatMult)
        )
        assert not (isinstance(node, ast.Attribute) and node.attr in products)
