"""Which coordinator a program talks to, and with what token. Reads files and settings; opens no
connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sparegrid.config import load
from sparegrid.errors import UnreachableError
from sparegrid.paths import Paths
from sparegrid.trust.access import Credentials, load_credentials, read_access

NEXT_STEP = (
    "Start one with `sparegrid coordinator`, or join one with `sparegrid worker --join CODE` "
    "(a code comes from `sparegrid join-code` on the coordinator's machine)"
)


class Target(NamedTuple):
    """Addresses, the likeliest first, the pin and the token."""

    urls: tuple[str, ...]
    fingerprint: str
    token: str


def find_target(
    paths: Paths,
    environ: Mapping[str, str] | None = None,
    *,
    url: str | None = None,
    fingerprint: str | None = None,
    token: str | None = None,
) -> Target:
    """The coordinator to talk to.

    What is given wins, then variables and settings (SPAREGRID_URL, SPAREGRID_FINGERPRINT, SPAREGRID_TOKEN),
    then the coordinator of this home, then the grids that were joined. A URL alone is completed by what is
    known of it: the token is only ever shown to the key that it was made by.

    Raises:
        UnreachableError: none is known, or several are and none is named.
        ConfigError, StorageError: a file is wrong.
    """
    settings = load(paths, environ).client
    url = url or settings.url
    fingerprint = fingerprint or settings.fingerprint
    token = token or settings.token
    if url and fingerprint and token:
        return Target((url,), fingerprint, token)
    known = _known(paths, settings.grid)
    if fingerprint:
        known = [one for one in known if one.fingerprint.startswith(fingerprint.lower().replace(":", ""))]
    if url and len(known) > 1:
        known = [one for one in known if _same(url, one.urls)] or known
    if url and not known and fingerprint:
        return Target((url,), fingerprint, token)
    if not known:
        raise _nothing_known(url, settings.grid)
    if len({one.grid for one in known}) > 1 and known[0].role != _HERE:
        names = ", ".join(sorted({one.name or one.grid for one in known}))
        raise UnreachableError("Which grid", f"Several were joined: {names}", "Name one: SPAREGRID_GRID=NAME")
    chosen = known[0]
    urls = chosen.urls if not url else (url,)
    return Target(urls, chosen.fingerprint, token or chosen.token)


_HERE = "here"


def _known(paths: Paths, grid: str) -> list[Credentials]:
    """This home's coordinator first, then what was joined, the most able role first."""
    access = read_access(paths)
    here = (
        [Credentials(access.grid, access.name, (access.url,), access.fingerprint, access.token, role=_HERE)]
        if access is not None and grid in ("", access.grid, access.name)
        else []
    )
    return here + load_credentials(paths, grid)


def _same(url: str, urls: tuple[str, ...]) -> bool:
    def plain(text: str) -> str:
        return text.removeprefix("https://").rstrip("/").lower()

    return plain(url) in {plain(one) for one in urls}


def _nothing_known(url: str, grid: str) -> UnreachableError:
    if url:
        hint = "Join it first, or set SPAREGRID_FINGERPRINT and SPAREGRID_TOKEN"
        return UnreachableError("Not joined", f"No key is known that should answer at {url}", hint)
    if grid:
        return UnreachableError("Not joined", f"No grid {grid!r} was joined from here", NEXT_STEP)
    return UnreachableError(
        "No grid is known", "No coordinator runs in this home and none was joined", NEXT_STEP
    )
