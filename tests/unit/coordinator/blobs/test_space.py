"""The cap, the reserve, and sweeping: what may come, what must go, and what stays."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from coordinator.server.blobs import BlobStat, BlobStore, Swept
from sparegrid.errors import StorageError
from sparegrid.ids import BlobHash
from tests.unit.coordinator.blobs.builders import data_of, files_below, name_of, opened, put_part

NOW_S = 1_000_000.0
ONE, TWO, THREE = (data_of(1000, seed) for seed in (1, 2, 3))


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[BlobStore]:
    async with opened(tmp_path) as store:
        yield store


def age(root: Path, data: bytes, seconds: float) -> None:
    """Make the blob's, or its partial's, file as old as this at NOW_S."""
    for path in root.rglob(name_of(data)):
        os.utime(path, (NOW_S - seconds, NOW_S - seconds))


def holding(*held: bytes) -> Callable[[list[BlobHash]], set[BlobHash]]:
    names = {BlobHash(name_of(data)) for data in held}
    return lambda asked: names & set(asked)


# ---- cap and reserve ----------------------------------------------------------------------------------------------


async def test_a_blob_over_the_cap_is_refused_naming_what_is_taken_and_the_cap(tmp_path: Path) -> None:
    async with opened(tmp_path, cap_bytes=2500) as store:
        await store.put_bytes(ONE)
        await store.put_bytes(TWO)
        with pytest.raises(StorageError, match="needs 1000 bytes, and 2000 of the cap of 2500 bytes"):
            await store.put_bytes(THREE)
        await store.put_bytes(ONE)
        await store.put_bytes(b"x" * 500)
    assert len(files_below(tmp_path)) == 3


async def test_the_cap_counts_what_running_uploads_were_promised(tmp_path: Path) -> None:
    async with opened(tmp_path, cap_bytes=1500) as store:
        async with store.upload(name_of(ONE), len(ONE)) as upload:
            await upload.write(ONE[:100])
            with pytest.raises(StorageError, match="1000 of the cap"):
                await store.put_bytes(TWO)
        assert store.stat() == BlobStat(0, 0, 1, 100, 1500, 0)
        await store.put_bytes(TWO)


async def test_the_cap_holds_over_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.put_bytes(ONE)
        await put_part(store, TWO, 400)
    async with opened(tmp_path, cap_bytes=1999) as store:
        assert store.stat() == BlobStat(1, 1000, 1, 400, 1999, 0)
        with pytest.raises(StorageError, match="1400 of the cap of 1999"):
            await put_part(store, TWO, 1000, 400)


async def test_a_resumed_upload_needs_space_for_its_rest_only(tmp_path: Path) -> None:
    async with opened(tmp_path, cap_bytes=1000) as store:
        await put_part(store, ONE, 900)
        async with store.upload(name_of(ONE), 1000, 900) as upload:
            await upload.write(ONE[900:])
            await upload.finish()
        assert store.stat().bytes == 1000


async def test_the_reserve_of_the_disk_is_left_free(tmp_path: Path) -> None:
    async with opened(tmp_path, reserve_bytes=5000, free=lambda _root: 5999) as store:
        with pytest.raises(StorageError, match="needs 1000 bytes; 5999 are free, and 5000 stay reserved"):
            await store.put_bytes(ONE)
        await store.put_bytes(b"x" * 999)


async def test_the_free_space_of_the_real_disk_is_asked_for_by_default(tmp_path: Path) -> None:
    async with opened(tmp_path, reserve_bytes=1 << 60) as store:
        with pytest.raises(StorageError, match="stay reserved"):
            await store.put_bytes(ONE)


async def test_what_is_refused_or_dropped_gives_its_space_back(tmp_path: Path) -> None:
    async with opened(tmp_path, cap_bytes=1000) as store:
        for _ in range(3):
            with pytest.raises(StorageError):
                await store.put_bytes(ONE + TWO)
            async with store.upload(name_of(ONE), 1000) as upload:
                await upload.write(TWO)
                with pytest.raises(Exception, match="Wrong hash"):
                    await upload.finish()
        await store.put_bytes(ONE)
        assert store.stat() == BlobStat(1, 1000, 0, 0, 1000, 0)


# ---- sweeping -----------------------------------------------------------------------------------------------------


async def test_a_sweep_removes_what_is_old_and_held_by_no_job(blobs: BlobStore, tmp_path: Path) -> None:
    for data, seconds in ((ONE, 100.0), (TWO, 100.0), (THREE, 50.0)):
        await blobs.put_bytes(data)
        age(tmp_path, data, seconds)
    assert await blobs.sweep(NOW_S, 60, holding(TWO)) == Swept(1, 1000, 0)
    assert files_below(tmp_path) == sorted([name_of(TWO), name_of(THREE)])
    assert (blobs.stat().blobs, blobs.stat().bytes) == (2, 2000)


async def test_asking_for_a_blob_renews_its_grace(blobs: BlobStore, tmp_path: Path) -> None:
    await blobs.put_bytes(ONE)
    age(tmp_path, ONE, 100)
    assert await blobs.size(name_of(ONE)) == 1000
    assert await blobs.sweep(NOW_S, 60, holding()) == Swept(0, 0, 0)


async def test_a_blob_asked_for_while_the_sweep_runs_is_spared(blobs: BlobStore, tmp_path: Path) -> None:
    await blobs.put_bytes(ONE)
    age(tmp_path, ONE, 100)

    def somebody_asks(names: list[BlobHash]) -> set[BlobHash]:
        for name in names:
            assert blobs._files.touch(name) == 1000
        return set()

    assert await blobs.sweep(NOW_S, 60, somebody_asks) == Swept(0, 0, 0)
    assert await blobs.get_bytes(name_of(ONE), 1000) == ONE


async def test_partials_that_rest_for_long_are_removed_and_running_uploads_are_not(
    blobs: BlobStore, tmp_path: Path
) -> None:
    await put_part(blobs, ONE, 500)
    await put_part(blobs, TWO, 500)
    async with blobs.upload(name_of(THREE), len(THREE)) as upload:
        await upload.write(THREE[:500])
        age(tmp_path, ONE, 100)
        age(tmp_path, TWO, 10)
        age(tmp_path, THREE, 100)
        assert await blobs.sweep(NOW_S, 60, holding(), partial_grace_s=60) == Swept(0, 0, 1)
        await upload.write(THREE[500:])
        await upload.finish()
    assert await blobs.offset(name_of(ONE)) == 0
    assert await blobs.offset(name_of(TWO)) == 500
    assert blobs.stat() == BlobStat(1, 1000, 1, 500, 0, 0)


async def test_many_blobs_are_asked_about_in_lots(blobs: BlobStore, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "stored" / "aa" / ("aa" + f"{number:062x}")).touch()
    for path in (tmp_path / "stored" / "aa").iterdir():
        os.utime(path, (0, 0))
    asked: list[int] = []

    def pinned(names: list[BlobHash]) -> set[BlobHash]:
        asked.append(len(names))
        return set()

    assert (await blobs.sweep(NOW_S, 60, pinned)).blobs == 3
    assert asked == [3]
