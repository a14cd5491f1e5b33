"""Outcomes as they were kept: output files for tasks that need them, logs for people that read them."""

from __future__ import annotations

import asyncio

from coordinator.server.blobs import BlobStore
from coordinator.server.store import Store
from sparegrid.ids import AttemptId, JobId, StageIndex, TaskIndex, TaskRef
from sparegrid.messages import BlobRef, FileEntry, Payload


class KeptOutcomes:
    """What `expand` and `follow` ask of store and blobs."""

    def __init__(self, store: Store, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    def files(
        self, job: JobId, stage: StageIndex, first: TaskIndex, limit: int
    ) -> list[tuple[int, list[FileEntry]]]:
        """(index, output files) of the done tasks among `limit` indices from `first`. Blocks."""
        rows = self._store.outcomes(job, stage, first, limit)
        return [(row.index, row.outcome.files) for row in rows if row.accepted and row.index < first + limit]

    async def log_of(self, ref: TaskRef, attempt: AttemptId) -> Payload | None:
        """The kept log of an attempt; None when there is none."""
        kept = await asyncio.to_thread(self._store.outcome, ref.job, ref.stage, ref.index, attempt)
        return None if kept is None else kept.outcome.log

    async def read(self, payload: Payload, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; empty at the end."""
        if not isinstance(payload, BlobRef):
            return payload.data[offset : offset + size]
        async with await self._blobs.reader(payload.hash) as reader:
            return b"".join([chunk async for chunk in reader.chunks(offset, size)])
