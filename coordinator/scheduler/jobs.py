"""What facts do to whole jobs: taking them in, appending, closing, cancelling, ending. No decisions, no effects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from coordinator.scheduler.fairness import share_of, unlist_stage
from coordinator.scheduler.items import ItemList, large_hashes
from coordinator.scheduler.needs import add_tasks, finish_growing, want
from coordinator.scheduler.requirements import class_for, drop_stage
from coordinator.scheduler.state import (
    CANCELLED,
    DONE,
    FAILED,
    LOST,
    QUEUED,
    RUNNING,
    STATE_COUNT,
    SUSPENDED,
    WAITING,
    Job,
    NeedLink,
    Stage,
    World,
)
from coordinator.scheduler.transitions import revoke
from sparegrid.api import JobSpec, StageSpec
from sparegrid.errors import BadInputError, TooLargeError
from sparegrid.ids import JobId, PrincipalId, StageIndex
from sparegrid.messages import BlobRef
from sparegrid.states import JobState

_TO_CANCELLED = bytes(
    CANCELLED if one in {WAITING, QUEUED, RUNNING, SUSPENDED} else one for one in range(256)
)


def add_job(
    world: World, job_id: JobId, spec: JobSpec, submitter: PrincipalId, wall_ms: int, now_ms: int
) -> Job:
    """Take a checked job in (see `check_spec`)."""
    job = build_job(world, job_id, spec, submitter, wall_ms, now_ms)
    for stage in job.order:
        items = spec.stages[stage.index].items
        stage.items = ItemList.of(items)
        for index, value in enumerate(items.values or ()):
            for blob in large_hashes(value, world.limits.large_bytes):
                want(stage, index, blob)
        add_tasks(world, stage, len(stage.items))
    if not job.open:
        settle_job(world, job)
    return job


def build_job(
    world: World, job_id: JobId, spec: JobSpec, submitter: PrincipalId, wall_ms: int, now_ms: int
) -> Job:
    """The job with its stages linked, and no tasks yet."""
    share = share_of(world, submitter)
    share.jobs += 1
    job = Job(job_id, spec, submitter, share, now_ms, wall_ms, spec.priority, spec.open)
    world.jobs[job_id] = job
    world.next_job = max(world.next_job, job_id + 1)
    for at, one in enumerate(spec.stages):
        light = one
        if one.items.values:
            light = msgspec.structs.replace(one, items=msgspec.structs.replace(one.items, values=[]))
        cls = class_for(world, one)
        stage = Stage(job, StageIndex(at), light, cls, ItemList())
        cls.stages[stage] = None
        least = world.limits.large_bytes
        stage.template_hashes = [
            entry.content.hash
            for entry in one.inputs
            if isinstance(entry.content, BlobRef) and entry.content.size >= least
        ]
        job.stages.append(stage)
    job.spec = msgspec.structs.replace(spec, stages=[stage.spec for stage in job.stages])
    by_name = {stage.spec.name: stage for stage in job.stages}
    for stage in job.stages:
        for need in stage.spec.needs:
            link = NeedLink(need, by_name[need.stage], stage)
            stage.needs.append(link)
            link.up.dependents.append(link)
        made_of = stage.spec.items.stage
        if made_of is not None:
            stage.source = by_name[made_of.stage]
            stage.source.feeds.append(stage)
            stage.source.feed_glob = made_of.files
    job.order = [job.stages[at] for at in stage_order(spec.stages)]
    world.marks.jobs[job] = None
    return job


def append_items(world: World, stage: Stage, values: list[Any]) -> None:
    """More items of an open job."""
    low = stage.total
    stage.items.extend(values)
    for at, value in enumerate(values):
        for blob in large_hashes(value, world.limits.large_bytes):
            want(stage, low + at, blob)
    add_tasks(world, stage, len(values))
    if not values:
        world.marks.jobs[stage.job] = None


def close_job(world: World, job: Job) -> None:
    """It takes no more items."""
    job.open = False
    world.marks.jobs[job] = None
    settle_job(world, job)


def settle_job(world: World, job: Job) -> None:
    """The number of tasks is final wherever items do not come from another stage."""
    for stage in job.order:
        if stage.source is None:
            finish_growing(world, stage)


def cancel_job(world: World, job: Job, by: PrincipalId) -> None:
    """Every unfinished task is cancelled at once; what runs is revoked."""
    job.cancelled_by = by
    for stage in job.order:
        unlist_stage(stage)
        stage.queue.clear()
        for attempt in [one for index in stage.live for one in stage.attempts_of(index)]:
            revoke(world, attempt, f"cancelled by {by}")
        if stage.unfinished:
            world.marks.task(stage, 0, stage.total)
            stage.states = stage.states.translate(_TO_CANCELLED)
        recount(stage)
    job.unfinished = 0
    close_job(world, job)
    # Stages that wait for the files of others learn that these will not come.
    world.ripples.extend((stage, 0, 0) for stage in job.order)


def recount(stage: Stage) -> None:
    """Make the counts follow from the states."""
    stage.counts = [stage.states.count(state) for state in range(STATE_COUNT)]
    stage.unfinished = sum(stage.counts[:DONE])


def drop_job(world: World, job: Job) -> None:
    """It leaves memory. Nothing of it may live any more."""
    for stage in job.stages:
        unlist_stage(stage)
        drop_stage(world, stage)
    for name in job.devices:
        device = world.devices.get(name)
        if device is not None:
            for lapsed in [one for one in device.lapsed.values() if one.stage.job is job]:
                del device.lapsed[lapsed.id]
            for stage in job.stages:
                device.benches.pop(stage, None)
    job.share.jobs -= 1
    world.held.pop(job, None)
    del world.jobs[job.id]
    world.marks.jobs.pop(job, None)
    for stage in job.stages:
        world.marks.tasks.pop(stage, None)


def job_state(job: Job) -> JobState:
    """Follows from its tasks."""
    if job.unfinished:
        return JobState.ACTIVE
    if job.open:
        return JobState.OPEN
    if job.cancelled_by is not None:
        return JobState.CANCELLED
    if any(stage.counts[FAILED] or stage.counts[LOST] or stage.broken for stage in job.stages):
        return JobState.FAILED
    return JobState.CANCELLED if any(stage.counts[CANCELLED] for stage in job.stages) else JobState.DONE


def job_over(job: Job) -> bool:
    """Whether nothing of it is unfinished, can still come, or lives on a device."""
    return not job.open and not job.unfinished and not job.ending


def check_spec(world: World, spec: JobSpec) -> None:
    """Refuse what could never run.

    Raises:
        BadInputError: stages do not fit together; the message names them.
        TooLargeError: too many tasks.
    """
    names = [stage.name for stage in spec.stages]
    if not names:
        raise BadInputError("No stage", f"job {spec.name} has no stage", "Give it at least one")
    for at, name in enumerate(names):
        if name in names[:at]:
            raise BadInputError("Two stages of one name", f"stage {name} is given twice", "Names must differ")
    stage_order(spec.stages)
    totals = {
        stage.name: None if stage.items.stage else len(ItemList.of(stage.items)) for stage in spec.stages
    }
    check_total(world, spec.name, sum(total or 0 for total in totals.values()))
    for stage in spec.stages:
        for need in stage.needs:
            own, theirs = totals[stage.name], totals[need.stage]
            if own is None or theirs is None or spec.open or need.map == "all":
                continue
            fitting = theirs if need.map == "same" else -(-theirs // need.size)
            if own > fitting:
                mapping = "`same`" if need.map == "same" else f"`groups` of {need.size}"
                raise BadInputError(
                    "Needs do not fit",
                    f"stage {stage.name} has {own} tasks, but {mapping} of the {theirs} tasks of stage {need.stage} "
                    f"gives only {fitting}",
                )
    _check_feeds(spec.stages)


def check_total(world: World, name: str, total: int) -> None:
    """Raise TooLargeError when a job would have too many tasks."""
    limit = world.limits.max_tasks_per_job
    if total > limit:
        raise TooLargeError("Too many tasks", f"job {name} has {total} tasks; at most {limit} are allowed")


def stage_order(stages: list[StageSpec]) -> list[int]:
    """Stages by number, each after those that it needs; in the order given otherwise.

    Raises:
        BadInputError: an unknown stage, or stages that wait for each other.
    """
    numbers = {stage.name: at for at, stage in enumerate(stages)}
    waits: list[list[int]] = []
    for stage in stages:
        wanted = [need.stage for need in stage.needs] + (
            [stage.items.stage.stage] if stage.items.stage else []
        )
        for name in wanted:
            if name not in numbers:
                raise BadInputError(
                    "Unknown stage", f"stage {stage.name} needs stage {name}, which does not exist"
                )
        waits.append([numbers[name] for name in wanted])
    order: list[int] = []
    placed = [False] * len(stages)
    left = list(range(len(stages)))
    while left:
        ready = [at for at in left if all(placed[up] for up in waits[at])]
        if not ready:
            raise BadInputError("A cycle in needs", " → ".join(_cycle(stages, waits, left[0], placed)))
        for at in ready:
            placed[at] = True
        order += ready
        left = [at for at in left if not placed[at]]
    return order


def _cycle(stages: list[StageSpec], waits: list[list[int]], start: int, placed: list[bool]) -> Iterable[str]:
    """Names of stages that wait for each other, the first again at the end."""
    path = [start]
    while True:
        following = next(up for up in waits[path[-1]] if not placed[up])
        if following in path:
            return [stages[at].name for at in [*path[path.index(following) :], following]]
        path.append(following)


def _check_feeds(stages: list[StageSpec]) -> None:
    globs: dict[str, str] = {}
    for stage in stages:
        made_of = stage.items.stage
        if made_of is None:
            continue
        if not made_of.files:
            raise BadInputError(
                "No files to make items of", f"stage {stage.name}: items.stage.files is empty"
            )
        known = globs.setdefault(made_of.stage, made_of.files)
        if known != made_of.files:
            raise BadInputError(
                "Two globs for one stage",
                f"items are made of the files {known!r} and {made_of.files!r} of stage {made_of.stage}; "
                "only one glob is possible",
            )
