"""Snapshots and retired jobs: everything durable, written and read.

Format of a snapshot: MessagePack of `SnapshotV1`. States of tasks are compressed bytes; what is running is written as
queued, because only its device can tell after a restart. Loading never decides.
"""

from __future__ import annotations

import re
import zlib
from array import array
from typing import Any

import msgspec
from msgspec import Struct

from coordinator.scheduler.fairness import list_stage, share_of
from coordinator.scheduler.jobs import (
    build_job,
    recount,
)
from coordinator.scheduler.needs import want
from coordinator.scheduler.requirements import book
from coordinator.scheduler.state import (
    DONE,
    QUEUED,
    RUNNING,
    SUSPENDED,
    Attempt,
    Device,
    Job,
    Lapsed,
    Past,
    Stage,
    World,
)
from sparegrid.api import JobSpec
from sparegrid.errors import StorageError
from sparegrid.ids import AttemptId, DeviceId, JobId, PrincipalId, SessionId, StageIndex, TaskIndex
from sparegrid.messages import Payload

SNAPSHOT_VERSION = 1
_TO_QUEUED = bytes(QUEUED if one in {RUNNING, SUSPENDED} else one for one in range(256))
_QUEUED_RUNS = re.compile(bytes((QUEUED,)) + b"+")


class StageState(Struct, array_like=True):
    """The durable part of a stage."""

    states: bytes
    items: tuple[int, bytes, bytes]
    final: bool
    complete: bool
    broken: str
    tries: dict[int, int]
    failures: dict[int, int]
    crashes: dict[int, list[DeviceId]]
    excluded_on: dict[DeviceId, dict[int, str]]
    checkpoints: dict[int, Payload]
    story: dict[int, list[Past]]
    ended_stories: int
    file_counts: dict[int, int]
    starts: bytes
    large: dict[int, list[str]]
    task_hashes: dict[int, list[str]]
    template_hashes: list[str]
    wall_sum: int
    timed: int


class JobStateV1(Struct, array_like=True):
    """The durable part of a job; also what a retired job is revived from."""

    job: JobId
    spec: JobSpec
    submitter: PrincipalId
    submitted_ms: int
    wall_ms: int
    priority: int
    open: bool
    cancelled_by: PrincipalId | None
    devices: list[DeviceId]
    stages: list[StageState]


class DeviceStateV1(Struct, array_like=True):
    """The durable part of a device. Lapsed: (attempt, job, stage, index, number, assigned_ms, begun)."""

    device: DeviceId
    seq: int
    name: str
    joined_wall_ms: int
    labels: dict[str, str]
    session: SessionId
    asked: str
    asked_until_wall_ms: int
    asked_by: PrincipalId
    done: int
    failed: int
    lapsed: list[tuple[AttemptId, JobId, StageIndex, TaskIndex, int, int, bool]]


class SnapshotV1(Struct, array_like=True):
    """Everything durable. Attempts: (attempt, job, stage, index, device, number, assigned_ms, revoked)."""

    version: int
    next_job: int
    next_attempt: int
    next_device: int
    jobs: list[JobStateV1]
    devices: list[DeviceStateV1]
    attempts: list[tuple[AttemptId, JobId, StageIndex, TaskIndex, DeviceId, int, int, bool]]
    weights: dict[PrincipalId, int]


_encode = msgspec.msgpack.Encoder().encode
_decode_job = msgspec.msgpack.Decoder(JobStateV1).decode
_decode_snapshot = msgspec.msgpack.Decoder(SnapshotV1).decode


def snapshot(world: World) -> bytes:
    """Everything durable."""
    return _encode(
        SnapshotV1(
            SNAPSHOT_VERSION,
            world.next_job,
            world.next_attempt,
            world.next_device,
            [_job_state(job) for job in world.jobs.values()],
            [_device_state(device) for device in world.devices.values()],
            [
                (one.id, one.stage.job.id, one.stage.index, one.index, one.device.id, one.number, one.assigned_ms,
                 one.revoked)
                for one in sorted(world.attempts.values(), key=lambda one: one.id)
            ],
            {share.name: share.weight for share in world.shares.values() if share.weight != 1000},
        )
    )  # fmt: skip


