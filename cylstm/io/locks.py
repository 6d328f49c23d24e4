"""Locks on open files, which end with the process that has them, however it ends."""

from __future__ import annotations

import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["HAS_LOCKS", "lock", "locked_folder"]

HAS_LOCKS = fcntl is not None


def lock(descriptor: int, *, waits: bool) -> None:
    """Lock an open file, or folder.

    Raises
    ------
    BlockingIOError
        If another has it, and this one does not wait.
    OSError
        If there are no locks: of the system, or of this file's.
    """
    if not HAS_LOCKS:
        raise OSError("there are no locks on files")
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))


def locked_folder(folder: str) -> int:
    """Return a descriptor that locks a folder until it is closed, or its process ends.

    Raises
    ------
    BlockingIOError
        If another has it.
    """
    if not HAS_LOCKS:  # Windows opens no folders, and removes such a file with its last handle
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_TEMPORARY", 0)
        try:
            return os.open(os.path.join(folder, "_locked"), flags)
        except (FileExistsError, PermissionError) as error:
            raise BlockingIOError(error.errno, error.strerror, folder) from None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock(descriptor, waits=False)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a file system without locks
        pass
    return descriptor
