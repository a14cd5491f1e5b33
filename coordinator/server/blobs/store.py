"""`BlobStore`: which blobs and partials there are, who uploads what, and sweeping. See the package for the API."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from coordinator.server.blobs.files import Files, told
from coordinator.server.blobs.reader import BlobReader
from coordinator.server.blobs.space import BlobStat, Space, free_bytes
from coordinator.server.blobs.threads import Threads
from coordinator.server.blobs.upload import Partial, Upload
from sparegrid.errors import BadInputError, TooLargeError
from sparegrid.ids import BlobHash, parse_blob_hash
from sparegrid.messages import BlobRef

DEFAULT_RESERVE_BYTES = 1 << 30
PARTIAL_GRACE_S = 86_400.0
_SWEEP_AT_ONCE = 500

Pinned = Callable[[list[BlobHash]], set[BlobHash]]
"""Those of these blobs that a job holds; called in a thread."""


class Swept(NamedTuple):
    """What a sweep removed."""

    blobs: int
    bytes: int
    partials: int


class BlobStore:
    """The blobs of one grid. Make it with `BlobStore.open`; use it from one event loop."""

    def __init__(self, files: Files, space: Space, threads: Threads) -> None:
        self._files = files
        self._space = space
        self._threads = threads
        self._partials: dict[BlobHash, Partial] = {}
        self._blobs = 0
        self._side = 0

    @classmethod
    async def open(
        cls,
        root: Path,
        *,
        cap_bytes: int = 0,
        reserve_bytes: int = DEFAULT_RESERVE_BYTES,
        free: Callable[[Path], int] = free_bytes,
    ) -> BlobStore:
        """Open or make the store below `root`. Only the process that holds the Store's lock may do so.

        Raises:
            StorageError: the folders cannot be made or read.
        """
        files = Files(root)
        threads = Threads()
        store = cls(files, Space(cap_bytes, reserve_bytes, lambda: free(root)), threads)
        try:
            await threads.run(store._open)
        except OSError as error:
            await threads.close()
            raise told("the blob store is opened", root, error) from error
        except BaseException:
            await threads.close()
            raise
        return store

    def _open(self) -> None:
        self._files.prepare()
        for entry in self._files.scan():
            self._blobs += 1
            self._space.found(entry.stat().st_size)
        for name, size in self._files.partials().items():
            self._partials[name] = Partial(self._files.partial / name, size)
            self._space.found(size)

    async def close(self) -> None:
        """Wait for the disk and end the threads. End the uploads and readers first."""
        await self._threads.close()

    # ---- asking -----------------------------------------------------------------------------------------------

    async def size(self, name: str) -> int | None:
        """Bytes of a stored blob, None when it is not there. Touches it: a sweep spares it for its grace."""
        return await self._threads.run(self._files.touch, parse_blob_hash(name))

    async def offset(self, name: str) -> int:
        """Where an upload of this blob goes on: 0 when nothing of it came yet, its size when it is stored."""
        stored = await self.size(name)
        if stored is not None:
            return stored
        partial = self._partials.get(BlobHash(name))
        if partial is None:
            return 0
        async with partial.lock:
            # While we waited for the lock the upload may have been finished.
            return partial.size or await self.size(name) or 0

    def stat(self) -> BlobStat:
        """What the store holds now."""
        sizes = [partial.size for partial in self._partials.values() if partial.size]
        space = self._space
        return BlobStat(
            self._blobs, space.used - sum(sizes), len(sizes), sum(sizes), space.cap_bytes, space.reserve_bytes
        )

    # ---- uploads ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def upload(self, name: str, total: int, offset: int = 0) -> AsyncIterator[Upload]:
        """Take `total` bytes, of which the first `offset` came before. Left without `finish`, it can be resumed.

        Raises:
            BadInputError: no blob's name, or sizes that cannot be.
            ConflictError: the upload goes on at another offset, which is named.
            StorageError: it does not fit.
        """
        blob = parse_blob_hash(name)
        if not 0 <= offset <= total:
            raise BadInputError("Wrong range", f"an upload of {total} bytes cannot go on at byte {offset}")
        if await self.size(blob) is not None:
            yield Upload(self._files, self._space, self._threads, blob, total, None)
            return
        partial = self._partial_for(blob, offset)
        upload = Upload(self._files, self._space, self._threads, blob, total, partial)
        partial.users += 1
        try:
            async with upload:
                await upload.begin(offset)
                yield upload
        finally:
            partial.users -= 1
            self._blobs += upload.fresh
            if not partial.users and not partial.size and self._partials.get(blob) is partial:
                del self._partials[blob]

    def _partial_for(self, blob: BlobHash, offset: int) -> Partial:
        partial = self._partials.get(blob)
        if partial is not None and partial.users and offset == 0:
            # Somebody else uploads it just now: this one needs a file of its own, or they would mix.
            self._side += 1
            return Partial(self._files.partial / f"{blob}.{self._side}", resumable=False)
        if partial is None:
            partial = self._partials[blob] = Partial(self._files.partial / blob)
        return partial

    async def receive(self, name: str, total: int, offset: int, chunks: AsyncIterable[bytes]) -> bool:
        """A whole upload from an iterable. True when it stored the blob, False when it was stored already."""
        async with self.upload(name, total, offset) as upload:
            if not upload.stored:
                async for chunk in chunks:
                    await upload.write(chunk)
                await upload.finish()
        return upload.fresh

    async def put_bytes(self, data: bytes) -> BlobRef:
        """Store these bytes."""
        name = await self._threads.run(lambda: hashlib.sha256(data).hexdigest())
        async with self.upload(name, len(data)) as upload:
            await upload.write(data)
            await upload.finish()
        return BlobRef(name, len(data))

    # ---- reading ----------------------------------------------------------------------------------------------

    async def reader(self, name: str) -> BlobReader:
        """Open a stored blob, to be used with `async with`. Raises NotFoundError."""
        reader = BlobReader(self._threads, self._files, parse_blob_hash(name))
        await reader.open()
        return reader

    async def get_bytes(self, name: str, limit: int) -> bytes:
        """A whole blob of at most `limit` bytes. Raises NotFoundError, TooLargeError."""
        async with await self.reader(name) as reader:
            if reader.size > limit:
                raise TooLargeError(
                    "Blob is too large", f"blob {name} has {reader.size} bytes, over the limit of {limit}"
                )
            return b"".join([chunk async for chunk in reader.chunks()])

    # ---- sweeping ---------------------------------------------------------------------------------------------

    async def sweep(
        self, now_s: float, grace_s: float, pinned: Pinned, *, partial_grace_s: float = PARTIAL_GRACE_S
    ) -> Swept:
        """Remove blobs that no job holds and nobody touched for `grace_s`, and partials that rest longer than theirs.

        `now_s` is wall time, as the files' times are.
        """
        blobs, freed = await self._threads.run(self._sweep_blobs, now_s - grace_s, pinned)
        self._blobs -= blobs
        self._space.free(freed)
        partials = 0
        for name, partial in list(self._partials.items()):
            # No await lies between the look at `users` and the removal: an upload that comes now finds nothing.
            if not partial.users and _remove_older(partial.path, now_s - partial_grace_s):
                self._space.free(partial.size)
                del self._partials[name]
                partials += 1
        return Swept(blobs, freed, partials)

    def _sweep_blobs(self, before_s: float, pinned: Pinned) -> tuple[int, int]:
        old = [BlobHash(entry.name) for entry in self._files.scan() if entry.stat().st_mtime < before_s]
        removed = freed = 0
        for first in range(0, len(old), _SWEEP_AT_ONCE):
            names = old[first : first + _SWEEP_AT_ONCE]
            held = pinned(names)
            for name in names:
                if name not in held and (size := self._files.remove_older(name, before_s)) is not None:
                    removed += 1
                    freed += size
        return removed, freed


def _remove_older(path: Path, before_s: float) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mtime < before_s:
            path.unlink()
            return True
    return False
