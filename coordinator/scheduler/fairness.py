"""Who is next: weighted fair share between submitters, then priority within one, then age.

Start-time fair queuing: each submitter has a virtual time that grows with the work charged to it, divided by its
weight; the smallest goes first. Whoever comes back from idling starts at the grid's virtual time, so that nobody
saves up. Work is charged as estimated when it is assigned and corrected when it is measured.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Iterator

from coordinator.scheduler.requirements import RequirementClass, grid_has
from coordinator.scheduler.state import Attempt, Device, Job, Share, Stage, World
from sparegrid.ids import PrincipalId

UNKNOWN_COST_MS = 1000
"""What a task of a stage without a measured mean is charged until it ends."""


def share_of(world: World, submitter: PrincipalId) -> Share:
    """The submitter's share, made when it is new."""
    share = world.shares.get(submitter)
    if share is None:
        share = world.shares[submitter] = Share(submitter)
    return share


def list_stage(world: World, stage: Stage) -> None:
    """The stage has queued tasks: it stands in its submitter's line."""
    if stage.line_key is not None:
        return
    job = stage.job
    share = job.share
    if not share.lines:
        share.vtime = max(share.vtime, world.vclock)
    key = (-job.priority, job.id, stage.index)
    stage.line_key = key
    world.marks.listed[stage] = None
    insort(share.lines.setdefault(stage.cls, []), (*key, stage))


def unlist_stage(stage: Stage) -> None:
    """It has none any more."""
    if stage.line_key is None:
        return
    lines = stage.job.share.lines
    line = lines[stage.cls]
    at = bisect_left(line, stage.line_key)
    assert line[at][3] is stage
    del line[at]
    if not line:
        del lines[stage.cls]
    stage.line_key = None


def reprioritise(world: World, job: Job, priority: int) -> None:
    """Move the job's stages within their line."""
    listed = [stage for stage in job.stages if stage.line_key is not None]
    for stage in listed:
        unlist_stage(stage)
    job.priority = priority
    for stage in listed:
        list_stage(world, stage)


def charge(world: World, stage: Stage, count: int) -> int:
    """Charge `count` tasks of the stage to its submitter. Returns the cost of one, to be corrected later."""
    share = stage.job.share
    cost = stage.cls.milli * max(1, round(stage.mean_ms) if stage.timed else UNKNOWN_COST_MS)
    world.vclock = max(world.vclock, share.vtime)
    share.vtime += cost * count * 1000 // share.weight
    return cost


def correct(attempt: Attempt, wall_ms: int) -> None:
    """The attempt took so long: charge that instead of the estimate."""
    share = attempt.stage.job.share
    share.vtime += (attempt.stage.cls.milli * max(1, wall_ms) - attempt.cost) * 1000 // share.weight


def fairest(world: World, stuck: Container[Stage]) -> Stage | None:
    """The stage that goes next on any device with room: None when no stage can start anywhere now."""
    best: Stage | None = None
    best_time = 0
    for share in world.shares.values():
        if not share.lines or (best is not None and share.vtime >= best_time):
            continue
        lines = (line for cls, line in share.lines.items() if cls.pool and grid_has(world, cls))
        found = _head(lines, stuck)
        if found is not None:
            best, best_time = found, share.vtime
    return best


def fairest_for(world: World, device: Device, stuck: Container[Stage]) -> Stage | None:
    """The stage that goes next into the work ahead of this device."""
    best: Stage | None = None
    best_time = 0
    for share in world.shares.values():
        if not share.lines or (best is not None and share.vtime >= best_time):
            continue
        # Grid-wide counts are booked when a task is assigned, so such tasks never wait ahead.
        lines = (share.lines[cls] for cls in device.classes if cls in share.lines and not cls.grid_counts)
        found = _head(lines, stuck)
        if found is not None:
            best, best_time = found, share.vtime
    return best


def tasks_before(stage: Stage, cls: RequirementClass) -> int:
    """Queued tasks of the same submitter and class that go before this stage's."""
    count = 0
    for *_, other in stage.job.share.lines.get(cls, ()):
        if other is stage:
            break
        count += other.queue.count
    return count


def _head(lines: Iterator[list[tuple[int, int, int, Stage]]], stuck: Container[Stage]) -> Stage | None:
    """The most urgent, oldest stage of several lines that is not stuck."""
    best: tuple[int, int, int, Stage] | None = None
    for line in lines:
        for entry in line:
            if best is not None and entry[:3] >= best[:3]:
                break
            if entry[3] not in stuck:
                best = entry
                break
    return None if best is None else best[3]
