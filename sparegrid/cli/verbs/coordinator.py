"""`sparegrid coordinator`: start a grid. The only verb that loads the coordinator's room to run it."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import msgspec
from rich.text import Text

from sparegrid.api import JoinCode, JoinCodeRequest
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.screens.messages import commands, headline
from sparegrid.cli.wording import safe
from sparegrid.errors import GridError

_CODE_VALID_S = 600


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
    settings = msgspec.structs.replace(load(invocation.paths(), invocation.environ).coordinator, **chosen)

    async def program(stop: asyncio.Event) -> None:
        telling: list[asyncio.Task[None]] = []

        def ready(url: str) -> None:
            telling.append(asyncio.ensure_future(_tell(invocation, url, quiet)))

        try:
            await serve(settings, ready=ready, stop=stop)
        finally:
            for task in telling:
                task.cancel()
            await asyncio.gather(*telling, return_exceptions=True)

    invocation.serve(program)


async def _tell(invocation: Invocation, url: str, quiet: bool) -> None:
    """Say what runs here and what to type next."""
    try:
        async with invocation.client() as client:
            grid = await client.grid()
            code = None if quiet else await client.join_code(JoinCodeRequest(valid_s=_CODE_VALID_S))
    except GridError as error:
        invocation.report_error(error)
        return
    invocation.show(Text.assemble("Grid ", (safe(grid.name), "bold"), f" is up at {safe(url)}"))
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