def load(world: World, data: bytes) -> None:
    """Take over a snapshot into an empty world.

    Raises:
        StorageError: it is damaged or of a newer version.
    """
    try:
        version = msgspec.msgpack.decode(data)[0]
        if version != SNAPSHOT_VERSION:
            raise StorageError(
                "A snapshot of another version",
                f"this version reads snapshots of version {SNAPSHOT_VERSION}, not {version}",
                "Start the version of Sparegrid that wrote it, or a newer one",
            )
        shot = _decode_snapshot(data)
    except (msgspec.DecodeError, TypeError, IndexError) as error:
        raise StorageError(
            "A damaged snapshot", f"the scheduler's snapshot cannot be read: {error}"
        ) from error
    for name, weight in shot.weights.items():
        share_of(world, name).weight = weight
    for one in shot.devices:
        _load_device(world, one)
    for job in shot.jobs:
        _load_job(world, job)
    for attempt in shot.attempts:
        _load_attempt(world, *attempt)
    for one in shot.devices:
        _load_lapsed(world, one)
    for stage in [stage for job in world.jobs.values() for stage in job.stages]:
        _requeue_unassigned(world, stage)
    world.next_job, world.next_attempt = shot.next_job, shot.next_attempt
    world.next_device = shot.next_device


def save_job(job: Job) -> bytes:
    """A job that leaves memory, for `load_job`."""
    return _encode(_job_state(job))


def load_job(world: World, data: bytes) -> Job:
    """A job as `save_job` wrote it, back in memory."""
    try:
        state = _decode_job(data)
    except msgspec.DecodeError as error:
        raise StorageError("A damaged job", f"a retired job cannot be read: {error}") from error
    job = _load_job(world, state)
    for stage in job.stages:
        _requeue_unassigned(world, stage)
    return job


def full_spec(job: Job) -> JobSpec:
    """The spec with its values, also those that were appended since."""
    stages = []
    for stage in job.stages:
        spec = stage.spec
        if spec.items.values is not None:
            spec = msgspec.structs.replace(
                spec, items=msgspec.structs.replace(spec.items, values=stage.items.values())
            )
        stages.append(spec)
    return msgspec.structs.replace(job.spec, stages=stages)


def _job_state(job: Job) -> JobStateV1:
    return JobStateV1(
        job.id, job.spec, job.submitter, job.submitted_ms, job.submitted_wall_ms, job.priority, job.open,
        job.cancelled_by, list(job.devices), [_stage_state(stage) for stage in job.stages],
    )  # fmt: skip


def _stage_state(stage: Stage) -> StageState:
    return StageState(
        states=zlib.compress(stage.states.translate(_TO_QUEUED), 1),
        items=stage.items.dump(),
        final=stage.final,
        complete=stage.complete,
        broken=stage.broken,
        tries=_ordered(stage.tries),
        failures=_ordered(stage.failures),
        crashes=_ordered(stage.crashes),
        excluded_on=_ordered(stage.excluded_on),
        checkpoints=_ordered(stage.checkpoints),
        story=_ordered(stage.story),
        ended_stories=stage.ended_stories,
        file_counts=_ordered(stage.file_counts),
        starts=stage.starts.tobytes(),
        large=_ordered(stage.large),
        task_hashes=_ordered(stage.task_hashes),
        template_hashes=sorted(stage.template_hashes),
        wall_sum=stage.wall_sum,
        timed=stage.timed,
    )


def _ordered(mapping: dict[Any, Any]) -> dict[Any, Any]:
    """By key: results of different tasks commute, so the order in which they came must not show."""
    return dict(sorted(mapping.items()))


