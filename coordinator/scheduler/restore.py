"""Facts of the journal, applied: the machine becomes what it was. Applying a fact never decides and has no effects."""

from __future__ import annotations

from typing import assert_never

from coordinator.scheduler import membership
from coordinator.scheduler.facts import (
    Accepted,
    Appended,
    Assigned,
    Cancelled,
    Changed,
    Closed,
    Ended,
    Fact,
    Finished,
    Joined,
    PauseAsked,
    Prioritised,
    Removed,
    Requeued,
    Retried,
    Revived,
    Revoked,
    Sessioned,
    Submitted,
    Weighted,
)
from coordinator.scheduler.fairness import reprioritise, share_of
from coordinator.scheduler.jobs import (
    add_job,
    append_items,
    cancel_job,
    close_job,
    drop_job,
)
from coordinator.scheduler.needs import drain
from coordinator.scheduler.retry import retry
from coordinator.scheduler.sessions import begin_session
from coordinator.scheduler.snapshots import load_job
from coordinator.scheduler.state import (
    Attempt,
    Device,
    InvariantError,
    Stage,
    World,
)
from coordinator.scheduler.transitions import accept, adopt, assign, drop_lapsed, end, requeue
from sparegrid.ids import AttemptId, DeviceId, JobId, SessionId, StageIndex


def apply(world: World, fact: Fact) -> None:
    """Make the change that this fact tells of."""
    if isinstance(fact, Assigned | Accepted | Ended | Requeued):
        _apply_attempts(world, fact)
    elif isinstance(
        fact, Submitted | Appended | Closed | Cancelled | Retried | Revived | Finished | Removed | Prioritised
    ):
        _apply_job(world, fact)
    else:
        _apply_device(world, fact)
    drain(world)


def _apply_attempts(world: World, fact: Assigned | Accepted | Ended | Requeued) -> None:
    match fact:
        case Assigned():
            device, stage = _device(world, fact.device), _stage(world, fact.job, fact.stage)
            for first, index, count, number in fact.ranges:
                lapsed = device.lapsed.get(first)
                if lapsed is not None:
                    adopt(world, device, lapsed, fact.now_ms)
                else:
                    assign(world, device, stage, first, index, count, number, fact.now_ms)
        case Accepted():
            device, stage = _device(world, fact.device), _stage(world, fact.job, fact.stage)
            large: dict[int, list[str]] = {}
            for index, blob in fact.large:
                large.setdefault(index, []).append(blob)
            for index, attempt, wall_ms, files in fact.entries:
                accept(world, stage, index, attempt, device, wall_ms, files, large.get(index, ()))
                drain(world)
        case Ended():
            one = _attempt(world, fact.attempt)
            end(world, one, fact.blame, fact.reason, fact.checkpoint, fact.crash, fact.now_ms, fact.final)
        case Requeued():
            device = _device(world, fact.device)
            for name in fact.attempts:
                if name in world.attempts:
                    requeue(world, world.attempts[name], fact.reason, fact.crash, fact.now_ms)
                else:
                    drop_lapsed(world, device, device.lapsed[name], fact.crash, fact.now_ms)
        case _:
            assert_never(fact)


def _apply_job(
    world: World,
    fact: Submitted | Appended | Closed | Cancelled | Retried | Revived | Finished | Removed | Prioritised,
) -> None:
    match fact:
        case Submitted():
            add_job(world, fact.job, fact.spec, fact.submitter, fact.wall_ms, fact.now_ms)
        case Appended():
            append_items(world, _stage(world, fact.job, fact.stage), fact.items)
        case Closed():
            close_job(world, world.jobs[fact.job])
        case Cancelled():
            cancel_job(world, world.jobs[fact.job], fact.by)
        case Retried():
            retry(world, world.jobs[fact.job], fact.tasks)
        case Revived():
            load_job(world, fact.state)
        case Finished():
            drop_job(world, world.jobs[fact.job])
        case Removed():
            if fact.job in world.jobs:
                drop_job(world, world.jobs[fact.job])
        case Prioritised():
            reprioritise(world, world.jobs[fact.job], fact.priority)
        case _:
            assert_never(fact)


def _apply_device(world: World, fact: Joined | Changed | PauseAsked | Sessioned | Revoked | Weighted) -> None:
    match fact:
        case Joined():
            membership.add_device(world, fact.device, fact.name, fact.wall_ms)
        case Changed():
            membership.change_device(world, _device(world, fact.device), fact.name, fact.labels)
        case PauseAsked():
            device = _device(world, fact.device)
            membership.ask_pause(world, device, fact.verb, fact.until_wall_ms, fact.by)
        case Sessioned():
            begin_session(_device(world, fact.device), SessionId(fact.session))
        case Revoked():
            membership.remove_device(world, _device(world, fact.device))
        case Weighted():
            share_of(world, fact.submitter).weight = fact.weight
        case _:
            assert_never(fact)


def _device(world: World, device: DeviceId) -> Device:
    found = world.devices.get(device)
    if found is None:
        raise InvariantError(f"the journal names device {device}, which never joined")
    return found


def _stage(world: World, job: JobId, stage: StageIndex) -> Stage:
    found = world.jobs.get(job)
    if found is None:
        raise InvariantError(f"the journal names job {job}, which is not in memory")
    return found.stages[stage]


def _attempt(world: World, attempt: AttemptId) -> Attempt:
    found = world.attempts.get(attempt)
    if found is None:
        raise InvariantError(f"the journal ends attempt {attempt}, which does not live")
    return found
