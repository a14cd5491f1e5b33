"""The coordinator: wires store, scheduler, driver and server together, serves until it is told to stop, cleans up.

Nothing else in this room makes these parts; nothing here decides anything about tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

from aiohttp import web

from coordinator.scheduler.limits import Limits
from coordinator.scheduler.machine import Machine
from coordinator.server.app import make_app
from coordinator.server.auth import Auth
from coordinator.server.blobs import BlobStore
from coordinator.server.clock import GridClock
from coordinator.server.context import Chores, Server
from coordinator.server.dispatch import Dispatcher
from coordinator.server.driver import Driver
from coordinator.server.expand import Expander
from coordinator.server.follow import LogFollowing
from coordinator.server.housekeeping import keep_house
from coordinator.server.hub import EventHub
from coordinator.server.kept import KeptOutcomes
from coordinator.server.links import Links
from coordinator.server.listen import listen, own_address
from coordinator.server.local import LocalSocket
from coordinator.server.log import configure_logging
from coordinator.server.store import Store
from coordinator.server.views import Views
from coordinator.server.workers_ws import watch_silence
from sparegrid import __version__
from sparegrid.discovery import Announced, announce
from sparegrid.errors import StorageError
from sparegrid.paths import Paths
from sparegrid.settings import CoordinatorSettings
from sparegrid.trust.access import Access, read_access, remove_access, write_access
from sparegrid.trust.certificate import Certificate
from sparegrid.trust.tokens import make_token

log = logging.getLogger("sparegrid.coordinator")

SHUTDOWN_S = 2.0
BALLAST_BYTES = 16 << 20
"""What a running request gets to finish when the coordinator stops."""


async def serve(
    settings: CoordinatorSettings,
    *,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    paths: Paths | None = None,
) -> None:
    """Run a coordinator until `stop` is set.

    Args:
        settings: from `sparegrid.config`.
        ready: called once it listens, with the URL for programs of this machine.
        stop: ends it cleanly.
        paths: the home; this user's when None.

    Raises:
        StorageError: the store cannot be opened, or failed while running.
        ConfigError: the address cannot be listened at, or an interface is not there.
    """
    configure_logging(settings.log_level)
    home = (paths or Paths.find()).make()
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()

    def on_fatal(error: BaseException) -> None:
        log.critical("the coordinator ends: %s", error)
        if not failed.done():
            failed.set_exception(error)

    async with AsyncExitStack() as running:
        # What is pushed here is undone in the opposite order, whatever happens.
        certificate = Certificate.load_or_make(home.coordinator / "identity.pem")
        url = await _start(settings, home, certificate, on_fatal, running)
        ready(url)
        stopping = asyncio.ensure_future(_until(stop))
        running.callback(stopping.cancel)
        await asyncio.wait({stopping, failed}, return_when=asyncio.FIRST_COMPLETED)
        log.info("coordinator stops")
    if failed.done():
        error = failed.exception()
        known = error if isinstance(error, StorageError) else None
        raise known or StorageError("The coordinator failed", str(error), "See the log") from error
    failed.cancel()


async def _start(
    settings: CoordinatorSettings,
    home: Paths,
    certificate: Certificate,
    on_fatal: Callable[[BaseException], None],
    running: AsyncExitStack,
) -> str:
    """Open everything, listen, and tell others; the URL for this machine."""
    admin_token = _admin_token(home, certificate.grid)
    server = await _open(settings, home, certificate, admin_token, on_fatal, running)
    url, local = await _listen(server, home, certificate, running)
    access = Access(url, certificate.fingerprint, admin_token, server.grid, server.name, os.getpid(), local)
    certificate.publish(home.certificate_file)
    write_access(home, access)
    running.callback(remove_access, home, os.getpid())
    if settings.announce:
        announced = Announced(server.grid, server.name, server.port, certificate.fingerprint, __version__)
        await running.enter_async_context(announce(announced, settings.interfaces))
    log.info("coordinator is up", extra={"url": url, "grid": server.grid, "version": __version__})
    return url


async def _open(
    settings: CoordinatorSettings,
    home: Paths,
    certificate: Certificate,
    admin_token: str,
    on_fatal: Callable[[BaseException], None],
    running: AsyncExitStack,
) -> Server:
    """Open store and blobs, restore the scheduler, and put the parts together."""
    news = _StoreNews(asyncio.get_running_loop())
    store = await news.open(home.coordinator / "store.db", settings.sync)
    running.push_async_callback(asyncio.to_thread, store.close)
    machine, clock, notices = await asyncio.to_thread(_restore, store, settings)
    blobs = await BlobStore.open(
        home.coordinator / "blobs", cap_bytes=settings.blob_cap, reserve_bytes=settings.disk_reserve
    )
    running.push_async_callback(blobs.close)

    driver = news.driver = Driver(machine, store, clock, on_fatal=on_fatal)
    loop = asyncio.get_running_loop()
    auth = Auth(store, admin_token=admin_token, wall_ms=clock.wall_ms, now=loop.time)
    server = _put_together(settings, certificate, driver, store, blobs, auth)
    server.notices = notices
    server.started_at = loop.time()
    running.push_async_callback(driver.close)
    running.push_async_callback(server.chores.close)
    server.chores.spawn(watch_silence(server))
    server.chores.spawn(keep_house(server))
    return server


def _put_together(
    settings: CoordinatorSettings,
    certificate: Certificate,
    driver: Driver,
    store: Store,
    blobs: BlobStore,
    auth: Auth,
) -> Server:
    """Everything between the driver and the handlers; the driver runs from here on."""
    chores = Chores()
    links = Links()
    kept = KeptOutcomes(store, blobs)
    views = Views(driver.machine, store, links, store.epoch, driver.settled)
    hub = EventHub(views, driver.after_commit, chores.spawn)
    following = LogFollowing(views, links, kept, driver.settled, chores.spawn)
    expander = Expander(driver.machine, kept, chores.spawn, driver.post)
    driver.start(Dispatcher(links, views, expander, hub, following))
    return Server(
        settings=settings,
        name=settings.name or platform.node() or "grid",
        grid=certificate.grid,
        fingerprint=certificate.fingerprint,
        epoch=store.epoch,
        store=store,
        blobs=blobs,
        driver=driver,
        links=links,
        views=views,
        hub=hub,
        following=following,
        auth=auth,
        chores=chores,
    )


def _restore(store: Store, settings: CoordinatorSettings) -> tuple[Machine, GridClock, list[str]]:
    """The scheduler as the journal tells it."""
    machine = Machine(
        heartbeat_ms=round(settings.heartbeat_s * 1000), limits=Limits(max_tasks_per_job=settings.max_tasks)
    )
    restored = store.load()
    if restored.snapshot is not None:
        machine.load(restored.snapshot)
    count = 0
    for fact in restored.facts:
        machine.apply(fact)
        count += 1
    clock = GridClock(restored.last_now_ms + 1)
    machine.resume(clock.now_ms())
    notices = list(restored.notices)
    if store.backup is not None:
        notices.append(f"the store was upgraded; its backup is {store.backup}")
    log.info(
        "restored", extra={"facts": count, "epoch": restored.epoch, "snapshot": restored.snapshot is not None}
    )
    return machine, clock, notices


async def _listen(
    server: Server, home: Paths, certificate: Certificate, running: AsyncExitStack
) -> tuple[str, str]:
    """Serve HTTPS and the local socket; the URL for this machine, and the local socket's path."""
    bound = listen(server.settings.host, server.settings.port)
    running.callback(bound.close)
    server.port = int(bound.getsockname()[1])
    runner = web.AppRunner(
        make_app(server),
        access_log=None,
        shutdown_timeout=SHUTDOWN_S,
        handler_cancellation=True,
        auto_decompress=False,
    )
    await runner.setup()
    running.push_async_callback(runner.cleanup)
    running.push_async_callback(_close_streams, server)
    await web.SockSite(runner, bound, ssl_context=certificate.server_context()).start()
    local = LocalSocket(home.socket("coordinator"))
    if hasattr(os, "getuid"):
        await local.open(runner)
        running.callback(local.close)
    return own_address(server.settings.host, server.port).url, str(local.path) if hasattr(
        os, "getuid"
    ) else ""


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


