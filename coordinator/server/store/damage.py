"""The store's errors in words: what SQLite and the system report, as StorageError. Decides nothing else."""

from __future__ import annotations

import errno
import os
import sqlite3
from enum import Enum
from pathlib import Path

from sparegrid.errors import StorageError

_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_FULL = "Disk full"
_RESTORE = "Keep a copy of the file, then put back its newest backup, or move it away to start empty"


class Trouble(Enum):
    """What an error of the disk means for the committer."""

    HOLD = "hold"
    """No space, or another program holds the file's lock: wait and try again."""
    FATAL = "fatal"


def damaged(path: Path, what: str) -> StorageError:
    """The file can be read, but what it says is not what was written."""
    return StorageError("Store is damaged", f"{path}: {what}", _RESTORE)


def translate(path: Path, error: sqlite3.Error) -> StorageError:
    """What SQLite reports about this file."""
    name = error_name(error)
    what = f"{error} ({name})" if name else str(error)
    if name.startswith("SQLITE_FULL"):
        return disk_full(path)
    if name.startswith("SQLITE_IOERR"):
        return StorageError(
            "Disk error", f"{path}: {what}", "Check the disk, then start the coordinator again"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageError("Store is locked", f"{path} is locked by another program", "Close that program")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return StorageError("Store cannot be written", f"{path}: {what}", "Check its owner and permissions")
    # SQLITE_CORRUPT and SQLITE_NOTADB, but also a table that is missing or a text that is not UTF-8.
    return damaged(path, what)


def disk_full(path: Path) -> StorageError:
    """No space left for the store."""
    return StorageError(
        _FULL,
        f"there is no space left for {path}; nothing is lost, but nothing new is taken in",
        "Free some space",
    )


def is_full(error: StorageError) -> bool:
    """Whether it says that there is no space left."""
    return error.title == _FULL


def error_name(error: sqlite3.Error) -> str:
    """SQLite's name of the (extended) result code, empty for errors of the Python module itself."""
    return str(getattr(error, "sqlite_errorname", ""))


def judge(path: Path, error: sqlite3.Error) -> tuple[Trouble, StorageError]:
    """Whether to wait or to end, and what to say.

    A failed fsync is the end: the kernel may have dropped what it could not write.
    """
    name = error_name(error)
    if name.startswith(("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED")):
        return Trouble.HOLD, translate(path, error)
    # SQLite tells ENOSPC from other errors in some calls only: quotas and the growth of the -shm file are plain I/O
    # errors to it. A small write beside the store tells.
    of_fsync = name in {"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"}
    if name.startswith("SQLITE_IOERR") and not of_fsync and _is_full(path.parent):
        return Trouble.HOLD, disk_full(path)
    return Trouble.FATAL, translate(path, error)


def _is_full(folder: Path) -> bool:
    probe = folder / f".space-{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in _FULL_ERRNOS
    finally:
        probe.unlink(missing_ok=True)
    return False
