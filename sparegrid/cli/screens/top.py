"""The live screen: the grid in one line, devices with their slots, jobs with their progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sparegrid.api import DeviceView, JobView
from sparegrid.cli.screens.devices import devices_table
from sparegrid.cli.screens.jobs import jobs_table
from sparegrid.cli.screens.look import Look
from sparegrid.cli.screens.messages import headline
from sparegrid.cli.wording import number, plural

_RATE_WINDOW_MS = 10_000
_LEAST_NAME = 8
_FRAME_LINES = 9
"""Lines that are no rows: title, two headings with their rules, gaps, remainders."""


class TopModel:
    """What the live screen shows, kept current from events. Counts finished tasks for the rate."""

    def __init__(self, grid_name: str) -> None:
        self.grid_name = grid_name
        self.jobs: dict[str, JobView] = {}
        self.devices: dict[str, DeviceView] = {}
        self._finished: deque[tuple[int, int]] = deque()

    def set_job(self, job: JobView) -> None:
        """A job's view is now this."""
        self.jobs[job.id] = job

    def set_device(self, device: DeviceView, now_ms: int) -> None:
        """A device's view is now this; what it has finished since counts for the rate."""
        before = self.devices.get(device.id)
        self.devices[device.id] = device
        if before is not None and device.done > before.done:
            self._finished.append((now_ms, device.done - before.done))

    def rate(self, now_ms: int) -> float:
        """Tasks finished per second, over the last ten seconds."""
        while self._finished and self._finished[0][0] < now_ms - _RATE_WINDOW_MS:
            self._finished.popleft()
        return sum(count for _, count in self._finished) * 1000 / _RATE_WINDOW_MS

    def sorted_devices(self) -> list[DeviceView]:
        """Those at work first, offline ones last."""
        order = {"computing": 0, "ready": 1, "draining": 2, "paused": 3, "offline": 4}
        return sorted(self.devices.values(), key=lambda view: (order.get(view.state, 3), view.name, view.id))

    def sorted_jobs(self) -> list[JobView]:
        """Active ones first, then the newest."""
        return sorted(self.jobs.values(), key=lambda job: (job.state not in {"active", "open"}, -int(job.id)))


def top_screen(look: Look, model: TopModel, height: int) -> RenderableType:
    """The whole screen, at most `height` lines."""
    devices, jobs = model.sorted_devices(), model.sorted_jobs()
    room = max(4, height - _FRAME_LINES)
    device_rows = min(len(devices), max(2, room // 2))
    job_rows = min(len(jobs), max(2, room - device_rows))
    device_rows = min(len(devices), max(2, room - job_rows))
    return Group(
        _title(look, model, devices, jobs),
        Text(""),
        devices_table(look, devices[:device_rows]),
        *_remainder(len(devices) - device_rows, "device"),
        Text(""),
        jobs_table(look, jobs[:job_rows]),
        *_remainder(len(jobs) - job_rows, "job"),
    )


def _title(look: Look, model: TopModel, devices: Sequence[DeviceView], jobs: Sequence[JobView]) -> Text:
    online = [view for view in devices if view.state != "offline"]
    slots = sum(view.capability.slots for view in online)
    running = sum(view.running for view in online)
    queued = sum(job.queued + job.waiting for job in jobs)
    line = headline(model.grid_name)
    pieces = [
        f" {look.dot} {piece}"
        for piece in (
            f"{number(len(online))}/{plural(len(devices), 'device')}",
            f"{number(running)}/{plural(slots, 'slot')} busy",
            f"{plural(queued, 'task')} to go",
            f"{model.rate(look.now_ms):.1f} tasks/s",
        )
    ]
    # The numbers stay whole; a long name gives way.
    room = look.width - sum(len(piece) for piece in pieces)
    line.truncate(max(_LEAST_NAME, room), overflow="ellipsis" if look.unicode else "crop")
    for piece in pieces:
        line.append(piece, style="not bold")
    line.truncate(look.width, overflow="ellipsis" if look.unicode else "crop")
    return line


def _remainder(count: int, noun: str) -> list[Text]:
    return [Text(f"and {plural(count, f'more {noun}')}")] if count > 0 else []
