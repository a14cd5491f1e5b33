"""One worker per home: the lock, the mark of an unclean end, and the hunt for what such an end left running."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from sparegrid.errors import ConflictError, StorageError

log = logging.getLogger(__name__)

MARKER = "SPAREGRID_NURSERY"
"""Environment variable of nurseries and all that they start: the folder of the worker they belong to."""
_HUNT_TIMEOUT_S = 5.0


class WorkerLock:
    """Held while a worker runs.

    Args:
        folder: of the worker, in its home.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._running = folder / "running"
        self._descriptor = -1
        self.was_unclean = False
        """The worker before this one did not end by itself."""

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _lock(self._descriptor)
        except BlockingIOError as error:
            pid = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise ConflictError(
                "A worker runs already",
                f"The worker with process id {pid} serves this home ({self._path.parent})",
                "Stop it, or use another SPAREGRID_HOME",
            ) from error
        except OSError as error:
            raise StorageError(
                "Cannot lock the worker's folder", f"{self._path}: {error.strerror}"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
        self.was_unclean = self._running.exists()
        self._running.touch(mode=0o600)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._running.unlink(missing_ok=True)
        os.close(self._descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock or raise BlockingIOError. It is free again when the process is gone, however that ends."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def hunt_leftovers(folder: Path) -> int:
    """Kill what a worker that died left running; the number of processes. They carry its mark in their environment."""
    killed = 0
    deadline = time.monotonic() + _HUNT_TIMEOUT_S
    while victims := [process for process in psutil.process_iter() if _is_marked(process, str(folder))]:
        for process in victims:
            log.warning("process %d is left from a worker that died, and is killed", process.pid)
            with suppress(psutil.Error):
                process.kill()
        killed += len(victims)
        while any(_lives(process) for process in victims):
            if time.monotonic() > deadline:
                log.error("%d processes of a worker that died cannot be killed", len(victims))
                return killed
            time.sleep(0.01)
    return killed


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(
            process.is_running() and process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
        )
    except psutil.Error:
        return False


def _is_marked(process: psutil.Process, folder: str) -> bool:
    try:
        return bool(_lives(process) and process.environ().get(MARKER) == folder)
    except (psutil.Error, OSError):
        return False
