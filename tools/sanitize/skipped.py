"""A plugin of pytest's that leaves out, by name, the tests that cannot hold under a sanitizer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SANITIZER = os.environ["CYLSTM_SANITIZER"]
KEEPS = "the sanitizer keeps memory that was freed, and its shadow is memory of the process's"
LIMITS = "the sanitizer's shadow takes more address space than the limit"
FORKS = "its child allocates while a thread that is not there held the allocator's lock"
JAVA = "Java's machine does not come to an end under it"
FIRST = "it preloads a library of its own, and the sanitizer's must come first"
SHADOW = {
    "test_c.py::test_the_c_sources_alone": FORKS,  # the command has them with a sanitizer
    "test_production.py::test_memory_does_not_grow": KEEPS,
    "test_production.py::test_large_results_are_freed": KEEPS,
    "test_production.py::test_a_stream_allocates_once": FIRST,
    "test_bad_input.py::test_no_memory_for_the_parameters": LIMITS,
    "test_bad_input.py::test_no_memory_for_the_outputs": LIMITS,
    "test_score.py::test_memory_does_not_grow_with_the_row_group": KEEPS,
    "test_scorer.py::test_engines_give_the_same_bytes[spark]": JAVA,
    "test_torch.py::test_memory_is_bounded_by_the_file": KEEPS,
}
SKIPPED = {"address": SHADOW, "thread": SHADOW, "undefined": {}}[SANITIZER]


def pytest_configure() -> None:
    """Refuse to test another cylstm."""
    from cylstm.core import kernels

    expected = f"sanitize-{SANITIZER}"
    if expected not in Path(kernels.__file__).parts:
        raise pytest.UsageError(f"expected the modules of {expected}, got {kernels.__file__}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is left out."""
    for item in items:
        name = f"{item.path.name}::{item.name}"
        reason = SKIPPED.get(name) or SKIPPED.get(name.split("[")[0])
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=f"{SANITIZER} sanitizer: {reason}"))
