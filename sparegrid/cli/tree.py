"""The tree of verbs: names, one line each, and where each is written. Loads a verb only when it is used."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import click

from sparegrid import __version__
from sparegrid.cli.exits import PipeClosedError
from sparegrid.cli.invocation import Invocation


class Verb(NamedTuple):
    """A verb: its module below `sparegrid.cli.verbs`, the command's name there, and its line in the help."""

    module: str
    attribute: str
    summary: str


SECTIONS: dict[str, dict[str, Verb]] = {
    "Run work": {
        "run": Verb("run", "run", "Run one command on the grid and stream its output"),
        "map": Verb("map", "map_", "Run a command once per value, input line or file"),
        "submit": Verb("submit", "submit", "Submit a job.toml"),
    },
    "Follow it": {
        "jobs": Verb("jobs", "jobs", "List jobs, newest first"),
        "job": Verb("jobs", "job", "Show one job and its stages"),
        "logs": Verb("logs", "logs", "Print what a task or a job's tasks have printed"),
        "results": Verb("results", "results", "Fetch the files that a job's tasks left behind"),
        "explain": Verb("explain", "explain", "Tell in words why a job or task waits, or a device idles"),
        "cancel": Verb("jobs", "cancel", "Cancel a job"),
        "retry": Verb("jobs", "retry", "Try tasks again"),
        "priority": Verb("jobs", "priority", "Change a job's priority"),
        "remove": Verb("jobs", "remove", "Forget an ended job and its results"),
    },
    "Devices": {
        "devices": Verb("devices", "devices", "List the devices of the grid"),
        "device": Verb("device", "device", "Show, pause, label, use or remove one device"),
        "top": Verb("top", "top", "Watch devices and jobs live"),
    },
    "The grid": {
        "coordinator": Verb("coordinator", "coordinator", "Start a grid: keep jobs and place their tasks"),
        "worker": Verb("worker", "worker", "Lend this computer to a grid"),
        "join-code": Verb("join", "join_code", "Make a one-time code for another device or person"),
        "join": Verb("join", "join", "Join a grid with a code, to submit to it from here"),
        "discover": Verb("discover", "discover", "Find grids on the local network"),
    },
    "More": {
        "demo": Verb("demo", "demo", "Render a picture on a small grid inside this computer"),
        "config": Verb("config", "config", "Show and change the settings"),
        "openapi": Verb("documents", "openapi", "Print the REST interface as OpenAPI"),
        "job-schema": Verb("documents", "job_schema", "Print the JSON Schema of a job, for editors"),
        "completion": Verb("completion", "completion", "Print the completion script for a shell"),
        "version": Verb("documents", "version", "Print the version"),
    },
}


class LazyTree(click.Group):
    """A group that knows its verbs' help lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the help."""
        return [name for verbs in SECTIONS.values() for name in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one verb that was asked for."""
        for verbs in SECTIONS.values():
            if cmd_name in verbs:
                verb = verbs[cmd_name]
                module = importlib.import_module(f"sparegrid.cli.verbs.{verb.module}")
                command: click.Command = getattr(module, verb.attribute)
                return command
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; a reader that left is told apart from other errors before click sees it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise PipeClosedError from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb when there is none of this name."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.7)
            advice = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"There is no verb {args[0]!r}.{advice}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs by section."""
        width = max(len(name) for name in self.list_commands(ctx))
        for section, verbs in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), verb.summary) for name, verb in verbs.items()])


@click.group(
    cls=LazyTree, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--url", metavar="URL", help="Talk to the coordinator at this address instead of the one known here."
)
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.version_option(__version__, prog_name="sparegrid", message="%(prog)s %(version)s")
@click.pass_context
def root(ctx: click.Context, url: str | None, debug: bool) -> None:
    """Turn the computers you already own into one private compute grid.

    \b
    Start a grid here:          sparegrid coordinator
    Lend this computer to it:   sparegrid worker
    Run something on it:        sparegrid run -- uname -a
    See it all work:            sparegrid demo
    """
    invocation: Invocation = ctx.obj
    invocation.url = url
    invocation.debug = invocation.debug or debug
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
