"""The files of the blob store: names, hashing, durable moves. Blocking; runs in the store's threads."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from coordinator.server.store.durable import prepare_folder, sync_folder
from sparegrid.errors import NotFoundError, StorageError
from sparegrid.ids import BlobHash, parse_blob_hash

CHUNK_BYTES = 1 << 20
"""Size of reads and writes: under TLS smaller ones cost several times the throughput."""


class Files:
    """Where blobs and partial uploads lie."""

    def __init__(self, root: Path) -> None:
        self.stored = root / "stored"
        self.partial = root / "partial"
        self.root = root
        # Guards the moment between a sweep's last look at a blob's age and its removal against a touch.
        self._lock = threading.Lock()
        self._unsynced: set[BlobHash] = set()
        """Blobs whose name is not durable yet: nobody may hear of them."""

    def prepare(self) -> None:
        """Make the folders, durably."""
        prepare_folder(self.stored)
        prepare_folder(self.partial)
        for number in range(256):
            folder = self.stored / f"{number:02x}"
            if folder.exists():
                # The process before us may have been killed between a rename and its fsync.
                sync_folder(folder)
            else:
                folder.mkdir(mode=0o700)
        sync_folder(self.stored)

    def path(self, name: BlobHash) -> Path:
        """Where a stored blob lies."""
        return self.stored / name[:2] / name

    def scan(self) -> Iterator[os.DirEntry[str]]:
        """Every stored blob."""
        for folder in sorted(self.stored.iterdir()):
            with os.scandir(folder) as entries:
                yield from entries

    def partials(self) -> dict[BlobHash, int]:
        """Sizes of the uploads that can be resumed; the rest of the folder is removed: only one process uses it."""
        found: dict[BlobHash, int] = {}
        for entry in list(os.scandir(self.partial)):
            if "." in entry.name:
                Path(entry.path).unlink()
            else:
                found[parse_blob_hash(entry.name)] = entry.stat().st_size
        return found

    def touch(self, name: BlobHash) -> int | None:
        """Size of a stored blob, whose age begins anew; None when it is not there."""
        with self._lock:
            if name in self._unsynced:
                return None
            try:
                os.utime(self.path(name))
                return self.path(name).stat().st_size
            except FileNotFoundError:
                return None

    def remove_older(self, name: BlobHash, before_s: float) -> int | None:
        """Remove a stored blob unless it was touched since `before_s` (wall seconds). Its size if it was removed."""
        path = self.path(name)
        with self._lock:
            try:
                found = path.stat()
                if found.st_mtime >= before_s:
                    return None
                path.unlink()
            except (FileNotFoundError, PermissionError):
                # Windows refuses to remove a file that is being read; the next sweep finds it again.
                return None
        return found.st_size

    def store(self, partial: Path, name: BlobHash) -> bool:
        """Make a complete and fsynced upload a stored blob, durably. False when it was stored already.

        Raises:
            OSError: it is not stored; the partial may be gone.
        """
        target = self.path(name)
        with self._lock:
            fresh = not target.exists()
            if fresh:
                self._unsynced.add(name)
                partial.replace(target)
        if not fresh:
            partial.unlink()
            # Another upload may have put it there an instant ago, and not synced the folder yet.
            sync_folder(target.parent)
            return False
        try:
            sync_folder(target.parent)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        finally:
            with self._lock:
                self._unsynced.discard(name)
        return True

    def open(self, name: BlobHash) -> int:
        """A file descriptor to read a stored blob. Raises NotFoundError."""
        try:
            return os.open(self.path(name), os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError as error:
            raise NotFoundError("No such blob", f"blob {name} is not stored here") from error


def hash_of_prefix(fd: int, size: int) -> hashlib._Hash:
    """SHA-256 state after the first `size` bytes of a file."""
    state = hashlib.sha256()
    position = 0
    while position < size:
        data = read_at(fd, min(CHUNK_BYTES, size - position), position)
        if not data:
            raise StorageError("Disk error", f"a partial upload ends at byte {position} instead of {size}")
        state.update(data)
        position += len(data)
    return state


def read_at(fd: int, size: int, position: int) -> bytes:
    """At most `size` bytes from there on. Moves the file's position, because Windows has no pread."""
    os.lseek(fd, position, os.SEEK_SET)
    return os.read(fd, size)


def write_at(fd: int, data: bytes | bytearray, position: int) -> None:
    """Write all of it there; on an error the file ends at `position` as before."""
    written = 0
    try:
        os.lseek(fd, position, os.SEEK_SET)
        with memoryview(data) as view:
            while written < len(view):
                written += os.write(fd, view[written:])
    except OSError:
        os.ftruncate(fd, position)
        raise


def told(action: str, folder: Path, error: OSError) -> StorageError:
    """An error of the disk in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError("Disk full", f"no space is left below {folder} while {action}", "Free some space")
    return StorageError("Disk error", f"{error.strerror} below {folder} while {action}", "Check the disk")
