"""An attempt as the worker holds it: from the queue to its acknowledged result. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sparegrid.messages import Blame, Delivered, Ended, Run, Template


class Phase(Enum):
    """Where an attempt is. Not on the wire."""

    FETCHING = 0
    READY = 1
    RUNNING = 2
    SPOOLED = 3


@dataclass(slots=True)
class Attempt:
    """One attempt that this worker holds."""

    id: int
    stage: Template
    run: Run
    phase: Phase
    since_ms: int
    lane: int = 0
    started: bool = False
    told: bool = False
    """The coordinator knows that it runs."""
    stop: tuple[Blame, str] | None = None
    taken_back: bool = False
    suspended_ms: int = 0
    message: Delivered | Ended | None = None
    sendable: bool = False


def unstarted_end(device: str, job: int, stage: int, run: Run, blame: Blame, reason: str) -> Ended:
    """The end of an attempt that never ran."""
    return Ended(device, job, stage, run.index, run.attempt, blame, reason, unstarted=True)
