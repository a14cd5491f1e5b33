"""`sparegrid map`: one command, once per value, input line or file."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparegrid.api import Items, JobView, RangeAxis, TaskResult
from sparegrid.cli.files import LocalFile, fetch, local_files, plan_fetches, upload
from sparegrid.cli.following import cancelled_with_job, wait_with_progress, write_bytes
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import PASS_THROUGH, task_options
from sparegrid.cli.screens.jobs import troubled_table
from sparegrid.cli.specs import TaskOptions, command_stage, job_of
from sparegrid.cli.wording import plural
from sparegrid.errors import BadInputError, JobFailedError
from sparegrid.ids import parse_job_id

if TYPE_CHECKING:
    from sparegrid.client import Client

MARK = ":::"
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?):(-?\d+(?:\.\d+)?)(?::(-?\d+(?:\.\d+)?))?\Z")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?\Z")
_SHOWN_TROUBLE = 5


@click.command("map", context_settings=PASS_THROUGH)
@click.option(
    "--over",
    multiple=True,
    metavar="NAME=VALUES",
    help="An axis: a,b,c or 1:100 or 0:1:0.05 (both ends count). Several axes are multiplied.",
)
@click.option("--retries", type=click.IntRange(0, 100), default=2, help="Tries after a failure (2).")
@click.option("-q", "--quiet", is_flag=True, help="Do not print what the tasks printed.")
@task_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD… [::: VALUE…]")
@click.pass_obj
def map_(
    invocation: Invocation,
    /,
    command: tuple[str, ...],
    over: tuple[str, ...],
    retries: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Run a command once per value, all over the grid, and print the outputs in order.

    Values come after `:::`, from --over, or one per line of standard input. In the command {{item}} stands for the
    value (it is appended when no placeholder is there), {{NAME}} for an axis, {{index}} for the task's number. With
    {{file}} each value names a file here, which is sent along.

    \b
    sparegrid map -- ping -c1 {{item}} ::: 10.0.0.1 10.0.0.2
    sparegrid map --over seed=1:100 --over mode=fast,good -- ./sim --seed {{seed}} --mode {{mode}}
    sparegrid map -o '*.gz' -d packed -- gzip -k {{file}} ::: *.txt
    ls *.txt | sparegrid map -- wc -l {{file}}

    Ctrl-C cancels the job. The exit code is 1 when a task failed for good.
    """
    invocation.run(_map(invocation, command, over, TaskOptions(**options), retries, quiet))


async def _map(
    invocation: Invocation,
    words: tuple[str, ...],
    over: Sequence[str],
    options: TaskOptions,
    retries: int,
    quiet: bool,
) -> None:
    command, values = split_values(words)
    sends_files = any("{{file}}" in word for word in command)
    if over and values is not None:
        raise BadInputError("Two sources of values", f"--over and {MARK} are both given", "Give one of them")
    if values is None and not over:
        values = _lines_of_stdin()
    if not over and not any("{{" in word for word in command):
        command = [*command, "{{item}}"]
    files = local_files(options.inputs)
    item_files = [_item_file(value) for value in values or ()] if sends_files else []
    async with invocation.client() as client:
        inputs = await upload(client, files)
        if sends_files:
            items = Items(values=[{"file": entry} for entry in await upload(client, item_files)])
        else:
            items = (
                Items(axes=dict(axis(text) for text in over)) if over else Items(values=list(values or ()))
            )
        stage = command_stage(command, options, items=items, files=inputs, retries=retries)
        submitted = await client.submit(job_of([stage], command, options))
        if options.detach:
            click.echo(submitted.id)
            return
        job = parse_job_id(submitted.id)
        waiting = asyncio.ensure_future(wait_with_progress(client, job, invocation))
        view = await cancelled_with_job(client, job, waiting, invocation)
        await _finish(client, view, options, quiet, invocation)


def split_values(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """The command and the values after `:::`; None when there is no `:::`. Raises BadInputError."""
    if MARK not in words:
        return list(words), None
    at = list(words).index(MARK)
    if at == 0:
        raise BadInputError("No command", f"Nothing stands before {MARK}")
    return list(words[:at]), list(words[at + 1 :])


def axis(text: str) -> tuple[str, list[Any] | RangeAxis]:
    """`NAME=a,b`, `NAME=a:b` or `NAME=a:b:step` as an axis. Raises BadInputError."""
    name, equals, values = text.partition("=")
    if not name or not equals or not values:
        raise BadInputError(
            "Not an axis", f"{text!r} is not NAME=VALUES", "Write seed=1:100 or mode=fast,good"
        )
    found = _RANGE.match(values)
    if found is None:
        return name, [_scalar(value) for value in values.split(",")]
    start, stop, step = (_number(part or "1") for part in found.groups())
    if step == 0:
        raise BadInputError("Not an axis", f"{text!r} has a step of 0")
    return name, RangeAxis(start, stop, step)


def _scalar(text: str) -> str | int | float:
    # Only texts that read back the same are numbers: 007 and 1e3 stay as they were typed.
    if _NUMBER.match(text) and str(_number(text)) == text:
        return _number(text)
    return text


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _item_file(value: str) -> LocalFile:
    found = local_files([value])
    if len(found) != 1 or Path(value).is_dir():
        raise BadInputError("Not a file", f"{value!r} is a folder", "{{file}} needs one file a task")
    return found[0]


def _lines_of_stdin() -> list[str]:
    if sys.stdin.isatty():
        raise BadInputError(
            "No values",
            "Nothing tells what to run the command for",
            f"Add {MARK} VALUES, --over, or pipe lines in",
        )
    return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]


async def _finish(
    client: Client, view: JobView, options: TaskOptions, quiet: bool, invocation: Invocation
) -> None:
    results: list[TaskResult] = []
    async for result in client.results(parse_job_id(view.id)):
        results.append(result)
        if not quiet and result.outcome.log is not None:
            write_bytes(await client.payload(result.outcome.log))
    if options.outputs:
        await fetch(client, plan_fetches(Path(options.into), results, by_stage=False), lambda _: None)
    if view.state == "done":
        return
    bad = [result for result in results if result.state != "done"]
    if bad:
        invocation.note(troubled_table(invocation.look(invocation.err), bad[:_SHOWN_TROUBLE]))
    raise JobFailedError(
        f"Job {view.id} {view.state}",
        f"{view.done} of {plural(view.total, 'task')} done. {view.reason}".strip(),
        f"sparegrid job {view.id}   shows why\nsparegrid retry {view.id} --failed   tries the rest again",
    )
