"""What devices tell about attempts: started, suspended, progress, results, endings. Who is to blame pays.

Whatever a device says about an attempt that is not its own, or that nobody wants any more, changes nothing and is
acknowledged, so that it stops saying it.
"""

from __future__ import annotations

from coordinator.scheduler.batch import Batch
from coordinator.scheduler.effects import Keep
from coordinator.scheduler.events import (
    AttemptEnded,
    AttemptProgressed,
    AttemptsStarted,
    AttemptsSuspended,
    ResultDelivered,
)
from coordinator.scheduler.facts import Ended
from coordinator.scheduler.membership import heard
from coordinator.scheduler.needs import drain
from coordinator.scheduler.state import (
    ASSIGNED,
    DONE,
    STARTED,
    STOPPED,
    STOPPED_WANTED,
    TAKEN_BACK,
    Attempt,
    Bench,
    Device,
    Lapsed,
    Stage,
    World,
)
from coordinator.scheduler.transitions import accept, drop_lapsed, end, requeue, set_attempt_state
from sparegrid.globs import matching
from sparegrid.ids import AttemptId, DeviceId, TaskIndex
from sparegrid.messages import Blame, BlobRef, Outcome

_BLAMES = frozenset(str(blame) for blame in Blame)


def on_result_delivered(world: World, batch: Batch, event: ResultDelivered) -> None:
    """Accept the result when it is the first of an unfinished task from an attempt that was not revoked."""
    _hear(world, batch, event.device)
    batch.ack(event.device, event.attempt)
    attempt = world.attempts.get(event.attempt)
    found: Attempt | Lapsed
    if attempt is not None and attempt.device.id == event.device:
        found, device = attempt, attempt.device
        if attempt.revoked:
            _finish_revoked(world, batch, attempt)
            return
    else:
        lapsed, silent = _lapsed(world, event.device, event.attempt)
        if lapsed is None or silent is None or lapsed.stage.states[lapsed.index] >= DONE:
            return
        found, device = lapsed, silent
    stage, index = found.stage, found.index
    if index != event.index or stage.index != event.stage or stage.job.id != event.job:
        return
    outcome = event.outcome
    files = len(matching(outcome.files, stage.feed_glob)) if stage.feeds else 0
    large = _large(world, stage, outcome) if outcome.files and (stage.dependents or stage.feeds) else []
    wall_ms = max(0, outcome.usage.wall_ms)
    accept(world, stage, index, event.attempt, device, wall_ms, files, large)
    if world.ripples:
        drain(world)
    batch.accepted(stage, device, (index, event.attempt, wall_ms, files), large)
    batch.records.append(
        Keep(stage.job.id, stage.index, index, event.attempt, device.id, True, "", "", outcome)
    )
    if device.benches:
        device.benches.pop(stage, None)
    world.marks.hungry[device] = None


def on_attempt_ended(world: World, batch: Batch, event: AttemptEnded) -> None:
    """An attempt ended without a result: requeue, exclude, or spend a retry."""
    _hear(world, batch, event.device)
    batch.ack(event.device, event.attempt)
    attempt = world.attempts.get(event.attempt)
    if attempt is None or attempt.device.id != event.device:
        lapsed, silent = _lapsed(world, event.device, event.attempt)
        if lapsed is not None and silent is not None:
            # Its task was put back when the device went silent; now it is certain that no result comes.
            drop_lapsed(world, silent, lapsed, False, world.now_ms)
            batch.requeued(silent, [event.attempt], STOPPED_WANTED)
        return
    stage, index, device = attempt.stage, attempt.index, attempt.device
    if attempt.revoked:
        _finish_revoked(world, batch, attempt)
        return
    if event.unstarted:
        requeue(world, attempt, TAKEN_BACK, False, world.now_ms)
        drain(world)
        batch.requeued(device, [event.attempt], TAKEN_BACK)
        return
    blame = event.blame if event.blame in _BLAMES else Blame.GRID
    final = blame == Blame.DEVICE and _is_last_resort(world, stage, index, device)
    reason = f"{event.reason} (and no other device that suits is left)" if final else event.reason
    batch.record(
        Ended(
            stage.job.id, stage.index, index, event.attempt, device.id, blame, reason, world.now_ms,
            event.checkpoint, False, final,
        )
    )  # fmt: skip
    batch.records.append(
        Keep(
            stage.job.id, stage.index, index, event.attempt, device.id, False, blame, reason, event.outcome
        )
    )  # fmt: skip
    end(world, attempt, blame, reason, event.checkpoint, False, world.now_ms, final)
    drain(world)
    if blame in {Blame.DEVICE, Blame.GRID}:
        _strike(world, device, stage, event.reason)


