"""How much the blob store may hold: its cap, and the disk space that it leaves free. Pure but for `free_bytes`."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparegrid.errors import StorageError


@dataclass(frozen=True, slots=True)
class BlobStat:
    """What the store holds, in files and bytes. `cap_bytes` 0: no cap."""

    blobs: int
    bytes: int
    partials: int
    partial_bytes: int
    cap_bytes: int
    reserve_bytes: int


def free_bytes(folder: Path) -> int:
    """Free space for this user on the folder's disk."""
    return shutil.disk_usage(folder).free


class Space:
    """Counts what is stored and what running uploads were promised. Safe to use from several threads.

    Args:
        cap_bytes: most bytes of blobs and partial uploads together; 0 is no cap.
        reserve_bytes: what must stay free on the disk.
        free: tells the free bytes of the disk.
    """

    def __init__(self, cap_bytes: int, reserve_bytes: int, free: Callable[[], int]) -> None:
        self.cap_bytes = cap_bytes
        self.reserve_bytes = reserve_bytes
        self.used = 0
        self.promised = 0
        self._disk_free = free
        self._lock = threading.Lock()

    def promise(self, name: str, size: int) -> None:
        """Set `size` bytes aside for an upload that is about to start.

        Raises:
            StorageError: it would go over the cap or into the reserve; both values are named.
        """
        with self._lock:
            taken = self.used + self.promised
            if self.cap_bytes and taken + size > self.cap_bytes:
                raise StorageError(
                    "Blob store full",
                    f"blob {name[:12]}… needs {size} bytes, and {taken} of the cap of {self.cap_bytes} bytes are taken",
                    "Remove finished jobs, or raise the cap for blobs in the configuration",
                )
            free = self._disk_free() - self.promised
            if free - size < self.reserve_bytes:
                raise StorageError(
                    "Disk nearly full",
                    f"blob {name[:12]}… needs {size} bytes; {free} are free, and {self.reserve_bytes} stay reserved",
                    "Free some space, remove finished jobs, or lower the reserve in the configuration",
                )
            self.promised += size

    def wrote(self, size: int) -> None:
        """`size` promised bytes are on disk now."""
        with self._lock:
            self.promised -= size
            self.used += size

    def found(self, size: int) -> None:
        """`size` bytes lie on disk from before."""
        with self._lock:
            self.used += size

    def free(self, size: int) -> None:
        """`size` bytes are not on disk any more."""
        with self._lock:
            self.used -= size

    def release(self, size: int) -> None:
        """`size` promised bytes will not come."""
        with self._lock:
            self.promised -= size
