"""Grids on the local network: found when they live, and only then. Real mDNS on loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from sparegrid import discovery
from sparegrid.addresses import local_addresses
from sparegrid.discovery import (
    Announced,
    FoundGrid,
    announce,
    answers_as,
    browse,
    discover_grids,
)
from sparegrid.errors import ConfigError, UnreachableError
from tests.unit.sparegrid.fake_coordinator import FakeCoordinator, fake_coordinator

LOOPBACK = ["127.0.0.1"]


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeCoordinator]:
    async with fake_coordinator(tmp_path / "coordinator") as started:
        yield started


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service type of its own keeps a test apart from whatever else announces on this machine."""
    monkeypatch.setattr(discovery, "RECHECK_S", 0.2)
    monkeypatch.setattr(discovery, "SERVICE_TYPE", f"_sg{secrets.token_hex(4)}._tcp.local.")


def told_by(fake: FakeCoordinator, name: str = "lab") -> Announced:
    return Announced(fake.certificate.grid, name, fake.port, fake.certificate.fingerprint, "0")


def found(fake: FakeCoordinator) -> FoundGrid:
    return FoundGrid(fake.certificate.grid, "lab", fake.url, fake.certificate.fingerprint, "0")


async def expect_shown(expected: list[FoundGrid]) -> None:
    """Browse until exactly these grids of the tests are shown."""
    async with asyncio.timeout(20), aclosing(browse(LOOPBACK)) as shown:
        async for grids in shown:
            if grids == expected:
                return


async def test_a_grid_that_lives_is_found_and_gone_when_it_is_withdrawn(fake: FakeCoordinator) -> None:
    async with asyncio.timeout(20), aclosing(browse(LOOPBACK)) as shown:
        assert await anext(shown) == []
        async with announce(told_by(fake), LOOPBACK):
            assert await anext(shown) == [found(fake)]
        assert await anext(shown) == []


async def test_a_late_browser_finds_a_grid_that_was_announced_before(fake: FakeCoordinator) -> None:
    async with announce(told_by(fake), ["lo"]):
        await expect_shown([found(fake)])
        assert await discover_grids(1.5, ["lo"]) == [found(fake)]


async def test_a_coordinator_that_was_killed_is_not_shown_although_it_is_still_announced(
    fake: FakeCoordinator,
) -> None:
    async with announce(told_by(fake), LOOPBACK), asyncio.timeout(20), aclosing(browse(LOOPBACK)) as shown:
        assert await anext(shown) == []
        assert await anext(shown) == [found(fake)]
        await fake.stop()
        assert await anext(shown) == []
        await fake.start()
        assert await anext(shown) == [found(fake)]


async def test_what_does_not_answer_as_it_announces_is_not_found(
    fake: FakeCoordinator, tmp_path: Path
) -> None:
    truth = told_by(fake)
    assert await answers_as(fake.url, truth) == found(fake)
    assert await answers_as(fake.url, msgspec.structs.replace(truth, grid="another")) is None
    assert await answers_as(fake.url, msgspec.structs.replace(truth, fingerprint="ab" * 32)) is None
    assert await answers_as(fake.url, msgspec.structs.replace(truth, fingerprint="rubbish")) is None

    async def rubbish(_request: web.Request) -> web.Response:
        return web.Response(body=b"[]")

    fake.on("GET", "/health", rubbish)
    assert await answers_as(fake.url, truth) is None


async def test_a_coordinator_that_takes_too_long_is_not_found(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "ANSWER_S", 0.1)

    async def wait(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    fake.on("GET", "/health", wait)
    assert await answers_as(fake.url, told_by(fake)) is None


async def test_announcements_that_say_too_little_are_passed_over(fake: FakeCoordinator) -> None:
    network = AsyncZeroconf(interfaces=LOOPBACK)
    info = AsyncServiceInfo(
        discovery.SERVICE_TYPE,
        f"strange.{discovery.SERVICE_TYPE}",
        addresses=[ipaddress.ip_address("127.0.0.1").packed],
        port=fake.port,
        properties={"v": "9", "grid": None},
    )
    try:
        await network.async_register_service(info, cooperating_responders=True)
        async with announce(told_by(fake), LOOPBACK):
            await expect_shown([found(fake)])
    finally:
        await network.async_close()


async def test_a_long_name_with_anything_in_it_is_announced(fake: FakeCoordinator) -> None:
    async with announce(told_by(fake, "ü.🦊 " * 60), LOOPBACK):
        await expect_shown([found(fake)])


async def test_an_interface_that_is_not_there_is_refused_by_name() -> None:
    told = Announced("g", "lab", 1, "ab" * 32, "0")
    with pytest.raises(ConfigError, match="'wlan9' is neither"):
        async with announce(told, ["wlan9"]):
            pass
    with pytest.raises(ConfigError, match="'wlan9' is neither"):
        await discover_grids(1, ["wlan9"])


async def test_without_a_network_nothing_is_announced_and_browsing_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "local_addresses", lambda _interfaces: [])
    async with announce(Announced("g", "lab", 1, "ab" * 32, "0")):
        with pytest.raises(UnreachableError, match="no network address"):
            await discover_grids(1)


async def test_an_announcement_follows_when_addresses_come_and_go(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    now: list[str] = []
    monkeypatch.setattr(discovery, "_current_addresses", lambda _interfaces: list(now))
    async with announce(told_by(fake), LOOPBACK), asyncio.timeout(20), aclosing(browse(LOOPBACK)) as shown:
        assert await anext(shown) == []
        now[:] = LOOPBACK
        assert await anext(shown) == [found(fake)]
        now[:] = []
        assert await anext(shown) == []


async def test_a_network_that_takes_no_mdns_is_told_and_announcing_goes_on_trying(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = asyncio.Event()

    def no_multicast(**_options: object) -> AsyncZeroconf:
        tried.set()
        # zeroconf itself leaks a socket when this happens to it, so it does not happen to it here.
        raise OSError(19, "No such device")

    with monkeypatch.context() as patched:
        patched.setattr(discovery, "AsyncZeroconf", no_multicast)
        with pytest.raises(UnreachableError, match=r"mDNS on 127\.0\.0\.1: .*No such device"):
            await discover_grids(1, LOOPBACK)
        tried.clear()
        announcement = announce(told_by(fake), LOOPBACK)
        await announcement.__aenter__()
        await tried.wait()
    try:
        await expect_shown([found(fake)])
    finally:
        await announcement.__aexit__(None, None, None)
    assert "cannot announce the grid on 127.0.0.1" in caplog.text


def test_addresses_are_those_of_the_interfaces_that_are_named() -> None:
    assert local_addresses(["lo"])[0] == "127.0.0.1"
    assert local_addresses(["127.0.0.1"]) == ["127.0.0.1"]
    assert not any(ipaddress.ip_address(address).is_loopback for address in local_addresses())
    with pytest.raises(ConfigError, match=r"There are .*lo"):
        local_addresses(["127.0.0.1", "nope"])
