"""Making files and names durable: what the store and the blob store ask of a file system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sparegrid.errors import StorageError


def prepare_folder(folder: Path) -> None:
    """Make the folder, private to the user, and make its name durable.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for each in missing:
            sync_folder(each.parent)
    except OSError as error:
        raise StorageError(
            "Store cannot be made", f"{folder}: {error.strerror}", "Choose another folder"
        ) from error


def sync_folder(folder: Path) -> None:
    """fsync a folder: the names in it are durable afterwards. Windows has no such call; NTFS logs names."""
    if sys.platform == "win32":
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(fd: int) -> None:
    """fsync a file: its bytes are durable afterwards."""
    if sys.platform == "darwin":
        import fcntl

        # macOS's fsync leaves the bytes in the drive's cache.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)
