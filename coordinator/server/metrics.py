"""`/metrics`: the coordinator's numbers as Prometheus text. Twenty lines are cheaper than another dependency."""

from __future__ import annotations

import asyncio

from aiohttp import web

from coordinator.server.context import SERVER, Server
from sparegrid.messages import DeviceState


async def handle(request: web.Request) -> web.Response:
    """The numbers of now."""
    return web.Response(text=metrics_text(request.app[SERVER]), content_type="text/plain", charset="utf-8")


def metrics_text(server: Server) -> str:
    """Every metric with its help and type, as the text format 0.0.4 wants it."""
    driver, machine = server.driver, server.driver.machine
    counts = machine.grid_counts()
    stat = server.blobs.stat()
    states = dict.fromkeys(DeviceState, 0)
    for device in machine.devices():
        states[DeviceState(machine.device_view(device).state)] += 1
    rows: list[tuple[str, str, str, dict[str, float] | float]] = [
        ("devices", "gauge", "Devices by state", {f'state="{state}"': n for state, n in states.items()}),
        (
            "tasks",
            "gauge",
            "Unfinished tasks",
            {'state="queued"': counts.queued, 'state="running"': counts.running},
        ),
        ("tasks_done_total", "counter", "Tasks done since the grid was made", counts.tasks_done),
        ("jobs_active", "gauge", "Jobs that have not ended", counts.jobs_active),
        ("facts_total", "counter", "Facts written since the start", driver.facts),
        ("commits_total", "counter", "Commits since the start", driver.commits),
        ("bursts_total", "counter", "Bursts of events handled since the start", driver.bursts),
        ("workers_connected", "gauge", "Open connections of workers", len(server.links.open)),
        ("watchers", "gauge", "Open event streams", len(server.hub.watchers)),
        ("blobs", "gauge", "Blobs stored", stat.blobs),
        ("blob_bytes", "gauge", "Bytes of blobs stored", stat.bytes),
        ("intake_paused", "gauge", "1 while the disk is full", 1 if driver.notice else 0),
        ("uptime_seconds", "gauge", "Since the start", asyncio.get_running_loop().time() - server.started_at),
    ]
    lines: list[str] = []
    for name, kind, text, values in rows:
        lines += [f"# HELP sparegrid_{name} {text}", f"# TYPE sparegrid_{name} {kind}"]
        if isinstance(values, dict):
            lines += [f"sparegrid_{name}{{{labels}}} {value}" for labels, value in values.items()]
        else:
            lines.append(f"sparegrid_{name} {values}")
    return "\n".join(lines) + "\n"
