"""Room that is kept for a full disk: a file beside the store that is given up so that ends and cancels can commit.

Only made where there is plenty of room. While it is given up, intake stays paused: what it left is for ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger(__name__)

PLENTY = 10
"""It is made when this many times its size is free."""
_BLOCK = bytes(1 << 20)


class Ballast:
    """The file at `path`; `size_bytes` 0 for none. Used by one thread at a time."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._given_up = False
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        self._there = self._make()

    def give_up(self) -> bool:
        """Make its room free. False when there is none to make free."""
        if not self._there:
            return False
        try:
            self._path.unlink()
        except OSError as error:
            log.warning("%s cannot be removed: %s", self._path, error)
            return False
        self._there, self._given_up = False, True
        return True

    def restore(self) -> bool:
        """Make it again after it was given up. False while there is not plenty of room."""
        if self._given_up:
            self._there = self._make()
            self._given_up = not self._there
        return not self._given_up

    def close(self) -> None:
        """It is only needed while the store is open."""
        if self._there:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._there = False

    def _make(self) -> bool:
        try:
            free = shutil.disk_usage(self._path.parent).free
            if not self._size_bytes or free < PLENTY * self._size_bytes:
                return False
            with self._path.open("wb") as file:
                self._fill(file.fileno())
        except OSError as error:
            log.info("no ballast at %s: %s", self._path, error)
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            return False
        return True

    def _fill(self, fd: int) -> None:
        """Blocks of its own: a hole would free nothing."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, self._size_bytes)
            return
        left = self._size_bytes
        while left > 0:
            left -= os.write(fd, _BLOCK[:left])
