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
at `/v1/openapi.json` (`sparegrid openapi` prints it).

## A walk with curl

While a coordinator runs, its data folder (`~/.local/share/sparegrid` on Linux, `~/Library/Application
Support/sparegrid` on macOS, `%LOCALAPPDATA%\\sparegrid` on Windows, `DIR/data` with `SPAREGRID_HOME=DIR`) holds

- `access.json`, readable by its user only: `url`, `fingerprint`, `token` (an admin's), and `local_socket`;
- `cert.pem`: the certificate to pin. It is no secret; copy it to other machines.

On the coordinator's machine the local socket is the shortest way. Only its user can open it, so it needs no token:

```console
DATA=~/.local/share/sparegrid
grid() { curl -sS --unix-socket "$(jq -r .local_socket $DATA/access.json)" "$@"; }
URL=http://localhost
grid $URL/v1/grid
```

Over the network, curl trusts exactly this certificate with `--cacert`. It is made out to `localhost`, so `--connect-to`
says where that is; the token is read from a file, because other users see a command's arguments:

```console
(umask 077; jq -r '"Authorization: Bearer " + .token' $DATA/access.json > token.txt)
grid() { curl -sS --cacert cert.pem --connect-to localhost:8443:192.0.2.7:8443 -H @token.txt "$@"; }
URL=https://localhost:8443
grid $URL/v1/grid
```

Never use `-k`: it talks to anybody. A token of another role than admin comes from
`sparegrid join-code --role submitter` here and `sparegrid join CODE` there: it is in
`grids/GRID/credentials.json` of that machine's data folder.

Write a job to `job.json`. The body is a `JobSpec`:

```json
@job@
```

It is stricter than [`job.toml`](job-file.md), which `sparegrid submit` turns into it: `stages` is always there, and the
files of `inputs` are uploaded before. Its schema is `components.schemas.JobSpec` of the OpenAPI document;
`GET /v1/jobs/{job}/spec` shows what a job file became. `/v1/job.schema.json` (the same as `sparegrid job-schema`) is
another schema, that of `job.toml`, for editors.

Submit it, and ask until `state` is `done`, `failed` or `cancelled`:

```console
$ grid $URL/v1/jobs -d @job.json
{"id":"1","tasks":3}
$ grid $URL/v1/jobs/1 | jq -c '{state, total, done}'
{"state":"done","total":3,"done":3}
```

Fields that are zero or empty are left out of answers. Fetch what the tasks left behind; small files are inside, as
Base64, larger ones are blobs:

```console
$ grid "$URL/v1/jobs/1/results?limit=1" | jq .
{
  "results": [
    {
      "id": "1.0.0", "stage": "square", "index": 0, "state": "done", "device": "pc1",
      "outcome": {
        "exit_code": 0,
        "files": [
          {"path": "big.bin", "content": {"t": "blob", "hash": "28b4f41a…", "size": 20000}},
          {"path": "square.txt", "content": {"t": "inline", "data": "MQo="}}
        ],
        "log": {"t": "inline", "data": "MQo="}, "log_bytes": 2, "usage": [16, 3, 19107840]
      }
    }
  ],
  "next": "0.1"
}
$ grid "$URL/v1/jobs/1/results?limit=1&after=0.1"
$ grid $URL/v1/jobs/1/tasks/square/0/log
1
$ grid -o big.bin $URL/v1/blobs/28b4f41a…
```

Upload a file that a job then names as `{"path": "data.bin", "content": {"t": "blob", "hash": "…", "size": 100000}}` in
`inputs`, try again what failed, or single tasks, and send a device to rest for ten minutes:

```console
$ grid -T data.bin $URL/v1/blobs/$(sha256sum data.bin | cut -d' ' -f1)
$ grid $URL/v1/jobs/1/retry -d '{"failed": true}'
$ grid $URL/v1/jobs/1/retry -d '{"failed": false, "tasks": ["1.0.2"]}'
$ grid $URL/v1/devices/pc1/pause -d '{"verb": "pause", "for_s": 600}'
$ grid $URL/v1/devices/pc1/pause -d '{"verb": "resume"}'
```

`retry` answers with the job, or 409 when there is nothing to try again. `pause` takes the verbs `pause`, `finish`
(what runs ends first), `give_back` (others get it) and `resume`; it answers with the device, whose `reason` tells
what was asked: the device itself follows a moment later.

## Routes

| method | path | what it does | least role |
|---|---|---|---|
@routes@

A submitter sees its own jobs only, and changes only those: another's is answered 404, like one that does not exist. It
sees all devices. A viewer sees all jobs and changes none. An admin may do everything; a worker moves blobs.

## Errors

Any other answer than 2xx is a `Problem`: `code`, `title`, `message`, `hint`.

| code | HTTP status | exit code of the command line |
|---|---|---|
@errors@

## Blobs

A blob is named by its SHA-256. `PUT` with `Content-Range: bytes START-END/TOTAL` resumes an upload: `HEAD` answers 404
with `Upload-Offset` while only a part is there, and a `PUT` that starts elsewhere is answered 409 with the right
offset. `GET` honours one `Range`.

## Events

`GET /v1/events` is a WebSocket (`v1.json`). Send one `Subscribe` message in a list; frames are lists of these, told
apart by `t`: @events@. A `snapshot` comes first. Views that change often are sent at most ten times a second.
"""

JOB = """{
  "name": "Squares",
  "stages": [{
    "name": "square",
    "kind": "command",
    "params": {"shell": "echo $(({{n}} * {{n}})) | tee square.txt; head -c 20000 /dev/zero > big.bin"},
    "items": {"axes": {"n": [1, 2, 3]}},
    "outputs": ["square.txt", "big.bin"]
  }]
}"""
"""The walk's job; a test submits it."""

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
    page = REST
    for mark, text in {"job": JOB, "routes": routes, "errors": errors, "events": names}.items():
        page = page.replace(f"@{mark}@", text)
    return page


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
