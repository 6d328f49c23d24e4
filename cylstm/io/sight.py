"""What a file is that is not read: told by its first bytes, for errors that help."""

from __future__ import annotations

import os
from collections.abc import Sequence
from reprlib import repr as short
from typing import IO, Any

from cylstm.io.files import HDF5

__all__ = [
    "HEAD",
    "describe_archive",
    "describe_file",
    "describe_folder",
    "describe_start",
    "is_onnx",
]

_CONVERT = "convert it to ONNX and use cylstm.from_onnx or cylstm.load"
_STARTS = {  # of files: what they are, and what to do
    HDF5: "an HDF5 file, as Keras writes: use cylstm.from_keras or cylstm.load",
    b"\x93NUMPY": "one array of NumPy's: save all of them by name with numpy.savez",
    b"GGUF": "a GGUF file, which no LSTM is kept in",
    b"\x1f\x8b": "a file compressed by gzip: unpack it first",
    b"BZh": "a file compressed by bzip2: unpack it first",
    b"\xfd7zXZ\x00": "a file compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "a file compressed by zstd: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"PAR1": "a Parquet table",
    b"<?xml": f"XML, as OpenVINO describes its models: {_CONVERT}",
}
_AT_4 = {
    b"TFL3": "a TensorFlow Lite model, whose weights are not read: give the Keras model that it "
    f"was made from to cylstm.from_keras, or {_CONVERT}",
    b"ET12": "an ExecuTorch program: save the module's state dict with torch.save instead",
    b"ORTM": "a model in ONNX Runtime's own format: give the ONNX file that it was made from",
}
_CORE_ML = (
    "a Core ML model, whose weights are not read: give the PyTorch or Keras model that it was made "
    "from"
)
HEAD = 512  # bytes that tell


def is_onnx(start: bytes) -> bool:
    r"""Tell whether a file that begins so can be ONNX, which is protobuf without a mark.

    Examples
    --------
    >>> is_onnx(b"\x08\x08\x12\x07pytorch"), is_onnx(b"\x08\x05\x12\x10\x0a\x0e")
    (True, False)
    """
    return (
        bool(start)
        and start[0] & 7 in (0, 2)
        and 1 <= start[0] >> 3 <= 25
        and start[4:8] not in _AT_4
        and not start.startswith(tuple(_STARTS))
        and not is_text(start)
        and not is_core_ml(start)
    )


def is_text(start: bytes) -> bool:
    r"""Tell whether a file that begins so is plain text, which has no control characters.

    Examples
    --------
    >>> is_text(b"id,x\n1,2\n"), is_text(b"\x08\x08\x12\x07pytorch")
    (True, False)
    """
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)


def is_core_ml(start: bytes) -> bool:
    """Tell Core ML's protobuf from ONNX's: its second field is a message, not the maker's name."""
    if len(start) < 6 or start[0] != 0x08 or start[1] & 0x80 or start[2] != 0x12:
        return False
    end = 3  # of the length of the second field
    while end < len(start) - 1 and start[end] & 0x80:
        end += 1
    return start[end + 1 : end + 2] in (b"\x0a", b"\x52", b"\xa2")


def describe_file(file: IO[bytes]) -> str:
    """Return what a file is, as far as its beginning tells, and what to do with it."""
    file.seek(0)
    return describe_start(file.read(HEAD))


def describe_start(start: bytes) -> str:
    """Return what `describe_file` does, of a file that begins so."""
    for mark, what in _STARTS.items():
        if start.startswith(mark):
            return what
    if start[4:8] in _AT_4:
        return _AT_4[start[4:8]]
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it, and give the file of weights within"
    if is_core_ml(start):
        return _CORE_ML
    if start[:1] == b"\x08" and is_onnx(start):
        return "what may be an ONNX model: use cylstm.from_onnx or cylstm.load"
    if not start:
        return "an empty file"
    return f"one that begins with {start[:9]!r}"


def describe_archive(names: Sequence[str]) -> str:
    """Return what a zip archive is that holds files of these names, and what to do with it."""
    last = {name.rpartition("/")[2] for name in names}
    if "config.json" in last and any(name.endswith(".weights.h5") for name in last):
        return "a Keras model: use cylstm.from_keras or cylstm.load"
    if any("exported_program" in name or name.endswith("models/model.json") for name in names):
        return (
            "a program of torch.export, whose weights are not read: save the module's state dict "
            "with torch.save instead"
        )
    if "Manifest.json" in last:
        return _CORE_ML
    return f"an archive of {short(sorted(names))}"


def describe_folder(path: Any) -> None:
    """Refuse a folder of a kind that is known, and say what it is; others pass.

    Raises
    ------
    ValueError
        If it is one.
    """
    inside = set(os.listdir(path))
    told = None
    if "saved_model.pb" in inside:
        told = (
            "a SavedModel of TensorFlow, whose weights are not read: load it with Keras, save it "
            f"with model.save('model.keras') and use cylstm.from_keras, or {_CONVERT}"
        )
    elif "Manifest.json" in inside or "model.mlmodel" in inside:
        told = _CORE_ML
    elif ".metadata" in inside:
        told = "a distributed checkpoint: make one file of it with torch.distributed.checkpoint"
    elif files := sorted(n for n in inside if n.endswith((".safetensors", ".bin", ".pt", ".pth"))):
        told = f"a folder: give one of its files, {', '.join(map(repr, files[:9]))}"
    if told is not None:
        raise ValueError(f"{os.fspath(path)}: expected a file, got {told}")
