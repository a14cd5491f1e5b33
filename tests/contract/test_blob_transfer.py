"""Blobs between the client and a coordinator, the fake and the real one: cut on the way, they arrive whole."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from sparegrid.client import Client
from sparegrid.errors import BadInputError, ConflictError, DeniedError, NotFoundError
from sparegrid.ids import BlobHash
from sparegrid.messages import BlobRef
from tests.contract.proxy import CuttingProxy, cutting_proxy
from tests.fakes.coordinator import running_coordinator
from tests.unit.sparegrid.fake_coordinator import TOKEN, fake_coordinator

MIB = 1 << 20
DATA = random.Random(7).randbytes(16 * MIB + 5)
REF = BlobRef(hashlib.sha256(DATA).hexdigest(), len(DATA))


class Side(NamedTuple):
    """A coordinator behind a proxy that can cut, and what a client needs."""

    proxy: CuttingProxy
    fingerprint: str
    token: str

    def client(self, token: str | None = None) -> Client:
        return Client.connect(
            url=self.proxy.url, fingerprint=self.fingerprint, token=self.token if token is None else token
        )


@pytest.fixture(params=["fake", "real"])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            fake = await stack.enter_async_context(fake_coordinator(tmp_path / "home"))
            port, fingerprint, token = fake.port, fake.certificate.fingerprint, TOKEN
        else:
            real = await stack.enter_async_context(running_coordinator(tmp_path / "home"))
            port = int(real.url.rpartition(":")[2])
            fingerprint, token = real.access.fingerprint, real.access.token
        proxy = await stack.enter_async_context(cutting_proxy("127.0.0.1", port))
        yield Side(proxy, fingerprint, token)


async def test_bytes_and_files_go_up_and_come_back(side: Side, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(DATA)
    async with side.client() as client:
        for data in (b"", b"x", DATA[: MIB + 1]):
            assert await client.get_blob(await client.put_blob(data)) == data
        assert await client.put_blob(tmp_path / "in") == REF
        assert await client.put_blob(tmp_path / "in") == REF
        await client.get_blob(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA


async def test_an_upload_that_is_cut_five_times_resumes_and_never_restarts(
    side: Side, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(DATA)
    side.proxy.cuts = [3 * MIB, 4 * MIB, 5000, 2 * MIB, 4 * MIB]
    async with side.client() as client:
        assert await client.put_blob(tmp_path / "in") == REF
        assert side.proxy.cut_count == 5
        assert side.proxy.forwarded < 1.5 * len(DATA), "what was there already was not sent again"
        assert await client.get_blob(REF) == DATA


async def test_a_download_that_is_cut_five_times_resumes(side: Side, tmp_path: Path) -> None:
    async with side.client() as client:
        await client.put_blob(DATA)
    side.proxy.cuts = [3 * MIB, 4 * MIB, 5000, 2 * MIB, 4 * MIB]
    async with side.client() as client:
        await client.get_blob(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA
    assert side.proxy.cut_count == 5
    assert side.proxy.forwarded < 2.5 * len(DATA), "once up, once down, and no restart"


async def test_an_upload_of_which_only_the_end_was_cut_is_finished(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path / "home") as real:
        async with real.server.blobs.upload(BlobHash(REF.hash), REF.size, 0) as upload:
            await upload.write(DATA)
        async with real.client_of(real.access.token) as client:
            assert await client.put_blob(DATA) == REF
            assert await client.get_blob(REF) == DATA


async def test_a_wrong_hash_keeps_nothing(side: Side) -> None:
    wrong = BlobRef(hashlib.sha256(b"right").hexdigest(), 5)
    async with side.client() as client:
        with pytest.raises((BadInputError, ConflictError)):
            await client.put_blob(b"wrong", ref=wrong)
        with pytest.raises(NotFoundError):
            await client.get_blob(wrong)
        assert await client.put_blob(b"right") == wrong


async def test_without_a_token_nothing_moves(side: Side) -> None:
    async with side.client(token="") as client:
        with pytest.raises(DeniedError):
            await client.put_blob(b"data")
        with pytest.raises(DeniedError):
            await client.get_blob(REF)
