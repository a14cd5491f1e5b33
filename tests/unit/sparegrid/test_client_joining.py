"""Joining with a code: what is sent, what is kept, and what is told when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from sparegrid import api
from sparegrid.client import Client
from sparegrid.errors import BadInputError, DeniedError, GridError, UnreachableError
from sparegrid.trust.codes import Address, Invitation, encode_code, make_secret
from tests.unit.sparegrid.fake_coordinator import FakeCoordinator, answer, fake_coordinator, refuse
from tests.unit.sparegrid.test_client_rest import free_port


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeCoordinator]:
    async with fake_coordinator(tmp_path / "coordinator") as started:
        yield started


def code_for(fake: FakeCoordinator, *hosts: Address) -> tuple[str, str]:
    secret = make_secret()
    addresses = (*hosts, Address("127.0.0.1", fake.port))
    return encode_code(Invitation(addresses, fake.certificate.fingerprint, secret)), secret


async def test_joining_spends_the_secret_and_brings_back_all_that_is_needed(fake: FakeCoordinator) -> None:
    code, secret = code_for(fake, Address("127.0.0.1", free_port()))
    requests: list[api.JoinRequest] = []

    async def join(request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers
        requests.append(msgspec.json.decode(await request.read(), type=api.JoinRequest))
        return answer(api.Joined("g", "lab", "sgt_new", "dev", "worker"), 201)

    fake.on("POST", "/join", join)
    joined = await Client.join(code, "attic pc", b"k" * 32)
    assert requests == [api.JoinRequest(secret, "attic pc", b"k" * 32, "worker")]
    assert (joined.grid, joined.name, joined.token, joined.role, joined.device) == (
        "g",
        "lab",
        "sgt_new",
        "worker",
        "dev",
    )
    assert joined.fingerprint == fake.certificate.fingerprint, "all 256 bits are pinned from now on"
    assert joined.urls[0] == fake.url
    assert len(joined.urls) == 2


async def test_on_the_same_machine_the_address_may_be_given(fake: FakeCoordinator) -> None:
    code = encode_code(Invitation((Address("192.0.2.1"),), fake.certificate.fingerprint, make_secret()))
    fake.on_value("POST", "/join", api.Joined("g", "lab", "t", "", "submitter"))
    assert (await Client.join(code, "ann", url=fake.url)).urls == (fake.url,)


async def test_a_spent_code_is_told_and_not_tried_twice(fake: FakeCoordinator) -> None:
    async def spent(_request: web.Request) -> web.Response:
        return refuse(403, "denied", "The code is spent")

    fake.on("POST", "/join", spent)
    with pytest.raises(DeniedError, match="spent"):
        await Client.join(code_for(fake)[0], "pc")
    assert fake.requests == ["POST /v1/join"]


async def test_a_code_of_another_grid_meets_another_key(fake: FakeCoordinator) -> None:
    code = encode_code(Invitation((Address("127.0.0.1", fake.port),), "ab" * 32, make_secret()))
    with pytest.raises(UnreachableError, match="Another key answered"):
        await Client.join(code, "pc")
    assert fake.requests == []


async def test_an_answer_to_a_join_of_another_form_is_told(fake: FakeCoordinator) -> None:
    fake.on_value("POST", "/join", {"x": 1})
    with pytest.raises(GridError, match="not readable"):
        await Client.join(code_for(fake)[0], "pc")


async def test_a_person_asks_to_join_as_a_person(fake: FakeCoordinator) -> None:
    code, secret = code_for(fake)
    requests: list[api.JoinRequest] = []

    async def join(request: web.Request) -> web.Response:
        requests.append(msgspec.json.decode(await request.read(), type=api.JoinRequest))
        return refuse(400, "bad-input", "Another kind of join code", "This code is for a worker")

    fake.on("POST", "/join", join)
    with pytest.raises(BadInputError, match="for a worker"):
        await Client.join(code, "ann")
    assert requests == [api.JoinRequest(secret, "ann", role="person")]
