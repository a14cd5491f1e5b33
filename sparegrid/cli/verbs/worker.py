"""`sparegrid worker`: lend this computer. The only verb that loads the executors' room."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import msgspec
from rich.text import Text

from sparegrid.cli.invocation import Invocation
from sparegrid.cli.membership import full_url
from sparegrid.cli.values import key_values
from sparegrid.cli.wording import safe


@click.command()
@click.option("--join", metavar="CODE", help="Join with this one-time code (see `sparegrid join-code`).")
@click.option("--coordinator", metavar="URL", help="URL or HOST[:PORT] of the coordinator.")
@click.option(
    "--slots", type=click.IntRange(0, 4096), help="Tasks of one CPU that run at once; 0 is one per CPU."
)
@click.option("--name", help="The device's name (this computer's name).")
@click.option(
    "--label", multiple=True, metavar="NAME=VALUE", help="A label that jobs may ask for. May be repeated."
)
@click.pass_obj
def worker(invocation: Invocation, /, label: tuple[str, ...], **changes: Any) -> None:
    """Lend this computer to a grid. Beside a coordinator of the same user it needs no code.

    Ctrl-C stops it: what runs is handed back and runs elsewhere.
    """
    from executors.main import work
    from sparegrid.config import load

    chosen = {key: value for key, value in changes.items() if value is not None}
    loaded = load(invocation.paths(), invocation.environ)
    settings = loaded.worker
    if invocation.err.is_terminal and "worker.log_level" not in loaded.sources:
        # A person at a terminal sees nothing of the log while all is well.
        chosen["log_level"] = "warning"
    if chosen.get("coordinator"):
        chosen["coordinator"] = full_url(chosen["coordinator"])
    if label:
        chosen["labels"] = settings.labels | key_values(label, "label")
    settings = msgspec.structs.replace(settings, **chosen)

    async def program(stop: asyncio.Event) -> None:
        await work(settings, ready=lambda text: invocation.show(Text(safe(text))), stop=stop)

    invocation.serve(program)
    invocation.show(Text("Left; what ran here goes to other devices"))
