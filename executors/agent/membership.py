"""Of which grid this device is a member: credentials that a join left, this home's coordinator, or a new join.

Reads and writes files and may join over the network; runs no task.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from sparegrid.api import JoinCodeRequest
from sparegrid.client import Client
from sparegrid.errors import ConfigError, GridError, UnreachableError
from sparegrid.paths import Paths
from sparegrid.settings import WorkerSettings
from sparegrid.trust.access import (
    Access,
    Credentials,
    forget_credentials,
    load_credentials,
    read_access,
    save_credentials,
)
from sparegrid.trust.codes import decode_code
from sparegrid.trust.keys import DeviceKey

ROLE = "worker"
_HINT = (
    "Run `sparegrid join-code` on the coordinator's machine and then `sparegrid worker --join CODE` here, "
    "or start a grid with `sparegrid coordinator`"
)


def device_key(paths: Paths) -> DeviceKey:
    """The key of this device, made the first time. A copied home has the same key: the grid asks anew then."""
    return DeviceKey.load_or_make(paths.worker / "device.pem")


def device_name(settings: WorkerSettings) -> str:
    """The device's name: as set, else the machine's."""
    return settings.name or socket.gethostname().partition(".")[0] or "device"


async def find_membership(
    settings: WorkerSettings, paths: Paths, key: DeviceKey, *, anew: bool = False
) -> Credentials:
    """The grid to serve, joined when that takes no more than what is given.

    Args:
        settings: `join`, `coordinator` and `fingerprint` count, in this order.
        paths: this home.
        key: of this device.
        anew: what was saved was refused: spend the join code even so.

    Raises:
        ConfigError: no grid is known, or the one that is named was not joined.
        GridError: the join failed.
    """
    if settings.join:
        return await _by_code(settings, paths, key, anew=anew)
    saved = [one for one in load_credentials(paths, roles=(ROLE,)) if one.device in ("", key.id)]
    if settings.coordinator or settings.fingerprint:
        return _named(settings, saved)
    access = read_access(paths)
    if access is not None:
        member = next((one for one in saved if one.grid == access.grid), None)
        if member is None:
            return await _join_here(settings, paths, key, access)
        return _with_urls(member, (access.url, *member.urls))
    if not saved:
        raise ConfigError("No grid joined", "This device is a member of no grid", _HINT)
    if len(saved) > 1:
        names = ", ".join(one.name for one in saved)
        raise ConfigError(
            "Which grid", f"This device joined {names}", "Name the coordinator with --coordinator"
        )
    return saved[0]


async def _by_code(settings: WorkerSettings, paths: Paths, key: DeviceKey, *, anew: bool) -> Credentials:
    """Join with the code, unless the grid that it is for was joined before: codes work once, restarts happen often."""
    pin = decode_code(settings.join).fingerprint
    for saved in load_credentials(paths, roles=(ROLE,)):
        if saved.fingerprint.startswith(pin) and saved.device in ("", key.id):
            if not anew:
                return saved
            forget_credentials(paths, saved.grid, ROLE)
    url = settings.coordinator or None
    joined = await Client.join(settings.join, device_name(settings), key.public, url=url)
    save_credentials(paths, joined)
    return joined


def _named(settings: WorkerSettings, saved: Sequence[Credentials]) -> Credentials:
    """The saved membership that the settings name. An address alone is enough when one grid only was joined."""
    pin = settings.fingerprint.replace(":", "").lower()
    fitting = [one for one in saved if one.fingerprint.startswith(pin)]
    if settings.coordinator and len(fitting) > 1:
        fitting = [one for one in fitting if any(settings.coordinator in url for url in one.urls)]
    if len(fitting) != 1:
        where = settings.coordinator or settings.fingerprint
        raise ConfigError("Not joined", f"This device is no member of the grid at {where}", _HINT)
    if not settings.coordinator:
        return fitting[0]
    return _with_urls(fitting[0], (settings.coordinator, *fitting[0].urls))


async def _join_here(settings: WorkerSettings, paths: Paths, key: DeviceKey, access: Access) -> Credentials:
    """Join this home's coordinator: its access file lets a program of the same user make itself a code."""
    try:
        async with Client.connect(
            url=access.url, fingerprint=access.fingerprint, token=access.token
        ) as client:
            code = await client.join_code(JoinCodeRequest(role=ROLE))
    except UnreachableError as error:
        raise UnreachableError(
            "No coordinator answers", f"{access.url} was this home's coordinator: {error.message}", _HINT
        ) from error
    joined = await Client.join(code.code, device_name(settings), key.public, url=access.url)
    if joined.role != ROLE:
        raise GridError("Joined in another role", f"the coordinator made this a {joined.role}, not a {ROLE}")
    save_credentials(paths, joined)
    return joined


def _with_urls(member: Credentials, urls: Sequence[str]) -> Credentials:
    """The same membership, reached at these addresses first."""
    return Credentials(
        grid=member.grid,
        name=member.name,
        urls=tuple(dict.fromkeys(urls)),
        fingerprint=member.fingerprint,
        token=member.token,
        role=member.role,
        device=member.device,
    )
