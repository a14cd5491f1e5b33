"""`sparegrid logs`: what tasks have printed."""

from __future__ import annotations

import click
from rich.text import Text

from sparegrid.api import JobView
from sparegrid.cli.following import stream_task, write_bytes
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.screens.jobs import task_name
from sparegrid.errors import BadInputError, NotFoundError
from sparegrid.ids import JobId, parse_task_text


@click.command()
@click.argument("job", metavar="JOB|TASK")
@click.option("-f", "--follow", is_flag=True, help="Print as it comes, until the job ends. For one task.")
@click.option("--stage", default="", help="Of a job: only this stage, by name or number.")
@click.option(
    "--attempt", default="", metavar="ID", help="Of a task: an older attempt, by its number in --json."
)
@click.pass_obj
def logs(invocation: Invocation, job: str, follow: bool, stage: str, attempt: str) -> None:
    """Print what a task (17.render.5) has printed, or all ended tasks of a job (17), in order.

    Each task's output has a heading on standard error when there are several.
    """
    invocation.run(_logs(invocation, job, follow, stage, attempt))


async def _logs(invocation: Invocation, text: str, follow: bool, stage: str, attempt: str) -> None:
    named = parse_task_text(text)
    async with invocation.client() as client:
        view = await client.job(named.job)
        task = text if named.index is not None else _only_task(view)
        if follow:
            if task is None:
                raise BadInputError(
                    "Which task?",
                    f"Job {view.id} has {view.total} tasks",
                    f"sparegrid logs -f {view.id}.STAGE.INDEX",
                )
            await stream_task(client, named.job, task, invocation)
        elif task is not None:
            write_bytes(await client.log(task, attempt or None))
        else:
            await _all_logs(invocation, named.job, stage)


def _only_task(view: JobView) -> str | None:
    return f"{view.id}.0.0" if view.total == 1 and len(view.stages) == 1 else None


async def _all_logs(invocation: Invocation, job: JobId, stage: str) -> None:
    found = False
    async with invocation.client() as client:
        async for result in client.results(job, stage or None):
            if result.outcome.log is None:
                continue
            found = True
            invocation.note(Text(f"{task_name(str(job), result)}", style="bold"))
            write_bytes(await client.payload(result.outcome.log))
            if result.outcome.log_cut:
                invocation.note(Text(f"[cut: it printed {result.outcome.log_bytes} bytes]"))
    if not found:
        raise NotFoundError("No output", f"No ended task of job {job} has printed anything")
