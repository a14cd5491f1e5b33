"""What facts do to attempts and their tasks. Used both when an event is handled and when a fact is applied.

Each function is one fact's worth of change, checks that it is possible, and marks what changed; none decides whether
it should happen and none makes effects. Call `needs.drain` when a fact's changes are complete.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.scheduler.fairness import charge, correct, list_stage
from coordinator.scheduler.needs import after_bad, after_done, set_state, unlist_if_empty, want
from coordinator.scheduler.requirements import book, fits, unbook
from coordinator.scheduler.state import (
    ASSIGNED,
    DONE,
    FAILED,
    LOST,
    QUEUED,
    RUNNING,
    SPOOLED,
    STARTED,
    STOPPED,
    SUSPENDED,
    TAKEN_BACK,
    WAITING,
    WELCOME_LATER,
    Attempt,
    Device,
    InvariantError,
    Lapsed,
    Past,
    Stage,
    World,
)
from coordinator.scheduler.story import tell_task
from sparegrid.ids import AttemptId, TaskIndex
from sparegrid.messages import Blame, Payload


def assign(
    world: World,
    device: Device,
    stage: Stage,
    first: AttemptId,
    index: TaskIndex,
    count: int,
    number: int,
    now_ms: int,
) -> None:
    """Attempts `first` and on of tasks `index` and on are the device's; those that can start now are booked."""
    stage.queue.discard(index, index + count)
    unlist_if_empty(stage)
    world.next_attempt = max(world.next_attempt, first + count)
    stage.job.devices[device.id] = None
    cost = charge(world, stage, count)
    cls, live, states = stage.cls, stage.live, stage.states
    direct = not device.blocked and (not device.ahead_count or cls.simple)
    for k in range(count):
        at = TaskIndex(index + k)
        if not WAITING < states[at] < DONE:
            raise InvariantError(f"assigned to {device.name}, but {tell_task(stage, at)}")
        attempt = Attempt(AttemptId(first + k), stage, at, device, number, now_ms, cost=cost)
        world.attempts[attempt.id] = attempt
        device.live[attempt.id] = attempt
        if at in live:
            stage.copies.setdefault(at, []).append(attempt)
        else:
            live[at] = attempt
        # Grid-wide counts are taken from the moment of assignment, also while the device's own resources are unknown.
        if cls.grid_counts or (direct and fits(device, cls)):
            book(world, device, attempt)
        else:
            device.ahead.append(attempt)
            device.ahead_count += 1
            # A later task of the same run must not overtake this one.
            direct = False
    world.marks.task(stage, index, index + count)
    world.marks.devices[device] = None


def accept(
    world: World,
    stage: Stage,
    index: TaskIndex,
    attempt_id: AttemptId,
    device: Device,
    wall_ms: int,
    files: int,
    large: Sequence[str],
) -> None:
    """This attempt's result is the task's."""
    if stage.states[index] >= DONE:
        raise InvariantError(f"attempt {attempt_id} accepted, but {tell_task(stage, index)}")
    attempt = world.attempts.get(attempt_id)
    if attempt is not None:
        if attempt.revoked or attempt.stage is not stage or attempt.index != index:
            raise InvariantError(f"attempt {attempt_id} is not an open try of {tell_task(stage, index)}")
        correct(attempt, wall_ms)
        end_attempt(world, attempt)
    elif device.lapsed.pop(attempt_id, None) is None:
        raise InvariantError(
            f"attempt {attempt_id} was never given to {device.name}: {tell_task(stage, index)}"
        )
    if index in stage.queue:
        stage.queue.discard(index, index + 1)
        unlist_if_empty(stage)
    if index in stage.live:
        for other in stage.attempts_of(index):
            revoke(world, other, "another attempt was first")
    set_state(world, stage, index, DONE)
    device.done += 1
    stage.wall_sum += wall_ms
    stage.timed += 1
    if stage.story:
        stage.story.pop(index, None)
        if index in stage.tries:
            forget_trouble(stage, index)
    if files:
        stage.file_counts[index] = files
    if large:
        note_large(stage, index, large)
    if stage.dependents or stage.feeds or not stage.unfinished:
        after_done(world, stage, index)


