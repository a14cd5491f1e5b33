"""What may happen to the scheduler, in the past tense. Values only; whoever makes them has checked their form.

`items` and `spec` are resolved: a blob of items has been read, stage names are unique and known, sizes are within
limits. Times never travel in events: `handle(event, now_ms)` gets the time beside them.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from sparegrid.api import JobSpec
from sparegrid.ids import AttemptId, DeviceId, JobId, PrincipalId, SessionId, StageIndex, TaskIndex
from sparegrid.messages import Capability, Outcome, Payload, Reading


class JobSubmitted(Struct, tag=True):
    """A checked job; the id comes from `Machine.next_job_id()`."""

    job: JobId
    spec: JobSpec
    submitter: PrincipalId
    wall_ms: int


class ItemsAppended(Struct, tag=True):
    """More items for an open job's stage."""

    job: JobId
    stage: StageIndex
    items: list[Any]


class JobClosed(Struct, tag=True):
    """An open job takes no more items."""

    job: JobId


class JobCancelled(Struct, tag=True):
    """A user cancelled the job."""

    job: JobId
    by: PrincipalId
    wall_ms: int = 0


class JobRetried(Struct, tag=True):
    """Try these tasks again; None is every failed, lost or cancelled one. Revives dependents cancelled upstream.

    The job is in memory: the driver hands a retired one back by `JobRevived` first.
    """

    job: JobId
    tasks: list[tuple[StageIndex, TaskIndex]] | None = None


class JobRevived(Struct, tag=True):
    """A retired job comes back into memory, exactly as its `Retire` effect described it."""

    job: JobId
    state: bytes


class JobRemoved(Struct, tag=True):
    """An ended job is forgotten."""

    job: JobId


class PriorityChanged(Struct, tag=True):
    """1 to 10, 10 is most urgent."""

    job: JobId
    priority: int


class WeightChanged(Struct, tag=True):
    """An admin set a submitter's weight in the fair share, in thousandths (1000 is normal)."""

    submitter: PrincipalId
    weight: int


class DeviceJoined(Struct, tag=True):
    """A device was admitted to the grid (durable)."""

    device: DeviceId
    name: str
    wall_ms: int


class DeviceAttached(Struct, tag=True):
    """A device speaks: first time, reconnect (same session) or restart (new session)."""

    device: DeviceId
    session: SessionId
    name: str
    capability: Capability
    running: list[AttemptId]
    spooled: list[AttemptId]
    held: list[str]
    state: str
    reason: str
    unclean: bool
    wall_ms: int = 0


class DeviceDetached(Struct, tag=True):
    """Its connection ended. Not `for_good`: the lease goes on. `for_good`: what it held requeues now."""

    device: DeviceId
    session: SessionId
    for_good: bool


class DeviceHeard(Struct, tag=True):
    """A heartbeat, with its reading."""

    device: DeviceId
    reading: Reading


class DevicePolicyChanged(Struct, tag=True):
    """The device says that it takes work (`ready`) or not (`paused`, `draining`)."""

    device: DeviceId
    state: str
    reason: str
    until_ms: int


class DevicePauseAsked(Struct, tag=True):
    """A verb given at the coordinator, kept with the device until resumed (durable)."""

    device: DeviceId
    verb: str
    until_wall_ms: int
    by: PrincipalId
    wall_ms: int


class DeviceChanged(Struct, tag=True):
    """An admin renamed or labelled it (durable). An empty name keeps the old one; an empty value removes a label."""

    device: DeviceId
    name: str
    labels: dict[str, str]


class CapabilityReported(Struct, tag=True):
    """What the device offers has changed."""

    device: DeviceId
    capability: Capability


class DeviceRevoked(Struct, tag=True):
    """The device is no member any more; its attempts requeue at once."""

    device: DeviceId


class BlobsHeld(Struct, tag=True):
    """Large blobs that came into a device's cache or left it."""

    device: DeviceId
    added: list[str]
    removed: list[str]


class AttemptsStarted(Struct, tag=True):
    """These run now."""

    device: DeviceId
    attempts: list[AttemptId]


class AttemptsSuspended(Struct, tag=True):
    """These are stopped but kept (`on`), or run again."""

    device: DeviceId
    attempts: list[AttemptId]
    on: bool


class AttemptProgressed(Struct, tag=True):
    """How far, in thousandths."""

    device: DeviceId
    attempt: AttemptId
    permille: int
    note: str


class ResultDelivered(Struct, tag=True):
    """An attempt succeeded. Whether it is accepted is for the scheduler to say."""

    device: DeviceId
    job: JobId
    stage: StageIndex
    index: TaskIndex
    attempt: AttemptId
    outcome: Outcome


class AttemptEnded(Struct, tag=True):
    """An attempt ended without a result."""

    device: DeviceId
    job: JobId
    stage: StageIndex
    index: TaskIndex
    attempt: AttemptId
    blame: str
    reason: str
    outcome: Outcome
    checkpoint: Payload | None = None
    unstarted: bool = False


class ClockJumped(Struct, tag=True):
    """The coordinator itself slept: every lease extends by the gap."""

    gap_ms: int


class Ticked(Struct, tag=True):
    """`next_deadline()` has come."""


SchedulerEvent = (
    JobSubmitted
    | ItemsAppended
    | JobClosed
    | JobCancelled
    | JobRetried
    | JobRevived
    | JobRemoved
    | PriorityChanged
    | WeightChanged
    | DeviceJoined
    | DeviceAttached
    | DeviceDetached
    | DeviceHeard
    | DevicePolicyChanged
    | DevicePauseAsked
    | DeviceChanged
    | CapabilityReported
    | DeviceRevoked
    | BlobsHeld
    | AttemptsStarted
    | AttemptsSuspended
    | AttemptProgressed
    | ResultDelivered
    | AttemptEnded
    | ClockJumped
    | Ticked
)
