"""Devices come, speak, fall silent and go; pause verbs, names and labels. What they held requeues, uncounted.

A lease counts from the last sign of life; after it, attempts requeue, and their late results stay welcome. What a
device that comes back still has is settled in `sessions`.
"""

from __future__ import annotations

from heapq import heappop, heappush

from coordinator.scheduler.batch import Batch
from coordinator.scheduler.effects import Send
from coordinator.scheduler.events import (
    BlobsHeld,
    CapabilityReported,
    ClockJumped,
    DeviceAttached,
    DeviceChanged,
    DeviceDetached,
    DeviceHeard,
    DeviceJoined,
    DevicePauseAsked,
    DevicePolicyChanged,
    DeviceRevoked,
)
from coordinator.scheduler.facts import Changed, Joined, PauseAsked, Revoked
from coordinator.scheduler.requirements import leave_pools, rematch
from coordinator.scheduler.sessions import (
    begin,
    go_on,
    release,
    release_all,
    renew_lease,
    settle_reported,
    welcome_back,
)
from coordinator.scheduler.state import (
    LEFT,
    NEVER_SENT,
    NOBODY,
    REVOKED_DEVICE,
    SILENT,
    SPOOLED,
    Device,
    World,
)
from sparegrid.errors import NotFoundError
from sparegrid.ids import DeviceId, PrincipalId
from sparegrid.messages import Attached, PauseVerb, SetPause

# ---- what facts do ---------------------------------------------------------------------------------------------


def add_device(world: World, device_id: DeviceId, name: str, wall_ms: int) -> Device:
    """A device is a member, or a member again; its name is the given one."""
    device = world.devices.get(device_id)
    if device is None:
        device = Device(device_id, world.next_device, name, wall_ms)
        world.next_device += 1
        world.devices[device_id] = device
    rename_device(world, device, name)
    world.marks.devices[device] = None
    return device


def rename_device(world: World, device: Device, name: str) -> None:
    """Names are unique; `free_name` finds one."""
    if world.names.get(device.name) == device.id:
        del world.names[device.name]
    device.name = name
    world.names[name] = device.id


def change_device(world: World, device: Device, name: str, labels: dict[str, str]) -> None:
    """Rename, label."""
    rename_device(world, device, name or device.name)
    for key, value in labels.items():
        if value:
            device.labels[key] = value
        else:
            device.labels.pop(key, None)
    _look_again(world, device)


def ask_pause(world: World, device: Device, verb: str, until_wall_ms: int, by: PrincipalId) -> None:
    """A verb given at the coordinator holds until it is resumed, or its time is over."""
    resume = verb == PauseVerb.RESUME
    device.asked = "" if resume else verb
    device.asked_until_wall_ms = 0 if resume else until_wall_ms
    device.asked_by = NOBODY if resume else by
    world.marks.devices[device] = None
    world.marks.hungry[device] = None


def remove_device(world: World, device: Device) -> None:
    """It is no member any more; its attempts are requeued already."""
    if device.attached:
        world.attached -= 1
    device.attached = False
    device.lapsed.clear()
    forget_held(world, device)
    _look_again(world, device)
    leave_pools(device)
    del world.devices[device.id]
    world.names.pop(device.name, None)
    world.marks.hungry.pop(device, None)


# ---- what events do --------------------------------------------------------------------------------------------


def on_device_joined(world: World, batch: Batch, event: DeviceJoined) -> None:
    """Admitted to the grid."""
    name = free_name(world, event.name, event.device)
    batch.record(Joined(event.device, name, event.wall_ms))
    add_device(world, event.device, name, event.wall_ms)


