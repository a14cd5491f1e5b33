"""Blobs through the client: resumed after cuts, checked, never half there."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from sparegrid.client import transfer
from sparegrid.errors import BadInputError, DeniedError, NotFoundError, StorageError, UnreachableError
from sparegrid.messages import BlobRef, Inline
from tests.unit.sparegrid.fake_coordinator import FakeCoordinator, fake_coordinator, refuse

MIB = 1 << 20


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeCoordinator]:
    async with fake_coordinator(tmp_path / "coordinator") as started:
        yield started


def ref_of(data: bytes) -> BlobRef:
    return BlobRef(hashlib.sha256(data).hexdigest(), len(data))


async def test_bytes_go_up_and_come_back(fake: FakeCoordinator) -> None:
    async with fake.client() as client:
        for data in (b"", b"x", os.urandom(3 * MIB + 17)):
            ref = await client.put_blob(data)
            assert ref == ref_of(data)
            assert await client.get_blob(ref) == data


async def test_a_file_that_is_there_already_is_not_sent_again(fake: FakeCoordinator, tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"again")
    async with fake.client() as client:
        await client.put_blob(path)
        await client.put_blob(path)
    assert sum(request.startswith("PUT") for request in fake.requests) == 1


async def test_an_upload_that_is_cut_five_times_resumes_each_time(
    fake: FakeCoordinator, tmp_path: Path
) -> None:
    data = os.urandom(24 * MIB)
    path = tmp_path / "in"
    path.write_bytes(data)
    fake.cut_uploads_after = [2 * MIB, 3 * MIB, 1, 4 * MIB, 5 * MIB]
    told: list[int] = []
    async with fake.client() as client:
        ref = await client.put_blob(path, lambda done, _total: told.append(done))
    assert bytes(fake.blobs[ref.hash]) == data
    assert sum(request.startswith("PUT") for request in fake.requests) == 6
    assert told[-1] == len(data)


async def test_a_download_that_is_cut_five_times_resumes_each_time(
    fake: FakeCoordinator, tmp_path: Path
) -> None:
    data = os.urandom(24 * MIB)
    async with fake.client() as client:
        ref = await client.put_blob(data)
        fake.cut_downloads_after = [2 * MIB, 3 * MIB, 4 * MIB, 4 * MIB, 5 * MIB]
        path = await client.get_blob(ref, tmp_path / "out")
    assert path.read_bytes() == data
    assert len(fake.ranges) == 6
    assert fake.ranges[0] == ""
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in fake.ranges[1:]]
    assert starts == sorted(starts)
    assert starts[0] >= 1 * MIB, "what came before the first cut was kept"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".part")] == []


async def test_a_download_goes_on_with_the_part_that_an_earlier_run_left(
    fake: FakeCoordinator, tmp_path: Path
) -> None:
    data = os.urandom(3 * MIB)
    async with fake.client() as client:
        ref = await client.put_blob(data)
        (tmp_path / f".out.{ref.hash[:16]}.part").write_bytes(data[:MIB])
        await client.get_blob(ref, tmp_path / "out")
    assert fake.ranges == [f"bytes={MIB}-"]
    assert (tmp_path / "out").read_bytes() == data


async def test_a_damaged_part_is_thrown_away_and_fetched_anew(fake: FakeCoordinator, tmp_path: Path) -> None:
    data = os.urandom(MIB)
    async with fake.client() as client:
        ref = await client.put_blob(data)
        (tmp_path / f".out.{ref.hash[:16]}.part").write_bytes(b"rubbish")
        await client.get_blob(ref, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


async def test_bytes_that_do_not_have_their_hash_are_refused_and_leave_no_file(
    fake: FakeCoordinator, tmp_path: Path
) -> None:
    wrong = BlobRef("0" * 64, 4)

    async def lie(_request: web.Request) -> web.Response:
        return web.Response(body=b"lies")

    fake.on("GET", f"/blobs/{wrong.hash}", lie)
    async with fake.client() as client:
        with pytest.raises(StorageError, match="does not have its hash"):
            await client.get_blob(wrong, tmp_path / "out")
        with pytest.raises(StorageError, match="longer than its 3 bytes"):
            await client.get_blob(BlobRef(wrong.hash, 3), tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir() if "out" in entry.name] == []


async def test_a_missing_blob_is_not_found(fake: FakeCoordinator, tmp_path: Path) -> None:
    async with fake.client() as client:
        with pytest.raises(NotFoundError, match="No such blob"):
            await client.get_blob(BlobRef("1" * 64, 10), tmp_path / "out")


async def test_a_file_that_is_missing_or_shrinks_is_named(fake: FakeCoordinator, tmp_path: Path) -> None:
    path = tmp_path / "in"
    async with fake.client() as client:
        with pytest.raises(BadInputError, match="No such file"):
            await client.put_blob(path)
        path.write_bytes(b"short")
        with pytest.raises(BadInputError, match="had 5000000 bytes and has 5 now"):
            await client.put_blob(path, ref=BlobRef("2" * 64, 5_000_000))


async def test_a_full_disk_of_the_coordinator_is_told_while_the_upload_still_runs(
    fake: FakeCoordinator,
) -> None:
    data = os.urandom(8 * MIB)

    async def full(_request: web.Request) -> web.Response:
        return refuse(507, "storage", "Disk full", "0 bytes are free")

    fake.on("PUT", f"/blobs/{ref_of(data).hash}", full)
    async with fake.client() as client:
        with pytest.raises(StorageError, match="Disk full: 0 bytes are free"):
            await client.put_blob(data)


async def test_an_unwritable_target_is_named(fake: FakeCoordinator, tmp_path: Path) -> None:
    async with fake.client() as client:
        ref = await client.put_blob(b"data")
        with pytest.raises(StorageError, match="nowhere/out"):
            await client.get_blob(ref, tmp_path / "nowhere" / "out")


async def test_without_a_token_a_transfer_is_denied(fake: FakeCoordinator) -> None:
    async with fake.client(token="") as client:
        with pytest.raises(DeniedError):
            await client.put_blob(b"data")
        with pytest.raises(DeniedError):
            await client.get_blob(ref_of(b"data"))


async def test_a_coordinator_that_vanishes_during_an_upload_is_given_up_in_the_end(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "STALLED_S", 0.3)
    fake.cut_uploads_after = [1] * 1000
    data = os.urandom(MIB)

    async def nothing_kept(_request: web.Request) -> web.Response:
        fake.blobs.clear()
        return web.Response(status=404)

    fake.on("HEAD", f"/blobs/{ref_of(data).hash}", nothing_kept)
    async with fake.client() as client:
        with pytest.raises(UnreachableError):
            await client.put_blob(data)


async def test_an_upload_of_which_only_the_end_was_cut_is_finished(fake: FakeCoordinator) -> None:
    data = os.urandom(MIB)
    fake.blobs[ref_of(data).hash] = bytearray(data)
    async with fake.client() as client:
        assert await client.get_blob(await client.put_blob(data)) == data


async def test_an_upload_that_no_longer_moves_is_begun_again(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SILENCE_S", 0.2)
    data = os.urandom(32 * MIB)
    path = f"/blobs/{ref_of(data).hash}"
    left: list[int] = []

    async def read_nothing(_request: web.Request) -> web.Response:
        left.append(1)
        del fake.handlers["PUT", f"/v1{path}"]
        await asyncio.Event().wait()
        return web.Response()

    fake.on("PUT", path, read_nothing)
    async with fake.client() as client:
        assert await client.get_blob(await client.put_blob(data)) == data
    assert left == [1]


async def test_a_payload_is_read_wherever_it_is(fake: FakeCoordinator) -> None:
    async with fake.client() as client:
        assert await client.payload(Inline(b"here")) == b"here"
        assert await client.payload(await client.put_blob(b"there")) == b"there"
