"""Every setting, declared once: its name, type, limits, default and help. Where values come from, `config`
knows.

A field's metadata may name a unit (`size`, `duration`: people write `2GiB`, `10m`), further environment
variables, and whether it is a secret that screens do not show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from sparegrid.api import DEFAULT_PORT, MAX_TASKS_PER_JOB

LogLevel = Literal["debug", "info", "warning", "error"]
_SIZE = {"unit": "size"}
_DURATION = {"unit": "duration"}


class CoordinatorSettings(Struct, frozen=True, kw_only=True):
    """Settings of `sparegrid coordinator`."""

    name: Annotated[str, Meta(max_length=63, description="The grid's name; empty is the machine's name")] = ""
    host: Annotated[str, Meta(min_length=1, description="Address to listen at; `::` listens on IPv6")] = (
        "0.0.0.0"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen at; 0 takes any free one")] = (
        DEFAULT_PORT
    )
    announce: Annotated[bool, Meta(description="Announce the grid on the local network (mDNS)")] = True
    interfaces: Annotated[
        list[str],
        Meta(description="Network interfaces, by name or address, to announce and invite on; empty is all"),
    ] = []
    heartbeat_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="Seconds between heartbeats; a lease is 4 of them, 30 s at least",
            extra=_DURATION,
        ),
    ] = 10.0
    sync: Annotated[
        Literal["full", "normal"],
        Meta(
            description="`full` survives power loss; `normal` is faster and may lose the last moments to it"
        ),
    ] = "full"
    blob_cap: Annotated[
        int, Meta(ge=0, description="Most bytes of files kept; 0 is no limit but the disk", extra=_SIZE)
    ] = 0
    disk_reserve: Annotated[
        int, Meta(ge=0, description="Bytes of the disk that always stay free", extra=_SIZE)
    ] = 1 << 30
    keep_results: Annotated[
        float,
        Meta(
            ge=0,
            description="How long an ended job that does not say so itself is kept; 0 is until it is removed",
            extra=_DURATION,
        ),
    ] = 0.0
    max_tasks: Annotated[int, Meta(ge=1, le=100_000_000, description="Most tasks of one job")] = (
        MAX_TASKS_PER_JOB
    )
    log_level: Annotated[LogLevel, Meta(description="Least level that is logged")] = "info"


class WorkerSettings(Struct, frozen=True, kw_only=True):
    """Settings of `sparegrid worker`."""

    coordinator: Annotated[
        str, Meta(description="URL or HOST[:PORT] of the coordinator; empty is the one that was joined")
    ] = ""
    fingerprint: Annotated[str, Meta(description="SHA-256 of the coordinator's certificate, in hex")] = ""
    join: Annotated[
        str, Meta(description="Code or link to join with when no grid is joined", extra={"secret": True})
    ] = ""
    name: Annotated[
        str, Meta(max_length=63, description="The device's name; empty is the machine's name")
    ] = ""
    slots: Annotated[
        int, Meta(ge=0, le=4096, description="Tasks of one CPU that run at once; 0 is one per CPU")
    ] = 0
    memory: Annotated[
        int, Meta(ge=0, description="Most bytes of memory for tasks; 0 is all there is", extra=_SIZE)
    ] = 0
    cache: Annotated[
        int, Meta(ge=0, description="Most bytes of disk for files kept for later tasks", extra=_SIZE)
    ] = 10 << 30
    disk_reserve: Annotated[
        int, Meta(ge=0, description="Bytes of the disk that always stay free", extra=_SIZE)
    ] = 1 << 30
    labels: Annotated[
        dict[str, str], Meta(description="Labels that jobs may ask for, such as room=attic")
    ] = {}
    counts: Annotated[
        dict[str, Annotated[int, Meta(ge=0)]], Meta(description="Named resources, such as licences=2")
    ] = {}
    log_level: Annotated[LogLevel, Meta(description="Least level that is logged")] = "info"


class ClientSettings(Struct, frozen=True, kw_only=True):
    """Settings of programs that send jobs and look on. Empty is what was joined, or this home's
    coordinator."""

    url: Annotated[str, Meta(description="URL of the coordinator", extra={"also_env": "SPAREGRID_URL"})] = ""
    fingerprint: Annotated[
        str,
        Meta(
            description="SHA-256 of the coordinator's certificate, in hex",
            extra={"also_env": "SPAREGRID_FINGERPRINT"},
        ),
    ] = ""
    token: Annotated[
        str, Meta(description="Token to show", extra={"also_env": "SPAREGRID_TOKEN", "secret": True})
    ] = ""
    grid: Annotated[
        str,
        Meta(
            description="Name or id of the grid to use when several are joined",
            extra={"also_env": "SPAREGRID_GRID"},
        ),
    ] = ""


SECTIONS: dict[str, type[Struct]] = {
    "coordinator": CoordinatorSettings,
    "worker": WorkerSettings,
    "client": ClientSettings,
}


class Alias(NamedTuple):
    """A variable of a program that Sparegrid replaces: the name to tell people, and how to read it."""

    name: str
    read: Callable[[Mapping[str, str]], str]


def _gogrid_coordinator(environ: Mapping[str, str]) -> str:
    """The coordinator's address of a GoGrid worker: host and port are two variables there."""
    host, port = environ.get("GOGRID_COORDINATOR_HOST", ""), environ.get("GOGRID_COORDINATOR_PORT", "")
    return f"{host}:{port}" if host and port else host


ALIASES: dict[str, Alias] = {"worker.coordinator": Alias("GOGRID_COORDINATOR_HOST", _gogrid_coordinator)}
"""By the key of the setting that they set."""
