"""Writes the reference pages that follow from the code: `python docs/reference.py`, checked by a test.

It owns docs/reference/rest.md and docs/reference/config.md; their words live here, their tables in the contract.
"""

from __future__ import annotations

from pathlib import Path

from sparegrid.api import API_PREFIX, Event
from sparegrid.config import all_settings
from sparegrid.errors import error_classes
from sparegrid.routes import ROUTES

FOLDER = Path(__file__).parent / "reference"

REST = """# REST and events

One port, HTTPS with a pinned certificate. Every route but those marked *open* wants `Authorization: Bearer TOKEN`.
Bodies are JSON; ids are strings; byte strings are Base64. The coordinator serves the whole interface as OpenAPI 3.1
at `/v1/openapi.json` (`sparegrid openapi` prints it). On the coordinator's machine, `access.json` in its data
folder (0600) holds the address, the fingerprint and a token for programs of the same user.

## Routes

| method | path | what it does | least role |
|---|---|---|---|
{routes}

A submitter may read what a viewer may, and change its own jobs; an admin may do everything; a worker moves blobs.

## Errors

Any other answer than 2xx is a `Problem`: `code`, `title`, `message`, `hint`.

| code | HTTP status | exit code of the command line |
|---|---|---|
{errors}

## Blobs

A blob is named by its SHA-256. `PUT` with `Content-Range: bytes START-END/TOTAL` resumes an upload: `HEAD` answers 404
with `Upload-Offset` while only a part is there, and a `PUT` that starts elsewhere is answered 409 with the right
offset. `GET` honours one `Range`.

## Events

`GET /v1/events` is a WebSocket (`v1.json`). Send one `Subscribe` message in a list; frames are lists of these, told
apart by `t`: {events}. A `snapshot` comes first. Views that change often are sent at most ten times a second.
"""

CONFIG = """# Configuration

Settings are read from `config.toml` in the platform's configuration folder (`sparegrid config path` names it). An
environment variable beats the file, the file beats the default. `sparegrid config show` tells where each value came
from. With `SPAREGRID_HOME=DIR` every configuration, data, cache and runtime file of all programs is under DIR.

| key | default | environment | what it does |
|---|---|---|---|
{rows}
"""


def _default(value: object) -> str:
    return f"`{_cell(value)}`" if value not in ("", [], {}) else "empty"


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def rest_page() -> str:
    """docs/reference/rest.md."""
    routes = "\n".join(
        f"| {r.method} | `{API_PREFIX}{r.path}` | {_cell(r.summary)} | {r.role or '*open*'} |" for r in ROUTES
    )
    classes = sorted(error_classes().values(), key=lambda cls: (cls.http_status, cls.code))
    errors = "\n".join(f"| `{c.code}` | {c.http_status} | {c.exit_code} |" for c in classes)
    names = ", ".join(f"`{event.__struct_config__.tag}`" for event in Event.__args__)
    return REST.format(routes=routes, errors=errors, events=names)


def config_page() -> str:
    """docs/reference/config.md."""
    rows = "\n".join(
        f"| `{s.key}` | {_default(s.default)} | `{s.env}` | {_cell(s.help)} |" for s in all_settings()
    )
    return CONFIG.format(rows=rows)


PAGES = {"rest.md": rest_page, "config.md": config_page}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
