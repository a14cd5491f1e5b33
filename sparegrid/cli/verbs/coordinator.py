"""`sparegrid coordinator`: start a grid. The only verb that loads the coordinator's room to run it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import msgspec
from rich.text import Text

from sparegrid.api import DEFAULT_PORT, JoinCode, JoinCodeRequest
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.screens.messages import commands, headline
from sparegrid.cli.wording import plural, safe
from sparegrid.errors import GridError

if TYPE_CHECKING:
    from sparegrid.settings import CoordinatorSettings

_CODE_VALID_S = 600
COUNT_WAIT_S = 1.0
"""How long the end waits for the number of unfinished jobs."""
TERMINAL_LOG_LEVEL = "warning"
"""What a person at a terminal sees of the log unless the settings say otherwise: nothing while all is well."""


@click.command()
@click.option("--host", help="Address to listen at; :: for IPv6 too.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen at; 0 takes a free one.")
@click.option("--name", help="The grid's name.")
@click.option(
    "--announce/--no-announce", default=None, help="Announce the grid on the local network, or do not."
)
@click.option("--quiet", "-q", is_flag=True, help="Do not print how to join.")
@click.pass_obj
def coordinator(invocation: Invocation, /, quiet: bool, **changes: Any) -> None:
    """Start a grid on this computer: keep its jobs and place their tasks on devices.

    It runs no tasks itself: for that, start `sparegrid worker` here too. Ctrl-C stops it; devices wait for it, and
    jobs go on after the next start.
    """
    from coordinator.main import serve
    from sparegrid.config import load

    chosen = {key: value for key, value in changes.items() if value is not None}
    loaded = load(invocation.paths(), invocation.environ)
    settings = msgspec.structs.replace(loaded.coordinator, **chosen)
    if invocation.err.is_terminal and "coordinator.log_level" not in loaded.sources:
        settings = msgspec.structs.replace(settings, log_level=TERMINAL_LOG_LEVEL)
    active: list[int] = []

    async def program(stop: asyncio.Event) -> None:
        helpers: list[asyncio.Task[None]] = []
        ending = asyncio.Event()

        def ready(url: str) -> None:
            helpers.append(asyncio.ensure_future(_tell(invocation, url, settings, quiet)))

        helpers.append(asyncio.ensure_future(_count_then_end(invocation, stop, ending, active)))
        try:
            await serve(settings, ready=ready, stop=ending)
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    invocation.serve(program)
    if not quiet:
        invocation.show(Text(_farewell(active)))


async def _count_then_end(
    invocation: Invocation, stop: asyncio.Event, ending: asyncio.Event, active: list[int]
) -> None:
    """Once asked to stop, note how many jobs are unfinished while there is somebody to ask; then let it end."""
    await stop.wait()
    try:
        with contextlib.suppress(GridError, TimeoutError):
            async with asyncio.timeout(COUNT_WAIT_S), invocation.client() as client:
                active.append((await client.grid()).jobs_active)
    finally:
        ending.set()


def _farewell(active: list[int]) -> str:
    if not active:
        return "Stopped; jobs go on at the next start"
    if not active[0]:
        return "Stopped; no job is unfinished"
    return f"Stopped; {plural(active[0], 'job')} {'goes' if active[0] == 1 else 'go'} on at the next start"


def reachable_urls(url: str, settings: CoordinatorSettings) -> list[str]:
    """Where others find the coordinator that programs of this machine find at `url`: what a join code carries."""
    from coordinator.server.listen import invited_addresses

    port = urlsplit(url).port or DEFAULT_PORT
    return [address.url for address in invited_addresses(settings.host, port, settings.interfaces)]


async def _tell(invocation: Invocation, url: str, settings: CoordinatorSettings, quiet: bool) -> None:
    """Say what runs here and what to type next."""
    try:
        async with invocation.client() as client:
            grid = await client.grid()
            code = None if quiet else await client.join_code(JoinCodeRequest(valid_s=_CODE_VALID_S))
    except GridError as error:
        invocation.report_error(error)
        return
    where = ", ".join(reachable_urls(url, settings))
    invocation.show(Text.assemble("Grid ", (safe(grid.name), "bold"), f" is up at {safe(where)}"))
    for notice in grid.notices:
        invocation.show(Text(safe(notice), style="bold red"))
    if code is not None:
        invocation.show(*_welcome(code))


def _welcome(code: JoinCode) -> list[Text]:
    return [
        Text(""),
        headline(f"Lend another computer to it (this code works once, for {_CODE_VALID_S // 60} minutes)"),
        commands((f"sparegrid worker --join {code.code}", "")),
        headline("Lend this computer"),
        commands(("sparegrid worker", "")),
        headline("Run something on it"),
        commands(("sparegrid run -- uname -a", "one command"), ("sparegrid top", "devices and jobs, live")),
        Text(""),
        Text("More codes: sparegrid join-code. Ctrl-C stops the grid; jobs go on after the next start."),
    ]
