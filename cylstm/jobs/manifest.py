"""What a folder of output holds, and of what it is made: how a job goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from reprlib import repr as short
from typing import Any

from cylstm.io.locks import locked_folder
from cylstm.io.writing import replacing

__all__ = ["MANIFEST", "Done", "Manifest", "locked"]

MANIFEST = "_manifest.json"  # readers of folders leave out what begins so
FORMAT = 1


@dataclass(frozen=True)
class Done:
    """A part that is on the disk.

    Attributes
    ----------
    file : str
    start, stop : list of int
        The file and the row of the input at which it begins and ends.
    rows, predictions, skipped : int
        How many rows of the input it is of, and what became of its sequences.
    size : int
    digest : str
        Of its bytes.
    """

    file: str
    start: list[int]
    stop: list[int]
    rows: int
    predictions: int
    skipped: int
    size: int
    digest: str

    def is_there(self, folder: str) -> bool:
        """Whether the file is as it was written."""
        path = os.path.join(folder, self.file)
        try:
            if os.path.getsize(path) != self.size:
                return False
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
            return digest.hexdigest() == self.digest
        except FileNotFoundError:
            return False


class Manifest:
    """The list of parts in a folder, and what they are made of.

    Parameters
    ----------
    folder : str
    fingerprint : dict
        By section, what the output's bytes follow from.
    """

    def __init__(self, folder: str, fingerprint: dict[str, Any]) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.parts: list[Done] = []
        self.is_complete = False
        self.path = os.path.join(folder, MANIFEST)
        if os.path.exists(self.path):
            self._read()
        else:
            self._check_empty()

    def _check_empty(self) -> None:
        there = [name for name in os.listdir(self.folder) if not name.startswith(".cylstm-")]
        if there:
            raise ValueError(
                f"target: expected a new or empty folder, or one that a job began, got "
                f"{self.folder} with {short(sorted(there)[0])}"
            )

    def _read(self) -> None:
        try:
            with open(self.path, encoding="utf-8") as file:
                saved = json.load(file)
            if saved["format"] != FORMAT:
                raise ValueError(f"format {saved['format']}, which this version does not know")
            before, parts = saved["fingerprint"], [Done(**part) for part in saved["parts"]]
            self.is_complete = saved["complete"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path}: cannot be read ({error}); begin anew in another folder"
            ) from None
        changed = _changes(before, self.fingerprint)
        if changed:
            raise ValueError(
                f"target: {self.folder} was begun with another {changed}; "
                "give it what it was begun with, or begin anew in another folder"
            )
        self.parts = parts

    def add(self, number: int, part: Done) -> None:
        """Note a part: a new one, or one that was written again."""
        self.parts[number : number + 1] = [part]
        self.write()

    def complete(self) -> None:
        """Note that there are no more."""
        self.is_complete = True
        self.write()

    def write(self) -> None:
        """Put the manifest on the disk, whole."""
        content = {
            "format": FORMAT,
            "complete": self.is_complete,
            "fingerprint": self.fingerprint,
            "parts": [asdict(part) for part in self.parts],
        }
        with replacing(self.path) as file:
            file.write(json.dumps(content, indent=1).encode())
        sync(self.folder)


def _changes(before: Any, now: dict[str, Any]) -> str:
    """Name the first thing that differs."""
    for section, content in now.items():
        old = before.get(section) if isinstance(before, dict) else None
        if old == content:
            continue
        if isinstance(content, dict) and isinstance(old, dict):
            name = next(n for n in (*content, *old) if content.get(n) != old.get(n))
            return f"{section}: {name} was {short(old.get(name))}, is {short(content.get(name))}"
        if isinstance(content, list) and isinstance(old, list):
            pairs = zip(content, old, strict=False)
            differs = next((new["name"] for new, was in pairs if new != was), None)
            return f"{section}: {differs or f'{len(old)} files were there, {len(content)} are'}"
        return section
    return ""


def sync(folder: str) -> None:
    """Have the folder's names on the disk, where a folder can be opened for that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Keep other jobs out of a folder; a lock ends with its process, however that ends."""
    try:
        descriptor = locked_folder(folder)
    except BlockingIOError:
        raise ValueError(f"target: another job is writing to {folder}") from None
    try:
        yield
    finally:
        os.close(descriptor)
