"""What the program does whose disk fails: each function is one story, and prints what happened as JSON.

`python -m tests.powerloss.faults ROOT STORY`.
"""

from __future__ import annotations

import asyncio
import errno
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from coordinator.server.blobs import BlobStore
from coordinator.server.store import Store
from coordinator.server.store.ballast import Ballast
from sparegrid.errors import GridError
from tests.powerloss.recording import fail
from tests.powerloss.work import batch, content


class Heard:
    """The store's callbacks, to be waited for."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.resumed = threading.Event()
        self.fatal = threading.Event()
        self.titles: list[str] = []

    def open(self, root: Path, **options: Any) -> Store:
        return Store.open(
            root / "store" / "grid.db",
            on_held=lambda error: self._note(error, self.held),
            on_resumed=self.resumed.set,
            on_fatal=lambda error: self._note(error, self.fatal),
            **options,
        )

    def _note(self, error: GridError, event: threading.Event) -> None:
        self.titles.append(error.title)
        event.set()


def full_disk(root: Path) -> dict[str, Any]:
    """No space for the log; then somebody makes some."""
    heard = Heard()
    with heard.open(root, retry_s=60) as store:
        store.commit(batch(1)).result(10)
        fail("write", errno.ENOSPC, "-wal")
        waiting = [store.commit(batch(number)) for number in (2, 3)]
        assert heard.held.wait(10)
        while_held = {"done": [future.done() for future in waiting], "held": str(store.held)}
        fail("write", 0)
        store.retry_now()
        seqs = [future.result(10) for future in waiting]
        assert heard.resumed.wait(10)
        after = store.held
    with heard.open(root) as store:
        facts = len(list(store.load().facts))
    return {**while_held, "seqs": seqs, "after": after, "facts": facts, "titles": heard.titles}


def full_disk_with_ballast(root: Path) -> dict[str, Any]:
    """No space but what the ballast leaves: what waits is committed, intake goes on when there is room for it again."""
    heard = Heard()
    ballast = root / "store" / "grid.db.ballast"
    with heard.open(root, retry_s=0.01, ballast_bytes=1 << 20) as store:
        store.commit(batch(1)).result(10)
        blocks = ballast.stat().st_blocks * 512
        give_up, restore = Ballast.give_up, Ballast.restore

        def make_room(self: Ballast) -> bool:
            fail("write", 0)
            return give_up(self)

        with (
            patch.object(Ballast, "give_up", make_room),
            patch.object(Ballast, "restore", lambda _self: False),
        ):
            fail("write", errno.ENOSPC, "-wal")
            seqs = [store.commit(batch(number)).result(10) for number in (2, 3)]
            assert heard.held.wait(10)
            while_held = {
                "held": str(store.held),
                "there": ballast.exists(),
                "resumed": heard.resumed.is_set(),
            }
        assert Ballast.restore is restore
        assert heard.resumed.wait(10)
        again = ballast.exists()
    return {**while_held, "seqs": seqs, "blocks": blocks, "again": again, "left": ballast.exists()}


def full_disk_until_closed(root: Path) -> dict[str, Any]:
    """No space, and the coordinator is stopped meanwhile."""
    heard = Heard()
    store = heard.open(root, retry_s=60)
    store.commit(batch(1)).result(10)
    fail("write", errno.ENOSPC, "-wal")
    waiting = store.commit(batch(2))
    assert heard.held.wait(10)
    store.close()
    fail("write", 0)
    error = waiting.exception(10)
    with heard.open(root) as store:
        facts = len(list(store.load().facts))
    return {"error": str(error), "facts": facts, "fatal": heard.fatal.is_set()}


def failed_fsync(root: Path) -> dict[str, Any]:
    """The log cannot be synced: the end."""
    heard = Heard()
    store = heard.open(root)
    store.commit(batch(1)).result(10)
    fail("sync", errno.EIO, "-wal")
    error = store.commit(batch(2)).exception(10)
    assert heard.fatal.wait(10)
    later = _raised(lambda: store.commit(batch(3)))
    fail("sync", 0)
    store.close()
    with heard.open(root) as store:
        facts = len(list(store.load().facts))
    return {"error": str(error), "later": later, "facts": facts, "titles": heard.titles}


def failed_fsync_of_a_checkpoint(root: Path) -> dict[str, Any]:
    """The database file cannot be synced: the end, too, although every commit is in the log."""
    heard = Heard()
    store = heard.open(root, log_pages=20)
    fail("sync", errno.EIO, "grid.db")
    number = 0
    try:
        while not heard.fatal.is_set():
            number += 1
            store.commit(batch(number)).result(10)
    except GridError:
        number -= 1
    assert heard.fatal.wait(10)
    fail("sync", 0)
    store.close()
    with heard.open(root) as store:
        facts = len(list(store.load().facts))
    return {"acknowledged": number, "facts": facts, "titles": heard.titles}


def no_space_for_a_checkpoint(root: Path) -> dict[str, Any]:
    """The log cannot be copied for want of space: commits go on, and it is copied later."""
    heard = Heard()
    with heard.open(root, sync="normal", log_pages=20) as store:
        fail("write", errno.ENOSPC, "grid.db")
        for number in range(1, 60):
            store.commit(batch(number)).result(10)
        without = store._checkpoints.runs
        fail("write", 0)
        for number in range(60, 120):
            store.commit(batch(number)).result(10)
        later = store._checkpoints.runs
    with heard.open(root) as store:
        facts = len(list(store.load().facts))
    return {"without": without, "later": later, "facts": facts, "titles": heard.titles}


def failed_write(root: Path) -> dict[str, Any]:
    """A write fails for another reason than space."""
    heard = Heard()
    store = heard.open(root)
    fail("write", errno.EIO, "-wal")
    error = store.commit(batch(1)).exception(10)
    fail("write", 0)
    store.close()
    return {"error": str(error), "fatal": heard.fatal.is_set()}


def quota(root: Path) -> dict[str, Any]:
    """The user's quota is used up: SQLite sees an I/O error, and it is a full disk all the same."""
    heard = Heard()
    with heard.open(root, retry_s=60) as store:
        fail("write", errno.EDQUOT)
        waiting = store.commit(batch(1))
        assert heard.held.wait(10)
        fail("write", 0)
        store.retry_now()
        return {"seq": waiting.result(10), "titles": heard.titles}


