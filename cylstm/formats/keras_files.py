"""The files of Keras 1, 2 and 3, and its layers in memory: which arrays belong to which layer.

Each array of a file has one layer, and each layer has its arrays: where they do not come out even,
or could be paired in two ways, the file is refused.

The formats: ``keras/src/saving/saving_lib.py`` and ``legacy/saving/legacy_h5_format.py`` of Keras
3; ``saving_lib.py`` of Keras 2.12 and 2.13 counts layers with weights twice.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from reprlib import repr as short
from typing import Any

from cylstm.formats.keras_config import (
    MODELS,
    Arrays,
    Entry,
    checked_version,
    configuration,
    described,
    has_group,
    inner_layers,
    json_object,
    named,
    text,
)
from cylstm.io import hdf5
from cylstm.io.files import ZIP, Budget, naming, open_plain, real
from cylstm.io.hdf5 import Hdf5, plain
from cylstm.io.zips import opened, read_member

__all__ = ["described_by_name", "described_by_order", "in_memory", "opened_model"]

_FOLDERS = ("layers", "_layer_checkpoint_dependencies")  # of Keras 3, and before 2.14
_BESIDE = ("metrics", "optimizer")  # the model, at the root
_MOST_WEIGHTS = 10_000  # of a layer of a legacy file, which may be a model


def in_memory(source: Any) -> Entry:
    """Describe a layer, or a model, of a Keras that runs."""
    library = type(source).__module__.partition(".")[0]
    version = getattr(sys.modules.get(library), "__version__", "3")

    def weights(parts: Sequence[str]) -> list[Arrays]:
        return _split([real(source.name, array) for array in source.get_weights()], len(parts))

    layers = [in_memory(layer) for layer in getattr(source, "layers", [])]
    kind = "Sequential" if layers else type(source).__name__  # the order of layers is all the same
    return Entry(source.name, kind, source.get_config(), version, None, weights, layers)


@contextmanager
def opened_model(path: Any, config: Any) -> Iterator[Entry]:
    """Open a file, and lend the model that it holds."""
    with open_plain(path) as file, naming(path):
        size = os.fstat(file.fileno()).st_size
        budget = Budget(size)
        if file.read(4) != ZIP:
            with hdf5.opened(file, size, budget) as arrays:
                yield _of_hdf5(path, arrays, config, budget)
            return
        with opened(file) as archive, tempfile.TemporaryFile() as inner:
            model = json_object(read_member(archive, "config.json", budget))
            about = json_object(read_member(archive, "metadata.json", budget))
            inner.write(read_member(archive, "model.weights.h5", budget))
            inner.flush()
            version = text(about.get("keras_version"), "keras_version")
            with hdf5.opened(inner, size, budget) as arrays:
                yield described_by_order(model, version, arrays)


def _of_hdf5(path: Any, arrays: Hdf5, config: Any, budget: Budget) -> Entry:
    """Tell the formats that are one HDF5 file from each other."""
    version = arrays.text("", "keras_version")
    stored = arrays.text("", "model_config")
    model = configuration(path, config, budget) if stored is None else json_object(stored)
    version = version or model.get("keras_version", "3")
    if not arrays.texts("", "layer_names") and any(map(arrays.has, _FOLDERS)):
        return described_by_order(model, version, arrays)
    return described_by_name(model, version, arrays)


# By class and order, as Keras 3 does -----------------------------------------------------------


def described_by_order(
    value: Any, version: Any, arrays: Hdf5, place: str = "", depth: int = 0
) -> Entry:
    """Describe a layer or model whose arrays lie where Keras 3 puts them: by class and order."""
    kind, config = described(value, "model")
    name = named(value.get("name", config.get("name", "")))
    weights = partial(_parts, arrays, place)
    entry = Entry(
        name, kind, config, checked_version(version), value.get("inbound_nodes"), weights, []
    )
    if kind in MODELS:
        layers = inner_layers(config, depth)
        groups = _paired(kind, layers, arrays, place)
        for layer, group in zip(layers, groups, strict=True):
            entry.layers.append(described_by_order(layer, version, arrays, group, depth + 1))
        _check_all_taken(arrays, place, groups)
    return entry


def _paired(model: str, layers: Sequence[Mapping[str, Any]], arrays: Hdf5, place: str) -> list[str]:
    """Return each layer's group: of one class they stand in the layers' order, by their numbers."""
    folders = [folder for folder in _FOLDERS if arrays.has(f"{place}/{folder}")]
    if len(folders) != 1 and layers:
        raise ValueError(f"{short(place)}: expected one of {', '.join(_FOLDERS)}, got {folders}")
    folder = plain(f"{place}/{''.join(folders)}")
    kinds = [  # None of a layer without a group
        _snake(layer["class_name"]) if has_group(layer, model) else None for layer in layers
    ]
    owners: dict[str, list[Mapping[str, Any]]] = {}
    for kind, layer in zip(kinds, layers, strict=True):
        if kind is not None:
            owners.setdefault(kind, []).append(layer)
    groups: dict[str, list[tuple[int, str]]] = {kind: [] for kind in owners}
    for group in arrays.within(folder):
        ways = list(_readings(group, owners.keys()))
        if len(ways) != 1:
            raise ValueError(
                f"{short(f'{folder}/{group}')}: expected the arrays of one layer of the "
                f"configuration, got those of {len(ways)}"
            )
        groups[ways[0][0]].append((ways[0][1], group))
    for kind, own in owners.items():
        found = groups[kind]
        found.sort()
        if len(own) != len(found):
            raise ValueError(
                f"{short(folder)}: expected the groups of {len(own)} layers {short(kind)}, "
                f"got {len(found)}"
            )
        _check_recorded(arrays, folder, found, own)
    order = {kind: iter(found) for kind, found in groups.items()}
    return ["" if kind is None else f"{folder}/{next(order[kind])[1]}" for kind in kinds]


def _readings(group: str, kinds: Set[str]) -> Iterator[tuple[str, int]]:
    """Iterate over the classes and numbers that the name of a group may mean."""
    if group in kinds:
        yield group, 0
    kind, _, digits = group.rpartition("_")
    if kind in kinds and re.fullmatch(r"[1-9]\d{0,8}", digits):
        yield kind, int(digits)


def _check_recorded(
    arrays: Hdf5,
    folder: str,
    groups: Sequence[tuple[int, str]],
    layers: Sequence[Mapping[str, Any]],
) -> None:
    """Check the names of the layers that wrote the groups, where Keras noted them.

    Another model of the same layers may have other names, but not the same ones elsewhere.
    """
    noted = [arrays.text(f"{folder}/{group}/vars", "name") for _, group in groups]
    names = [layer["name"] for layer in layers]
    if noted != names and sorted(map(str, noted)) == sorted(names):
        raise ValueError(
            f"{short(folder)}: expected the layers {short(names)} in this order, got {short(noted)}"
        )


def _parts(arrays: Hdf5, place: str, parts: Sequence[str]) -> list[Arrays]:
    """Return the arrays of a layer's parts, which must be all that it has."""
    if not place:  # it keeps none
        return [[] for _ in parts]
    paths = [arrays.variables(f"{place}/{part}/vars") for part in parts]
    taken = {path for part in paths for path in part}
    for path in arrays.datasets(place):
        if path not in taken and "/seed_generator" not in path:
            raise ValueError(f"{short(path)}: expected no such array in this layer")
    return [[arrays.array(path) for path in part] for part in paths]


