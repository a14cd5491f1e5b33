"""Verbs about jobs: list, show, cancel, retry, priority, remove."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.text import Text

from sparegrid.api import JobList, JobView, RetryRequest, TaskView
from sparegrid.cli.completing import ENDED_STATES, UNFINISHED_STATES, job_numbers
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import job_argument, json_option
from sparegrid.cli.screens.jobs import job_screen, jobs_table, task_screen
from sparegrid.cli.wording import plural, safe
from sparegrid.errors import BadInputError
from sparegrid.ids import parse_job_id, parse_task_text

if TYPE_CHECKING:
    from sparegrid.client import Client

_SHOWN_TROUBLE = 5
_STATES = ("open", "active", "done", "failed", "cancelled")


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, help="At most so many (20).")
@click.option("-s", "--state", multiple=True, type=click.Choice(_STATES), help="Only these; may be repeated.")
@json_option
@click.pass_obj
def jobs(invocation: Invocation, limit: int, state: tuple[str, ...], as_json: bool) -> None:
    """List jobs, newest first."""

    async def main() -> JobList:
        async with invocation.client() as client:
            return await client.jobs(states=state, limit=limit)

    found = invocation.run(main())
    if as_json:
        invocation.show_json(found)
        return
    invocation.show(jobs_table(invocation.look(), found.jobs))
    if found.next:
        invocation.note(Text(f"Older ones: sparegrid jobs --limit {limit * 5}"))


@click.command()
@click.argument("job", metavar="JOB|TASK", shell_complete=job_numbers())
@json_option
@click.pass_obj
def job(invocation: Invocation, job: str, as_json: bool) -> None:
    """Show a job (17) and its stages, or a task (17.render.5) and its tries."""
    invocation.run(_show(invocation, job, as_json))


async def _show(invocation: Invocation, text: str, as_json: bool) -> None:
    named = parse_task_text(text)
    async with invocation.client() as client:
        if named.index is not None:
            task = await client.task(text)
            if as_json:
                invocation.show_json(task)
            else:
                invocation.show(task_screen(invocation.look(), task))
            return
        view = await client.job(named.job)
        if as_json:
            invocation.show_json(view)
            return
        troubled = await _troubled(client, view)
        invocation.show(job_screen(invocation.look(), view, troubled))


async def _troubled(client: Client, view: JobView) -> list[TaskView]:
    found: list[TaskView] = []
    for number, stage in enumerate(view.stages):
        for state, count in (("failed", stage.failed), ("lost", stage.lost)):
            if count and len(found) < _SHOWN_TROUBLE:
                page = await client.tasks(parse_job_id(view.id), str(number), 0, _SHOWN_TROUBLE, state)
                found += page.tasks
    return found[:_SHOWN_TROUBLE]


@click.command()
@click.argument(
    "jobs", nargs=-1, required=True, metavar="JOB…", shell_complete=job_numbers(*UNFINISHED_STATES)
)
@click.pass_obj
def cancel(invocation: Invocation, jobs: tuple[str, ...]) -> None:
    """Cancel jobs: what waits never starts, what runs is stopped."""
    numbers = [parse_job_id(text) for text in jobs]

    async def main() -> None:
        async with invocation.client() as client:
            for number in numbers:
                before = await client.job(number)
                if before.state in ENDED_STATES:
                    _say(invocation, before, "it had ended already")
                else:
                    _say(invocation, await client.cancel(number))

    invocation.run(main())


@click.command()
@click.argument("which", nargs=-1, required=True, metavar="JOB | TASK…", shell_complete=job_numbers())
@click.option(
    "--failed", is_flag=True, help="Those that failed, were lost or cancelled: the default for a job."
)
@click.pass_obj
def retry(invocation: Invocation, which: tuple[str, ...], failed: bool) -> None:
    """Try tasks again: of a job those that failed, were lost or cancelled; or the tasks that are named."""
    named = [parse_task_text(text) for text in which]
    job = named[0].job
    tasks = [text for text, one in zip(which, named, strict=True) if one.index is not None]
    if any(one.job != job for one in named) or (tasks and len(tasks) != len(which)):
        raise BadInputError(
            "Not one job", "Name one job, or tasks of one job", "sparegrid retry 17   or   17.0.5 17.0.6"
        )
    request = RetryRequest(failed=failed or not tasks, tasks=tasks)

    async def main() -> None:
        async with invocation.client() as client:
            before = await client.job(job)
            after = await client.retry(job, request)
            again = max(_ended_badly(before) - _ended_badly(after), len(tasks))
            _say(
                invocation, after, f"{plural(again, 'task')} tried again" if again else "nothing to try again"
            )

    invocation.run(main())


@click.command()
@job_argument
@click.argument("priority", type=click.IntRange(1, 10))
@click.pass_obj
def priority(invocation: Invocation, job: str, priority: int) -> None:
    """Change a job's priority: 1 to 10, 10 is most urgent."""
    number = parse_job_id(job)

    async def main() -> JobView:
        async with invocation.client() as client:
            return await client.priority(number, priority)

    view = invocation.run(main())
    invocation.show(Text(f"Job {view.id} has priority {view.priority}"))


@click.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…", shell_complete=job_numbers(*ENDED_STATES))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(invocation: Invocation, jobs: tuple[str, ...], yes: bool) -> None:
    """Forget ended jobs and their results for good. At a terminal it asks first."""
    numbers = [parse_job_id(text) for text in jobs]
    if not yes and sys.stdin.isatty() and invocation.err.is_terminal:
        named = f"job {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} jobs"
        click.confirm(f"Forget {named} with all results?", abort=True, err=True)

    async def main() -> None:
        async with invocation.client() as client:
            for number in numbers:
                await client.remove_job(number)
                invocation.show(Text(f"Job {number} removed"))

    invocation.run(main())


def _ended_badly(view: JobView) -> int:
    return view.failed + view.lost + view.cancelled


def _say(invocation: Invocation, view: JobView, more: str = "") -> None:
    look = invocation.look()
    line = Text.assemble(f"Job {view.id}  {safe(view.name)}  ", look.state(view.state))
    invocation.show(line.append(f": {more}" if more else ""))
