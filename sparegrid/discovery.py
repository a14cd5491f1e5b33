"""Grids on the local network: announced and found by mDNS (`_sparegrid._tcp`).

What is found is only shown after its coordinator has answered with the announced key: a coordinator that was
killed, or a machine that was unplugged, leaves its announcement behind for an hour. It knows no token and
joins nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import zeroconf
from msgspec import Struct
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from sparegrid.addresses import local_addresses
from sparegrid.api import Health
from sparegrid.client.transport import DROPPED, Transport
from sparegrid.errors import GridError, UnreachableError
from sparegrid.trust.codes import Address
from sparegrid.trust.pinning import Pin

SERVICE_TYPE = "_sparegrid._tcp.local."
RECHECK_S = 15.0
"""How often a grid that was found is asked again whether it lives, and networks are looked at for changes."""
ANSWER_S = 2.0
RESOLVE_S = 2.0
MAX_NAME_BYTES = 200
"""Of the grid's name as announced: one entry of a TXT record holds 255 bytes."""
log = logging.getLogger("sparegrid.discovery")


class Announced(Struct, frozen=True):
    """What a coordinator tells about itself."""

    grid: str
    name: str
    port: int
    fingerprint: str
    version: str


class FoundGrid(Struct, frozen=True):
    """A grid whose coordinator has answered just now, with the key it announces."""

    grid: str
    name: str
    url: str
    fingerprint: str
    version: str


@asynccontextmanager
async def announce(announced: Announced, interfaces: Sequence[str] = ()) -> AsyncIterator[None]:
    """Announce a grid until the block ends, on these interfaces or all; follows when addresses change.

    A machine without a network announces nothing, until it has one.

    Raises:
        ConfigError: an interface is named that is not there.
    """
    local_addresses(interfaces)
    keeper = asyncio.create_task(_keep_announced(announced, interfaces), name="announce")
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


async def browse(interfaces: Sequence[str] = ()) -> AsyncGenerator[list[FoundGrid], None]:
    """The grids that live, by name: at once, and again whenever that changes.

    Raises:
        ConfigError: an interface is named that is not there.
        UnreachableError: no network takes mDNS.
    """
    async with _sightings(interfaces) as sightings:
        shown: list[FoundGrid] | None = None
        while True:
            now = sightings.alive()
            if now != shown:
                shown = now
                yield now
            await sightings.changed.wait()
            sightings.changed.clear()


async def discover_grids(for_s: float = 3.0, interfaces: Sequence[str] = ()) -> list[FoundGrid]:
    """The grids that answer within `for_s` seconds, by name. Raises as `browse` does."""
    found: list[FoundGrid] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s), aclosing(browse(interfaces)) as stream:
            async for alive in stream:
                found = alive
    return found


# ---- announcing
# -------------------------------------------------------------------------------------------------


async def _keep_announced(announced: Announced, interfaces: Sequence[str]) -> None:
    while True:
        addresses = _current_addresses(interfaces)
        if not addresses:
            await asyncio.sleep(RECHECK_S)
            continue
        try:
            async with _network(addresses) as network:
                await network.async_register_service(
                    _service(announced, addresses), cooperating_responders=True
                )
                while _current_addresses(interfaces) == addresses:  # noqa: ASYNC110 - no system tells of a change
                    await asyncio.sleep(RECHECK_S)
        except (OSError, zeroconf.Error, UnreachableError) as error:
            log.warning("cannot announce the grid on %s: %s", ", ".join(addresses), error)
            await asyncio.sleep(RECHECK_S)


def _current_addresses(interfaces: Sequence[str]) -> list[str]:
    """As `local_addresses`; none while a named interface is away (an unplugged cable)."""
    try:
        return local_addresses(interfaces)
    except GridError:
        return []


def _service(announced: Announced, addresses: Sequence[str]) -> AsyncServiceInfo:
    name = announced.name.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    return AsyncServiceInfo(
        SERVICE_TYPE,
        # The id and not the name: two grids may be called alike, and names may hold anything.
        f"{announced.grid}.{SERVICE_TYPE}",
        addresses=[ipaddress.ip_address(address).packed for address in addresses],
        port=announced.port,
        properties={
            "v": "1",
            "grid": announced.grid,
            "name": name,
            "fp": announced.fingerprint,
            "version": announced.version,
        },
        server=f"{announced.grid}.local.",
    )