def _check_all_taken(arrays: Hdf5, place: str, groups: Sequence[str]) -> None:
    """Refuse arrays of a model that are none of its layers'."""
    for path in arrays.datasets(place):
        if not place and path.partition("/")[0] in _BESIDE:
            continue
        if not any(group and path.startswith(f"{group}/") for group in groups):
            raise ValueError(f"{short(path)}: expected the arrays of layers, got others")


def _snake(name: str) -> str:
    """Return the name that Keras gives to layers of this class."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# By the layers' names, as files were before ----------------------------------------------------


def described_by_name(value: Any, version: Any, arrays: Hdf5) -> Entry:
    """Describe a model whose arrays lie under the layers' names."""
    place = "model_weights" if arrays.has("model_weights") else ""
    kind, config = described(value, "model")
    layers = inner_layers(config, 0)
    given = _listed(arrays, place)
    known = {layer["name"] for layer in layers}
    extra = next((name for name in given if name not in known), None)
    if extra is not None:
        raise ValueError(f"layer_names: expected layers of the configuration, got {short(extra)}")
    entry = Entry("", kind, config, checked_version(version), None, partial(_by_name, []), [])
    for layer in layers:
        name = layer["name"]
        if name not in given and has_group(layer, kind) and layer["class_name"] != "InputLayer":
            raise ValueError(f"layer_names: expected {short(name)} among them")
        own = [(weight, arrays, path) for weight, path in given.get(name, {}).items()]
        entry.layers.append(_by_owner(layer, entry.version, own, 1))
    return entry


