"""`sparegrid top`: the grid, live."""

from __future__ import annotations

import asyncio
import contextlib
import time

import click
from rich.live import Live

from sparegrid.api import DeviceChanged, JobChanged, Snapshot, Subscribe
from sparegrid.api import Event as StreamEvent
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.screens.top import TopModel, top_screen

_REDRAW_S = 0.25


@click.command()
@click.option(
    "--once", is_flag=True, help="Print one screen and leave (always so when the output is no terminal)."
)
@click.pass_obj
def top(invocation: Invocation, once: bool) -> None:
    """Watch devices and jobs live. Ctrl-C leaves."""
    with contextlib.suppress(KeyboardInterrupt):
        invocation.run(_top(invocation, once or not invocation.out.is_terminal))


async def _top(invocation: Invocation, once: bool) -> None:
    async with invocation.client() as client:
        model = TopModel((await client.grid()).name)
        if once:
            for job in (await client.jobs(limit=100)).jobs:
                model.set_job(job)
            for device in (await client.devices()).devices:
                model.set_device(device, _now_ms())
            invocation.show(top_screen(invocation.look(), model, height=1000))
            return
        with Live(console=invocation.out, screen=True, auto_refresh=False) as live:
            redrawing = asyncio.create_task(_redraw(invocation, live, model))
            try:
                async with contextlib.aclosing(client.watch(Subscribe())) as batches:
                    async for events in batches:
                        for event in events:
                            take(model, event, _now_ms())
            finally:
                redrawing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await redrawing


def _now_ms() -> int:
    return int(time.time() * 1000)


def take(model: TopModel, event: StreamEvent, now_ms: int) -> None:
    """Bring the model up to date with one event."""
    if isinstance(event, Snapshot):
        model.jobs.clear()
        model.devices = {view.id: model.devices.get(view.id, view) for view in event.devices}
        for job in event.jobs:
            model.set_job(job)
        for device in event.devices:
            model.set_device(device, now_ms)
    elif isinstance(event, JobChanged):
        if event.gone:
            model.jobs.pop(event.job.id, None)
        else:
            model.set_job(event.job)
    elif isinstance(event, DeviceChanged):
        if event.gone:
            model.devices.pop(event.device.id, None)
        else:
            model.set_device(event.device, now_ms)


async def _redraw(invocation: Invocation, live: Live, model: TopModel) -> None:
    while True:
        height = invocation.out.size.height
        live.update(top_screen(invocation.look(), model, height), refresh=True)
        await asyncio.sleep(_REDRAW_S)