def blob_on_a_full_disk(root: Path) -> dict[str, Any]:
    """An upload meets a full disk, and goes on later where it was."""

    async def story() -> dict[str, Any]:
        blobs = await BlobStore.open(root / "blobs", reserve_bytes=0)
        data = content(7, 3 << 20)
        name = (await blobs.put_bytes(data)).hash
        await blobs.sweep(1e12, 1, lambda _names: set())
        error = ""
        try:
            async with blobs.upload(name, len(data)) as upload:
                await upload.write(data[: 1 << 20])
                fail("write", errno.ENOSPC)
                await upload.write(data[1 << 20 :])
        except GridError as caught:
            error = str(caught)
        fail("write", 0)
        offset = await blobs.offset(name)
        async with blobs.upload(name, len(data), offset) as upload:
            await upload.write(data[offset:])
            await upload.finish()
        same = await blobs.get_bytes(name, 4 << 20) == data
        await blobs.close()
        return {"error": error, "offset": offset, "same": same}

    return asyncio.run(story())


def blob_whose_fsync_fails(root: Path) -> dict[str, Any]:
    """Nothing of an upload is believed after a failed fsync, of the file or of the folder."""

    async def story() -> dict[str, Any]:
        blobs = await BlobStore.open(root / "blobs", reserve_bytes=0)
        told: list[str] = []
        data = content(7, 10_000)
        name = (await blobs.put_bytes(data)).hash
        await blobs.sweep(1e12, 1, lambda _names: set())
        for suffix in (name, f"/{name[:2]}"):
            fail("sync", errno.EIO, suffix)
            told.append(await _failure(blobs, data))
            fail("sync", 0)
        size, stat = await blobs.size(name), blobs.stat()
        stored = (await blobs.put_bytes(data)).hash == name
        await blobs.close()
        return {"told": told, "size": size, "bytes": stat.bytes + stat.partial_bytes, "stored": stored}

    return asyncio.run(story())


async def _failure(blobs: BlobStore, data: bytes) -> str:
    try:
        await blobs.put_bytes(data)
    except GridError as error:
        return error.title
    return ""


def _raised(call: Callable[[], object]) -> str:
    try:
        call()
    except GridError as error:
        return error.title
    return ""


STORIES: tuple[Callable[[Path], dict[str, Any]], ...] = (
    full_disk, full_disk_with_ballast, full_disk_until_closed, failed_fsync, failed_fsync_of_a_checkpoint,
    no_space_for_a_checkpoint, failed_write, quota,
    blob_on_a_full_disk, blob_whose_fsync_fails,
)  # fmt: skip


def main() -> None:
    """Tell one story."""
    root, name = sys.argv[1:]
    story = {story.__name__: story for story in STORIES}[name]
    print(json.dumps(story(Path(root))))


if __name__ == "__main__":
    main()
