"""`cylstm convert`."""

from __future__ import annotations

import argparse
import os
from typing import Any

__all__ = ["run"]

ENDINGS = (".safetensors", ".onnx", ".pt")


def run(given: argparse.Namespace) -> int:
    """Read one file and write another."""
    ending = os.path.splitext(given.target)[1].lower()
    if ending not in ENDINGS:
        raise ValueError(
            f"OUT: expected a name that ends in {', '.join(ENDINGS)}, got {given.target}"
        )
    folder = os.path.dirname(given.target)
    if folder and not os.path.isdir(folder):
        raise ValueError(f"OUT: expected a file in a folder that is there, got {given.target}")
    if given.quantize is not None and ending != ".safetensors":
        raise ValueError(f"--quantize: expected a .safetensors file to write, got {ending}")
    if given.check and ending != ".safetensors":
        raise ValueError(f"--check: expected a .safetensors file to write, got {ending}")
    if os.path.exists(given.target) and os.path.samefile(given.file, given.target):
        raise ValueError("OUT: expected another file than IN")
    model = _opened(given)
    if given.quantize is not None:
        model = _quantized(model, given.quantize)
    _write(model, given.target, ending, given.check)
    sizes = (f"{os.path.getsize(path):,} bytes" for path in (given.file, given.target))
    print(f"{given.file} ({next(sizes)}) -> {given.target} ({next(sizes)}): {model!r}")
    return 0


def _opened(given: argparse.Namespace) -> Any:
    """Return the model, or the LSTM within it."""
    from cylstm.opening import kind_of_file, load

    kind = kind_of_file(given.file)
    if given.lstm is None or kind.startswith("cylstm"):
        return load(given.file, batch_first=given.batch_first)
    name = given.lstm or None
    if kind.startswith("PyTorch"):
        return load(given.file, name, batch_first=given.batch_first)
    if given.batch_first is not None:
        raise ValueError(f"--batch-first: expected a file of PyTorch, got {kind}")
    if kind.startswith("Keras"):
        from cylstm.formats.keras import from_keras

        return from_keras(given.file, name)
    from cylstm.formats.onnx import from_onnx

    return from_onnx(given.file, name)


def _quantized(model: Any, kind: str) -> Any:
    if not hasattr(model, "quantize"):
        raise ValueError(
            f"--quantize: expected an LSTM or a model of cylstm's own layers, got "
            f"{type(model).__name__}; --lstm takes the LSTM alone"
        )
    return model.quantize(kind)


def _write(model: Any, target: str, ending: str, check: bool) -> None:
    if ending == ".safetensors":
        if not hasattr(model, "save"):
            raise ValueError(f"IN: {_ALONE}, got {type(model).__name__}")
        try:
            return model.save(target, check=check)
        except TypeError as error:  # of a layer that was read
            raise ValueError(f"IN: {_ALONE}; {error}") from None
    if not hasattr(model, "to_onnx"):
        raise ValueError(
            f"OUT: expected .safetensors for {type(model).__name__}; {ending} is of one LSTM, GRU "
            "or RNN"
        )
    if ending == ".onnx":
        return model.to_onnx(target)
    try:
        import torch
    except ImportError:
        raise ImportError(
            "OUT: expected PyTorch, to write .pt, which is not installed: "
            "python -m pip install torch"
        ) from None
    from cylstm.io.writing import replacing

    with replacing(target) as file:
        torch.save(model.to_torch(), file)


_ALONE = "expected a model of cylstm's own layers; --lstm takes the LSTM alone"