@asynccontextmanager
async def _network(addresses: Sequence[str]) -> AsyncIterator[AsyncZeroconf]:
    """mDNS on these addresses: on the IPv4 ones when there are any, for that is where other devices look."""
    old = [address for address in addresses if ":" not in address]
    version = zeroconf.IPVersion.V4Only if old else zeroconf.IPVersion.V6Only
    try:
        network = AsyncZeroconf(interfaces=old or list(addresses), ip_version=version)
    except (OSError, zeroconf.Error) as error:
        raise UnreachableError("No network to look on", f"mDNS on {', '.join(addresses)}: {error}") from error
    try:
        yield network
    finally:
        # Whoever is cancelled while it says goodbye must not leave its sockets open.
        closing = asyncio.ensure_future(network.async_close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise


# ---- finding
# ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _sightings(interfaces: Sequence[str]) -> AsyncIterator[_Sightings]:
    addresses = local_addresses(interfaces)
    if not addresses:
        raise UnreachableError(
            "No network to look on", "This machine has no network address but its own loopback"
        )
    async with _network(addresses) as network:
        sightings = _Sightings(network)
        browser = AsyncServiceBrowser(network.zeroconf, SERVICE_TYPE, handlers=[sightings.on_service])
        try:
            yield sightings
        finally:
            await browser.async_cancel()
            await sightings.close()


class _Sightings:
    """Every announcement that was heard, each watched by one task that asks its coordinator now and then."""

    def __init__(self, network: AsyncZeroconf) -> None:
        self.changed = asyncio.Event()
        self._network = network
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._alive: dict[str, FoundGrid] = {}

    def alive(self) -> list[FoundGrid]:
        """Those that answered when they were last asked, by name."""
        return sorted(self._alive.values(), key=lambda one: (one.name.casefold(), one.grid))

    def on_service(self, *, name: str, state_change: zeroconf.ServiceStateChange, **_unused: Any) -> None:
        """An announcement was heard, changed or withdrawn. (zeroconf passes all by name.)"""
        old = self._watchers.pop(name, None)
        if old is not None:
            old.cancel()
            self._ending.add(old)
            old.add_done_callback(self._ending.discard)
        if state_change is zeroconf.ServiceStateChange.Removed:
            self._show(name, None)
        else:
            self._watchers[name] = asyncio.create_task(self._watch(name), name=f"watch {name}")

    async def close(self) -> None:
        """End all watchers."""
        tasks = [*self._watchers.values(), *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, name: str) -> None:
        while True:
            self._show(name, await self._ask(name))
            await asyncio.sleep(RECHECK_S)

    async def _ask(self, name: str) -> FoundGrid | None:
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        if not await info.async_request(self._network.zeroconf, RESOLVE_S * 1000):
            return None
        told = _told(info)
        if told is None:
            return None
        urls = [Address(address, told.port).url for address in info.parsed_addresses()]
        answers = await asyncio.gather(*(answers_as(url, told) for url in urls))
        return next((found for found in answers if found is not None), None)

    def _show(self, name: str, found: FoundGrid | None) -> None:
        if found != self._alive.get(name):
            if found is None:
                del self._alive[name]
            else:
                self._alive[name] = found
            self.changed.set()


def _told(info: AsyncServiceInfo) -> Announced | None:
    """What an announcement says; None when something of it is missing."""
    said = {key: value or "" for key, value in info.decoded_properties.items()}
    if not (said.get("grid") and said.get("fp") and info.port):
        return None
    return Announced(said["grid"], said.get("name", ""), info.port, said["fp"], said.get("version", ""))


async def answers_as(url: str, announced: Announced) -> FoundGrid | None:
    """The grid, when the coordinator at `url` answers in time, with the announced key, that it is this
    grid."""
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            Transport((url,), Pin(announced.fingerprint), token="", patience_s=0) as transport,
        ):
            health = msgspec.json.decode(
                await transport.call("GET", "/health", repeatable=False), type=Health
            )
    except (GridError, TimeoutError, msgspec.DecodeError, *DROPPED) as error:
        log.debug("%s does not answer as grid %s: %s", url, announced.grid, error)
        return None
    if health.grid != announced.grid:
        return None
    return FoundGrid(health.grid, health.name, url, announced.fingerprint, health.version)
