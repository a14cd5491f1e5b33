"""`sparegrid submit`: a job file."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.text import Text

from sparegrid.api import JobView
from sparegrid.cli.completing import job_files
from sparegrid.cli.following import wait_with_progress
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import json_option
from sparegrid.cli.screens.messages import commands
from sparegrid.cli.verbs.results import fetch_results
from sparegrid.cli.wording import plural
from sparegrid.errors import JobFailedError
from sparegrid.ids import JobId, parse_job_id

if TYPE_CHECKING:
    from sparegrid.client import Client


@click.command()
@click.argument(
    "file", type=click.Path(dir_okay=False, path_type=Path), metavar="JOB.toml", shell_complete=job_files
)
@click.option("-w", "--wait", is_flag=True, help="Wait for its end; the exit code is 1 when it fails.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Wait, then fetch files here."
)
@click.option("--stage", default="", help="With -o: only this stage's files.")
@click.option("--priority", type=click.IntRange(1, 10), help="Instead of the file's; 10 is most urgent.")
@click.option("--name", default="", help="Instead of the file's.")
@json_option
@click.pass_obj
def submit(
    invocation: Invocation,
    file: Path,
    wait: bool,
    output: Path | None,
    stage: str,
    priority: int | None,
    name: str,
    as_json: bool,
) -> None:
    """Submit a job file (.toml, or the same as .json) and print the job's number.

    Ctrl-C while it waits leaves the job running.
    """
    invocation.run(
        _submit(invocation, file, wait or output is not None, output, stage, priority, name, as_json)
    )


async def _submit(
    invocation: Invocation,
    file: Path,
    wait: bool,
    output: Path | None,
    stage: str,
    priority: int | None,
    name: str,
    as_json: bool,
) -> None:
    from sparegrid.jobfile import load_job

    loaded = load_job(file)
    async with invocation.client() as client:
        spec = msgspec.structs.replace(
            loaded.spec, priority=priority or loaded.spec.priority, name=name or loaded.spec.name
        )
        submitted = await client.submit_loaded(replace(loaded, spec=spec))
        job = parse_job_id(submitted.id)
        if not wait:
            if as_json:
                invocation.show_json(submitted)
            else:
                invocation.show(Text(f"Job {job} submitted: {plural(submitted.tasks, 'task')}"))
                invocation.note(
                    commands(
                        (f"sparegrid job {job}", "how far it is"),
                        (f"sparegrid logs -f {job}", "what its tasks print, as it comes"),
                        (f"sparegrid results {job} -o DIR", "fetches the files, once it is done"),
                    )
                )
            return
        invocation.note(Text(f"Job {job} submitted: {plural(submitted.tasks, 'task')}"))
        view = await _wait(invocation, client, job)
        if as_json:
            invocation.show_json(view)
        if view.state != "done":
            raise JobFailedError(f"Job {job} {view.state}", view.reason, f"sparegrid job {job}   shows why")
        if output is not None:
            await fetch_results(invocation, client, view, output, stage=stage)


async def _wait(invocation: Invocation, client: Client, job: JobId) -> JobView:
    try:
        return await wait_with_progress(client, job, invocation, "Ctrl-C leaves it to the grid")
    except asyncio.CancelledError:
        invocation.note(Text(f"Job {job} goes on. sparegrid cancel {job}   ends it"))
        raise
