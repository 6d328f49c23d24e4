"""Configurations of Keras of which each part in turn is another, or is not there."""

import copy
import json
from pathlib import Path

import pytest

from configurations import read_configuration

pytest.importorskip("h5py")

CORPUS = sorted((Path(__file__).parent.parent / "fuzz/corpus/keras_config").glob("*.json"))
OTHERS = [None, True, -1, 0, 2**70, 1e300, float("nan"), "", "x", [], [[]], {}, {"class_name": []}]


def places(tree, path=()):
    """Iterate over the ways to all parts of a tree."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, part in parts:
        yield (*path, key)
        if isinstance(part, (dict, list)):
            yield from places(part, (*path, key))


def changed(tree, path):
    """Iterate over copies in which one part is gone, or another, or there twice."""
    for k in range(len(OTHERS) + 2):
        copied = copy.deepcopy(tree)
        parent = copied
        for key in path[:-1]:
            parent = parent[key]
        if k == 0:
            del parent[path[-1]]
        elif k == 1 and isinstance(parent, list):
            parent.append(parent[path[-1]])
        elif k > 1:
            parent[path[-1]] = OTHERS[k - 2]
        yield copied


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_each_part_may_be_damaged(path):
    tree = json.loads(path.read_text())
    count = 0
    for place in places(tree):
        for damaged in changed(tree, place):
            read_configuration(json.dumps(damaged))  # no error but ValueError, which it takes
            count += 1
    assert count > 1000