def on_device_attached(world: World, batch: Batch, event: DeviceAttached) -> None:
    """A device speaks: settle with it what it holds and what it should hold."""
    device = world.devices.get(event.device)
    if device is None:
        name = free_name(world, event.name, event.device)
        batch.record(Joined(event.device, name, event.wall_ms))
        device = add_device(world, event.device, name, event.wall_ms)
    if event.session != device.session:
        begin(world, batch, device, event)
    else:
        go_on(world, batch, device, event)
    batch.sends.append(Send(Attached(device.id, settle_reported(world, batch, device, event))))
    if not device.attached:
        world.attached += 1
    device.attached, device.silent = True, False
    device.policy, device.policy_reason, device.policy_until_wall_ms = event.state, event.reason, 0
    renew_lease(world, device)
    forget_held(world, device)
    _hold(world, device, event.held)
    device.capability = event.capability
    _look_again(world, device)
    if device.asked:
        batch.sends.append(
            Send(SetPause(device.id, device.asked, device.asked_until_wall_ms, device.asked_by))
        )
        _arm_asked(world, device)


def on_device_detached(world: World, batch: Batch, event: DeviceDetached) -> None:
    """Its connection ended; its lease goes on, unless it left for good."""
    device = world.devices.get(event.device)
    if device is None or event.session != device.session:
        return
    if device.attached:
        world.attached -= 1
    device.attached = device.silent = False
    forget_held(world, device)
    leave_pools(device)
    if event.for_good:
        release_all(world, batch, device, LEFT)
        device.lease_until_ms = 0
    _look_again(world, device)


def on_device_heard(world: World, batch: Batch, event: DeviceHeard) -> None:
    """A sign of life. A device that slept with its connection open is welcome back."""
    device = world.devices.get(event.device)
    if device is not None:
        device.reading = event.reading
        world.marks.devices[device] = None
        heard(world, batch, device)


def on_device_policy_changed(world: World, batch: Batch, event: DevicePolicyChanged) -> None:
    """It takes work or not."""
    device = world.devices.get(event.device)
    if device is not None:
        heard(world, batch, device)
        device.policy, device.policy_reason = event.state, event.reason
        device.policy_until_wall_ms = event.until_ms
        world.marks.hungry[device] = None
        world.marks.devices[device] = None


def on_device_pause_asked(world: World, batch: Batch, event: DevicePauseAsked) -> None:
    """Kept until resumed, and told to the device now or when it comes."""
    device = device_of(world, event.device)
    batch.record(PauseAsked(device.id, event.verb, event.until_wall_ms, event.by))
    ask_pause(world, device, event.verb, event.until_wall_ms, event.by)
    _arm_asked(world, device)
    if device.attached:
        batch.sends.append(Send(SetPause(device.id, event.verb, event.until_wall_ms, event.by)))


def on_device_changed(world: World, batch: Batch, event: DeviceChanged) -> None:
    """Renamed or labelled by an admin."""
    device = device_of(world, event.device)
    name = free_name(world, event.name, device.id) if event.name else ""
    batch.record(Changed(device.id, name, event.labels))
    change_device(world, device, name, event.labels)


def on_capability_reported(world: World, batch: Batch, event: CapabilityReported) -> None:
    """What it offers has changed."""
    device = world.devices.get(event.device)
    if device is not None:
        device.capability = event.capability
        _look_again(world, device)


def on_device_revoked(world: World, batch: Batch, event: DeviceRevoked) -> None:
    """Not a member any more."""
    device = device_of(world, event.device)
    release_all(world, batch, device, REVOKED_DEVICE)
    batch.record(Revoked(device.id, world.now_ms))
    remove_device(world, device)


def on_blobs_held(world: World, batch: Batch, event: BlobsHeld) -> None:
    """Large blobs came into its cache or left it."""
    device = world.devices.get(event.device)
    if device is not None and device.attached:
        _hold(world, device, event.added)
        for blob in event.removed:
            if device.held.pop(blob, True) is None:
                _unhold(world, device, blob)