def end(
    world: World,
    attempt: Attempt,
    blame: str,
    reason: str,
    checkpoint: Payload | None,
    crash: bool,
    now_ms: int,
    final: bool = False,
) -> None:
    """An attempt that was wanted ended without a result; `final` as in the fact `Ended`."""
    stage, index, device = attempt.stage, attempt.index, attempt.device
    if attempt.revoked:
        raise InvariantError(
            f"revoked attempt {attempt.id} ended as if it was wanted: {tell_task(stage, index)}"
        )
    end_attempt(world, attempt)
    remember(world, stage, index, _past(attempt, blame, reason, crash, now_ms))
    stage.tries[index] = stage.tries.get(index, 0) + 1
    if checkpoint is not None:
        stage.checkpoints[index] = checkpoint
    if blame == Blame.TASK:
        device.failed += 1
        failures = stage.failures[index] = stage.failures.get(index, 0) + 1
        if failures > stage.spec.retries:
            give_up(world, stage, index, FAILED)
            return
    elif blame == Blame.DEVICE:
        stage.excluded_on.setdefault(device.id, {})[index] = reason
        if final:
            device.failed += 1
            give_up(world, stage, index, FAILED)
            return
    if crash and note_crash(world, stage, index, device):
        return
    put_back(world, stage, index)


def requeue(world: World, attempt: Attempt, reason: str, crash: bool, now_ms: int) -> None:
    """An attempt ended at once, uncounted; when it was wanted, its task is put back."""
    stage, index, device = attempt.stage, attempt.index, attempt.device
    begun = attempt.booked or attempt.state != ASSIGNED
    end_attempt(world, attempt)
    if reason in WELCOME_LATER and not attempt.revoked:
        device.lapsed[attempt.id] = Lapsed(
            attempt.id, stage, index, attempt.number, attempt.assigned_ms, begun
        )
    if attempt.revoked:
        return
    remember(world, stage, index, _past(attempt, "grid", reason, crash, now_ms))
    if reason != TAKEN_BACK:
        stage.tries[index] = stage.tries.get(index, 0) + 1
    if crash and note_crash(world, stage, index, device):
        return
    put_back(world, stage, index)


def drop_lapsed(world: World, device: Device, lapsed: Lapsed, crash: bool, now_ms: int) -> None:
    """It is certain now that no result will come of it; `crash` when its device's agent crashed under it."""
    del device.lapsed[lapsed.id]
    stage, index = lapsed.stage, lapsed.index
    if crash and stage.states[index] < DONE:
        past = Past(
            lapsed.id,
            device.id,
            lapsed.number,
            "device",
            "the device crashed",
            lapsed.assigned_ms,
            now_ms,
            True,
        )
        remember(world, stage, index, past)
        note_crash(world, stage, index, device)


def adopt(world: World, device: Device, lapsed: Lapsed, now_ms: int) -> None:
    """The device came back and still works on it: it goes on."""
    del device.lapsed[lapsed.id]
    assign(world, device, lapsed.stage, lapsed.id, lapsed.index, 1, lapsed.number, now_ms)


def revoke(world: World, attempt: Attempt, reason: str) -> None:
    """It is not wanted any more; it holds its place until it has ended."""
    attempt.revoked = True
    attempt.stage.job.ending += 1
    _leave_task(attempt)
    world.marks.revoked.append((attempt, reason))


def end_attempt(world: World, attempt: Attempt) -> None:
    """Free its place."""
    device = attempt.device
    del world.attempts[attempt.id]
    del device.live[attempt.id]
    if attempt.booked:
        unbook(world, device, attempt)
    else:
        device.ahead_count -= 1
    if attempt.state == STARTED:
        device.running -= 1
    if attempt.revoked:
        attempt.stage.job.ending -= 1
        world.marks.jobs[attempt.stage.job] = None
    else:
        _leave_task(attempt)
    world.marks.hungry[device] = None
    world.marks.devices[device] = None


