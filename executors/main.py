"""The worker's composition root: from settings to a running agent, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from functools import partial

from executors.agent.agent import Agent, Identity
from executors.agent.cache import BlobCache
from executors.agent.local_api import LocalApi
from executors.agent.lock import MARKER, WorkerLock, hunt_leftovers
from executors.agent.membership import device_key, device_name, find_membership
from executors.agent.nurseries import clean_environ
from executors.base import Executor
from executors.probe import probe_capability, read_machine
from executors.registry import load_executors
from sparegrid.client.transport import Transport
from sparegrid.errors import DeniedError, StorageError, VersionError
from sparegrid.messages import Capability
from sparegrid.paths import Paths
from sparegrid.settings import WorkerSettings
from sparegrid.trust.access import Credentials
from sparegrid.trust.keys import DeviceKey
from sparegrid.trust.pinning import Pin

log = logging.getLogger(__name__)


async def work(
    settings: WorkerSettings,
    *,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    paths: Paths | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Be the worker of this home until `stop` is set.

    Args:
        settings: what the owner lends, and to whom.
        ready: called once with a line for people when the worker is at work.
        stop: set it to end; whatever runs is given back.
        paths: the home; this user's when None.
        environ: instead of this process's environment.

    Raises:
        VersionError: there is no worker for this system.
        ConflictError: a worker serves this home already.
        ConfigError: no grid is known.
        DeniedError: the device is not a member of its grid any more.
        GridError: the join failed, or the disk did.
    """
    check_system()
    environ = os.environ if environ is None else environ
    _set_up_log(settings)
    paths = (paths or Paths.find(environ)).make()
    with WorkerLock(paths.worker) as lock:
        key = await asyncio.to_thread(device_key, paths)
        member = await find_membership(settings, paths, key)
        if lock.was_unclean:
            await asyncio.to_thread(hunt_leftovers, paths.grid(member.grid))
        try:
            await _serve(settings, paths, key, member, environ, ready, stop, unclean=lock.was_unclean)
        except DeniedError as removed:
            if not settings.join:
                raise
            member = await _join_anew(settings, paths, key, removed)
            await _serve(settings, paths, key, member, environ, ready, stop, unclean=False)


async def _join_anew(
    settings: WorkerSettings, paths: Paths, key: DeviceKey, removed: DeniedError
) -> Credentials:
    try:
        return await find_membership(settings, paths, key, anew=True)
    except DeniedError as refused:
        # Most often the code of the first time, long spent: what matters is that the device was removed.
        raise removed from refused


def _set_up_log(settings: WorkerSettings) -> None:
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("executors").setLevel(settings.log_level.upper())


def check_system(platform_name: str = sys.platform) -> None:
    """Raise VersionError on systems whose processes the worker cannot start, stop and clear away."""
    if platform_name == "win32":
        raise VersionError(
            "No worker on Windows yet",
            "The worker is not supported on Windows yet: it runs on Linux and macOS",
            "Run the worker in WSL 2; `sparegrid` submits jobs and shows the grid from Windows too",
        )


async def _serve(
    settings: WorkerSettings,
    paths: Paths,
    key: DeviceKey,
    member: Credentials,
    environ: Mapping[str, str],
    ready: Callable[[str], None],
    stop: asyncio.Event,
    *,
    unclean: bool,
) -> None:
    """Serve one grid until `stop` is set or the membership ends."""
    folder = paths.grid(member.grid)
    executors = load_executors()
    cache, capability = await asyncio.to_thread(_prepare, settings, paths, member, executors)
    identity = Identity(key.id, device_name(settings), member.token, secrets.token_hex(8))
    async with Transport(member.urls, Pin(member.fingerprint), member.token) as transport:
        agent = Agent(
            identity,
            capability,
            transport,
            executors,
            folder,
            cache,
            {**clean_environ(environ), MARKER: str(folder)},
            partial(read_machine, settings, folder),
            unclean=unclean,
        )
        try:
            async with LocalApi(paths.socket("worker"), agent):
                ready(f"{identity.name} works for the grid {member.name} with {capability.slots} slots")
                await _until_stopped(agent, stop)
        finally:
            await agent.close()


def _prepare(
    settings: WorkerSettings, paths: Paths, member: Credentials, executors: Mapping[str, Executor]
) -> tuple[BlobCache, Capability]:
    """The grid's cache, and what this device offers. Blocks, for seconds the first time."""
    folder = paths.grid(member.grid)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache = BlobCache(paths.grid_cache(member.grid) / "blobs", settings.cache)
        return cache, probe_capability(settings, executors, folder, paths.cache / "probe")
    except OSError as error:
        raise StorageError("Cannot use the worker's folder", f"{folder}: {error.strerror}") from error


async def _until_stopped(agent: Agent, stop: asyncio.Event) -> None:
    """Run the agent until `stop` is set, or until it ends by itself: then its error is raised."""
    running = asyncio.create_task(agent.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await agent.say_goodbye()
    finally:
        for task in (running, stopping):
            task.cancel()
        results = await asyncio.gather(running, stopping, return_exceptions=True)
    if isinstance(results[0], BaseExceptionGroup):
        # The group holds what ended the agent; its siblings were only cancelled.
        raise results[0].exceptions[0]
    if isinstance(results[0], Exception):
        raise results[0]
