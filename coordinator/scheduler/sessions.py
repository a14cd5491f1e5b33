"""Leases and sessions: how long a device may be silent, and what it holds when it comes back.

A session is one run of a worker, across reconnects. The same session continues where it was; a new one tells that
what ran before is gone, except what is announced as spooled. Attempts that were given up while the device was silent
go on when they are still of use.
"""

from __future__ import annotations

from heapq import heappush

from coordinator.scheduler.batch import Batch
from coordinator.scheduler.effects import Send
from coordinator.scheduler.events import DeviceAttached
from coordinator.scheduler.facts import Assigned, Sessioned
from coordinator.scheduler.needs import drain
from coordinator.scheduler.state import (
    ASSIGNED,
    DONE,
    RESTARTED,
    SPOOLED,
    STOPPED_WANTED,
    UNKNOWN_THERE,
    Attempt,
    Device,
    World,
)
from coordinator.scheduler.transitions import adopt, drop_lapsed, requeue, set_attempt_state
from sparegrid.ids import AttemptId, SessionId
from sparegrid.messages import Cancel


def heartbeat_ms(world: World) -> int:
    """Grows with the number of attached devices, so that at most `max_heartbeats_per_s` arrive."""
    return max(world.base_heartbeat_ms, world.attached * 1000 // world.limits.max_heartbeats_per_s)


def lease_ms(world: World) -> int:
    """How long a silent device keeps its attempts."""
    return max(world.limits.min_lease_ms, world.limits.lease_heartbeats * heartbeat_ms(world))


def renew_lease(world: World, device: Device) -> None:
    """A sign of life: the lease starts anew."""
    device.last_seen_ms = world.now_ms
    device.lease_until_ms = world.now_ms + lease_ms(world)
    if not device.lease_listed:
        device.lease_listed = True
        heappush(world.leases, (device.lease_until_ms, device.seq, device))


def begin_session(device: Device, session: SessionId) -> None:
    """Fence what came before."""
    device.session = session


def release_all(world: World, batch: Batch, device: Device, reason: str) -> None:
    """Requeue everything that the device has, uncounted."""
    release(world, batch, device, list(device.live.values()), reason)


def release(
    world: World, batch: Batch, device: Device, attempts: list[Attempt], reason: str, crash: bool = False
) -> None:
    """Requeue these attempts of the device, uncounted."""
    if not attempts:
        return
    batch.requeued(device, [attempt.id for attempt in attempts], reason, crash)
    for attempt in attempts:
        # A crash of one may have given up a task, and revoked its other attempts here.
        requeue(world, attempt, reason, crash, world.now_ms)
    drain(world)


def begin(world: World, batch: Batch, device: Device, event: DeviceAttached) -> None:
    """A new session: what ran before is gone, except what it announces."""
    announced = {*event.spooled, *event.running}
    gone = [attempt for attempt in device.live.values() if attempt.id not in announced]
    batch.record(Sessioned(device.id, event.session, world.now_ms))
    begin_session(device, event.session)
    # Short tasks are never reported started: what was booked may have been running when the agent crashed.
    begun = [attempt for attempt in gone if attempt.booked or attempt.state != ASSIGNED]
    release(world, batch, device, [one for one in gone if one not in begun], RESTARTED)
    release(world, batch, device, begun, RESTARTED, crash=event.unclean)
    lost = [one for one in device.lapsed.values() if one.id not in announced]
    crashed = [one.id for one in lost if one.begun and event.unclean]
    quiet = [one.id for one in lost if not (one.begun and event.unclean)]
    for ids, crash in ((crashed, True), (quiet, False)):
        if ids:
            batch.requeued(device, ids, RESTARTED, crash)
            for one in ids:
                drop_lapsed(world, device, device.lapsed[one], crash, world.now_ms)
    drain(world)


def go_on(world: World, batch: Batch, device: Device, event: DeviceAttached) -> None:
    """The same session: what never reached it requeues."""
    announced = {*event.spooled, *event.running}
    unknown = [attempt for attempt in device.live.values() if attempt.id not in announced]
    release(world, batch, device, unknown, UNKNOWN_THERE)


def settle_reported(world: World, batch: Batch, device: Device, event: DeviceAttached) -> list[int]:
    """Go on with what it runs and we want; tells what is not wanted any more."""
    unwanted: list[int] = []
    for one in event.running:
        attempt = device.live.get(one)
        if attempt is not None:
            if attempt.revoked:
                unwanted.append(one)
            continue
        if not _adopt(world, batch, device, one):
            unwanted.append(one)
    for one in event.spooled:
        attempt = device.live.get(one)
        if attempt is not None and attempt.state != SPOOLED:
            set_attempt_state(world, attempt, SPOOLED, world.now_ms)
            device.spool_until_ms = world.now_ms + lease_ms(world)
    return unwanted


def welcome_back(world: World, batch: Batch, device: Device) -> None:
    """It kept its connection through its silence: go on with what is unfinished, cancel the rest."""
    unwanted = [one for one in list(device.lapsed) if not _adopt(world, batch, device, one)]
    if unwanted:
        batch.sends.append(Send(Cancel(device.id, list(unwanted), "finished elsewhere")))


def _adopt(world: World, batch: Batch, device: Device, attempt: AttemptId) -> bool:
    """Take an attempt back that was given up when its device was silent; False when its task has ended."""
    lapsed = device.lapsed.get(attempt)
    if lapsed is None or lapsed.stage.states[lapsed.index] >= DONE:
        return False
    stage = lapsed.stage
    if any(one.device is device for one in stage.attempts_of(lapsed.index)):
        # It fell silent twice over the same task: one of its tries is enough.
        batch.requeued(device, [lapsed.id], STOPPED_WANTED)
        drop_lapsed(world, device, lapsed, False, world.now_ms)
        return False
    entry = (lapsed.id, lapsed.index, 1, lapsed.number)
    batch.record(Assigned(device.id, stage.job.id, stage.index, [entry], world.now_ms))
    adopt(world, device, lapsed, world.now_ms)
    return True
