"""`sparegrid join-code` and `sparegrid join`."""

from __future__ import annotations

import socket

import click
from rich.text import Text

from sparegrid.api import JoinCode, JoinCodeRequest
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import json_option
from sparegrid.cli.screens.messages import commands
from sparegrid.cli.values import Seconds
from sparegrid.cli.wording import duration, safe


@click.command("join-code")
@click.option(
    "--role",
    type=click.Choice(["worker", "submitter", "viewer", "admin"]),
    default="worker",
    help="What the code lets in: a device that computes (worker), a person who sends jobs, looks on, or rules.",
)
@click.option("--valid", type=Seconds(), default=600.0, help="For so long (10m).")
@json_option
@click.pass_obj
def join_code(invocation: Invocation, role: str, valid: float, as_json: bool) -> None:
    """Make a one-time code for another device or person, and print the command to type there."""

    async def main() -> JoinCode:
        async with invocation.client() as client:
            return await client.join_code(JoinCodeRequest(role=role, valid_s=int(valid)))

    made = invocation.run(main())
    if as_json:
        invocation.show_json(made)
        return
    left = (made.expires_ms - invocation.look().now_ms) / 1000
    verb = "worker --join" if role == "worker" else "join"
    invocation.show(
        Text(f"On the other computer, within {duration(max(0, left))}:"),
        commands((f"sparegrid {verb} {made.code}", "")),
    )


@click.command()
@click.argument("code")
@click.option("--name", default="", help="What you are called there (this computer's name).")
@click.pass_obj
def join(invocation: Invocation, code: str, name: str) -> None:
    """Join a grid with a submitter's, viewer's or admin's code: later verbs here talk to that grid.

    To lend this computer to it, use: sparegrid worker --join CODE
    """
    from sparegrid.client import Client
    from sparegrid.trust.access import save_credentials

    joined = invocation.run(Client.join(code, name or socket.gethostname()))
    save_credentials(invocation.paths(), joined)
    invocation.show(Text(f"Joined {safe(joined.name)} as {safe(joined.role)}"))
    invocation.note(commands(("sparegrid run -- uname -a", "runs a command there")))