def _listed(arrays: Hdf5, place: str) -> dict[str, dict[str, str]]:
    """Return the paths of each layer's arrays by the names of both; each array must have one."""
    names = arrays.texts(place, "layer_names")
    found: dict[str, dict[str, str]] = {}
    taken: set[str] = set()
    for name in names:
        group = plain(f"{place}/{name}")
        if name in found or not arrays.has(group):
            got = "it twice" if name in found else "none"
            raise ValueError(f"layer_names: expected a group for {short(name)}, got {got}")
        weights = arrays.texts(group, "weight_names")
        if len(weights) > _MOST_WEIGHTS:
            raise ValueError(f"{short(group)}: expected few weights, got {len(weights)}")
        found[name] = {}
        for weight in weights:
            path = plain(f"{group}/{weight}")
            if path in taken:
                raise ValueError(
                    f"weight_names: expected {short(weight)} of {short(name)} once, got it twice"
                )
            taken.add(path)
            found[name][weight] = path
    _check_all_listed(arrays, place, taken)
    return found


def _check_all_listed(arrays: Hdf5, place: str, taken: set[str]) -> None:
    """Refuse arrays, and groups with weights, that no layer of the list has."""
    for path in arrays.datasets(""):
        if path not in taken:
            raise ValueError(f"{short(path)}: expected the arrays of layers, got others")
    missing = next((path for path in sorted(taken) if path not in arrays.arrays), None)
    if missing is not None:
        raise ValueError(f"{short(missing)}: expected a dataset of real numbers, got none")
    own = f"{place}/top_level_model_weights"
    if arrays.texts(own, "weight_names"):
        raise ValueError(f"{short(own)}: expected no weights beside those of the layers")


_Weights = list[tuple[str, Hdf5, str]]  # name, file, path


def _by_owner(value: Mapping[str, Any], version: str, given: _Weights, depth: int) -> Entry:
    """Describe a layer, or a model whose layers' arrays lie together."""
    kind, config = described(value, "layer")
    weights = partial(_by_name, given)
    entry = Entry(value["name"], kind, config, version, value.get("inbound_nodes"), weights, [])
    if kind in MODELS:
        layers = inner_layers(config, depth)
        owned = _owned(layers, given, depth)
        for layer, own in zip(layers, owned, strict=True):
            entry.layers.append(_by_owner(layer, version, own, depth + 1))
    return entry


def _owned(layers: Sequence[Mapping[str, Any]], given: _Weights, depth: int) -> list[_Weights]:
    """Divide the weights of a model among its layers, by the names of layers in theirs.

    Their order does not tell: those that are not trained stand last.
    """
    owned: list[_Weights] = [[] for _ in layers]
    owners: dict[str, set[int]] = {}
    for k, layer in enumerate(layers):
        for name in _names_within(layer, depth):
            owners.setdefault(name, set()).add(k)
    for weight in given:
        places = set(weight[0].split("/")[:-1])
        ways = list(set().union(*(owners.get(place, ()) for place in places)))
        if len(ways) > 1:  # layers of inner models have the same name
            ways = [k for k in ways if layers[k]["name"] in places]
        if len(ways) != 1:
            raise ValueError(
                f"weight_names: expected the name of one layer in {short(weight[0])}, "
                f"got {len(ways)} in the model around it"
            )
        owned[ways[0]].append(weight)
    return owned


def _names_within(layer: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Iterate over the names of a layer, or of those of a model."""
    if layer["class_name"] in MODELS:
        for inner in inner_layers(described(layer, "layer")[1], depth + 1):
            yield from _names_within(inner, depth + 1)
    else:
        yield layer["name"]


def _by_name(given: _Weights, parts: Sequence[str]) -> list[Arrays]:
    """Return the arrays of a layer's parts, which lie one after the other."""
    split = _split([name.split("/") for name, _, _ in given], len(parts))
    if len(parts) == 2:  # those of a half that is not trained stand last
        same = (len(set(place)) == 1 for place in zip(*itertools.chain(*split), strict=False))
        common = sum(itertools.takewhile(bool, same))
        for half, other in zip(split, ("backward_", "forward_"), strict=True):
            swapped = next(
                (n for n in half if any(p.startswith(other) for p in n[common:-1])), None
            )
            if swapped is not None:
                raise ValueError(
                    f"weight_names: expected those of the layer that reads forwards first, "
                    f"got {short('/'.join(swapped))}"
                )
    return _split([arrays.array(path) for _, arrays, path in given], len(parts))


def _split(arrays: list[Any], count: int) -> list[list[Any]]:
    """Divide a layer's arrays among its parts."""
    each, rest = divmod(len(arrays), count)
    if rest:
        raise ValueError(f"expected the arrays of {count} parts, got {len(arrays)}")
    return [arrays[k * each : (k + 1) * each] for k in range(count)]
