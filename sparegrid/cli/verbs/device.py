"""`sparegrid device NAME …`: one device, or all that are online (`*`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, assert_never

import click
from rich.text import Text

from sparegrid.api import DeviceChange, DeviceView, PauseRequest
from sparegrid.cli.completing import device_names
from sparegrid.cli.following import (
    cancelled_with_job,
    exit_code_of,
    stream_task,
    wait_with_progress,
    write_bytes,
)
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import PASS_THROUGH, json_option
from sparegrid.cli.screens.devices import device_line, device_screen, explanation_screen
from sparegrid.cli.specs import TaskOptions, command_stage, job_of
from sparegrid.cli.values import Seconds, key_values
from sparegrid.cli.wording import safe
from sparegrid.errors import BadInputError, JobFailedError, NotFoundError
from sparegrid.ids import parse_job_id
from sparegrid.messages import PauseVerb

if TYPE_CHECKING:
    from sparegrid.client import Client

ALL = "*"
FOLLOW_S = 3.0
"""How long a verb waits for a device to do as it was asked."""
ASK_EVERY_S = 0.1
_ASKED = {
    PauseVerb.PAUSE: "pause",
    PauseVerb.FINISH: "let its tasks end",
    PauseVerb.GIVE_BACK: "give its tasks back",
    PauseVerb.RESUME: "resume",
}
Change = Callable[["Client", DeviceView], Awaitable[DeviceView]]


class DeviceVerbs(click.Group):
    """A group whose verbs follow the device's name; options right behind the name are those of `show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `show` where no verb stands."""
        # While somebody types, the verb may still come.
        if (
            args
            and not ctx.resilient_parsing
            and not args[0].startswith("-")
            and (len(args) == 1 or args[1].startswith("-"))
        ):
            asks_for_help = len(args) > 1 and args[1] in ctx.help_option_names
            args = ["--help"] if asks_for_help else [args[0], "show", *args[1:]]
        return super().parse_args(ctx, args)


@click.group(cls=DeviceVerbs, subcommand_metavar="[VERB] [ARGS]...")
@click.argument("name", metavar="NAME", shell_complete=device_names)
@click.pass_context
def device(ctx: click.Context, name: str) -> None:
    """Show a device by name or id, or do something with it. '*' means every device that is online.

    \b
    sparegrid device attic
    sparegrid device attic pause --for 2h
    sparegrid device attic label room=attic ssd=
    sparegrid device '*' exec -- uptime
    """
    ctx.meta["device"] = name


