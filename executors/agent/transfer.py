"""Brings the blobs that attempts need, and sends those that they made. One transfer a blob, a few at once.

The client's transfers resume after every cut; here it is decided what is wanted, how often it is tried, and where
files go.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from executors.agent.cache import BlobCache
from executors.base import AttemptFailedError
from executors.nursery.protocol import Place
from sparegrid.client.transfer import get_file, put_blob
from sparegrid.client.transport import DROPPED, Backoff, Transport
from sparegrid.errors import GridError, NotFoundError, StorageError, UnauthenticatedError, UnreachableError
from sparegrid.messages import Blame, BlobRef, FileEntry, Inline, Payload, Run, Template

log = logging.getLogger(__name__)

MAX_AT_ONCE = 4
FETCH_PATIENCE_S = 600.0
MEASURE_FROM_BYTES = 4 << 20
_REFUSED_PAUSE_S = 15.0


class Transfers:
    """Up- and downloads of one grid.

    Args:
        transport: the connection to the coordinator.
        cache: where downloads go.
        outbox: where uploads come from.
    """

    def __init__(self, transport: Transport, cache: BlobCache, outbox: Path) -> None:
        self._transport = transport
        self._cache = cache
        self._outbox = outbox
        self._gate = asyncio.Semaphore(MAX_AT_ONCE)
        self._coming: dict[str, asyncio.Task[Path]] = {}
        self.received_bytes = 0
        self.sent_bytes = 0
        self.bandwidth = 0
        """Bytes per second of the last large transfer; 0 before any."""

    # -- down

    async def fetch(self, stage: Template, run: Run) -> list[Place]:
        """The files of an attempt as they go into its work folder. Their blobs are in the cache, and pinned.

        Raises:
            AttemptFailedError: a blob cannot be had, by whose fault.
        """
        for ref in refs_of(stage, run):
            await self._bring(ref)
        return [
            *(self._place(entry) for entry in [*stage.inputs, *(run.files or [])]),
            *([self._checkpoint(run.checkpoint)] if run.checkpoint is not None else []),
        ]

    def _place(self, entry: FileEntry) -> Place:
        content = entry.content
        if isinstance(content, Inline):
            return Place(entry.path, data=content.data, executable=entry.executable)
        return Place(entry.path, source=str(self._cache.path(content.hash)), executable=entry.executable)

    def _checkpoint(self, content: Payload) -> Place:
        if isinstance(content, Inline):
            return Place("", data=content.data, archive=True)
        return Place("", source=str(self._cache.path(content.hash)), archive=True)

    async def _bring(self, ref: BlobRef) -> Path:
        """The blob's file; several who want it share one download."""
        found = self._cache.find(ref.hash)
        if found is not None:
            return found
        task = self._coming.get(ref.hash)
        if task is None:
            task = self._coming[ref.hash] = asyncio.create_task(
                self._download(ref), name=f"get {ref.hash[:12]}"
            )
            task.add_done_callback(lambda _task: self._coming.pop(ref.hash, None))
        return await asyncio.shield(task)

    async def _download(self, ref: BlobRef) -> Path:
        backoff = Backoff(FETCH_PATIENCE_S)
        async with self._gate:
            begun = time.monotonic()
            while True:
                try:
                    await get_file(self._transport, ref, self._cache.path(ref.hash), None)
                    break
                except NotFoundError as error:
                    reason = f"the coordinator does not have the blob {ref.hash[:16]}…"
                    raise AttemptFailedError(Blame.GRID, reason) from error
                except (StorageError, OSError) as error:
                    if isinstance(error, DROPPED) and await backoff.pause():
                        continue
                    raise AttemptFailedError(
                        Blame.DEVICE, f"an input could not be fetched: {error}"
                    ) from error
                except UnreachableError as error:
                    if not await backoff.pause():
                        reason = f"an input could not be fetched: {error.message}"
                        raise AttemptFailedError(Blame.DEVICE, reason) from error
                except GridError as error:
                    raise AttemptFailedError(Blame.GRID, f"an input could not be fetched: {error}") from error
        self.received_bytes += ref.size
        self._measure(ref.size, begun)
        return self._cache.add(ref.hash)

    def _measure(self, size: int, begun: float) -> None:
        if size >= MEASURE_FROM_BYTES:
            self.bandwidth = round(size / max(time.monotonic() - begun, 1e-6))

    # -- up

    async def deliver(self, refs: Iterable[BlobRef]) -> None:
        """Upload these from the outbox. Tries until it is done: a result is worth any patience."""
        for ref in refs:
            # What is not there was uploaded before the worker was restarted, or as part of another result.
            async with self._gate:
                await self._upload(self._outbox / ref.hash, ref)

    async def _upload(self, path: Path, ref: BlobRef) -> None:
        backoff = Backoff(None)
        begun = time.monotonic()
        while os.path.exists(path):  # noqa: PTH110, ASYNC240 - one stat of a local disk
            try:
                await put_blob(self._transport, path, ref, None)
            except UnauthenticatedError:
                raise
            except (*DROPPED, UnreachableError) as error:
                log.debug("the upload of %s waits for the coordinator: %s", ref.hash[:16], error)
                await backoff.pause()
            except GridError as error:
                # Its disk is full, for one: what is said here is also on the device's row.
                log.warning("the coordinator does not take a result's file of %d bytes: %s", ref.size, error)
                await asyncio.sleep(_REFUSED_PAUSE_S)
            else:
                self.sent_bytes += ref.size
                self._measure(ref.size, begun)
                self._cache.adopt(path, ref.hash)
                return

    async def close(self) -> None:
        """Stop all downloads; what has come stays for the next time."""
        tasks = list(self._coming.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def refs_of(stage: Template, run: Run) -> list[BlobRef]:
    """The blobs that an attempt needs, each once."""
    payloads = [entry.content for entry in [*stage.inputs, *(run.files or [])]]
    if run.checkpoint is not None:
        payloads.append(run.checkpoint)
    found = {payload.hash: payload for payload in payloads if isinstance(payload, BlobRef)}
    return list(found.values())
