"""`sparegrid explain`: answers in words."""

from __future__ import annotations

import click

from sparegrid.api import Explanation
from sparegrid.cli.completing import device_names
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import json_option
from sparegrid.cli.screens.devices import explanation_screen
from sparegrid.errors import BadInputError
from sparegrid.ids import parse_task_text


@click.command()
@click.argument("what", metavar="JOB|TASK|DEVICE", shell_complete=device_names)
@json_option
@click.pass_obj
def explain(invocation: Invocation, what: str, as_json: bool) -> None:
    """Tell in words why a job (17) or task (17.render.5) waits, or why a device idles."""

    async def main() -> Explanation:
        async with invocation.client() as client:
            return await (client.explain(what) if _is_work(what) else client.explain_device(what))

    answer = invocation.run(main())
    if as_json:
        invocation.show_json(answer)
    else:
        invocation.show(explanation_screen(invocation.look(), answer))


def _is_work(text: str) -> bool:
    try:
        parse_task_text(text)
    except BadInputError:
        return False
    return True
