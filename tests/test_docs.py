"""The examples in docstrings run, and every public name has a docstring with its parts."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil

import numpy as np
import pytest

import cylstm

MODULES = [
    found.name
    for found in pkgutil.walk_packages(cylstm.__path__, "cylstm.")
    if not found.name.rpartition(".")[2].startswith("_")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"np": np, "cylstm": cylstm})
    assert failed == 0


def test_examples_of_formats():
    text = pathlib.Path(__file__).parents[1] / "docs" / "formats.md"
    failed, run = doctest.testfile(str(text), False, globs={"np": np, "cylstm": cylstm})
    assert (failed, run > 0) == (0, True)


def test_there_are_examples():
    finder, found = doctest.DocTestFinder(), 0
    for name in MODULES:
        found += sum(bool(test.examples) for test in finder.find(importlib.import_module(name)))
    assert found >= 10


@pytest.mark.parametrize("name", cylstm.__all__)
def test_public_names_are_documented(name):
    assert inspect.getdoc(getattr(cylstm, name))