async def _close_streams(server: Server) -> None:
    """Say good-bye on every WebSocket, so that clients come back instead of waiting."""
    server.hub.close()
    closing = [asyncio.ensure_future(socket.close(code=1001)) for socket in list(server.sockets)]
    if closing:
        await asyncio.wait(closing, timeout=SHUTDOWN_S)


def _admin_token(home: Paths, grid: str) -> str:
    """What `access.json` carries: a coordinator that was killed left one, and programs of this home still hold it."""
    with contextlib.suppress(StorageError):
        left = read_access(home)
        if left is not None and left.grid == grid and left.token:
            return left.token
    return make_token()


class _StoreNews:
    """Carries what the store's thread tells to the driver on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.driver: Driver | None = None

    async def open(self, path: Path, sync: Literal["full", "normal"]) -> Store:
        """Open the store with its news going to the driver."""
        return await asyncio.to_thread(
            Store.open,
            path,
            sync=sync,
            on_held=self.held,
            on_resumed=self.resumed,
            on_fatal=self.failed,
            ballast_bytes=BALLAST_BYTES,
        )

    def held(self, error: StorageError) -> None:
        """The disk is full."""
        if self.driver is not None:
            self._call(self.driver.held, error)

    def resumed(self) -> None:
        """It has space again."""
        if self.driver is not None:
            self._call(self.driver.resumed)

    def failed(self, error: StorageError) -> None:
        """Nobody knows any more what the disk holds."""
        if self.driver is not None:
            self._call(self.driver.die, error)

    def _call(self, call: Callable[..., None], *values: object) -> None:
        # A loop that has ended hears nothing any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *values)