def _device_state(device: Device) -> DeviceStateV1:
    lapsed = sorted(device.lapsed.values(), key=lambda one: one.id)
    return DeviceStateV1(
        device.id, device.seq, device.name, device.joined_wall_ms, device.labels, device.session, device.asked,
        device.asked_until_wall_ms, device.asked_by, device.done, device.failed,
        [(one.id, one.stage.job.id, one.stage.index, one.index, one.number, one.assigned_ms, False) for one in lapsed],
    )  # fmt: skip


def _load_device(world: World, state: DeviceStateV1) -> None:
    world.devices[state.device] = Device(
        state.device, state.seq, state.name, state.joined_wall_ms, state.labels, state.session, state.asked,
        state.asked_until_wall_ms, state.asked_by, state.done, state.failed,
    )  # fmt: skip
    world.names[state.name] = state.device


def _load_job(world: World, state: JobStateV1) -> Job:
    job = build_job(world, state.job, state.spec, state.submitter, state.wall_ms, state.submitted_ms)
    job.priority, job.open, job.cancelled_by = state.priority, state.open, state.cancelled_by
    job.devices = dict.fromkeys(state.devices)
    for stage, saved in zip(job.stages, state.stages, strict=True):
        _load_stage(stage, saved)
        job.unfinished += stage.unfinished
    for stage in job.stages:
        for link in stage.needs:
            if link.need.map == "groups" and not link.up.complete:
                for index in range(link.up.total):
                    if link.up.states[index] == DONE:
                        group = index // link.need.size
                        link.done_of_group[group] = link.done_of_group.get(group, 0) + 1
    return job


def _load_stage(stage: Stage, saved: StageState) -> None:
    stage.states = bytearray(zlib.decompress(saved.states))
    stage.queue.grow(stage.total)
    recount(stage)
    if stage.spec.items.axes is not None:
        stage.items = type(stage.items)(0, stage.spec.items.axes)
    stage.items.load(saved.items)
    stage.final, stage.complete, stage.broken = saved.final, saved.complete, saved.broken
    stage.tries, stage.failures, stage.crashes = saved.tries, saved.failures, saved.crashes
    stage.excluded_on, stage.checkpoints = saved.excluded_on, saved.checkpoints
    stage.story, stage.ended_stories = saved.story, saved.ended_stories
    stage.file_counts, stage.large = saved.file_counts, saved.large
    stage.starts = array("Q")
    stage.starts.frombytes(saved.starts)
    for index, hashes in saved.task_hashes.items():
        for blob in hashes:
            want(stage, index, blob)
    stage.template_hashes = saved.template_hashes
    stage.wall_sum, stage.timed = saved.wall_sum, saved.timed


def _load_attempt(
    world: World,
    attempt_id: AttemptId,
    job: JobId,
    number: StageIndex,
    index: TaskIndex,
    device_id: DeviceId,
    count: int,
    assigned_ms: int,
    revoked: bool,
) -> None:
    stage, device = world.jobs[job].stages[number], world.devices[device_id]
    attempt = Attempt(attempt_id, stage, index, device, count, assigned_ms, revoked=revoked)
    world.attempts[attempt_id] = attempt
    device.live[attempt_id] = attempt
    if stage.cls.grid_counts:
        book(world, device, attempt)
    else:
        device.ahead.append(attempt)
        device.ahead_count += 1
    if revoked:
        stage.job.ending += 1
    elif index in stage.live:
        stage.copies.setdefault(index, []).append(attempt)
    else:
        stage.live[index] = attempt


def _load_lapsed(world: World, state: DeviceStateV1) -> None:
    device = world.devices[state.device]
    for attempt, job, stage, index, number, assigned_ms, begun in state.lapsed:
        device.lapsed[attempt] = Lapsed(
            attempt, world.jobs[job].stages[stage], index, number, assigned_ms, begun
        )


def _requeue_unassigned(world: World, stage: Stage) -> None:
    """Queued tasks without a live attempt wait for a device."""
    for run in [found.span() for found in _QUEUED_RUNS.finditer(stage.states)]:
        stage.queue.add(*run)
    for index in stage.live:
        stage.queue.discard(index, index + 1)
    if stage.queue.count:
        list_stage(world, stage)
