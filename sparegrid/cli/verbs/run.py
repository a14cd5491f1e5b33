"""`sparegrid run`: one command, as if it ran here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from sparegrid.api import JobView, TaskResult
from sparegrid.cli.exits import CODE_FAILED
from sparegrid.cli.files import fetch, local_files, plan_fetches, upload
from sparegrid.cli.following import cancelled_with_job, exit_code_of, stream_task
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import PASS_THROUGH, task_options
from sparegrid.cli.specs import TaskOptions, command_stage, job_of
from sparegrid.cli.wording import number, safe
from sparegrid.errors import JobFailedError
from sparegrid.ids import parse_job_id

if TYPE_CHECKING:
    from sparegrid.client import Client


@click.command(context_settings=PASS_THROUGH)
@task_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD…")
@click.pass_obj
def run(invocation: Invocation, /, command: tuple[str, ...], **options: Any) -> None:
    """Run one command on the grid, stream its output, and exit with its code.

    Standard output and standard error come as one stream. Standard input is not forwarded: send files with -i.
    Ctrl-C cancels the job. It runs once: a failure is yours to see, not retried; only a lost device is replaced.

    \b
    sparegrid run -- uname -a
    sparegrid run -r program=ffmpeg -i film.mp4 -o '*.webm' -- ffmpeg -i film.mp4 film.webm
    sparegrid run --shell -- 'nproc; uptime'
    """
    code = invocation.run(_run(invocation, command, TaskOptions(**options)))
    raise click.exceptions.Exit(code)


async def _run(invocation: Invocation, command: tuple[str, ...], options: TaskOptions) -> int:
    files = local_files(options.inputs)
    async with invocation.client() as client:
        stage = command_stage(command, options, files=await upload(client, files))
        submitted = await client.submit(job_of([stage], command, options))
        if options.detach:
            click.echo(submitted.id)
            return 0
        job = parse_job_id(submitted.id)
        waiting = stream_task(client, job, f"{job}.0.0", invocation)
        view = await cancelled_with_job(client, job, asyncio.ensure_future(waiting), invocation)
        return await finish(client, view, options, invocation)


async def finish(client: Client, view: JobView, options: TaskOptions, invocation: Invocation) -> int:
    """Bring the files back and find the exit code."""
    results: list[TaskResult] = [result async for result in client.results(parse_job_id(view.id))]
    if options.outputs:
        plans = plan_fetches(Path(options.into), results, by_stage=False)
        await fetch(client, plans, lambda _: None)
        if not plans and view.state == "done":
            invocation.note(Text(f"No file matched {', '.join(safe(glob) for glob in options.outputs)}"))
    if not results:
        raise JobFailedError(f"Job {view.id} was {view.state}", view.reason, f"sparegrid explain {view.id}")
    outcome = results[0].outcome
    if outcome.log_cut:
        invocation.note(
            Text(f"Output was cut: {number(outcome.log_bytes)} bytes were printed, the first were kept")
        )
    code = exit_code_of(results[0])
    if view.state != "done" and (outcome.exit_code is None or code == CODE_FAILED):
        reason = results[0].reason or view.reason
        invocation.note(Text(f"Job {view.id} {view.state}: {safe(reason)}", style="bold red"))
    return code
