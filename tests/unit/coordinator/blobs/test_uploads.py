"""Uploads: hashed, resumed, refused, raced. A blob is there whole or not at all."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.server.blobs import BlobStore
from sparegrid.errors import BadInputError, ConflictError, GridError, StorageError
from tests.unit.coordinator.blobs.builders import (
    MIB,
    data_of,
    files_below,
    name_of,
    open_files,
    opened,
    pieces,
    put_part,
)

DATA = data_of(3 * MIB + 17)
NAME = name_of(DATA)


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[BlobStore]:
    async with opened(tmp_path) as store:
        yield store


async def whole(store: BlobStore, data: bytes = DATA) -> bool:
    return await store.receive(name_of(data), len(data), 0, pieces(data))


async def refused(
    store: BlobStore, kind: type[GridError], *args: int, data: bytes = DATA, sent: bytes = DATA
) -> str:
    """The message of an upload of `sent` as `data`."""
    total, offset = args or (len(data), 0)
    with pytest.raises(kind) as caught:
        await store.receive(name_of(data), total, offset, pieces(sent))
    return f"{caught.value.title}: {caught.value.message}"


# ---- whole uploads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 17])
async def test_a_stored_blob_is_read_back_as_it_was(blobs: BlobStore, tmp_path: Path, size: int) -> None:
    data = data_of(size)
    assert await whole(blobs, data)
    assert await blobs.size(name_of(data)) == size
    assert await blobs.offset(name_of(data)) == size
    assert await blobs.get_bytes(name_of(data), size) == data
    assert files_below(tmp_path) == [name_of(data)]


async def test_a_blob_that_is_stored_already_is_not_read_again(blobs: BlobStore) -> None:
    assert await whole(blobs)

    asked: list[bytes] = []

    async def noted() -> AsyncIterator[bytes]:
        async for piece in pieces(DATA):
            asked.append(piece)
            yield piece

    assert not await blobs.receive(NAME, len(DATA), 0, noted())
    assert asked == []
    assert (blobs.stat().blobs, blobs.stat().bytes) == (1, len(DATA))


async def test_an_upload_of_a_stored_blob_swallows_what_is_written(blobs: BlobStore) -> None:
    await whole(blobs)
    async with blobs.upload(NAME, len(DATA)) as upload:
        assert upload.stored
        await upload.write(b"anything")
        await upload.finish()
    assert await blobs.get_bytes(NAME, len(DATA)) == DATA


async def test_bytes_in_memory_are_stored_under_their_hash(blobs: BlobStore) -> None:
    ref = await blobs.put_bytes(b"hello")
    assert (ref.hash, ref.size) == (name_of(b"hello"), 5)
    assert await blobs.put_bytes(b"hello") == ref


async def test_an_upload_needs_memory_for_a_few_chunks_only(blobs: BlobStore) -> None:
    data = data_of(48 * MIB)
    tracemalloc.start()
    try:
        await whole(blobs, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * MIB


# ---- refused uploads ----------------------------------------------------------------------------------------------


async def test_a_wrong_hash_is_refused_and_nothing_is_kept(blobs: BlobStore, tmp_path: Path) -> None:
    sent = b"x" + DATA[1:]
    told = await refused(blobs, BadInputError, sent=sent)
    assert told.startswith("Wrong hash")
    assert NAME in told
    assert name_of(sent) in told
    assert files_below(tmp_path) == []
    assert blobs.stat().partial_bytes == 0
    assert await whole(blobs)


async def test_too_many_bytes_are_refused_and_nothing_is_kept(blobs: BlobStore, tmp_path: Path) -> None:
    told = await refused(blobs, BadInputError, sent=DATA + b"x")
    assert f"more than the announced {len(DATA)} bytes" in told
    assert files_below(tmp_path) == []


async def test_a_truncated_upload_is_refused_and_kept_to_be_resumed(blobs: BlobStore) -> None:
    told = await refused(blobs, BadInputError, sent=DATA[:1000])
    assert f"has 1000 of {len(DATA)} bytes" in told
    assert await blobs.size(NAME) is None
    assert await blobs.offset(NAME) == 1000


@pytest.mark.parametrize("name", ["", "../" * 21 + "a", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
async def test_what_is_no_blobs_name_is_refused(blobs: BlobStore, name: str) -> None:
    with pytest.raises(BadInputError, match="SHA-256"):
        await blobs.receive(name, 1, 0, pieces(b"x"))
    with pytest.raises(BadInputError, match="SHA-256"):
        await blobs.size(name)
    with pytest.raises(BadInputError, match="SHA-256"):
        await blobs.reader(name)


@pytest.mark.parametrize(("total", "offset"), [(-1, 0), (10, -1), (10, 11)])
async def test_sizes_that_cannot_be_are_refused(blobs: BlobStore, total: int, offset: int) -> None:
    assert (await refused(blobs, BadInputError, total, offset)).startswith("Wrong range")


async def test_a_store_whose_folder_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        await BlobStore.open(tmp_path / "file")


# ---- resumed uploads ----------------------------------------------------------------------------------------------


async def test_an_upload_cut_many_times_is_resumed_where_it_was(blobs: BlobStore, tmp_path: Path) -> None:
    for size in (1, 1000, MIB, 2 * MIB + 5, 3 * MIB):
        await put_part(blobs, DATA, size, await blobs.offset(NAME))
        assert await blobs.offset(NAME) == size
    assert await blobs.receive(NAME, len(DATA), 3 * MIB, pieces(DATA[3 * MIB :]))
    assert await blobs.get_bytes(NAME, len(DATA)) == DATA
    assert files_below(tmp_path) == [NAME]


async def test_an_upload_is_resumed_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put_part(store, DATA, 2 * MIB + 5)
    async with opened(tmp_path) as store:
        assert (store.stat().partials, store.stat().partial_bytes) == (1, 2 * MIB + 5)
        offset = await store.offset(NAME)
        assert offset == 2 * MIB + 5
        assert await store.receive(NAME, len(DATA), offset, pieces(DATA[offset:]))
        assert await store.get_bytes(NAME, len(DATA)) == DATA


@pytest.mark.parametrize("offset", [999, 1001])
async def test_bytes_at_another_offset_are_refused_naming_the_right_one(
    blobs: BlobStore, offset: int
) -> None:
    await put_part(blobs, DATA, 1000)
    told = await refused(blobs, ConflictError, len(DATA), offset)
    assert f"goes on at byte 1000, not {offset}" in told
    assert await blobs.offset(NAME) == 1000


async def test_resuming_what_never_began_is_refused(blobs: BlobStore, tmp_path: Path) -> None:
    assert "goes on at byte 0, not 5" in await refused(blobs, ConflictError, len(DATA), 5)
    assert files_below(tmp_path) == []


async def test_an_upload_may_begin_again_at_zero(blobs: BlobStore) -> None:
    await put_part(blobs, DATA, 2 * MIB)
    assert await whole(blobs)
    assert blobs.stat().bytes == len(DATA)


async def test_a_partial_damaged_over_a_restart_is_dropped_and_asked_for_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put_part(store, DATA, MIB)
    with (tmp_path / "partial" / NAME).open("rb+") as file:
        file.write(b"\0" * 4096)
    async with opened(tmp_path) as store:
        with pytest.raises(ConflictError, match="from byte 0"):
            await store.receive(NAME, len(DATA), MIB, pieces(DATA[MIB:]))
        assert await store.offset(NAME) == 0
        assert await whole(store)


async def test_a_cancelled_upload_keeps_what_came(blobs: BlobStore) -> None:
    waiting = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield DATA[: MIB + 5]
        yield DATA[MIB + 5 : MIB + 9]
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(blobs.receive(NAME, len(DATA), 0, stalling()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await blobs.offset(NAME) == MIB + 9


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_an_upload_cancelled_at_any_moment_leaves_a_partial_that_can_be_resumed(
    blobs: BlobStore, tmp_path: Path, times: int
) -> None:
    for turns in range(40):
        offset = await blobs.offset(NAME)
        if offset == len(DATA):
            break
        task = asyncio.create_task(blobs.receive(NAME, len(DATA), offset, pieces(DATA[offset:], 200_000)))
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
    offset = await blobs.offset(NAME)
    await blobs.receive(NAME, len(DATA), offset, pieces(DATA[offset:]))
    assert await blobs.get_bytes(NAME, len(DATA)) == DATA
    assert blobs.stat().bytes == len(DATA)
    assert blobs._space.promised == 0
    assert open_files(tmp_path) == []


# ---- several at once ----------------------------------------------------------------------------------------------


async def test_many_uploads_of_one_blob_at_once_all_succeed_and_store_it_once(
    blobs: BlobStore, tmp_path: Path
) -> None:
    fresh = await asyncio.gather(*(whole(blobs) for _ in range(8)))
    assert sum(fresh) == 1
    assert files_below(tmp_path) == [NAME]
    assert (blobs.stat().blobs, blobs.stat().bytes, blobs.stat().partial_bytes) == (1, len(DATA), 0)
    assert blobs._space.promised == 0


async def test_an_upload_that_resumes_takes_over_from_one_whose_connection_hangs(blobs: BlobStore) -> None:
    async with blobs.upload(NAME, len(DATA)) as hanging:
        await hanging.write(DATA[:MIB])
        offset = await blobs.offset(NAME)
        assert offset == MIB
        assert await blobs.receive(NAME, len(DATA), offset, pieces(DATA[offset:]))
        with pytest.raises(ConflictError, match="taken over"):
            await hanging.write(DATA[MIB : 2 * MIB])
        with pytest.raises(ConflictError, match="taken over"):
            await hanging.finish()
    assert await blobs.get_bytes(NAME, len(DATA)) == DATA
    assert blobs._space.promised == 0


async def test_what_a_fenced_upload_had_in_its_buffer_never_reaches_the_file(blobs: BlobStore) -> None:
    async with blobs.upload(NAME, len(DATA)) as hanging:
        await hanging.write(DATA[:MIB])
        await hanging.write(b"garbage")
        async with blobs.upload(NAME, len(DATA), MIB) as newer:
            await newer.write(DATA[MIB:])
            with pytest.raises(ConflictError):
                await hanging.finish()
            await newer.finish()
    assert await blobs.get_bytes(NAME, len(DATA)) == DATA


async def test_a_second_upload_from_zero_that_is_cut_leaves_the_first_alone(
    blobs: BlobStore, tmp_path: Path
) -> None:
    async with blobs.upload(NAME, len(DATA)) as first:
        await first.write(DATA[:MIB])
        await put_part(blobs, DATA, 2 * MIB)
        assert await blobs.offset(NAME) == MIB
        await first.write(DATA[MIB:])
        await first.finish()
    assert files_below(tmp_path) == [NAME]
    assert blobs.stat().bytes == len(DATA)
    assert blobs._space.used == len(DATA)


async def test_leftovers_of_parallel_uploads_are_removed_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    (tmp_path / "partial" / f"{NAME}.1").write_bytes(b"left")
    async with opened(tmp_path) as store:
        assert store.stat().partials == 0
    assert files_below(tmp_path) == []
