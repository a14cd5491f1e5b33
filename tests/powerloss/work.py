"""What the recorded program does: commits, outcomes, snapshots, checkpoints, blobs; each promise is marked once given.

`python -m tests.powerloss.work ROOT [normal|nodirsync]`: the words are two ways to cheat that the tests must notice.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from coordinator.scheduler.effects import Keep
from coordinator.scheduler.facts import Joined
from coordinator.server.blobs import BlobStore
from coordinator.server.blobs import files as blob_files
from coordinator.server.store import Batch, Store
from sparegrid.ids import AttemptId, DeviceId, JobId, StageIndex, TaskIndex
from sparegrid.messages import Inline, Outcome
from tests.powerloss.recording import mark

SESSIONS = 3
BATCHES = 25
BLOBS = 4
LOG_PAGES = 20
"""So small that checkpoints come often."""


def batch(number: int) -> Batch:
    """The batch with this number: a fact that names it, and an outcome of about two pages."""
    joined = Joined(DeviceId(f"device-{number}"), "name", number)
    keep = Keep(
        JobId(1), StageIndex(0), TaskIndex(number), AttemptId(number), DeviceId("d"), True, "", "",
        Outcome(value=Inline(content(number, 7000))),
    )  # fmt: skip
    return Batch(facts=[joined], keeps=[keep], now_ms=number)


def content(number: int, size: int) -> bytes:
    """Bytes that differ in every sector."""
    return b"".join(hashlib.sha256(b"%d %d" % (number, n)).digest() for n in range(size // 32 + 1))[:size]


def session(root: Path, first: int, sync: Any) -> None:
    """One life of the store: batches singly and in groups, a snapshot in the middle, a clean end."""
    with Store.open(root / "store" / "grid.db", sync=sync, log_pages=LOG_PAGES) as store:
        done = sum(1 for _ in store.load().facts)
        mark(f"epoch {store.epoch}")
        waiting: list[Future[int]] = []
        for number in range(first, first + BATCHES):
            future = store.commit(batch(number))
            future.add_done_callback(_marker(f"batch {number}"))
            waiting.append(future)
            if number % 3 == 0:
                waiting[-1].result()
            if number == first + BATCHES // 2:
                store.save_snapshot(b"%d" % number, waiting[-1].result()).result()
                mark(f"snapshot {number}")
        for future in waiting:
            future.result()
        assert done <= first


def _marker(text: str) -> Callable[[Future[int]], None]:
    return lambda _future: mark(text)


async def blobs(root: Path, first: int) -> None:
    """Some blobs, one of them in two parts with a restart between, one twice at the same time."""
    store = await BlobStore.open(root / "blobs", reserve_bytes=0)
    for number in range(first, first + BLOBS):
        data = content(number, 5000 * number + 1)
        ref = await store.put_bytes(data)
        mark(f"blob {ref.hash}")
    data = content(first, 40_000)
    name = hashlib.sha256(data).hexdigest()
    async with store.upload(name, len(data)) as upload:
        await upload.write(data[:25_000])
    await store.close()
    store = await BlobStore.open(root / "blobs", reserve_bytes=0)
    async with store.upload(name, len(data), await store.offset(name)) as upload:
        await upload.write(data[25_000:])
        await upload.finish()
    mark(f"blob {name}")
    twin = content(first + 1000, 30_000)
    for ref in await asyncio.gather(store.put_bytes(twin), store.put_bytes(twin)):
        mark(f"blob {ref.hash}")
    await store.close()


def main() -> None:
    """Three lives, one after the other."""
    root, *cheats = sys.argv[1:]
    with patch.object(blob_files, "sync_folder") if "nodirsync" in cheats else nullcontext():
        for life in range(SESSIONS):
            session(Path(root), 1 + life * BATCHES, "normal" if "normal" in cheats else "full")
            asyncio.run(blobs(Path(root), life * BLOBS))


if __name__ == "__main__":
    main()
