"""One upload: buffers, hashes and writes what comes, then stores it or keeps it as a partial to be resumed.

Everything that changes a partial happens in one function in a thread, under the partial's lock: a cancelled caller
finds either the state before or the one after.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from coordinator.server.blobs.files import CHUNK_BYTES, Files, hash_of_prefix, told, write_at
from coordinator.server.blobs.space import Space
from coordinator.server.blobs.threads import Threads, to_the_end
from coordinator.server.store.durable import sync_file
from sparegrid.errors import BadInputError, ConflictError, GridError
from sparegrid.ids import BlobHash

SYNC_BYTES = 64 << 20
"""After so many bytes what came is fsynced: the last fsync of a large blob must not take minutes."""


@dataclass(slots=True, eq=False)
class Partial:
    """A partial upload: `size` bytes are in its file, `state` is their SHA-256 (None: to be computed by reading)."""

    path: Path
    size: int = 0
    state: hashlib._Hash | None = None
    owner: Upload | None = None
    users: int = 0
    """Uploads that hold this object, also those that still wait for the lock."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    resumable: bool = True


class Upload:
    """An upload that owns its partial until another one takes it over. Made by `BlobStore.upload`."""

    def __init__(
        self,
        files: Files,
        space: Space,
        threads: Threads,
        name: BlobHash,
        total: int,
        partial: Partial | None,
    ) -> None:
        self.name = name
        self.total = total
        self.stored = partial is None
        """The blob was there already, or `finish` has stored it."""
        self.fresh = False
        """`finish` has stored it, and it was not there before."""
        self._files = files
        self._space = space
        self._threads = threads
        self._partial = partial
        self._fd = -1
        self._buffer = bytearray()
        self._unsynced = 0
        self._from_disk = False
        self._promised = 0

    async def begin(self, offset: int) -> None:
        """Take the partial over and open its file.

        Raises:
            ConflictError: it goes on at another offset.
            StorageError: the rest does not fit, or the disk fails.
        """
        partial = self._partial
        assert partial is not None
        async with partial.lock:
            if offset and partial.size != offset:
                raise ConflictError(
                    "Wrong offset",
                    f"the upload of blob {self.name[:12]}… goes on at byte {partial.size}, not {offset}",
                    f"Send from byte {partial.size} on",
                )
            if partial.owner is not None:
                partial.owner.release()
            partial.owner = self
            await self._threads.run(self._open, partial, offset)

    async def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            BadInputError: more bytes than were announced; nothing is kept.
            ConflictError: another upload of this blob has taken over.
            StorageError: the disk is full (what was written stays to be resumed) or fails.
        """
        if self.stored:
            return
        self._buffer += data
        if len(self._buffer) >= CHUNK_BYTES:
            await self._in_thread(self._flush)

    async def finish(self) -> None:
        """All bytes came: check them and make the blob durable. It is stored when this returns.

        Raises:
            BadInputError: bytes are missing (what came stays to be resumed), or the hash differs (nothing is kept).
            ConflictError: taken over; or bytes kept over a restart turn out to be damaged (start again at 0).
            StorageError: as `write`.
        """
        if not self.stored:
            await self._in_thread(self._finish)

    def release(self) -> None:
        """Give back the space that was promised for what did not come."""
        self._space.release(self._promised)
        self._promised = 0

    async def _in_thread(self, function: Callable[[Partial], None]) -> None:
        partial = self._owned()
        async with partial.lock:
            await self._threads.run(function, self._owned())

    def _owned(self) -> Partial:
        partial = self._partial
        if partial is None or partial.owner is not self:
            raise ConflictError(
                "Upload was taken over",
                f"another upload of blob {self.name[:12]}… goes on with it",
                "Ask for its offset",
            )
        return partial

    # ---- in a thread, under the lock --------------------------------------------------------------------------

    def _open(self, partial: Partial, offset: int) -> None:
        if offset == 0:
            self._space.free(partial.size)
            partial.size = 0
            partial.state = hashlib.sha256()
        self._space.promise(self.name, self.total - partial.size)
        self._promised = self.total - partial.size
        try:
            self._fd = os.open(partial.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
            os.ftruncate(self._fd, partial.size)
            if partial.state is None:
                self._from_disk = True
                partial.state = hash_of_prefix(self._fd, partial.size)
        except OSError as error:
            raise told("an upload starts", self._files.root, error) from error

    def _flush(self, partial: Partial) -> None:
        size = len(self._buffer)
        if partial.size + size > self.total:
            self._discard(partial)
            raise BadInputError(
                "Upload is too long",
                f"more than the announced {self.total} bytes came for blob {self.name[:12]}…",
            )
        assert partial.state is not None
        try:
            write_at(self._fd, self._buffer, partial.size)
        except OSError as error:
            raise told("an upload is written", self._files.root, error) from error
        partial.state.update(self._buffer)
        partial.size += size
        self._promised -= size
        self._space.wrote(size)
        self._unsynced += size
        self._buffer.clear()
        if self._unsynced >= SYNC_BYTES:
            self._unsynced = 0
            self._sync(partial)

    def _sync(self, partial: Partial) -> None:
        try:
            sync_file(self._fd)
        except OSError as error:
            # The kernel may have dropped what it could not write: the hash of what came proves nothing any more.
            self._discard(partial)
            raise told("an upload is written", self._files.root, error) from error

    def _finish(self, partial: Partial) -> None:
        self._flush(partial)
        if partial.size < self.total:
            raise BadInputError(
                "Upload is incomplete",
                f"blob {self.name[:12]}… has {partial.size} of {self.total} bytes",
                f"Resume at byte {partial.size}",
            )
        assert partial.state is not None
        found = partial.state.hexdigest()
        if found != self.name:
            self._discard(partial)
            raise self._mismatch(found)
        self._sync(partial)
        self._close()
        try:
            self.fresh = self._files.store(partial.path, self.name)
        except OSError as error:
            self._discard(partial)
            raise told("a blob is stored", self._files.root, error) from error
        self.stored = True
        if not self.fresh:
            self._space.free(partial.size)
        partial.size = 0

    def _mismatch(self, found: str) -> GridError:
        if self._from_disk:
            return ConflictError(
                "Partial upload was damaged",
                f"the bytes of blob {self.name[:12]}… kept over a restart are not the ones that were sent",
                "Upload it again from byte 0",
            )
        return BadInputError(
            "Wrong hash", f"the {self.total} bytes sent as {self.name} have the SHA-256 {found}"
        )

    def _discard(self, partial: Partial) -> None:
        """Nothing of it is kept; this upload can only be left."""
        self._close()
        self._space.free(partial.size)
        partial.size = 0
        partial.state = None
        partial.owner = None
        partial.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---- leaving ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._partial is not None:
            await to_the_end(self._left(self._partial))

    async def _left(self, partial: Partial) -> None:
        async with partial.lock:
            await self._threads.run(self._leave, partial)
            self._partial = None

    def _leave(self, partial: Partial) -> None:
        if partial.owner is self:
            if not self.stored and self._fd >= 0 and self._buffer:
                # What is in the buffer is worth keeping; why it cannot be kept is no news to the one who leaves.
                with contextlib.suppress(GridError):
                    self._flush(partial)
            if not self.stored and (not partial.resumable or not partial.size):
                self._discard(partial)
            partial.owner = None
        self._close()
        self.release()
