"""Blobs kept on this device for later tasks: a folder of files named by SHA-256, the least used leave first.

Knows names, sizes and pins; how bytes get here is the transfer's matter. A file that a task changed through a link is
noticed by its size and time, and dropped.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sparegrid.ids import parse_blob_hash

log = logging.getLogger(__name__)

HELD_FROM_BYTES = 1 << 20
"""The coordinator is told of blobs from this size on."""


class Entry(NamedTuple):
    """A blob as it was when it came."""

    size: int
    mtime_ns: int


class BlobCache:
    """The blobs of one grid.

    Args:
        folder: where they are; made when missing.
        cap_bytes: most bytes in all; pinned blobs may go over it.
    """

    def __init__(self, folder: Path, cap_bytes: int) -> None:
        self._folder = folder
        self._cap = cap_bytes
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._pins: dict[str, int] = {}
        self._added: list[str] = []
        self._removed: list[str] = []
        self.total = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._load()

    def _load(self) -> None:
        found: list[tuple[int, str, Entry]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                if len(entry.name) == 64 and entry.is_file(follow_symlinks=False):
                    found.append((info.st_atime_ns, entry.name, Entry(info.st_size, info.st_mtime_ns)))
        for _used, name, kept in sorted(found):
            self._entries[name] = kept
            self.total += kept.size
        self._evict()
        self._removed.clear()

    def path(self, name: str) -> Path:
        """Where a blob is or would be. Raises BadInputError when `name` is no blob's name."""
        return self._folder / parse_blob_hash(name)

    def find(self, name: str) -> Path | None:
        """A blob that is here and as it came; it counts as used."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        path = self._folder / name
        try:
            info = path.stat()
        except OSError:
            self._drop(name)
            return None
        if (info.st_size, info.st_mtime_ns) != entry:
            log.warning("the cached blob %s was changed and is dropped", name)
            self._drop(name)
            return None
        self._entries.move_to_end(name)
        return path

    def add(self, name: str) -> Path:
        """A file was put at `path(name)`, whole and checked. Others leave when the cap is reached."""
        path = self.path(name)
        info = path.stat()
        self._drop(name, unlink=False)
        self._entries[name] = Entry(info.st_size, info.st_mtime_ns)
        self.total += info.st_size
        if info.st_size >= HELD_FROM_BYTES:
            self._added.append(name)
        self._evict()
        return path

    def adopt(self, source: Path, name: str) -> None:
        """Move a file whose bytes have this name into the cache, if the disk allows it; it is gone from `source`."""
        try:
            source.replace(self.path(name))
            self.add(name)
        except OSError as error:
            log.debug("the blob %s is not kept: %s", name, error)
            source.unlink(missing_ok=True)

    def pin(self, names: Iterable[str]) -> None:
        """Keep these, now or once they are here, until they are unpinned as often."""
        for name in names:
            self._pins[name] = self._pins.get(name, 0) + 1

    def unpin(self, names: Iterable[str]) -> None:
        """Undo one `pin`."""
        for name in names:
            left = self._pins.get(name, 0) - 1
            if left > 0:
                self._pins[name] = left
            else:
                self._pins.pop(name, None)
        self._evict()

    def held(self) -> list[str]:
        """Names of the blobs that are worth telling the coordinator."""
        return [name for name, entry in self._entries.items() if entry.size >= HELD_FROM_BYTES]

    def changes(self) -> tuple[list[str], list[str]]:
        """What came and what left since the last call, of what is worth telling."""
        added = [name for name in self._added if name in self._entries]
        removed = [name for name in self._removed if name not in self._entries]
        self._added, self._removed = [], []
        return added, removed

    def _evict(self) -> None:
        for name in list(self._entries):
            if self.total <= self._cap:
                return
            if name not in self._pins:
                self._drop(name)

    def _drop(self, name: str, *, unlink: bool = True) -> None:
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        self.total -= entry.size
        if entry.size >= HELD_FROM_BYTES:
            self._removed.append(name)
        if unlink:
            (self._folder / name).unlink(missing_ok=True)
