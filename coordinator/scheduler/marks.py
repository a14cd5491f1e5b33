"""What has changed since the batch began: for effects, and for what must be looked at again. Emptied after each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinator.scheduler.state import Attempt, Device, Job, Stage


@dataclass(slots=True, eq=False)
class Marks:
    """Insertion-ordered marks."""

    tasks: dict[Stage, list[tuple[int, int]]] = field(default_factory=dict)
    """Changed tasks as half-open runs, in no order, possibly overlapping."""
    jobs: dict[Job, None] = field(default_factory=dict)
    devices: dict[Device, None] = field(default_factory=dict)
    hungry: dict[Device, None] = field(default_factory=dict)
    """Devices whose free resources, credit or willingness changed."""
    listed: dict[Stage, None] = field(default_factory=dict)
    """Stages that have queued tasks and had none before."""
    revoked: list[tuple[Attempt, str]] = field(default_factory=list)
    """Live attempts that are not wanted any more, with the reason to tell."""

    def task(self, stage: Stage, low: int, high: int) -> None:
        """Tasks low to high - 1 changed."""
        runs = self.tasks.get(stage)
        if runs is None:
            self.tasks[stage] = [(low, high)]
        elif runs[-1][1] == low:
            runs[-1] = (runs[-1][0], high)
        else:
            runs.append((low, high))
        self.jobs[stage.job] = None

    def clear(self) -> None:
        """Forget everything."""
        self.tasks.clear()
        self.jobs.clear()
        self.devices.clear()
        self.hungry.clear()
        self.listed.clear()
        self.revoked.clear()


def merged(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same indexes as sorted, disjoint, inclusive ranges."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(runs):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], high - 1))
        else:
            out.append((low, high - 1))
    return out
