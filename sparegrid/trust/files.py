"""Files with secrets: readable by their user only, and never half written."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from sparegrid.errors import StorageError


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, mode 0600: a crash or a power loss leaves the old bytes or the new ones.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    with _translated(path):
        temporary = _write_temporary(path, data)
        try:
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_private_once(path: Path, data: bytes) -> bytes:
    """Create `path` with `data` unless it exists; the bytes that are there now.

    Of several programs that do so at once exactly one wins, and all return the winner's bytes.

    Raises:
        StorageError: the disk is full, or the folder cannot be written or read.
    """
    with _translated(path):
        temporary = _write_temporary(path, data)
        try:
            # A link fails when the name is taken, a rename would replace it.
            os.link(temporary, path)
        except FileExistsError:
            return path.read_bytes()
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    return data


def read_private(path: Path) -> bytes | None:
    """The bytes of `path`; None when there is no such file.

    Raises:
        StorageError: it exists and cannot be read.
    """
    with _translated(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


class _translated(contextlib.AbstractContextManager[None]):  # noqa: N801 - reads as a verb
    """Turns an OSError about `path` into the house's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise StorageError("Cannot use a file", f"{self._path}: {error.strerror or error}") from error


def _write_temporary(path: Path, data: bytes) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    """Make a new name durable; Windows has no handle of a folder and does so itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
