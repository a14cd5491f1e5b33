"""`sparegrid results`: what a job's tasks left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.live import Live
from rich.text import Text

from sparegrid.api import JobView, ResultPage, TaskResult
from sparegrid.cli.files import Fetch, Saved, fetch, plan_fetches
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import job_argument, json_option
from sparegrid.cli.screens.listing import Column, listing
from sparegrid.cli.wording import duration, plural, safe
from sparegrid.errors import NotFoundError
from sparegrid.ids import parse_job_id
from sparegrid.messages import Inline
from sparegrid.units import format_size

if TYPE_CHECKING:
    from sparegrid.client import Client


@click.command()
@job_argument
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder to fetch the files into."
)
@click.option("--stage", default="", help="Only this stage, by name or number.")
@json_option
@click.pass_obj
def results(invocation: Invocation, job: str, output: Path | None, stage: str, as_json: bool) -> None:
    """List what a job's tasks left behind, or fetch it with -o.

    Files lie directly in the folder, in one folder a stage when there are several stages. When two tasks left a file
    of the same path, each task has a folder named by its index.
    """
    invocation.run(_results(invocation, job, output, stage, as_json))


async def _results(invocation: Invocation, text: str, output: Path | None, stage: str, as_json: bool) -> None:
    async with invocation.client() as client:
        view = await client.job(parse_job_id(text))
        if output is not None:
            await fetch_results(invocation, client, view, output, stage=stage)
            return
        found = [result async for result in client.results(parse_job_id(text), stage or None)]
        if as_json:
            invocation.show_json(ResultPage(found))
            return
        if not found:
            invocation.show(Text("No results yet."))
            return
        look = invocation.look()
        columns = (
            Column("Task"),
            Column("State"),
            Column("Code", right=True, rank=2),
            Column("Device", least=10, rank=3),
            Column("Time", right=True, rank=4),
            Column("Files", least=16),
        )
        rows = []
        for result in found:
            outcome = result.outcome
            rows.append(
                [
                    Text(result.id),
                    look.state(result.state),
                    Text("" if outcome.exit_code is None else str(outcome.exit_code)),
                    Text(safe(result.device)),
                    Text(duration(outcome.usage.wall_ms / 1000)),
                    Text(_left_behind(result)),
                ]
            )
        invocation.show(listing(look, columns, rows))


def _left_behind(result: TaskResult) -> str:
    pieces = []
    for entry in result.outcome.files:
        count = len(entry.content.data) if isinstance(entry.content, Inline) else entry.content.size
        pieces.append(f"{safe(entry.path)} ({format_size(count)})")
    if isinstance(result.outcome.value, Inline):
        pieces.append(safe(result.outcome.value.data.decode(errors="replace")))
    return ", ".join(pieces) or safe(result.reason)


async def fetch_results(
    invocation: Invocation, client: Client, view: JobView, folder: Path, *, stage: str = ""
) -> None:
    """Fetch the files of a job into a folder and say what came.

    Raises:
        NotFoundError: there is no file to fetch.
    """
    found = [result async for result in client.results(parse_job_id(view.id), stage or None)]
    plans = plan_fetches(folder, found, by_stage=len(view.stages) > 1 and not stage)
    if not plans:
        hint = (
            "Tasks keep the files that `outputs` names"
            if view.state == "done"
            else f"Job {view.id} is {view.state}"
        )
        raise NotFoundError("No files", f"The tasks of job {view.id} have left none behind", hint)
    total = await _fetch_with_bar(invocation, client, plans)
    invocation.note(Text(f"{plural(len(plans), 'file')} ({format_size(total)}) in {safe(str(folder))}"))


async def _fetch_with_bar(invocation: Invocation, client: Client, plans: list[Fetch]) -> int:
    saved: list[Saved] = []
    with Live(console=invocation.err, transient=True, refresh_per_second=8) as live:

        def on_saved(one: Saved) -> None:
            saved.append(one)
            if invocation.err.is_terminal:
                bar = invocation.look(invocation.err).bar([(len(saved), "done")], len(plans), 30)
                live.update(Text.assemble(bar, f"  {len(saved)}/{len(plans)} files"))

        await fetch(client, plans, on_saved)
    return sum(one.size for one in saved)
