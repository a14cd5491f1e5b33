"""The real coordinator in this process, on 127.0.0.1 with a port that the system chooses, in a folder of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from coordinator import main
from coordinator.server.app import make_app
from coordinator.server.context import Server
from sparegrid.api import JoinCodeRequest
from sparegrid.client import Client
from sparegrid.paths import Paths
from sparegrid.settings import CoordinatorSettings
from sparegrid.trust.access import Access, read_access
from sparegrid.trust.keys import DeviceKey
from tests.fakes.worker import FakeWorker


class RunningCoordinator:
    """A coordinator that serves until the block ends."""

    def __init__(
        self, home: Path, server: Server, access: Access, stop: asyncio.Event, task: asyncio.Task[None]
    ) -> None:
        self.home = home
        self.server = server
        self.access = access
        self.url = access.url
        self.stop = stop
        self.task = task
        self._opened = AsyncExitStack()
        self._client: Client | None = None

    async def client(self) -> Client:
        """The administrator's client."""
        if self._client is None:
            self._client = await self._opened.enter_async_context(self.client_of(self.access.token))
        return self._client

    def client_of(self, token: str) -> Client:
        """A client with this token; use as an async context manager."""
        return Client.connect(url=self.url, fingerprint=self.access.fingerprint, token=token)

    async def token(self, role: str, name: str = "alice", key: DeviceKey | None = None) -> str:
        """A token of this role, got by a join code as anybody gets one."""
        code = await (await self.client()).join_code(JoinCodeRequest(role=role))
        public = key.public if key is not None else b""
        return (await Client.join(code.code, name, public)).token

    async def worker(self, name: str = "pc", key: DeviceKey | None = None, **options: Any) -> FakeWorker:
        """A fake worker that has joined; use as an async context manager to connect it."""
        key = key or DeviceKey.make()
        token = await self.token("worker", name, key)
        return FakeWorker(self.url, self.access.fingerprint, token, key, name=name, **options)

    async def close(self) -> None:
        """Close the clients."""
        await self._opened.aclose()


@asynccontextmanager
async def running_coordinator(home: Path, **changes: Any) -> AsyncIterator[RunningCoordinator]:
    """Start it, and stop it cleanly at the end; whatever made it fail is raised."""
    settings = CoordinatorSettings(
        **{
            "host": "127.0.0.1",
            "port": 0,
            "announce": False,
            "name": "lab",
            "log_level": "warning",
            "sync": "normal",
            **changes,
        }
    )
    paths = Paths.below(home)
    up = asyncio.Event()
    stop = asyncio.Event()
    made: list[Server] = []

    def remember(server: Server) -> web.Application:
        made.append(server)
        return make_app(server)

    # The only way in: `serve` shows its parts to nobody.
    main.make_app = remember  # type: ignore[attr-defined]  # main imports it for itself only
    try:
        task = asyncio.create_task(main.serve(settings, ready=lambda _url: up.set(), stop=stop, paths=paths))
        await _up(task, up)
    finally:
        main.make_app = make_app  # type: ignore[attr-defined]  # as above
    access = read_access(paths)
    assert access is not None
    coordinator = RunningCoordinator(home, made[0], access, stop, task)
    try:
        yield coordinator
    finally:
        await coordinator.close()
        stop.set()
        async with asyncio.timeout(20):
            await task


async def _up(task: asyncio.Task[None], up: asyncio.Event) -> None:
    """Wait until it listens; raise what it failed with instead."""
    waiting = asyncio.create_task(up.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()
