"""The local API: the same routes on a Unix socket that only this user can open. Its caller is the admin `local`."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from aiohttp import web

from sparegrid.errors import StorageError

log = logging.getLogger("sparegrid.coordinator.local")


class LocalSocket:
    """The socket file of one coordinator, removed at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._served = False

    async def open(self, runner: web.AppRunner) -> None:
        """Serve the runner's routes there.

        Raises:
            StorageError: the folder is not this user's, or another coordinator serves there.
        """
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
            if found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise StorageError("Folder is open to others", f"{folder} must be yours, with mode 700")
            bound = self._bind()
        except OSError as error:
            raise StorageError(
                "Cannot serve the local socket", f"{self.path}: {error.strerror or error}"
            ) from error
        self._served = True
        await web.SockSite(runner, bound).start()

    def _bind(self) -> socket.socket:
        if self.path.is_socket():
            if _answers(self.path):
                raise StorageError("Another coordinator runs", f"It serves {self.path}", "Stop it first")
            self.path.unlink()
        bound = socket.socket(socket.AF_UNIX)
        # The folder keeps others out until the mode is set.
        bound.bind(os.fspath(self.path))
        self.path.chmod(0o600)
        return bound

    def close(self) -> None:
        """Take the file away; the runner closes the socket itself."""
        if self._served:
            self.path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
        return True
