"""What the journal holds: facts, not deliberations. `Machine.apply(fact)` restores from them and never decides.

A fact's Struct never loses or changes a field; a new shape is a new tag, and an upcaster reads the old one. Times in
facts are the scheduler's `now_ms`, so that replaying needs no clock.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from sparegrid.api import JobSpec
from sparegrid.ids import AttemptId, DeviceId, JobId, PrincipalId, StageIndex, TaskIndex
from sparegrid.messages import Payload

FACTS_VERSION = 1


class Submitted(Struct, tag="submitted", frozen=True):
    """A job was taken in. The spec is stored beside it (`jobs` table) and inside it (restore needs nothing else)."""

    job: JobId
    spec: JobSpec
    submitter: PrincipalId
    wall_ms: int
    now_ms: int


class Appended(Struct, tag="appended", frozen=True):
    """Items were appended."""

    job: JobId
    stage: StageIndex
    items: list[Any]


class Closed(Struct, tag="closed", frozen=True):
    """An open job was closed."""

    job: JobId


class Assigned(Struct, tag="assigned", frozen=True):
    """Ranges of attempts, as in `effects.Allot`: (attempt, index, count, number)."""

    device: DeviceId
    job: JobId
    stage: StageIndex
    ranges: list[tuple[AttemptId, TaskIndex, int, int]]
    now_ms: int


class Accepted(Struct, tag="accepted", frozen=True):
    """Results were accepted: (index, attempt, wall_ms, files) each.

    `files` is how many of its output files match when another stage takes its items from them, else 0. `large` are
    (index, hash) of outputs of at least 1 MiB of a stage that others need, for placement.
    """

    job: JobId
    stage: StageIndex
    device: DeviceId
    entries: list[tuple[TaskIndex, AttemptId, int, int]]
    large: list[tuple[TaskIndex, str]]
    now_ms: int


class Ended(Struct, tag="ended", frozen=True):
    """An attempt ended without a result."""

    job: JobId
    stage: StageIndex
    index: TaskIndex
    attempt: AttemptId
    device: DeviceId
    blame: str
    reason: str
    now_ms: int
    checkpoint: Payload | None = None
    crash: bool = False
    """The device's agent crashed or rebooted uncleanly under it: counts towards `lost`."""
    final: bool = False
    """The device was to blame, and no other one that suits is left: the task failed with it."""


class Requeued(Struct, tag="requeued", frozen=True):
    """Unfinished attempts of a device ended at once, uncounted: lease over, new session, taken back, revoked."""

    device: DeviceId
    attempts: list[AttemptId]
    reason: str
    now_ms: int
    crash: bool = False


class Cancelled(Struct, tag="cancelled", frozen=True):
    """A user cancelled a job."""

    job: JobId
    by: PrincipalId
    wall_ms: int
    now_ms: int


class Retried(Struct, tag="retried", frozen=True):
    """Tasks were put back: None is every failed, lost or cancelled one."""

    job: JobId
    tasks: list[tuple[StageIndex, TaskIndex]] | None


class Revived(Struct, tag="revived", frozen=True):
    """A retired job came back into memory."""

    job: JobId
    state: bytes


class Finished(Struct, tag="finished", frozen=True):
    """A job ended and left memory."""

    job: JobId
    state: str
    wall_ms: int


class Removed(Struct, tag="removed", frozen=True):
    """An ended job was forgotten."""

    job: JobId


class Prioritised(Struct, tag="prioritised", frozen=True):
    """A new priority."""

    job: JobId
    priority: int


class Weighted(Struct, tag="weighted", frozen=True):
    """A submitter's new weight."""

    submitter: PrincipalId
    weight: int


class Joined(Struct, tag="joined", frozen=True):
    """A device was admitted."""

    device: DeviceId
    name: str
    wall_ms: int


class Changed(Struct, tag="changed", frozen=True):
    """A device was renamed or labelled."""

    device: DeviceId
    name: str
    labels: dict[str, str]


class PauseAsked(Struct, tag="pause_asked", frozen=True):
    """A verb given at the coordinator."""

    device: DeviceId
    verb: str
    until_wall_ms: int
    by: PrincipalId


class Sessioned(Struct, tag="sessioned", frozen=True):
    """A device began a new session: fences what came before, over restarts of the coordinator."""

    device: DeviceId
    session: str
    now_ms: int


class Revoked(Struct, tag="revoked", frozen=True):
    """A device is no member any more."""

    device: DeviceId
    now_ms: int


Fact = (
    Submitted
    | Appended
    | Closed
    | Assigned
    | Accepted
    | Ended
    | Requeued
    | Cancelled
    | Retried
    | Revived
    | Finished
    | Removed
    | Prioritised
    | Weighted
    | Joined
    | Changed
    | PauseAsked
    | Sessioned
    | Revoked
)
