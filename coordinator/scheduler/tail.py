"""When devices idle while others hold work: take back what has not started, give stragglers a second attempt."""

from __future__ import annotations

from coordinator.scheduler.batch import Batch
from coordinator.scheduler.effects import Send
from coordinator.scheduler.placement import benched, give
from coordinator.scheduler.requirements import RequirementClass, fit_count, grid_has, refresh_pool
from coordinator.scheduler.state import ASSIGNED, STARTED, Attempt, Device, Stage, World
from sparegrid.messages import TakeBack


def balance(world: World, batch: Batch) -> None:
    """Look at every stage that has nothing queued, something live, and suitable devices that idle."""
    for cls in world.classes.values():
        if not cls.pool:
            continue
        for stage in cls.stages:
            if stage.queue.count or not stage.live:
                continue
            if stage.next_tail_ms <= world.now_ms:
                stage.next_tail_ms = world.now_ms + world.limits.tail_interval_ms
                world.wake_at(stage.next_tail_ms)
                wanted = sum(fit_count(world, entry[-1], cls) for entry in cls.pool[: len(stage.live)])
                if not _take_back(world, batch, stage, wanted):
                    _second_copies(world, batch, stage)


def _take_back(world: World, batch: Batch, stage: Stage, wanted: int) -> int:
    """Ask for as many unstarted attempts as could start elsewhere at once, the last ones of the fullest devices."""
    waiting: dict[Device, list[Attempt]] = {}
    for attempt in stage.live.values():
        device = attempt.device
        if attempt.state == ASSIGNED and not attempt.booked and not attempt.asked_back and device.attached:
            waiting.setdefault(device, []).append(attempt)
    asked = 0
    mean = stage.mean_ms
    for device, attempts in sorted(waiting.items(), key=lambda one: (-len(one[1]), one[0].seq)):
        # Tiny tasks start sooner there than they could be sent elsewhere.
        keep = int(world.limits.ahead_target_ms / 4 / mean) if mean else 0
        spare = attempts[max(keep, 0) :]
        taken = spare[max(0, len(spare) - (wanted - asked)) :]
        if taken:
            for attempt in taken:
                attempt.asked_back = True
            batch.sends.append(Send(TakeBack(device.id, [attempt.id for attempt in taken])))
            asked += len(taken)
        if asked >= wanted:
            break
    return asked


def _second_copies(world: World, batch: Batch, stage: Stage) -> None:
    """A second attempt for tasks that run much longer than the stage's mean."""
    if not stage.spec.restartable or stage.spec.service or stage.timed < 3:
        return
    limits = world.limits
    slow_ms = max(limits.straggler_min_ms, round(limits.straggler_factor * stage.mean_ms))
    slow = [
        attempt
        for index, attempt in stage.live.items()
        if index not in stage.copies and world.now_ms - _since(attempt) > slow_ms
    ]
    for attempt in sorted(slow, key=lambda one: (_since(one), one.id)):
        device = _other(world, stage.cls, stage, attempt)
        if device is None:
            break
        give(world, batch, device, stage, [(attempt.index, attempt.index + 1)])
        refresh_pool(device)


def _since(attempt: Attempt) -> int:
    return attempt.started_ms if attempt.state == STARTED and attempt.started_ms else attempt.assigned_ms


def _other(world: World, cls: RequirementClass, stage: Stage, attempt: Attempt) -> Device | None:
    """The fastest idle device that may run this task and is not the one that does."""
    if not grid_has(world, cls):
        return None
    for *_, device in cls.pool:
        barred = stage.excluded_on.get(device.id, {})
        if device is not attempt.device and attempt.index not in barred and not benched(world, stage, device):
            return device
    return None
