"""`sparegrid demo`: a grid inside this computer, a picture, an honest comparison, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psutil
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from sparegrid.api import DeviceChanged, DeviceView, JobSpec, JobView, Snapshot, Subscribe
from sparegrid.cli.demo.picture import (
    ASSEMBLE,
    PICTURE,
    SIZES,
    TILES,
    Size,
    picture_job,
    program_files,
    require_numpy,
    suitable_size,
)
from sparegrid.cli.demo.smallgrid import SmallGrid
from sparegrid.cli.files import upload
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.screens.demo import Round, rounds_screen, summary
from sparegrid.cli.wording import plural
from sparegrid.errors import JobFailedError
from sparegrid.ids import parse_job_id
from sparegrid.messages import Payload

if TYPE_CHECKING:
    from sparegrid.client import Client

_REDRAW_S = 0.1


@click.command()
@click.option("--workers", type=click.IntRange(2, 64), default=2, help="Devices to start (2).")
@click.option(
    "--size", type=click.Choice(["auto", *SIZES]), default="auto", help="Size of the picture (auto: to fit)."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-result"),
    help="Folder for the picture (demo-result).",
)
@click.pass_obj
def demo(invocation: Invocation, workers: int, size: str, output: Path) -> None:
    """Render a picture on a small grid inside this computer, and measure what the grid is worth.

    Starts a coordinator and two devices as real processes in a temporary folder, renders the picture on one device
    alone and then on all, and ends everything again, also after Ctrl-C.
    """
    grid = SmallGrid(invocation.environ, workers)
    try:
        invocation.run(_demo(invocation, grid, size, output / PICTURE))
    finally:
        grid.end_now()


async def _demo(invocation: Invocation, grid: SmallGrid, size_name: str, target: Path) -> None:
    require_numpy()
    began = time.monotonic()
    size = await asyncio.to_thread(suitable_size) if size_name == "auto" else SIZES[size_name]
    cpus = plural(os.cpu_count() or 1, "CPU")
    invocation.show(
        Text("Sparegrid demo", style="bold"),
        Text(
            f"A picture of {size.width} x {size.height} in {len(size.corners)} tiles, on a coordinator and "
            f"{len(grid.devices)} devices inside this computer ({cpus})"
        ),
    )
    async with grid:
        rounds, pictures = await _both_rounds(invocation, grid, size)
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(target.write_bytes, await grid.client.payload(pictures[-1]))
        same = await grid.client.payload(pictures[0]) == await grid.client.payload(pictures[-1])
    most = min(os.cpu_count() or 1, len(grid.devices))
    where = {
        "picture": str(target),
        "size": f"{size.width} x {size.height}",
        "cpus": cpus,
        "most": str(most),
    }
    invocation.show(summary(invocation.look(), rounds, where, same=same))
    invocation.show(
        Text(
            f"          The whole demo took {time.monotonic() - began:.0f} s; nothing of it is left running."
        )
    )


async def _both_rounds(
    invocation: Invocation, grid: SmallGrid, size: Size
) -> tuple[list[Round], list[Payload]]:
    programs = await upload(grid.client, program_files())
    plan = [
        ("One device alone", picture_job(size, programs, device=grid.devices[0])),
        (f"{len(grid.devices)} devices together", picture_job(size, programs)),
    ]
    rounds: list[Round] = []
    pictures: list[Payload] = []
    for title, job in plan:
        rounds.append(Round(title, len(size.corners)))
        with _drawing(invocation, rounds[-1], grid.devices) as draw:
            pictures.append(await _run_round(grid, job, rounds[-1], draw))
    return rounds, pictures


@contextlib.contextmanager
def _drawing(invocation: Invocation, one: Round, devices: Sequence[str]) -> Iterator[Callable[[], None]]:
    """Draws a round in place while it runs; a file or a pipe gets it once, at its end."""

    def screen() -> RenderableType:
        return rounds_screen(invocation.look(), [one], devices)

    if not invocation.out.is_terminal:
        yield lambda: None
        invocation.show(screen())
        return
    with Live(console=invocation.out, auto_refresh=False) as live:
        yield lambda: live.update(screen(), refresh=True)
        live.update(screen(), refresh=True)


async def _run_round(grid: SmallGrid, spec: JobSpec, one: Round, draw: Callable[[], None]) -> Payload:
    """Submit the job, keep the round current until its end, and return the picture."""
    client = grid.client
    before = {view.name: view.done for view in (await client.devices()).devices}
    began, busy = time.monotonic(), _busy_cpu_s()
    job = parse_job_id((await client.submit(spec)).id)
    watching = asyncio.create_task(_count_tiles(client, one, before))
    waiting = asyncio.create_task(client.wait(job))
    try:
        while not waiting.done():
            grid.check()
            if watching.done():
                watching.result()
            one.seconds = time.monotonic() - began
            draw()
            await asyncio.wait([waiting], timeout=_REDRAW_S)
        one.seconds, one.ended = time.monotonic() - began, True
        view = waiting.result()
        used = await _count_exactly(client, one, view)
        one.others = max(0.0, _busy_cpu_s() - busy - used) / one.seconds
    finally:
        for task in (watching, waiting):
            task.cancel()
        await asyncio.gather(watching, waiting, return_exceptions=True)
    return await _picture_of(client, view)


async def _count_tiles(client: Client, one: Round, before: dict[str, int]) -> None:
    async with contextlib.aclosing(client.watch(Subscribe(jobs=False))) as batches:
        async for events in batches:
            for event in events:
                if isinstance(event, Snapshot):
                    _count(one, event.devices, before)
                elif isinstance(event, DeviceChanged):
                    _count(one, [event.device], before)


def _count(one: Round, devices: Sequence[DeviceView], before: dict[str, int]) -> None:
    for view in devices:
        one.done[view.name] = min(view.done - before.get(view.name, 0), one.tiles)
        one.running[view.name] = view.running


async def _count_exactly(client: Client, one: Round, view: JobView) -> float:
    """Tiles by device from the results (the devices' own counts include the last stage), and CPU seconds used."""
    names = {device.id: device.name for device in (await client.devices()).devices}
    one.running.clear()
    one.done = dict.fromkeys(names.values(), 0)
    used_s = 0.0
    async for result in client.results(parse_job_id(view.id)):
        used_s += result.outcome.usage.cpu_ms / 1000
        if result.stage == TILES:
            name = names.get(result.device, result.device)
            one.done[name] = one.done.get(name, 0) + 1
    return used_s


def _busy_cpu_s() -> float:
    """CPU seconds that all programs of this computer have used since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.system)


async def _picture_of(client: Client, view: JobView) -> Payload:
    if view.state != "done":
        raise JobFailedError("The demo's job failed", view.reason or f"job {view.id} was {view.state}")
    async for result in client.results(parse_job_id(view.id), ASSEMBLE):
        for entry in result.outcome.files:
            if entry.path == PICTURE:
                return entry.content
    raise JobFailedError("The demo's job left no picture", f"job {view.id} is done, but {PICTURE} is missing")