def _is_last_resort(world: World, stage: Stage, index: TaskIndex, device: Device) -> bool:
    """Whether the task could run nowhere else: waiting would be for ever, so it fails and says why.

    A device that is away may still be the right one: what it offered last counts, and one that has not been heard
    since the coordinator started may offer anything.
    """
    if len(stage.attempts_of(index)) > 1:
        return False
    for other in world.devices.values():
        if other is device or index in stage.excluded_on.get(other.id, {}):
            continue
        if not other.capability.os or stage.cls.suits(other):
            return False
    return True


def on_attempts_started(world: World, batch: Batch, event: AttemptsStarted) -> None:
    """These run now."""
    _hear(world, batch, event.device)
    _set_states(world, event.device, event.attempts, STARTED)


def on_attempts_suspended(world: World, batch: Batch, event: AttemptsSuspended) -> None:
    """These are stopped but kept, or run again."""
    _hear(world, batch, event.device)
    _set_states(world, event.device, event.attempts, STOPPED if event.on else STARTED)


def on_attempt_progressed(world: World, batch: Batch, event: AttemptProgressed) -> None:
    """How far it is."""
    _hear(world, batch, event.device)
    attempt = world.attempts.get(event.attempt)
    if attempt is None or attempt.device.id != event.device:
        return
    if attempt.state == ASSIGNED:
        set_attempt_state(world, attempt, STARTED, world.now_ms)
    attempt.permille = max(0, min(1000, event.permille))
    attempt.note = event.note
    world.marks.task(attempt.stage, attempt.index, attempt.index + 1)


def _hear(world: World, batch: Batch, device_id: DeviceId) -> None:
    device = world.devices.get(device_id)
    if device is not None and (device.silent or device.last_seen_ms != world.now_ms):
        heard(world, batch, device)


def _set_states(world: World, device: DeviceId, attempts: list[AttemptId], state: int) -> None:
    for one in attempts:
        attempt = world.attempts.get(one)
        if attempt is not None and attempt.device.id == device and attempt.state != state:
            set_attempt_state(world, attempt, state, world.now_ms)


def _lapsed(world: World, device_id: DeviceId, attempt: AttemptId) -> tuple[Lapsed | None, Device | None]:
    device = world.devices.get(device_id)
    return (None, None) if device is None else (device.lapsed.get(attempt), device)


def _finish_revoked(world: World, batch: Batch, attempt: Attempt) -> None:
    """It has ended, one way or the other: its place is free."""
    device = attempt.device
    requeue(world, attempt, STOPPED_WANTED, False, world.now_ms)
    batch.requeued(device, [attempt.id], STOPPED_WANTED)


def _large(world: World, stage: Stage, outcome: Outcome) -> list[str]:
    """Large outputs in the order in which items are made of them."""
    least = world.limits.large_bytes
    files = matching(outcome.files, stage.feed_glob or "**")
    return [
        one.content.hash for one in files if isinstance(one.content, BlobRef) and one.content.size >= least
    ]


def _strike(world: World, device: Device, stage: Stage, reason: str) -> None:
    """A device that cannot run a stage's tasks would otherwise try and fail all of them."""
    bench = device.benches.setdefault(stage, Bench())
    if bench.until_ms > world.now_ms:
        # It was assigned before the device sat down.
        return
    bench.strikes += 1
    bench.reason = reason
    over = bench.strikes - world.limits.bench_after
    if over >= 0:
        bench.until_ms = world.now_ms + min(world.limits.max_bench_ms, world.limits.bench_ms << min(over, 16))
        world.wake_at(bench.until_ms)
