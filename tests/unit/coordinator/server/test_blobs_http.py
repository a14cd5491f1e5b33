"""Blobs over HTTPS: whole, in ranges, cut and resumed."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from sparegrid.errors import BadInputError, StorageError
from sparegrid.trust.pinning import Pin
from tests.fakes.coordinator import RunningCoordinator, running_coordinator

DATA = random.Random(1).randbytes(3_000_000)
HASH = hashlib.sha256(DATA).hexdigest()
PATH = f"/v1/blobs/{HASH}"


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[RunningCoordinator]:
    async with running_coordinator(tmp_path) as running:
        yield running


@pytest.fixture
async def http(grid: RunningCoordinator) -> AsyncIterator[aiohttp.ClientSession]:
    async with _session(grid) as session:
        yield session


@asynccontextmanager
async def _session(grid: RunningCoordinator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        grid.url,
        connector=aiohttp.TCPConnector(ssl=Pin(grid.access.fingerprint)),
        headers={"Authorization": f"Bearer {grid.access.token}"},
    ) as session:
        yield session


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 18):
        yield data[start : start + (1 << 18)]


async def put(
    http: aiohttp.ClientSession, data: bytes, first: int = 0, total: int | None = None, path: str = PATH
) -> aiohttp.ClientResponse:
    whole = len(data) if total is None else total
    headers = {
        "Content-Length": str(len(data)),
        "Content-Range": f"bytes {first}-{first + len(data) - 1}/{whole}",
    }
    return await http.put(path, data=pieces(data), headers=headers)


async def test_a_blob_comes_back_as_it_went(grid: RunningCoordinator) -> None:
    client = await grid.client()
    ref = await client.put_blob(DATA)
    assert (ref.hash, ref.size) == (HASH, len(DATA))
    assert await client.get_blob(ref) == DATA


async def test_the_empty_blob_is_a_blob(grid: RunningCoordinator) -> None:
    client = await grid.client()
    assert await client.get_blob(await client.put_blob(b"")) == b""


async def test_head_tells_the_size_or_how_far_an_upload_got(http: aiohttp.ClientSession) -> None:
    async with http.head(PATH) as answer:
        assert (answer.status, answer.headers["Upload-Offset"]) == (404, "0")
    async with await put(http, DATA) as answer:
        assert answer.status == 201
    async with http.head(PATH) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(DATA)))
    async with await put(http, DATA) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=2999990-", 2_999_990, 2_999_999),
        ("bytes=-5", 2_999_995, 2_999_999),
        ("bytes=1000-99999999", 1000, 2_999_999),
    ],
)
async def test_a_range_is_answered_with_just_that(
    http: aiohttp.ClientSession, wanted: str, first: int, last: int
) -> None:
    (await put(http, DATA)).close()
    async with http.get(PATH, headers={"Range": wanted}) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(DATA)}"
        assert await answer.read() == DATA[first : last + 1]


async def test_ranges_that_cannot_be_are_refused(http: aiohttp.ClientSession) -> None:
    (await put(http, DATA)).close()
    async with http.get(PATH, headers={"Range": "bytes=3000000-"}) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
    async with http.get(PATH, headers={"Range": "lines=1-2"}) as answer:
        assert answer.status == 400
    async with http.get(PATH, headers={"Range": "bytes=0-1,4-5"}) as answer:
        assert (answer.status, await answer.read()) == (200, DATA)


async def test_a_cut_upload_goes_on_where_it_stopped(
    grid: RunningCoordinator, http: aiohttp.ClientSession
) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield DATA[:1_500_000]
        await reached.wait()
        raise ConnectionResetError("cut")

    reached = asyncio.Event()

    async def upload() -> None:
        async with _session(grid) as other:
            with pytest.raises(aiohttp.ClientError):
                await other.put(PATH, data=cut(), headers={"Content-Length": str(len(DATA))})

    cutting = asyncio.create_task(upload())
    reached.set()
    await cutting
    offset = await offset_of(http)
    assert 0 < offset <= 1_500_000
    async with await put(http, DATA[offset - 1 :], offset - 1, len(DATA)) as answer:
        assert answer.status == 409
    for _ in range(20):  # the cut upload's last bytes may still be on their way to the disk
        async with await put(http, DATA[offset:], offset, len(DATA)) as answer:
            if answer.status == 201:
                break
            assert answer.status == 409
            assert int(answer.headers["Upload-Offset"]) > offset
            offset = int(answer.headers["Upload-Offset"])
    else:
        pytest.fail("the upload never came to its end")
    async with http.get(PATH) as answer:
        assert await answer.read() == DATA


async def offset_of(http: aiohttp.ClientSession) -> int:
    """Where the upload stands, once the coordinator has noticed the cut."""
    async with asyncio.timeout(10):
        while True:
            async with http.head(PATH) as answer:
                offset = int(answer.headers["Upload-Offset"])
            if offset:
                return offset


async def test_bytes_of_another_hash_are_not_kept(http: aiohttp.ClientSession) -> None:
    async with await put(http, b"x" * len(DATA)) as answer:
        assert answer.status == 400
        assert "hash" in (await answer.text()).lower() or "sha" in (await answer.text()).lower()
    async with http.head(PATH) as answer:
        assert (answer.status, answer.headers["Upload-Offset"]) == (404, "0")


@pytest.mark.parametrize("content_range", ["bytes 0-9/20", "bytes 5-2/10", "chars 0-9/10", "bytes 0-9/*"])
async def test_content_ranges_that_cannot_be_are_refused(
    http: aiohttp.ClientSession, content_range: str
) -> None:
    async with http.put(PATH, data=b"0123456789", headers={"Content-Range": content_range}) as answer:
        assert answer.status == 400
        assert (await answer.json())["title"] in {"Not a range", "Wrong range"}


async def test_what_does_not_fit_under_the_cap_is_refused(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path, blob_cap=1_000_000) as grid:
        with pytest.raises(StorageError, match="1000000"):
            await (await grid.client()).put_blob(DATA)


async def test_a_name_that_is_no_hash_is_refused(
    grid: RunningCoordinator, http: aiohttp.ClientSession
) -> None:
    async with await put(http, b"x", path="/v1/blobs/..%2F..%2Fetc") as answer:
        assert answer.status in {400, 404}
    with pytest.raises(BadInputError):
        await (await grid.client())._transport.call("GET", "/blobs/ABC", repeatable=False)


async def test_a_large_blob_passes_without_filling_the_memory(
    grid: RunningCoordinator, tmp_path: Path
) -> None:
    import tracemalloc

    source = tmp_path / "large"
    size = 96 << 20
    with source.open("wb") as file:
        file.truncate(size)
    client = await grid.client()
    tracemalloc.start()
    try:
        ref = await client.put_blob(source)
        await client.get_blob(ref, tmp_path / "back")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "back").stat().st_size == size
    assert peak < 40 << 20, f"{peak >> 20} MiB at the peak, client and coordinator together"
