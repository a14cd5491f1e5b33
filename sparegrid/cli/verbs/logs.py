"""`sparegrid logs`: what tasks have printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.text import Text

from sparegrid.api import JobView
from sparegrid.cli.completing import job_numbers
from sparegrid.cli.following import stream_task, write_bytes
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.joblog import JobLog, ending_of
from sparegrid.cli.wording import plural, safe
from sparegrid.errors import NotFoundError
from sparegrid.ids import JobId, parse_task_text

if TYPE_CHECKING:
    from sparegrid.client import Client

LEAVES = "Ctrl-C leaves it to the grid"


@click.command()
@click.argument("job", metavar="JOB|TASK", shell_complete=job_numbers())
@click.option("-f", "--follow", is_flag=True, help="Print as it comes, until the job ends.")
@click.option("--stage", default="", help="Of a job: only this stage, by name or number.")
@click.option(
    "--attempt", default="", metavar="ID", help="Of a task: an older attempt, by its number in --json."
)
@click.pass_obj
def logs(invocation: Invocation, job: str, follow: bool, stage: str, attempt: str) -> None:
    """Print what a task (17.0.5) has printed, or all ended tasks of a job (17), in order.

    Each task's output has a heading on standard error when there are several. With -f the lines of several tasks
    come as they are printed, each behind its task's id.
    """
    invocation.run(_logs(invocation, job, follow, stage, attempt))


async def _logs(invocation: Invocation, text: str, follow: bool, stage: str, attempt: str) -> None:
    named = parse_task_text(text)
    async with invocation.client() as client:
        view = await client.job(named.job)
        task = text if named.index is not None else _only_task(view)
        if follow and task is None:
            await JobLog(client, named.job, invocation, stage).follow()
        elif follow and task is not None:
            await stream_task(client, named.job, task, invocation, LEAVES)
            await _tell_end(invocation, client, task)
        elif task is not None:
            await _task_log(invocation, client, task, attempt)
        else:
            await _all_logs(invocation, client, named.job, stage)


def _only_task(view: JobView) -> str | None:
    return f"{view.id}.0.0" if view.total == 1 and len(view.stages) == 1 else None


async def _task_log(invocation: Invocation, client: Client, task: str, attempt: str) -> None:
    try:
        log = await client.log(task, attempt or None)
    except NotFoundError:
        if attempt or not await _tell_end(invocation, client, task):
            raise
        return
    write_bytes(log)
    if not log and not attempt:
        await _tell_end(invocation, client, task)


async def _tell_end(invocation: Invocation, client: Client, task: str) -> bool:
    """Say why a task has not ended well; False when it has, or has not ended."""
    view = await client.task(task)
    if view.state not in {"failed", "lost", "cancelled"}:
        return False
    reason = f": {safe(view.reason)}" if view.reason else ""
    invocation.note(Text(f"Task {view.id} {view.state}{reason}", style="bold red"))
    return True


async def _all_logs(invocation: Invocation, client: Client, job: JobId, stage: str) -> None:
    found = False
    async for result in client.results(job, stage or None):
        if result.outcome.log is not None:
            found = True
            invocation.note(Text(result.id, style="bold"))
            write_bytes(await client.payload(result.outcome.log))
            if result.outcome.log_cut:
                invocation.note(Text(f"[cut: it printed {plural(result.outcome.log_bytes, 'byte')}]"))
        if result.state != "done":
            found = True
            invocation.note(ending_of(result))
    if not found:
        raise NotFoundError("No output", f"No ended task of job {job} has printed anything")