def set_attempt_state(world: World, attempt: Attempt, new: int, now_ms: int) -> None:
    """Started, suspended or announced; its task follows. Volatile."""
    device = attempt.device
    device.running += (new == STARTED) - (attempt.state == STARTED)
    attempt.state = new
    if new == STARTED and not attempt.started_ms:
        attempt.started_ms = now_ms
    if not attempt.booked and new != ASSIGNED:
        device.ahead_count -= 1
        book(world, device, attempt)
        world.marks.hungry[device] = None
    world.marks.devices[device] = None
    if not attempt.revoked:
        settle_task(world, attempt.stage, attempt.index)


def settle_task(world: World, stage: Stage, index: int) -> None:
    """The state of an unfinished task follows from its live attempts."""
    states = [attempt.state for attempt in stage.attempts_of(index)]
    if STARTED in states or SPOOLED in states:
        set_state(world, stage, index, RUNNING)
    elif STOPPED in states:
        set_state(world, stage, index, SUSPENDED)
    else:
        set_state(world, stage, index, QUEUED)


def put_back(world: World, stage: Stage, index: int) -> None:
    """The task is queued again, unless another attempt of it lives."""
    settle_task(world, stage, index)
    if index not in stage.live:
        stage.queue.add(index, index + 1)
        list_stage(world, stage)


def give_up(world: World, stage: Stage, index: TaskIndex, state: int) -> None:
    """The task failed or is lost."""
    if index in stage.queue:
        stage.queue.discard(index, index + 1)
        unlist_if_empty(stage)
    for other in stage.attempts_of(index):
        revoke(world, other, "the task was given up")
    set_state(world, stage, index, state)
    forget_trouble(stage, index)
    stage.ended_stories += 1
    if stage.ended_stories > world.limits.max_stories:
        stage.story.pop(index, None)
    after_bad(world, stage, index, index + 1)


def note_crash(world: World, stage: Stage, index: TaskIndex, device: Device) -> bool:
    """Its device's agent crashed under it. True when the task is lost by that."""
    crashed = stage.crashes.setdefault(index, [])
    if device.id not in crashed:
        crashed.append(device.id)
    if len(crashed) < world.limits.lost_after_devices:
        return False
    give_up(world, stage, index, LOST)
    return True


def forget_trouble(stage: Stage, index: int) -> None:
    """The task has ended, or starts afresh: what its tries left behind does not matter any more."""
    for sparse in (stage.tries, stage.failures, stage.checkpoints, stage.crashes):
        sparse.pop(index, None)
    for device in [one for one, tasks in stage.excluded_on.items() if index in tasks]:
        del stage.excluded_on[device][index]
        if not stage.excluded_on[device]:
            del stage.excluded_on[device]


def remember(world: World, stage: Stage, index: int, past: Past) -> None:
    """Keep the newest of a task's ended attempts."""
    story = stage.story.setdefault(index, [])
    story.append(past)
    if len(story) > world.limits.max_story:
        del story[0]


def note_large(stage: Stage, index: int, hashes: Sequence[str]) -> None:
    """Large outputs of a done task draw the tasks that get them."""
    stage.large[index] = list(hashes)
    for link in stage.dependents:
        if not link.need.files:
            continue
        if link.need.map == "all":
            link.down.template_hashes.extend(hashes)
            continue
        at = index if link.need.map == "same" else index // link.need.size
        for one in hashes:
            want(link.down, at, one)


def _leave_task(attempt: Attempt) -> None:
    """Out of its task's live attempts; the oldest copy moves up."""
    stage, index = attempt.stage, attempt.index
    copies = stage.copies.get(index) if stage.copies else None
    if copies is None:
        del stage.live[index]
        return
    if stage.live[index] is attempt:
        stage.live[index] = copies.pop(0)
    else:
        copies.remove(attempt)
    if not copies:
        del stage.copies[index]


def _past(attempt: Attempt, blame: str, reason: str, crash: bool, now_ms: int) -> Past:
    return Past(
        attempt.id, attempt.device.id, attempt.number, blame, reason, attempt.assigned_ms, now_ms, crash
    )
