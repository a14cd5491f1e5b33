"""What tasks require and what devices offer: matching, booking, and the pools of devices that could start at once.

Stages with the same requirements share one class, so that a device is matched once per class and not per stage.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import log2

from coordinator.scheduler.state import ASSIGNED, Attempt, Device, PoolEntry, Stage, World
from sparegrid.api import Requires, StageSpec
from sparegrid.messages import Gpu

Wish = tuple[str, Callable[[Device], bool]]


@dataclass(slots=True, eq=False)
class RequirementClass:
    """A kind with requirements, the devices that suit, and those of them that could start a task now."""

    key: tuple[object, ...]
    kind: str
    requires: Requires
    milli: int
    simple: bool
    """Only CPUs are booked."""
    wishes: list[Wish]
    grid_counts: dict[str, int] = field(default_factory=dict)
    """Named counts that the grid has as a whole, not each device."""
    device_counts: dict[str, int] = field(default_factory=dict)
    devices: dict[Device, None] = field(default_factory=dict)
    """Attached devices that suit."""
    pool: list[PoolEntry] = field(default_factory=list)
    """Suitable devices with room for one more now: fastest first, then the emptiest, then the oldest member."""
    bare: dict[Device, None] = field(default_factory=dict)
    """Suitable, busy devices with nothing ahead."""
    stages: dict[Stage, None] = field(default_factory=dict)
    """Stages of jobs in memory."""

    def suits(self, device: Device) -> bool:
        """Whether the device, all free, could run a task of this class."""
        return all(test(device) for _, test in self.wishes)

    def speed(self, device: Device) -> float:
        """How fast the device runs this kind; 0 when not measured."""
        info = device.capability.kinds.get(self.kind)
        return info.speed if info is not None else 0.0

    def entry(self, device: Device) -> PoolEntry:
        """Where the device stands in the pool. Speeds are compared in steps of √2: measurements are noisy."""
        speed = self.speed(device)
        return -round(2 * log2(speed)) if speed > 0 else 0, -device.free_milli, device.seq, device


def class_for(world: World, spec: StageSpec) -> RequirementClass:
    """The class of this stage, made and matched with all devices when it is new."""
    requires = spec.requires
    key = (
        spec.kind, *map(tuple, (requires.os, requires.arch, requires.platforms, requires.programs)), requires.cpus,
        requires.memory, requires.disk, requires.gpus, requires.vram, tuple(sorted(requires.counts.items())),
        tuple(sorted(requires.labels.items())), requires.device,
    )  # fmt: skip
    found = world.classes.get(key)
    if found is None:
        # A count that the grid has is grid-wide also where a device has one of the same name.
        grid = {name: n for name, n in requires.counts.items() if name in world.limits.counts and n > 0}
        own = {name: n for name, n in requires.counts.items() if name not in grid and n > 0}
        found = RequirementClass(
            key=key,
            kind=spec.kind,
            requires=requires,
            milli=max(1, round(requires.cpus * 1000)),
            simple=not (
                requires.memory or requires.disk or requires.gpus or requires.vram or requires.counts
            ),
            wishes=list(_wishes(spec.kind, requires, world.limits.counts)),
            grid_counts=grid,
            device_counts=own,
        )
        world.classes[key] = found
        for device in world.devices.values():
            if device.attached and found.suits(device):
                found.devices[device] = None
                device.classes.append(found)
                refresh_pool(device)
    return found


def drop_stage(world: World, stage: Stage) -> None:
    """The stage has left memory; so does its class when it was the last."""
    cls = stage.cls
    cls.stages.pop(stage, None)
    if not cls.stages:
        for device in cls.devices:
            device.classes.remove(cls)
            device.pooled.pop(cls, None)
        del world.classes[cls.key]


def rematch(world: World, device: Device) -> None:
    """What the device offers has changed: find its classes and book its attempts anew, oldest first."""
    leave_pools(device)
    for cls in device.classes:
        del cls.devices[device]
    device.all_labels = {**device.capability.labels, **device.labels}
    device.classes = [cls for cls in world.classes.values() if device.attached and cls.suits(device)]
    for cls in device.classes:
        cls.devices[device] = None
    capability = device.capability
    device.free_milli = max(0, capability.slots) * 1000
    device.free_memory = capability.memory
    device.free_disk = capability.disk_free
    device.free_gpus = len(capability.gpus)
    # A GPU that does not tell its memory is given the benefit of the doubt.
    told = all(gpu.vram for gpu in capability.gpus)
    device.free_vram = sum(gpu.vram for gpu in capability.gpus) if told else 1 << 60
    device.free_counts = dict(capability.counts)
    device.ahead.clear()
    device.ahead_count = 0
    for attempt in sorted(device.live.values(), key=lambda one: one.id):
        was, attempt.booked = attempt.booked, False
        if was or attempt.state != ASSIGNED:
            _release_grid(world, attempt, was)
            book(world, device, attempt)
        else:
            device.ahead.append(attempt)
            device.ahead_count += 1
    promote(world, device)


def fits(device: Device, cls: RequirementClass) -> bool:
    """Whether one more task of the class can start on the device now."""
    if device.free_milli < cls.milli:
        return False
    return cls.simple or (device.free_memory >= cls.requires.memory and _rest_fits(device, cls))


def fit_count(world: World, device: Device, cls: RequirementClass) -> int:
    """How many tasks of the class can start on the device now."""
    count = device.free_milli // cls.milli
    if cls.simple or count <= 0:
        return max(0, count)
    needed = cls.requires
    for free, one in (
        (device.free_memory, needed.memory),
        (device.free_disk, needed.disk),
        (device.free_gpus, needed.gpus),
        (device.free_vram, needed.vram),
        *((device.free_counts.get(name, 0), n) for name, n in cls.device_counts.items()),
        *(
            (world.limits.counts[name] - world.grid_used.get(name, 0), n)
            for name, n in cls.grid_counts.items()
        ),
    ):
        if one > 0:
            count = min(count, free // one)
    return max(0, count)


def grid_has(world: World, cls: RequirementClass) -> bool:
    """Whether the grid-wide counts allow one more."""
    return all(
        world.limits.counts[name] - world.grid_used.get(name, 0) >= n for name, n in cls.grid_counts.items()
    )


def book(world: World, device: Device, attempt: Attempt) -> None:
    """Take the attempt's resources from the device's; what runs already is booked even beyond what is free."""
    attempt.booked = True
    _move(world, device, attempt.stage.cls, -1)


def unbook(world: World, device: Device, attempt: Attempt) -> None:
    """Give them back."""
    attempt.booked = False
    _move(world, device, attempt.stage.cls, 1)


def promote(world: World, device: Device) -> None:
    """Book those ahead that can start now. Later ones never overtake one that waits for CPUs or memory."""
    device.blocked = False
    if not device.ahead_count:
        device.ahead.clear()
        return
    passed: list[Attempt] = []
    while device.ahead:
        attempt = device.ahead[0]
        if attempt.booked or attempt.id not in device.live:
            device.ahead.popleft()
            continue
        cls = attempt.stage.cls
        if device.free_milli < cls.milli or device.free_memory < cls.requires.memory:
            device.blocked = True
            break
        device.ahead.popleft()
        if _rest_fits(device, cls):
            device.ahead_count -= 1
            book(world, device, attempt)
        else:
            passed.append(attempt)
    device.ahead.extendleft(reversed(passed))


def refresh_pool(device: Device) -> None:
    """Put the device into the pools of the classes it could start now, and out of the others."""
    able = device.accepting and not device.blocked and device.free_milli > 0
    for cls in device.classes:
        entry = device.pooled.get(cls)
        able_now = able and fits(device, cls)
        if entry is not None:
            if able_now and entry[1] == -device.free_milli:
                continue
            _leave(cls, entry)
            del device.pooled[cls]
        if able_now:
            device.pooled[cls] = entry = cls.entry(device)
            insort(cls.pool, entry)
            cls.bare.pop(device, None)
        elif device.ahead_count or not device.accepting:
            cls.bare.pop(device, None)
        else:
            cls.bare[device] = None


def leave_pools(device: Device) -> None:
    """Out of every pool."""
    for cls, entry in device.pooled.items():
        _leave(cls, entry)
    device.pooled.clear()
    for cls in device.classes:
        cls.bare.pop(device, None)


def concurrency(device: Device, cls: RequirementClass) -> int:
    """Roughly how many tasks of the class run at once on the device when it does nothing else."""
    return max(1, device.capability.slots * 1000 // cls.milli)


def _leave(cls: RequirementClass, entry: PoolEntry) -> None:
    at = bisect_left(cls.pool, entry)
    assert cls.pool[at] is entry
    del cls.pool[at]


def _rest_fits(device: Device, cls: RequirementClass) -> bool:
    needed = cls.requires
    return cls.simple or (
        device.free_disk >= needed.disk
        and device.free_gpus >= needed.gpus
        and device.free_vram >= needed.vram
        and all(device.free_counts.get(name, 0) >= n for name, n in cls.device_counts.items())
    )


def _move(world: World, device: Device, cls: RequirementClass, sign: int) -> None:
    device.free_milli += sign * cls.milli
    if cls.simple:
        return
    needed = cls.requires
    device.free_memory += sign * needed.memory
    device.free_disk += sign * needed.disk
    device.free_gpus += sign * needed.gpus
    device.free_vram += sign * needed.vram
    for name, n in cls.device_counts.items():
        device.free_counts[name] = device.free_counts.get(name, 0) + sign * n
    for name, n in cls.grid_counts.items():
        world.grid_used[name] = world.grid_used.get(name, 0) - sign * n


def _release_grid(world: World, attempt: Attempt, was_booked: bool) -> None:
    """Before booking anew: the device's own resources were reset, the grid's were not."""
    if was_booked:
        for name, n in attempt.stage.cls.grid_counts.items():
            world.grid_used[name] = world.grid_used.get(name, 0) - n


def _wishes(kind: str, requires: Requires, grid: dict[str, int]) -> Iterator[Wish]:
    """Each requirement in words, with its test."""
    yield f"runs {kind} tasks", lambda device: kind in device.capability.kinds
    if requires.device:
        wanted = requires.device
        yield f"is the device {wanted}", lambda device: wanted in {device.id, device.name}
    if requires.os:
        yield f"has os {' or '.join(requires.os)}", lambda device: device.capability.os in requires.os
    if requires.arch:
        yield f"has arch {' or '.join(requires.arch)}", lambda device: device.capability.arch in requires.arch
    if requires.platforms:
        yield f"is {' or '.join(requires.platforms)}", lambda device: _on_platform(device, requires.platforms)
    if requires.cpus:
        yield f"lends {requires.cpus:g} CPUs", lambda device: device.capability.slots >= requires.cpus
    if requires.memory:
        yield (
            f"has {size_text(requires.memory)} memory",
            lambda device: device.capability.memory >= requires.memory,
        )
    if requires.disk:
        yield (
            f"has {size_text(requires.disk)} disk",
            lambda device: device.capability.disk_free >= requires.disk,
        )
    if requires.gpus or requires.vram:
        yield _gpu_text(requires), lambda device: _has_gpus(device.capability.gpus, requires)
    for name, value in requires.labels.items():
        yield f"has label {name}={value}", _has_label(name, value)
    for name in requires.programs:
        yield f"has program {name}", _has_program(name)
    for name, n in requires.counts.items():
        if name in grid:
            yield f"is in a grid with {n} of count {name} (it has {grid[name]})", _always(grid[name] >= n)
        else:
            yield f"has {n} of count {name}", _has_count(name, n)


def _has_label(name: str, value: str) -> Callable[[Device], bool]:
    return lambda device: device.all_labels.get(name) == value


def _has_program(name: str) -> Callable[[Device], bool]:
    return lambda device: name in device.capability.programs


def _has_count(name: str, least: int) -> Callable[[Device], bool]:
    return lambda device: device.capability.counts.get(name, 0) >= least


def _always(answer: bool) -> Callable[[Device], bool]:
    return lambda device: answer


def _on_platform(device: Device, platforms: list[str]) -> bool:
    capability = device.capability
    return capability.os in platforms or f"{capability.os}/{capability.arch}" in platforms


def _has_gpus(gpus: list[Gpu], requires: Requires) -> bool:
    """`vram` is of one GPU; a GPU that does not tell its size is given the benefit of the doubt."""
    big_enough = sum(1 for gpu in gpus if gpu.vram == 0 or gpu.vram >= requires.vram)
    return big_enough >= max(1, requires.gpus)


def _gpu_text(requires: Requires) -> str:
    many = "a GPU" if requires.gpus <= 1 else f"{requires.gpus} GPUs"
    return f"has {many}" + (f" with {size_text(requires.vram)} of memory" if requires.vram else "")


def size_text(size: int) -> str:
    """Bytes for people: `4 GiB`."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B"
