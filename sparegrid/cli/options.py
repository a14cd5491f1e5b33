"""Options and arguments that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sparegrid.cli.completing import job_numbers
from sparegrid.cli.values import REQUIREMENT_HELP, Seconds

F = TypeVar("F", bound=Callable[..., Any])

PASS_THROUGH = {"allow_interspersed_args": False}
"""Verbs that end in a foreign command line: its options are not ours."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the REST interface's JSON instead.")
job_argument = click.argument("job", metavar="JOB", shell_complete=job_numbers())


def task_options(command: F) -> F:
    """Options that shape one stage of a job built on the command line."""
    for decorate in reversed(
        (
            click.option(
                "-r", "--require", "require", multiple=True, metavar="REQ", help=REQUIREMENT_HELP + "."
            ),
            click.option(
                "-i",
                "--input",
                "inputs",
                multiple=True,
                metavar="PATH[=NAME]",
                help="A file or folder to send along; it is found under the same relative path. May be repeated.",
            ),
            click.option(
                "-o",
                "--output",
                "outputs",
                multiple=True,
                metavar="GLOB",
                help="Files to bring back, such as '*.png' or 'out/**'. May be repeated.",
            ),
            click.option(
                "-d",
                "--into",
                type=click.Path(file_okay=False),
                default=".",
                help="Folder for files that are brought back (the current one).",
            ),
            click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="An environment variable."),
            click.option("--shell", is_flag=True, help="The command is one line for the device's shell."),
            click.option(
                "--timeout", type=Seconds(), default=0.0, help="Limit of a try's time, such as 10m."
            ),
            click.option("--name", default="", help="The job's name (the command)."),
            click.option("--priority", type=click.IntRange(1, 10), default=5, help="10 is most urgent (5)."),
            click.option("--detach", is_flag=True, help="Print the job's number and leave."),
        )
    ):
        command = decorate(command)
    return command
