"""Blobs up and down: resumed after every cut, checked by their hash, in pieces, so that memory stays flat."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import aiohttp

from sparegrid.client.transport import CONNECT_S, DROPPED, SILENCE_S, Backoff, Transport
from sparegrid.errors import BadInputError, ConflictError, StorageError, UnreachableError
from sparegrid.messages import BlobRef

CHUNK_BYTES = 1 << 20
"""Pieces of a transfer: smaller ones crawl under TLS."""
STALLED_S = 90.0
"""A transfer is given up when nothing has moved for so long, however often it was cut before."""

OnProgress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)


def hash_file(path: Path) -> BlobRef:
    """Name and size of the blob that a file's bytes are. Blocks: call it in a thread.

    Raises:
        BadInputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return BlobRef(digest, file.tell())
    except OSError as error:
        raise BadInputError("Cannot read a file", f"{path}: {error.strerror}") from error


async def put_blob(
    transport: Transport, source: bytes | Path, ref: BlobRef | None, on_progress: OnProgress | None
) -> BlobRef:
    """Upload `source` unless the coordinator has it; a cut upload goes on where the coordinator stands.

    Args:
        transport: where to send it.
        source: the bytes, or the file they are in.
        ref: the blob's name, when it is known already.
        on_progress: told after every piece.

    Raises:
        BadInputError: the file cannot be read, or has changed since it was hashed.
        UnreachableError: the connection kept breaking and nothing moved for STALLED_S.
        GridError: the coordinator refused.
    """
    if ref is None:
        ref = await name_of(source)
    backoff = Backoff(STALLED_S)
    best = -1
    while True:
        try:
            offset = await _missing_from(transport, ref)
            if offset is None:
                break
            if offset > best:
                best = offset
                backoff.reset()
            await _send_rest(transport, source, ref, offset, on_progress)
            break
        except ConflictError:
            # Another upload of the same bytes moved on meanwhile: ask again where it stands.
            if not await backoff.pause():
                raise
        except (*DROPPED, UnreachableError) as error:
            if (best < 0 and isinstance(error, UnreachableError)) or not await backoff.pause():
                raise transport.unreachable(error) from error
    if on_progress is not None:
        on_progress(ref.size, ref.size)
    return ref


async def name_of(source: bytes | Path) -> BlobRef:
    """Name and size of the blob that these bytes are. Raises BadInputError when the file cannot be read."""
    if isinstance(source, bytes):
        return BlobRef(hashlib.sha256(source).hexdigest(), len(source))
    return await asyncio.to_thread(hash_file, source)


async def _missing_from(transport: Transport, ref: BlobRef) -> int | None:
    """The byte from which on the coordinator misses the blob; None when it has all of it."""
    async with transport.request("HEAD", f"/blobs/{ref.hash}", wanted=(404,), timeout=_TIMEOUT) as answer:
        if answer.status != 404:
            return None
        text = answer.headers.get("Upload-Offset", "0")
        offset = int(text) if text.isdecimal() else 0
        return offset if offset <= ref.size else 0


async def _send_rest(
    transport: Transport, source: bytes | Path, ref: BlobRef, offset: int, on_progress: OnProgress | None
) -> None:
    headers = {"Content-Length": str(ref.size - offset), "Content-Type": "application/octet-stream"}
    if ref.size:
        # When all came before a cut, only the end is missing.
        rest = f"{offset}-{ref.size - 1}" if offset < ref.size else "*"
        headers["Content-Range"] = f"bytes {rest}/{ref.size}"
    file = io.BytesIO(source) if isinstance(source, bytes) else await asyncio.to_thread(_open, source)
    # The file is closed here and not by the generator, which aiohttp abandons when a connection breaks.
    with file:
        body = _Body(file, str(source) if isinstance(source, Path) else "the bytes", ref, offset, on_progress)
        try:
            # aiohttp's own timeouts watch reading alone: a cable pulled while it writes would hold it for ever.
            async with (
                body.stalled,
                transport.request(
                    "PUT", f"/blobs/{ref.hash}", data=body.pieces(), headers=headers, timeout=_TIMEOUT
                ) as answer,
            ):
                await answer.read()
        except DROPPED:
            # aiohttp reports whatever ends the body as a broken connection.
            if body.failure is not None:
                raise body.failure from None
            raise


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInputError("Cannot read a file", f"{path}: {error.strerror}") from error


class _Body:
    """The bytes of a file from an offset on, in pieces; `failure` tells why they ended early."""

    def __init__(
        self, file: BinaryIO, name: str, ref: BlobRef, offset: int, on_progress: OnProgress | None
    ) -> None:
        self._file = file
        self._name = name
        self._size = ref.size
        self._offset = offset
        self._on_progress = on_progress
        self.failure: BadInputError | None = None
        self.stalled = asyncio.timeout(SILENCE_S)
        """Ends whoever is in it when no piece has moved for SILENCE_S."""

    async def pieces(self) -> AsyncIterator[bytes]:
        """Each piece once it was read, at most CHUNK_BYTES."""
        try:
            position = self._file.seek(self._offset)
            while position < self._size:
                piece = await asyncio.to_thread(self._file.read, min(CHUNK_BYTES, self._size - position))
                if not piece:
                    raise BadInputError(
                        "A file changed while it was sent",
                        f"{self._name} had {self._size} bytes and has {position} now",
                    )
                yield piece
                position += len(piece)
                self.stalled.reschedule(asyncio.get_running_loop().time() + SILENCE_S)
                if self._on_progress is not None:
                    self._on_progress(position, self._size)
        except BadInputError as error:
            self.failure = error
            raise
        except OSError as error:
            self.failure = BadInputError("Cannot read a file", f"{self._name}: {error.strerror}")
            raise self.failure from error


