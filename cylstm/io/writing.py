"""The one way in which files are written: whole or not at all, in the place of the one before."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter

from cylstm.io.locks import HAS_LOCKS, lock

__all__ = ["check_writable", "replacing"]

_TEMPORARY = re.compile(r"\.cylstm-[0-9a-f]{16}\.part")
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)  # POSIX's, Windows's
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BufferedWriter]:
    """Open a new file that takes the place of `path` if, and only if, the body succeeds.

    The bytes go to a temporary file in the same folder, which takes its place once they are on the
    disk. Links are followed, and a file that is replaced leaves its mode, and where possible its
    owner, to the new one. Temporary files that killed processes left in the folder are removed.

    Raises
    ------
    TypeError, ValueError
        If `path` is not the name of a file.
    OSError
        If it is no plain file, or cannot be written; the error names it.
    """
    target, before = _target(path, "path")
    with _naming(path):
        _remove_orphans(os.path.dirname(target))
        with _beside(target, before) as (temporary, file):
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not HAS_LOCKS:  # nor, on Windows, a new name for an open file
                file.close()
            os.replace(temporary, target)


def check_writable(path: str | os.PathLike[str], argument: str) -> None:
    """Raise what `replacing` would, as far as it can be known before; change nothing.

    Parameters
    ----------
    path : path-like
        The file.
    argument : str
        What the caller's argument is called, for the message.
    """
    target, before = _target(path, argument)
    with _naming(path), _beside(target, before):
        pass


def _target(path: str | os.PathLike[str], argument: str) -> tuple[str, os.stat_result | None]:
    """Return the file that a path leads to, and what is known of it: None if it is not there."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{argument}: expected the name of a file, got {path!r}")
    name = os.fsdecode(path)
    try:
        if not os.path.basename(name) or b"\0" in os.fsencode(name):
            raise ValueError
    except ValueError:  # so is a UnicodeEncodeError
        raise ValueError(f"{argument}: expected the name of a file, got {name!r}") from None
    try:
        before = os.stat(name)
    except FileNotFoundError:
        return os.path.realpath(name), None
    kind = stat.S_IFMT(before.st_mode)
    if kind != stat.S_IFREG:
        number = errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL
        got = _KINDS.get(kind, "something else")
        raise OSError(number, f"{argument}: expected a plain file, got {got}", name)
    if not os.access(name, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), name)
    return os.path.realpath(name), before


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an OSError that names no file, or the temporary one, name the file that was asked for."""
    try:
        yield
    except OSError as error:
        named = error.filename
        if named is not None and not _TEMPORARY.fullmatch(os.path.basename(str(named))):
            raise
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


@contextmanager
def _beside(target: str, before: os.stat_result | None) -> Iterator[tuple[str, BufferedWriter]]:
    """Make a temporary file in the target's folder, which is gone at the end unless renamed."""
    descriptor = None
    while descriptor is None:
        # Not `tempfile`, whose files none but their owner may read: a model is a file like others.
        name = f".cylstm-{os.urandom(8).hex()}.part"
        temporary = os.path.join(os.path.dirname(target), name)
        descriptor = _locked(temporary, 0o666 if before is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if before is not None:
                _resemble(descriptor, before)
            yield temporary, file
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _locked(temporary: str, mode: int) -> int | None:
    """Open a new file under a lock, which ends with its writer, however that ends.

    None if another process took it for an orphan before it was locked, and removed it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
    descriptor = os.open(temporary, flags, mode)
    with suppress(OSError):  # where there are no locks, nobody removes orphans
        lock(descriptor, waits=True)
    if os.path.exists(temporary):
        return descriptor
    os.close(descriptor)
    return None


def _resemble(descriptor: int, before: os.stat_result) -> None:
    """Give a new file the owner, where that is allowed, and the mode of the one before."""
    if not hasattr(os, "fchown"):  # Windows has other rights, which a folder hands down
        return
    mode = stat.S_IMODE(before.st_mode) & 0o777
    for owner in (-1, before.st_gid), (before.st_uid, -1):
        with suppress(PermissionError):
            os.fchown(descriptor, *owner)
    if os.fstat(descriptor).st_gid != before.st_gid:  # another group may do what all others may
        mode = (mode & ~0o070) | (mode & 0o007) << 3
    with suppress(PermissionError):  # a file system without modes
        os.fchmod(descriptor, mode)


def _remove_orphans(folder: str) -> None:
    """Remove the temporary files of processes that are no more: those that nobody has locked."""
    if not HAS_LOCKS:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):  # its writer lives, or it is not ours to remove
                    _remove_unlocked(entry.path)


def _remove_unlocked(temporary: str) -> None:
    descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | _FLAGS)
    try:
        lock(descriptor, waits=False)
        os.unlink(temporary)
    finally:
        os.close(descriptor)
