"""Reading a stored blob: its size, and ranges of it in chunks. Goes on when the blob is removed meanwhile."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from coordinator.server.blobs.files import CHUNK_BYTES, Files, read_at
from coordinator.server.blobs.threads import Threads
from sparegrid.errors import StorageError
from sparegrid.ids import BlobHash


class BlobReader:
    """An open blob. Use as an async context manager."""

    def __init__(self, threads: Threads, files: Files, name: BlobHash) -> None:
        self.size = 0
        self._threads = threads
        self._files = files
        self._name = name
        self._fd = -1

    async def open(self) -> None:
        """Open the file. Raises NotFoundError, and nothing stays open then."""
        try:
            await self._threads.run(self._open)
        except BaseException:
            self._close()
            raise

    def _open(self) -> None:
        self._fd = self._files.open(self._name)
        self.size = os.fstat(self._fd).st_size

    async def chunks(self, first: int = 0, count: int | None = None) -> AsyncIterator[bytes]:
        """`count` bytes from `first` on (all when None), in chunks of 1 MiB; the last may be smaller.

        Raises:
            StorageError: the file is shorter than it was, or the disk fails.
        """
        position = first
        end = self.size if count is None else min(self.size, first + count)
        while position < end:
            size = min(CHUNK_BYTES, end - position)
            data = await self._threads.run(self._read, size, position)
            yield data
            position += len(data)

    def _read(self, size: int, position: int) -> bytes:
        try:
            data = read_at(self._fd, size, position)
        except OSError as error:
            raise StorageError(
                "Disk error", f"blob {self._name}: {error.strerror}", "Check the disk"
            ) from error
        if not data:
            raise StorageError(
                "Blob is damaged", f"blob {self._name} ends at byte {position} instead of {self.size}"
            )
        return data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