def on_clock_jumped(world: World, batch: Batch, event: ClockJumped) -> None:
    """The coordinator slept: nobody could be heard meanwhile."""
    for device in world.devices.values():
        if device.lease_until_ms:
            device.lease_until_ms += event.gap_ms
        if device.spool_until_ms:
            device.spool_until_ms += event.gap_ms


# ---- leases ----------------------------------------------------------------------------------------------------


def heard(world: World, batch: Batch, device: Device) -> None:
    """Whatever a connected device says is a sign of life; after its silence it is welcome back."""
    if device.silent:
        device.silent, device.attached = False, True
        world.attached += 1
        welcome_back(world, batch, device)
        _look_again(world, device)
        renew_lease(world, device)
    elif device.attached and device.last_seen_ms != world.now_ms:
        renew_lease(world, device)


def end_leases(world: World, batch: Batch) -> None:
    """Requeue what silent devices hold, and announced results that never came."""
    leases, now = world.leases, world.now_ms
    while leases and leases[0][0] <= now:
        _, _, device = heappop(leases)
        due = min(device.lease_until_ms, device.spool_until_ms or device.lease_until_ms)
        if world.devices.get(device.id) is not device or not device.lease_until_ms:
            device.lease_listed = False
            continue
        if device.spool_until_ms and device.spool_until_ms <= now:
            device.spool_until_ms = 0
            late = [attempt for attempt in device.live.values() if attempt.state == SPOOLED]
            release(world, batch, device, late, NEVER_SENT)
        elif due <= now:
            device.lease_listed = False
            _fall_silent(world, batch, device)
            continue
        due = min(device.lease_until_ms, device.spool_until_ms or device.lease_until_ms)
        heappush(leases, (due, device.seq, device))


def _fall_silent(world: World, batch: Batch, device: Device) -> None:
    device.lease_until_ms = 0
    if device.attached:
        device.attached, device.silent = False, True
        world.attached -= 1
        leave_pools(device)
    release_all(world, batch, device, SILENT)
    _look_again(world, device)


# ---- blobs, names ----------------------------------------------------------------------------------------------


def forget_held(world: World, device: Device) -> None:
    """What it holds is not known any more."""
    for blob in device.held:
        _unhold(world, device, blob)
    device.held.clear()


def device_of(world: World, device_id: DeviceId) -> Device:
    """The member of this id. Raises NotFoundError when there is none."""
    device = world.devices.get(device_id)
    if device is None:
        raise NotFoundError("No such device", f"{device_id!r} is not a member of this grid")
    return device


def free_name(world: World, name: str, device_id: DeviceId) -> str:
    """The name, or with a number behind it when another device has it already."""
    wanted = free = name or device_id[:8]
    number = 1
    while world.names.get(free, device_id) != device_id:
        number += 1
        free = f"{wanted}-{number}"
    return free


def _hold(world: World, device: Device, blobs: list[str]) -> None:
    for blob in blobs:
        device.held[blob] = None
        world.holders.setdefault(blob, {})[device] = None


def _unhold(world: World, device: Device, blob: str) -> None:
    holders = world.holders[blob]
    del holders[device]
    if not holders:
        del world.holders[blob]


def _look_again(world: World, device: Device) -> None:
    """What it offers, or whether it is there, has changed."""
    rematch(world, device)
    world.marks.hungry[device] = None
    world.marks.devices[device] = None


def _arm_asked(world: World, device: Device) -> None:
    """A verb with an end: look again when it is over."""
    device.asked_until_ms = 0
    if device.asked and device.asked_until_wall_ms:
        device.asked_until_ms = max(world.now_ms, device.asked_until_wall_ms - world.wall_offset_ms)
        world.wake_at(device.asked_until_ms)


def end_asked(world: World, batch: Batch, device: Device) -> None:
    """Its time is over."""
    batch.record(PauseAsked(device.id, PauseVerb.RESUME, 0, NOBODY))
    ask_pause(world, device, PauseVerb.RESUME, 0, NOBODY)
    device.asked_until_ms = 0
