"""The scheduler's state as the API's Structs."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.scheduler.jobs import job_state
from coordinator.scheduler.state import (
    CANCELLED,
    DONE,
    FAILED,
    LOST,
    QUEUED,
    RUNNING,
    STATES,
    SUSPENDED,
    WAITING,
    Attempt,
    Device,
    Job,
    Past,
    Stage,
    World,
)
from sparegrid.api import AttemptView, DeviceView, JobView, StageView, TaskView
from sparegrid.messages import Blame, DeviceState, PauseVerb
from sparegrid.states import AttemptState, JobState

_ATTEMPT_STATES = (
    AttemptState.ASSIGNED, AttemptState.RUNNING, AttemptState.SUSPENDED, AttemptState.DELIVERED,
)  # fmt: skip


class GridCounts(NamedTuple):
    """The grid at a glance. Tasks count jobs in memory; `tasks_done` counts since the machine was made."""

    devices: int
    devices_online: int
    slots: int
    running: int
    queued: int
    waiting: int
    jobs_active: int
    tasks_done: int


def grid_counts(world: World) -> GridCounts:
    """Count what is in memory."""
    stages = [stage for job in world.jobs.values() for stage in job.stages]
    return GridCounts(
        devices=len(world.devices),
        devices_online=world.attached,
        slots=sum(device.capability.slots for device in world.devices.values() if device.attached),
        running=sum(stage.counts[RUNNING] for stage in stages),
        queued=sum(stage.counts[QUEUED] for stage in stages),
        waiting=sum(stage.counts[WAITING] for stage in stages),
        jobs_active=sum(
            1 for job in world.jobs.values() if job_state(job) in {JobState.ACTIVE, JobState.OPEN}
        ),
        tasks_done=world.done_tasks,
    )


def stage_view(stage: Stage) -> StageView:
    """A stage and its tasks by state."""
    counts = stage.counts
    return StageView(
        name=stage.spec.name,
        kind=stage.spec.kind,
        total=stage.total,
        needs=[need.stage for need in stage.spec.needs],
        waiting=counts[WAITING],
        queued=counts[QUEUED],
        running=counts[RUNNING],
        suspended=counts[SUSPENDED],
        done=counts[DONE],
        failed=counts[FAILED],
        cancelled=counts[CANCELLED],
        lost=counts[LOST],
        open=not stage.final and not stage.broken,
        mean_ms=round(stage.mean_ms),
    )


def job_view(world: World, job: Job) -> JobView:
    """A job as every screen shows it."""
    stages = [stage_view(stage) for stage in job.stages]
    state = job_state(job)
    ended = state not in {JobState.ACTIVE, JobState.OPEN}
    return JobView(
        id=str(job.id),
        name=job.spec.name,
        state=state,
        priority=job.priority,
        submitter=job.submitter,
        submitted_ms=job.submitted_wall_ms,
        stages=stages,
        finished_ms=max(job.submitted_wall_ms, world.wall_ms) if ended else 0,
        total=sum(view.total for view in stages),
        done=sum(view.done for view in stages),
        failed=sum(view.failed for view in stages),
        running=sum(view.running + view.suspended for view in stages),
        queued=sum(view.queued for view in stages),
        waiting=sum(view.waiting for view in stages),
        cancelled=sum(view.cancelled for view in stages),
        lost=sum(view.lost for view in stages),
        open=job.open,
        eta_ms=0 if ended else _eta_ms(job),
        reason=job_reason(world, job),
    )


def job_reason(world: World, job: Job) -> str:
    """Why it failed or was cancelled, from the first task that tells."""
    if job.cancelled_by is not None:
        return f"cancelled by {job.cancelled_by}"
    for stage in job.order:
        if stage.broken:
            return f"stage {stage.spec.name}: {stage.broken}"
        bad = stage.counts[FAILED] + stage.counts[LOST]
        if bad:
            found = [at for at in (stage.states.find(FAILED), stage.states.find(LOST)) if at >= 0]
            why = task_reason(world, stage, min(found))
            more = f" (and {bad - 1} more)" if bad > 1 else ""
            return f"task {stage.ref(min(found))}: {why}{more}"
    return ""


def task_view(world: World, stage: Stage, index: int) -> TaskView:
    """A task with the attempts that are remembered: ended ones first, then live ones."""
    past = stage.story.get(index, [])
    return TaskView(
        id=str(stage.ref(index)),
        stage=stage.spec.name,
        index=index,
        state=STATES[stage.states[index]],
        item=stage.items.item(index),
        attempts=[_past_view(world, one) for one in past]
        + [_attempt_view(world, one) for one in stage.attempts_of(index)],
        failures=sum(1 for one in past if one.blame == Blame.TASK),
        reason=task_reason(world, stage, index),
    )


def task_reason(world: World, stage: Stage, index: int) -> str:
    """Why it ended badly, in words."""
    state = stage.states[index]
    if state == CANCELLED:
        if stage.job.cancelled_by is not None:
            return f"cancelled by {stage.job.cancelled_by}"
        return "a task that it needs did not succeed"
    if state not in {FAILED, LOST}:
        return ""
    past = stage.story.get(index)
    if not past:
        return ""
    if state == LOST:
        names = dict.fromkeys(device_name(world, one.device) for one in past if one.crash)
        return f"given up after the agents of {len(names)} devices crashed under it: {', '.join(names)}"
    return past[-1].reason


def device_state(device: Device) -> DeviceState:
    """What it is doing, as every screen shows it."""
    if not device.attached:
        return DeviceState.OFFLINE
    if device.asked in {PauseVerb.PAUSE, PauseVerb.GIVE_BACK} or device.policy == DeviceState.PAUSED:
        return DeviceState.PAUSED
    if device.asked == PauseVerb.FINISH or device.policy == DeviceState.DRAINING:
        return DeviceState.DRAINING
    return DeviceState.COMPUTING if device.running else DeviceState.READY


def device_view(world: World, device: Device) -> DeviceView:
    """A device as every screen shows it."""
    asked = device.asked and device.attached
    return DeviceView(
        id=device.id,
        name=device.name,
        state=device_state(device),
        reason=device_reason(device),
        until_ms=device.asked_until_wall_ms if asked else device.policy_until_wall_ms,
        capability=device.capability,
        reading=device.reading,
        labels={**device.capability.labels, **device.labels},
        running=device.running,
        assigned=len(device.live),
        done=device.done,
        failed=device.failed,
        last_seen_ms=_wall_ms(world, device.last_seen_ms),
        joined_ms=device.joined_wall_ms,
    )


def device_reason(device: Device) -> str:
    """Why it takes no work; empty when it does."""
    if not device.attached:
        return "not heard of past its lease" if device.silent else "not connected"
    if device.asked:
        return f"{_VERBS.get(device.asked, device.asked)} by {device.asked_by or 'an administrator'}"
    return device.policy_reason


def device_name(world: World, device_id: object) -> str:
    """Its name, or its id when it is no member any more."""
    device = world.devices.get(device_id)  # type: ignore[call-overload]
    return str(device_id) if device is None else str(device.name)


_VERBS = {"pause": "paused", "finish": "finishing, then paused", "give_back": "paused, work given back"}


def _attempt_view(world: World, attempt: Attempt) -> AttemptView:
    return AttemptView(
        id=str(attempt.id),
        device=attempt.device.id,
        device_name=attempt.device.name,
        state=_ATTEMPT_STATES[attempt.state],
        number=attempt.number,
        assigned_ms=_wall_ms(world, attempt.assigned_ms),
        started_ms=_wall_ms(world, attempt.started_ms),
        permille=attempt.permille,
        note=attempt.note,
    )


def _past_view(world: World, past: Past) -> AttemptView:
    return AttemptView(
        id=str(past.attempt),
        device=past.device,
        device_name=device_name(world, past.device),
        state=AttemptState.ENDED,
        number=past.number,
        assigned_ms=_wall_ms(world, past.assigned_ms),
        ended_ms=_wall_ms(world, past.ended_ms),
        blame=past.blame,
        reason=past.reason,
    )


def _wall_ms(world: World, time_ms: int) -> int:
    """The scheduler's time as wall time, for display; 0 stays unknown."""
    return time_ms + world.wall_offset_ms if time_ms else 0


def _eta_ms(job: Job) -> int:
    """What is left, at the means measured so far and as many at once as run now."""
    busy = sum(stage.counts[RUNNING] for stage in job.stages)
    left = sum(stage.unfinished * stage.mean_ms for stage in job.stages)
    if not busy or any(stage.unfinished and not stage.timed for stage in job.stages):
        return 0
    return round(left / busy)
