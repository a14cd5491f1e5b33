"""`sparegrid discover`: grids on the local network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.text import Text

from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import json_option
from sparegrid.cli.screens.listing import Column, listing
from sparegrid.cli.screens.messages import commands
from sparegrid.cli.values import Seconds
from sparegrid.cli.wording import duration, safe

if TYPE_CHECKING:
    from sparegrid.discovery import FoundGrid


@click.command()
@click.option("--for", "for_s", type=Seconds(), default=3.0, help="Look for so long (3s).")
@json_option
@click.pass_obj
def discover(invocation: Invocation, for_s: float, as_json: bool) -> None:
    """Find grids on the local network. Only those that answer are listed."""
    from sparegrid.discovery import discover_grids

    if invocation.err.is_terminal:
        invocation.note(Text(f"Looking for {duration(for_s)}…"))
    found: list[FoundGrid] = invocation.run(discover_grids(for_s))
    if as_json:
        invocation.show_json(found)
    elif not found:
        invocation.show(Text("No grid answers on the local network."))
        invocation.note(commands(("sparegrid coordinator", "starts one here")))
    else:
        rows = [[Text(safe(one.name)), Text(safe(one.url)), Text(safe(one.fingerprint))] for one in found]
        columns = (Column("Grid", least=10), Column("Address"), Column("Fingerprint", least=16, rank=1))
        invocation.show(listing(invocation.look(), columns, rows))
