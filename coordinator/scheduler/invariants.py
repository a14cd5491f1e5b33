"""What must hold between any two batches. Slow: for tests and simulations."""

from __future__ import annotations

from coordinator.scheduler.state import (
    ASSIGNED,
    DONE,
    QUEUED,
    STARTED,
    STATE_COUNT,
    WAITING,
    Device,
    InvariantError,
    Job,
    Stage,
    World,
)
from coordinator.scheduler.story import tell_task


def check(world: World) -> None:
    """Raise InvariantError at the first contradiction, with its story."""
    _that(not world.ripples, "reactions were left undone")
    for attempt_id, attempt in world.attempts.items():
        _that(attempt.id == attempt_id < world.next_attempt, f"attempt {attempt_id} has a wrong number")
        _that(
            attempt.device.live.get(attempt_id) is attempt,
            f"attempt {attempt_id} is unknown on {attempt.device.name}",
        )
        _that(world.jobs.get(attempt.stage.job.id) is attempt.stage.job, f"attempt {attempt_id} has no job")
        wanted = attempt in attempt.stage.attempts_of(attempt.index)
        _that(
            wanted != attempt.revoked,
            f"attempt {attempt_id} revoked and wanted: {_tell(attempt.stage, attempt.index)}",
        )
    for device in world.devices.values():
        _check_device(world, device)
    for job in world.jobs.values():
        _check_job(world, job)
        for stage in job.stages:
            _check_stage(world, stage)
    booked = dict.fromkeys(world.limits.counts, 0)
    for attempt in world.attempts.values():
        for name, n in attempt.stage.cls.grid_counts.items():
            booked[name] += n if attempt.booked else 0
    _that(
        all(world.grid_used.get(name, 0) == n for name, n in booked.items()),
        f"grid-wide counts: {world.grid_used} noted, {booked} booked",
    )
    _that(
        world.attached == sum(1 for one in world.devices.values() if one.attached),
        "the count of devices is wrong",
    )


def _check_device(world: World, device: Device) -> None:
    name = f"device {device.name}"
    _that(world.names.get(device.name) == device.id, f"{name} is not known by its name")
    for attempt_id, attempt in device.live.items():
        _that(world.attempts.get(attempt_id) is attempt, f"{name} holds the unknown attempt {attempt_id}")
    _that(not (device.attached and device.silent), f"{name} is attached and silent")
    ahead = sum(1 for attempt in device.live.values() if not attempt.booked)
    _that(ahead == device.ahead_count, f"{name} has {ahead} ahead, not {device.ahead_count}")
    running = sum(1 for attempt in device.live.values() if attempt.state == STARTED)
    _that(running == device.running, f"{name} runs {running}, not {device.running}")
    used = sum(attempt.stage.cls.milli for attempt in device.live.values() if attempt.booked)
    lent = max(0, device.capability.slots) * 1000
    if device.last_seen_ms and device.capability.kinds:
        _that(
            device.free_milli == lent - used, f"{name} has {device.free_milli} free of {lent}, {used} booked"
        )
    for attempt in device.live.values():
        started = attempt.state != ASSIGNED
        _that(attempt.booked or not started, f"{name} runs attempt {attempt.id} without booking")
    for cls, entry in device.pooled.items():
        _that(any(one is entry for one in cls.pool), f"{name} is not in a pool that it noted")
        _that(device.accepting and cls in device.classes, f"{name} is in a pool, but takes no such work")
    for blob in device.held:
        _that(device in world.holders.get(blob, {}), f"{name} holds {blob} unnoticed")
    for lapsed in device.lapsed.values():
        _that(lapsed.id not in world.attempts, f"attempt {lapsed.id} lives and lapsed")
        _that(lapsed.stage.job.id in world.jobs, f"lapsed attempt {lapsed.id} has no job")


def _check_job(world: World, job: Job) -> None:
    name = f"job {job.id}"
    unfinished = sum(stage.unfinished for stage in job.stages)
    _that(job.unfinished == unfinished, f"{name} has {unfinished} unfinished tasks, not {job.unfinished}")
    ending = sum(1 for attempt in world.attempts.values() if attempt.revoked and attempt.stage.job is job)
    _that(job.ending == ending, f"{name} has {ending} ending attempts, not {job.ending}")
    if not job.open and not job.unfinished:
        for stage in job.stages:
            _that(stage.final or bool(stage.broken), f"{name} is over, but stage {stage.spec.name} may grow")


def _check_stage(world: World, stage: Stage) -> None:
    name = f"stage {stage.job.id}.{stage.index}"
    counts = [stage.states.count(state) for state in range(STATE_COUNT)]
    _that(counts == stage.counts, f"{name}: counts are {counts}, not {stage.counts}")
    _that(stage.unfinished == sum(counts[:DONE]), f"{name}: {stage.unfinished} unfinished")
    _that(stage.total == len(stage.items), f"{name}: {stage.total} tasks, {len(stage.items)} items")
    for index in stage.live:
        _that(WAITING < stage.states[index] < DONE, f"a live attempt of an ended task: {_tell(stage, index)}")
        _that(index not in stage.queue, f"live and queued: {_tell(stage, index)}")
        devices = [attempt.device.id for attempt in stage.attempts_of(index)]
        _that(len(devices) == len(frozenset(devices)), f"two attempts on one device: {_tell(stage, index)}")
    _that(all(index in stage.live for index in stage.copies), f"{name}: copies without an original")
    _that(
        stage.queue.count + sum(1 for _ in stage.live) == sum(counts[QUEUED:DONE]),
        f"{name}: {stage.queue.count} queued and {len(stage.live)} live, but {counts[QUEUED:DONE]}",
    )
    _that((stage.line_key is not None) == (stage.queue.count > 0), f"{name}: not in line as it should be")
    if stage.complete:
        _that(stage.final and counts[DONE] == stage.total, f"{name}: complete, but {counts}")
    for index in range(stage.total) if stage.total <= 2000 else ():
        state = stage.states[index]
        ready = all(_need_met(stage, at, index) for at in range(len(stage.needs)))
        if WAITING < state <= DONE:
            _that(ready, f"its needs are not met: {_tell(stage, index)}")
        elif state == WAITING:
            _that(not ready, f"nothing to wait for: {_tell(stage, index)}")
        if state == QUEUED and index not in stage.live:
            _that(index in stage.queue, f"queued nowhere: {_tell(stage, index)}")


def _need_met(stage: Stage, at: int, index: int) -> bool:
    link = stage.needs[at]
    up = link.up
    if link.need.map == "all":
        return up.complete
    size = 1 if link.need.map == "same" else link.need.size
    low, high = index * size, min(index * size + size, up.total)
    whole = high - low == size or (up.final and high > low)
    return whole and up.states.count(DONE, low, high) == high - low


def _tell(stage: Stage, index: int) -> str:
    return tell_task(stage, index)


def _that(holds: bool, otherwise: str) -> None:
    if not holds:
        raise InvariantError(otherwise)