# ---- down
# ---------------------------------------------------------------------------------------------------------


async def get_bytes(transport: Transport, ref: BlobRef, on_progress: OnProgress | None) -> bytes:
    """A blob's bytes in memory. Raises as `get_file` does."""
    with io.BytesIO() as memory:
        await _fill(transport, _Sink(memory, ref), on_progress)
        return memory.getvalue()


async def get_file(transport: Transport, ref: BlobRef, dest: Path, on_progress: OnProgress | None) -> None:
    """Download a blob to `dest`, which appears whole or not at all.

    The bytes gather in a hidden `.part` file beside it; one that an earlier, interrupted call left is gone on
    with.

    Raises:
        NotFoundError: the coordinator does not have the blob.
        UnreachableError: the connection kept breaking and nothing moved for STALLED_S.
        StorageError: the disk is full or `dest` cannot be written, or the bytes are not those of the name.
    """
    part = dest.with_name(f".{dest.name[:100]}.{ref.hash[:16]}.part")
    try:
        with await asyncio.to_thread(part.open, "a+b") as file:
            sink = _Sink(file, ref)
            await asyncio.to_thread(sink.read_existing)
            await _fill(transport, sink, on_progress)
        await asyncio.to_thread(part.replace, dest)
    except OSError as error:
        if isinstance(error, DROPPED):
            raise
        raise StorageError("Cannot write a file", f"{dest}: {error.strerror or error}") from error
    except StorageError:
        part.unlink(missing_ok=True)
        raise


async def _fill(transport: Transport, sink: _Sink, on_progress: OnProgress | None) -> None:
    """Fetch until the sink has every byte of its blob and the right hash."""
    backoff = Backoff(STALLED_S)
    restarted = False
    begun = False
    while True:
        before = sink.size
        try:
            if sink.size < sink.ref.size:
                await _receive(transport, sink, on_progress)
            if sink.is_right():
                break
            # A part file of an earlier call may be damaged: once, begin anew.
            if restarted:
                raise StorageError(
                    "Wrong bytes", f"Blob {sink.ref.hash[:16]}… does not have its hash", "Try again"
                )
            restarted = True
            sink.empty()
        except (*DROPPED, UnreachableError) as error:
            begun = begun or sink.size > before
            if sink.size > before:
                backoff.reset()
            if (not begun and isinstance(error, UnreachableError)) or not await backoff.pause():
                raise transport.unreachable(error) from error
    if on_progress is not None:
        on_progress(sink.ref.size, sink.ref.size)


async def _receive(transport: Transport, sink: _Sink, on_progress: OnProgress | None) -> None:
    """One request for what is missing."""
    headers = {"Range": f"bytes={sink.size}-"} if sink.size else {}
    async with transport.request(
        "GET", f"/blobs/{sink.ref.hash}", headers=headers, timeout=_TIMEOUT, read_bufsize=CHUNK_BYTES
    ) as answer:
        if sink.size and answer.status != 206:
            sink.empty()
        gathered = bytearray()
        # One piece is hashed and written in a thread while the next one comes in.
        writing: asyncio.Future[None] | None = None
        try:
            async for piece in answer.content.iter_any():
                gathered += piece
                if len(gathered) >= CHUNK_BYTES:
                    if writing is not None:
                        await writing
                        if on_progress is not None:
                            on_progress(sink.size, sink.ref.size)
                    writing = asyncio.ensure_future(asyncio.to_thread(sink.write, gathered))
                    gathered = bytearray()
        finally:
            if writing is not None:
                await asyncio.wait((writing,))
                writing.result()
            # What came before a cut counts: the next request begins after it.
            sink.write(gathered)


class _Sink:
    """Where a blob's bytes gather, hashed as they come."""

    def __init__(self, file: BinaryIO, ref: BlobRef) -> None:
        self.ref = ref
        self.size = 0
        self._file = file
        self._digest = hashlib.sha256()

    def read_existing(self) -> None:
        """Go on with what the file holds already."""
        self._file.seek(0)
        while piece := self._file.read(CHUNK_BYTES):
            self._digest.update(piece)
            self.size += len(piece)
        if self.size > self.ref.size:
            self.empty()

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises StorageError when the blob gets longer than its name says."""
        if self.size + len(data) > self.ref.size:
            raise StorageError(
                "Wrong bytes", f"Blob {self.ref.hash[:16]}… is longer than its {self.ref.size} bytes"
            )
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def empty(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def is_right(self) -> bool:
        """Whether these are the bytes that the blob's name promises."""
        return self.size == self.ref.size and self._digest.hexdigest() == self.ref.hash
