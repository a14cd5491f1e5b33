"""What each message of a worker tells the scheduler: wire Structs to events. Pure."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.scheduler.events import (
    AttemptEnded,
    AttemptProgressed,
    AttemptsStarted,
    AttemptsSuspended,
    BlobsHeld,
    CapabilityReported,
    DeviceAttached,
    DeviceHeard,
    DevicePolicyChanged,
    ResultDelivered,
    SchedulerEvent,
)
from sparegrid.ids import AttemptId, DeviceId, JobId, SessionId, StageIndex, TaskIndex
from sparegrid.messages import (
    Attach,
    CapabilityChanged,
    Delivered,
    Ended,
    Heartbeat,
    Held,
    PolicyChanged,
    Progress,
    Started,
    Suspended,
)


def attached(message: Attach, wall_ms: int) -> DeviceAttached:
    """A device speaks from now on."""
    return DeviceAttached(
        device=DeviceId(message.device),
        session=SessionId(message.session),
        name=message.name,
        capability=message.capability,
        running=[AttemptId(each) for each in message.running],
        spooled=[AttemptId(each) for each in message.spooled],
        held=message.held,
        state=message.state,
        reason=message.reason,
        unclean=message.unclean,
        wall_ms=wall_ms,
    )


def _heartbeat(message: Heartbeat) -> SchedulerEvent:
    return DeviceHeard(device=DeviceId(message.device), reading=message.reading)


def _started(message: Started) -> SchedulerEvent:
    return AttemptsStarted(
        device=DeviceId(message.device), attempts=[AttemptId(each) for each in message.attempts]
    )


def _suspended(message: Suspended) -> SchedulerEvent:
    attempts = [AttemptId(each) for each in message.attempts]
    return AttemptsSuspended(device=DeviceId(message.device), attempts=attempts, on=message.on)


def _progress(message: Progress) -> SchedulerEvent:
    return AttemptProgressed(
        device=DeviceId(message.device),
        attempt=AttemptId(message.attempt),
        permille=message.permille,
        note=message.note,
    )


def _delivered(message: Delivered) -> SchedulerEvent:
    return ResultDelivered(
        device=DeviceId(message.device),
        job=JobId(message.job),
        stage=StageIndex(message.stage),
        index=TaskIndex(message.index),
        attempt=AttemptId(message.attempt),
        outcome=message.outcome,
    )


def _ended(message: Ended) -> SchedulerEvent:
    return AttemptEnded(
        device=DeviceId(message.device),
        job=JobId(message.job),
        stage=StageIndex(message.stage),
        index=TaskIndex(message.index),
        attempt=AttemptId(message.attempt),
        blame=message.blame,
        reason=message.reason,
        outcome=message.outcome,
        checkpoint=message.checkpoint,
        unstarted=message.unstarted,
    )


def _held(message: Held) -> SchedulerEvent:
    return BlobsHeld(device=DeviceId(message.device), added=message.added, removed=message.removed)


def _policy(message: PolicyChanged) -> SchedulerEvent:
    return DevicePolicyChanged(
        device=DeviceId(message.device), state=message.state, reason=message.reason, until_ms=message.until_ms
    )


def _capability(message: CapabilityChanged) -> SchedulerEvent:
    return CapabilityReported(device=DeviceId(message.device), capability=message.capability)


EVENTS: dict[type, Callable[..., SchedulerEvent]] = {
    Heartbeat: _heartbeat,
    Started: _started,
    Suspended: _suspended,
    Progress: _progress,
    Delivered: _delivered,
    Ended: _ended,
    Held: _held,
    PolicyChanged: _policy,
    CapabilityChanged: _capability,
}
"""What each message tells the scheduler."""
