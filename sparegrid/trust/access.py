"""How programs get into a grid without a code: `access.json` of a coordinator in the same home, and the
credentials that a join left behind. Both are readable by their user only. Whether the token is still good,
the coordinator knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from sparegrid.errors import StorageError
from sparegrid.paths import Paths
from sparegrid.trust.files import read_private, write_private

_T = TypeVar("_T")
ROLE_ORDER = ("admin", "submitter", "viewer", "worker")
"""The most able first: what a person's program picks when several were saved."""


class Access(Struct, omit_defaults=True, frozen=True):
    """Written by a coordinator when it listens, removed when it ends. `token` is an admin's."""

    url: str
    fingerprint: str
    token: str
    grid: str = ""
    name: str = ""
    pid: int = 0
    local_socket: str = ""


class Credentials(Struct, omit_defaults=True, frozen=True):
    """What one join left behind: where the coordinator was, its pin, and a token of one role."""

    grid: str
    name: str
    urls: tuple[str, ...]
    fingerprint: str
    token: str
    role: str
    device: str = ""


class _Saved(Struct, omit_defaults=True):
    """The file: one join a role, because a machine may compute for a grid and its person send jobs to it."""

    version: int = 1
    joins: dict[str, Credentials] = {}


def write_access(paths: Paths, access: Access) -> None:
    """Let programs of this home find the coordinator. Raises StorageError when the file cannot be written."""
    write_private(paths.access_file, msgspec.json.format(msgspec.json.encode(access)) + b"\n")


def read_access(paths: Paths) -> Access | None:
    """What the coordinator of this home wrote; None when there is none.

    Raises:
        StorageError: the file is damaged or cannot be read.
    """
    data = read_private(paths.access_file)
    return None if data is None else _decode(paths.access_file, data, Access)


def remove_access(paths: Paths, pid: int) -> None:
    """Take the file away when the coordinator `pid` ends, unless another coordinator has written it since."""
    access = read_access(paths)
    if access is not None and access.pid == pid:
        paths.access_file.unlink(missing_ok=True)


def save_credentials(paths: Paths, credentials: Credentials) -> None:
    """Keep what a join gave; replaces an earlier join of the same grid and role.

    Raises:
        StorageError: the file cannot be written, or what is there is damaged.
    """
    path = _credentials_file(paths, credentials.grid)
    data = read_private(path)
    saved = _Saved() if data is None else _decode(path, data, _Saved)
    saved.joins[credentials.role] = credentials
    write_private(path, msgspec.json.format(msgspec.json.encode(saved)) + b"\n")


def load_credentials(paths: Paths, grid: str = "", roles: tuple[str, ...] = ROLE_ORDER) -> list[Credentials]:
    """All that was saved, for one grid (by id or name) or every one, of these roles, the first role first.

    Raises:
        StorageError: a file is damaged or cannot be read.
    """
    found: list[Credentials] = []
    folders = sorted(paths.grids.iterdir()) if paths.grids.is_dir() else []
    for folder in folders:
        path = folder / "credentials.json"
        data = read_private(path) if folder.is_dir() else None
        if data is not None:
            found.extend(_decode(path, data, _Saved).joins.values())
    chosen = [one for one in found if one.role in roles and grid in ("", one.grid, one.name)]
    return sorted(chosen, key=lambda one: (roles.index(one.role), one.name, one.grid))


def forget_credentials(paths: Paths, grid: str, role: str) -> bool:
    """Remove what a join of this grid (by id) and role left; whether there was one."""
    path = _credentials_file(paths, grid)
    data = read_private(path)
    if data is None:
        return False
    saved = _decode(path, data, _Saved)
    if saved.joins.pop(role, None) is None:
        return False
    write_private(path, msgspec.json.format(msgspec.json.encode(saved)) + b"\n")
    return True


def _credentials_file(paths: Paths, grid: str) -> Path:
    return paths.grid(grid) / "credentials.json"


def _decode(path: Path, data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError("Damaged file", f"{path}: {error}", "Remove it and join again") from error
