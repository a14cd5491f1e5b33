"""Which task goes to which device. Called once per batch, when everything that happened is known.

First tasks that can start at once: the fairest stage chooses among the devices with room (`cls.pool`), those that
hold its large inputs before the faster ones. Then work ahead, for the devices of this batch only: how much follows
from the stage's measured mean duration (`credit`). Tasks are spread: a device gets no more than its part of what is
left, so that a short queue reaches many devices.
"""

from __future__ import annotations

from itertools import islice

from coordinator.scheduler.batch import Batch
from coordinator.scheduler.fairness import fairest, fairest_for
from coordinator.scheduler.limits import Limits
from coordinator.scheduler.needs import unlist_if_empty
from coordinator.scheduler.requirements import (
    RequirementClass,
    concurrency,
    fit_count,
    promote,
    refresh_pool,
)
from coordinator.scheduler.state import Device, Stage, World
from coordinator.scheduler.transitions import assign
from sparegrid.ids import AttemptId, TaskIndex

_LOCAL_LOOKS = 256
"""So many blobs and tasks are looked at to find a task whose inputs a device holds."""


def place(world: World, batch: Batch) -> None:
    """Assign what can be assigned."""
    hungry = world.marks.hungry
    for device in hungry:
        promote(world, device)
        refresh_pool(device)
    _start_now(world, batch)
    for device in hungry:
        if device.accepting:
            _fill_ahead(world, batch, device)
    for stage in list(world.marks.listed):
        # Busy devices with nothing ahead fetch the inputs of new work meanwhile.
        for device in list(islice(stage.cls.bare, stage.queue.count)):
            _fill_ahead(world, batch, device)


def credit(limits: Limits, stage: Stage, slots: int) -> int:
    """How many tasks of the stage may wait on a device with room for `slots` of them at once.

    Little until some are measured; then as many as last `ahead_target_ms`, and 1 or 2 in all for long ones.
    """
    if stage.timed == 0:
        return 1
    mean = stage.wall_sum / stage.timed
    if mean >= limits.long_task_ms:
        return 1 if slots < 4 else 2
    per_slot = limits.max_ahead_per_slot
    if mean > 0:
        per_slot = min(per_slot, max(1, int(limits.ahead_target_ms / mean)))
    return max(1, min(per_slot * slots, limits.max_ahead, 4 * stage.timed))


def benched(world: World, stage: Stage, device: Device) -> bool:
    """Whether the device sits out for this stage."""
    bench = device.benches.get(stage) if device.benches else None
    return bench is not None and bench.until_ms > world.now_ms


def give(world: World, batch: Batch, device: Device, stage: Stage, runs: list[tuple[int, int]]) -> None:
    """Assign these runs of tasks, taken from the queue, splitting them by the number of the try."""
    tries = stage.tries
    for low, high in runs:
        start = low
        while start < high:
            end, number = high, 1
            if tries:
                number = 1 + tries.get(start, 0)
                end = start + 1
                while end < high and 1 + tries.get(end, 0) == number:
                    end += 1
            first, count = AttemptId(world.next_attempt), end - start
            batch.assigned(stage, device, first, TaskIndex(start), count, number)
            assign(world, device, stage, first, TaskIndex(start), count, number, world.now_ms)
            start = end


def _start_now(world: World, batch: Batch) -> None:
    stuck: dict[Stage, None] = {}
    while (stage := fairest(world, stuck)) is not None:
        cls = stage.cls
        share = max(1, stage.queue.count // len(cls.pool))
        if not (_start_near(world, batch, stage) or _start_fast(world, batch, stage, share)):
            stuck[stage] = None


def _start_near(world: World, batch: Batch, stage: Stage) -> bool:
    """Give the next task to a device with room that holds most of its large inputs, if there is one."""
    if not (stage.template_hashes or stage.task_hashes) or not world.holders:
        return False
    index = stage.queue.peek()
    weights: dict[Device, int] = {}
    for blob in (*stage.template_hashes, *stage.task_hashes.get(index, ())):
        for device in world.holders.get(blob, ()):
            if stage.cls in device.pooled:
                weights[device] = weights.get(device, 0) + 1
    barred = stage.excluded_on
    near = [
        (-weight, *device.pooled[stage.cls])
        for device, weight in weights.items()
        if not benched(world, stage, device) and index not in barred.get(device.id, ())
    ]
    if not near:
        return False
    device = min(near)[4]
    give(world, batch, device, stage, stage.queue.take_these([index]))
    unlist_if_empty(stage)
    refresh_pool(device)
    return True


def _start_fast(world: World, batch: Batch, stage: Stage, share: int) -> bool:
    """Give tasks to the first device of the pool that may have some."""
    cls = stage.cls
    for *_, device in cls.pool:
        if benched(world, stage, device):
            continue
        runs = choose(stage, device, max(1, min(share, fit_count(world, device, cls))))
        if runs:
            give(world, batch, device, stage, runs)
            unlist_if_empty(stage)
            refresh_pool(device)
            return True
    return False


def _fill_ahead(world: World, batch: Batch, device: Device) -> None:
    stuck: dict[Stage, None] = {}
    limits = world.limits
    while (stage := fairest_for(world, device, stuck)) is not None:
        cls = stage.cls
        room = credit(limits, stage, concurrency(device, cls)) - device.ahead_count
        room = min(room, limits.max_ahead - device.ahead_count, _part(stage, cls))
        if room <= 0 or benched(world, stage, device):
            stuck[stage] = None
            continue
        runs = choose(stage, device, room)
        if runs:
            give(world, batch, device, stage, runs)
            unlist_if_empty(stage)
        else:
            stuck[stage] = None
    refresh_pool(device)


def _part(stage: Stage, cls: RequirementClass) -> int:
    """A device's part of what is left in the queue."""
    return -(-stage.queue.count // max(1, len(cls.devices)))


def choose(stage: Stage, device: Device, most: int) -> list[tuple[int, int]]:
    """Take up to `most` tasks for the device out of the queue: first those whose large inputs it holds."""
    barred = stage.excluded_on.get(device.id)
    if stage.wants and device.held:
        near = _near_tasks(stage, device, most, barred or {})
        if near:
            return stage.queue.take_these(near)
    if barred:
        return stage.queue.take_except(most, barred)
    return stage.queue.take(most)


def _near_tasks(stage: Stage, device: Device, most: int, barred: dict[int, str]) -> list[int]:
    """Queued tasks whose own large inputs the device holds."""
    found: dict[int, None] = {}
    looks = 0
    fewer = device.held if len(device.held) <= len(stage.wants) else stage.wants
    for blob in fewer:
        looks += 1
        if looks > _LOCAL_LOOKS or len(found) >= most:
            break
        if blob not in device.held or blob not in stage.wants:
            continue
        for index in stage.wants[blob]:
            looks += 1
            if index in stage.queue and index not in barred:
                found[index] = None
                if len(found) >= most:
                    break
    return sorted(found)[:most]
