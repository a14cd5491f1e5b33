"""What the handlers of one running coordinator share. Wired up in `coordinator.main`; holds, decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from coordinator.server.auth import Auth, Principal
from coordinator.server.blobs import BlobStore
from coordinator.server.driver import Driver
from coordinator.server.follow import LogFollowing
from coordinator.server.hub import EventHub
from coordinator.server.links import Links
from coordinator.server.listen import invited_addresses
from coordinator.server.store import Store
from coordinator.server.views import Views
from sparegrid.ids import DeviceId
from sparegrid.settings import CoordinatorSettings
from sparegrid.trust.codes import Address

log = logging.getLogger("sparegrid.coordinator")


class Chores:
    """Owns the coroutines that handlers start: their exceptions are read, and they end with the coordinator."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it beside everything else."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Cancel what still runs."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a chore failed", exc_info=error)


@dataclass
class Server:
    """One running coordinator."""

    settings: CoordinatorSettings
    name: str
    grid: str
    fingerprint: str
    epoch: int
    store: Store
    blobs: BlobStore
    driver: Driver
    links: Links
    views: Views
    hub: EventHub
    following: LogFollowing
    auth: Auth
    chores: Chores
    port: int = 0
    started_at: float = 0.0
    sockets: set[web.WebSocketResponse] = field(default_factory=set)
    """Open WebSockets, closed at the end."""
    notices: list[str] = field(default_factory=list)

    def devices(self) -> set[DeviceId]:
        """Members of the grid."""
        return set(self.driver.machine.devices())

    def invite_at(self, asked_at: str) -> list[Address]:
        """Where newcomers may find it; `asked_at` is the host of the request for a code."""
        return invited_addresses(self.settings.host, self.port, self.settings.interfaces, asked_at)


SERVER: web.AppKey[Server] = web.AppKey("server", Server)
PRINCIPAL: web.RequestKey[Principal] = web.RequestKey("principal", Principal)
