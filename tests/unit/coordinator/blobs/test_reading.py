"""Reading blobs: ranges, chunks, and blobs that vanish or shrink."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.server.blobs import BlobStore
from sparegrid.errors import NotFoundError, StorageError, TooLargeError
from tests.unit.coordinator.blobs.builders import MIB, data_of, name_of, open_files, opened

DATA = data_of(2 * MIB + 100)
NAME = name_of(DATA)


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[BlobStore]:
    async with opened(tmp_path) as store:
        await store.put_bytes(DATA)
        yield store


async def read(blobs: BlobStore, first: int = 0, count: int | None = None) -> list[bytes]:
    async with await blobs.reader(NAME) as reader:
        assert reader.size == len(DATA)
        return [chunk async for chunk in reader.chunks(first, count)]


async def test_a_blob_is_read_in_chunks_of_one_mebibyte(blobs: BlobStore) -> None:
    chunks = await read(blobs)
    assert b"".join(chunks) == DATA
    assert [len(chunk) for chunk in chunks] == [MIB, MIB, 100]


@pytest.mark.parametrize(
    ("first", "count"),
    [
        (0, 0),
        (0, 1),
        (5, 10),
        (MIB - 1, 2),
        (MIB, MIB),
        (2 * MIB + 99, 1),
        (2 * MIB, 500),
        (9 * MIB, 1),
        (7, None),
    ],
)
async def test_a_range_is_exactly_what_was_asked_for(blobs: BlobStore, first: int, count: int | None) -> None:
    expected = DATA[first:] if count is None else DATA[first : first + count]
    assert b"".join(await read(blobs, first, count)) == expected


async def test_a_blob_that_is_not_stored_is_told(blobs: BlobStore) -> None:
    with pytest.raises(NotFoundError, match="0" * 64):
        await blobs.reader("0" * 64)
    assert await blobs.size("0" * 64) is None
    assert await blobs.offset("0" * 64) == 0


async def test_reading_goes_on_when_the_blob_is_swept_meanwhile(blobs: BlobStore) -> None:
    async with await blobs.reader(NAME) as reader:
        swept = await blobs.sweep(1e12, 1, lambda _names: set())
        assert swept.blobs == 1
        assert b"".join([chunk async for chunk in reader.chunks()]) == DATA
    with pytest.raises(NotFoundError):
        await blobs.reader(NAME)


async def test_a_file_that_has_become_shorter_is_told(blobs: BlobStore, tmp_path: Path) -> None:
    async with await blobs.reader(NAME) as reader:
        with (tmp_path / "stored" / NAME[:2] / NAME).open("rb+") as file:
            file.truncate(MIB)
        with pytest.raises(StorageError, match=f"ends at byte {MIB} instead of {len(DATA)}"):
            async for _ in reader.chunks():
                pass


async def test_a_blob_larger_than_wanted_is_not_read_into_memory(blobs: BlobStore) -> None:
    with pytest.raises(TooLargeError, match=f"{len(DATA)} bytes, over the limit of {MIB}"):
        await blobs.get_bytes(NAME, MIB)


async def test_a_reader_cancelled_at_any_moment_leaves_no_file_open(blobs: BlobStore, tmp_path: Path) -> None:
    async def read_all() -> None:
        async with await blobs.reader(NAME) as reader:
            async for _ in reader.chunks():
                pass

    for turns in range(12):
        task = asyncio.create_task(read_all())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert open_files(tmp_path) == []
