"""`sparegrid devices`: the grid's devices."""

from __future__ import annotations

import click

from sparegrid.api import DeviceList
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import json_option
from sparegrid.cli.screens.devices import devices_table


@click.command()
@json_option
@click.pass_obj
def devices(invocation: Invocation, as_json: bool) -> None:
    """List the devices of the grid, by name."""

    async def main() -> DeviceList:
        async with invocation.client() as client:
            return await client.devices()

    found = invocation.run(main())
    if as_json:
        invocation.show_json(found)
    else:
        invocation.show(devices_table(invocation.look(), found.devices))
