"""What the scheduler wants done, in the imperative. The driver does it in order, and lets nothing leave before commit.

`Record` and `Keep` of one call are one transaction; `Send`, `Publish` and `Retire` follow it.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.scheduler.facts import Fact
from sparegrid.ids import AttemptId, DeviceId, JobId, StageIndex, TaskIndex
from sparegrid.messages import Attached, Cancel, Needed, Outcome, Payload, Release, SetPause, TakeBack


class Record(Struct, frozen=True, tag=True):
    """Append this fact to the journal."""

    fact: Fact


class Keep(Struct, frozen=True, tag=True):
    """Store an outcome: the accepted one of a task (`accepted`), or that of an ended attempt, for its log."""

    job: JobId
    stage: StageIndex
    index: TaskIndex
    attempt: AttemptId
    device: DeviceId
    accepted: bool
    blame: str
    reason: str
    outcome: Outcome


class Allot(Struct, array_like=True, frozen=True):
    """A range of attempts: `attempt + k` runs task `index + k`, for k in 0..count-1; `number` is which try.

    Item k is item `index + k` of the stage; the driver looks it up and adds the task's files (see `AssignTasks`).
    """

    attempt: AttemptId
    index: TaskIndex
    count: int = 1
    number: int = 1
    checkpoint: Payload | None = None


class AssignTasks(Struct, frozen=True, tag=True):
    """Send Assign (and, once per connection, the stage's Template) to the device.

    The driver expands each task from the job's spec: its item, its own input files, and the output files of the tasks
    that its needs map it to.
    """

    device: DeviceId
    job: JobId
    stage: StageIndex
    allots: list[Allot]


class AckAttempts(Struct, frozen=True, tag=True):
    """Tell the device that these need not be kept any more."""

    device: DeviceId
    attempts: list[AttemptId]


class Send(Struct, frozen=True, tag=True):
    """Send this message to its device, if it is connected."""

    message: Cancel | TakeBack | Release | SetPause | Attached


class PublishJob(Struct, frozen=True, tag=True):
    """The job's view has changed (ask `Machine.job_view`). At most one per job and batch."""

    job: JobId


class PublishTasks(Struct, frozen=True, tag=True):
    """These tasks' views have changed; for watchers of a window. Ranges [first, last], inclusive."""

    job: JobId
    stage: StageIndex
    ranges: list[tuple[TaskIndex, TaskIndex]]


class PublishDevice(Struct, frozen=True, tag=True):
    """The device's view has changed. At most one per device and batch."""

    device: DeviceId


class Retire(Struct, frozen=True, tag=True):
    """The job has ended and has left the scheduler's memory; no other view of it is published in its last batch.

    `state` is enough for `JobRevived`; `states` holds one TaskState ordinal per task, stage after stage, for queries.
    """

    job: JobId
    view: bytes
    """JSON of its last JobView."""
    state: bytes
    states: list[bytes]


class Forget(Struct, frozen=True, tag=True):
    """Drop everything kept for this job: results, spec, pins on blobs."""

    job: JobId


Effect = (
    Record
    | Keep
    | AssignTasks
    | AckAttempts
    | Send
    | PublishJob
    | PublishTasks
    | PublishDevice
    | Retire
    | Forget
)

__all__ = [
    "AckAttempts", "Allot", "AssignTasks", "Effect", "Forget", "Keep", "Needed", "PublishDevice", "PublishJob",
    "PublishTasks", "Record", "Retire", "Send",
]  # fmt: skip