@device.command(short_help="Show it (the same without a verb).")
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Show what it is, what it offers and what it is doing (the same without a verb)."""
    invocation: Invocation = ctx.obj

    async def main() -> None:
        async with invocation.client() as client:
            for view in await _named(client, ctx.meta["device"]):
                if as_json:
                    invocation.show_json(view)
                    continue
                look = invocation.look()
                invocation.show(device_screen(look, view))
                if view.state != "computing":
                    why = await client.explain_device(view.id)
                    # The facts above have told what the device lacks.
                    why.details = [line for line in why.details if line not in view.capability.notes]
                    invocation.show(Text(""), explanation_screen(look, why))

    invocation.run(main())


async def _named(client: Client, name: str) -> list[DeviceView]:
    if name != ALL:
        return [await client.device(name)]
    found = [view for view in (await client.devices()).devices if view.state != "offline"]
    if not found:
        raise NotFoundError(
            "No devices", "No device of the grid is online", "sparegrid worker   lends this computer"
        )
    return found


def _change(ctx: click.Context, change: Change) -> None:
    """Do something with each named device and show the state it is in then."""
    invocation: Invocation = ctx.obj

    async def main() -> None:
        async with invocation.client() as client:
            for view in await _named(client, ctx.meta["device"]):
                invocation.show(device_line(invocation.look(), await change(client, view)))

    invocation.run(main())


def _verb(ctx: click.Context, verb: PauseVerb, for_s: float = 0.0) -> None:
    request = PauseRequest(verb=verb.value, for_s=for_s)
    invocation: Invocation = ctx.obj

    async def ask(client: Client, view: DeviceView) -> None:
        await client.pause(view.id, request)
        after = await _followed(client, view.id, verb)
        line = device_line(invocation.look(), after)
        if after.state == "offline":
            line.append(f"; asked to {_ASKED[verb]} when it is back")
        elif not follows(verb, after):
            line.append(f"; asked to {_ASKED[verb]}")
        invocation.show(line)

    async def main() -> None:
        async with invocation.client() as client:
            for view in await _named(client, ctx.meta["device"]):
                await ask(client, view)

    invocation.run(main())


async def _followed(client: Client, device_id: str, verb: PauseVerb) -> DeviceView:
    """The device once it has done as it was asked, or as it is when that takes too long."""
    deadline = time.monotonic() + FOLLOW_S
    while True:
        view = await client.device(device_id)
        if view.state == "offline" or follows(verb, view) or time.monotonic() >= deadline:
            return view
        await asyncio.sleep(ASK_EVERY_S)


def follows(verb: PauseVerb, view: DeviceView) -> bool:
    """Whether the device is as the verb wants it."""
    match verb:
        case PauseVerb.RESUME:
            return view.state in {"ready", "computing"}
        case PauseVerb.PAUSE:
            return view.state == "paused"
        case PauseVerb.FINISH:
            return view.state in {"draining", "paused"}
        case PauseVerb.GIVE_BACK:
            return view.state == "paused" and not view.assigned
        case _:
            assert_never(verb)


for_option = click.option(
    "--for", "for_s", type=Seconds(), default=0.0, help="So long, such as 2h; else until resumed."
)


@device.command()
@for_option
@click.pass_context
def pause(ctx: click.Context, for_s: float) -> None:
    """Suspend what runs there now, and send nothing new."""
    _verb(ctx, PauseVerb.PAUSE, for_s)


@device.command()
@click.pass_context
def resume(ctx: click.Context) -> None:
    """Go on after pause, drain or give-back."""
    _verb(ctx, PauseVerb.RESUME)


@device.command()
@for_option
@click.pass_context
def drain(ctx: click.Context, for_s: float) -> None:
    """Let what runs there end, and send nothing new."""
    _verb(ctx, PauseVerb.FINISH, for_s)


@device.command("give-back")
@for_option
@click.pass_context
def give_back(ctx: click.Context, for_s: float) -> None:
    """Stop what runs there, run it elsewhere, and send nothing new."""
    _verb(ctx, PauseVerb.GIVE_BACK, for_s)


@device.command()
@click.argument("labels", nargs=-1, required=True, metavar="NAME=VALUE…")
@click.pass_context
def label(ctx: click.Context, labels: tuple[str, ...]) -> None:
    """Set labels that jobs may ask for; NAME= removes one."""
    change = DeviceChange(labels=key_values(labels, "label"))
    _change(ctx, lambda client, view: client.change_device(view.id, change))


@device.command()
@click.argument("new_name", metavar="NEW")
@click.pass_context
def rename(ctx: click.Context, new_name: str) -> None:
    """Give it another name."""
    if ctx.meta["device"] == ALL:
        raise BadInputError("One name for many", "'*' cannot be renamed", "Name one device")
    _change(ctx, lambda client, view: client.change_device(view.id, DeviceChange(name=new_name)))


@device.command(short_help="Take it out of the grid.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def remove(ctx: click.Context, yes: bool) -> None:
    """Take it out of the grid: its token is revoked, and what it runs goes elsewhere."""
    name: str = ctx.meta["device"]
    if name == ALL:
        raise BadInputError("Removes one device", "'*' cannot be removed", "Name one device")
    if not yes:
        click.confirm(f"Remove {safe(name)} from the grid?", abort=True, err=True)
    invocation: Invocation = ctx.obj

    async def main() -> None:
        async with invocation.client() as client:
            view = await client.device(name)
            await client.remove_device(view.id)
            invocation.show(Text(f"{safe(view.name)} removed"))

    invocation.run(main())


@device.command(
    "exec", context_settings=PASS_THROUGH, short_help="Run one command on it and exit with its code."
)
@click.option("--shell", is_flag=True, help="The command is one line for the device's shell.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="An environment variable.")
@click.option("--timeout", type=Seconds(), default=0.0, help="Limit of its time, such as 10m.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD…")
@click.pass_context
def exec_(ctx: click.Context, /, command: tuple[str, ...], **options: Any) -> None:
    """Run one command on this device and exit with its code; on '*', on each device, outputs one after the other."""
    invocation: Invocation = ctx.obj
    code = invocation.run(_exec(invocation, ctx.meta["device"], command, TaskOptions(**options)))
    raise click.exceptions.Exit(code)


async def _exec(invocation: Invocation, name: str, command: tuple[str, ...], options: TaskOptions) -> int:
    async with invocation.client() as client:
        views = await _named(client, name)
        # A stage a device: the requirement for a device belongs to a stage.
        stages = [
            command_stage(command, options, name=f"{number}-{view.name}"[:200], device=view.id)
            for number, view in enumerate(views)
        ]
        job = parse_job_id((await client.submit(job_of(stages, command, options))).id)
        if name != ALL:
            streaming = asyncio.ensure_future(stream_task(client, job, f"{job}.0.0", invocation))
            await cancelled_with_job(client, job, streaming, invocation)
            results = [result async for result in client.results(job)]
            return exit_code_of(results[0]) if results else 1
        ended = await cancelled_with_job(
            client, job, asyncio.ensure_future(wait_with_progress(client, job, invocation)), invocation
        )
        async for result in client.results(job):
            invocation.note(Text(result.stage.partition("-")[2], style="bold"))
            if result.outcome.log is not None:
                write_bytes(await client.payload(result.outcome.log))
        if ended.state != "done":
            raise JobFailedError(
                f"Job {job} {ended.state}", ended.reason, f"sparegrid job {job}   shows where"
            )
        return 0
