"""What goes into the store and comes out of it: plain values. Knows no SQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from coordinator.scheduler.effects import Keep, Retire
from coordinator.scheduler.facts import Fact
from sparegrid.api import JobView
from sparegrid.ids import AttemptId, BlobHash, DeviceId, JobId, PrincipalId, StageIndex, TaskIndex
from sparegrid.messages import Outcome

if TYPE_CHECKING:
    from coordinator.server.store.trust import TokenRow


class Pin(NamedTuple):
    """A job holds a blob: it is not swept before the job is forgotten."""

    job: JobId
    hash: BlobHash


@dataclass(frozen=True, slots=True)
class Batch:
    """What becomes durable together, or not at all.

    `now_ms` is the scheduler's time: after a restart its clock goes on from the last one that was committed.
    """

    facts: list[Fact] = field(default_factory=list)
    keeps: list[Keep] = field(default_factory=list)
    retired: list[Retire] = field(default_factory=list)
    forgotten: list[JobId] = field(default_factory=list)
    now_ms: int = 0
    pins: list[Pin] = field(default_factory=list)
    tokens: list[TokenRow] = field(default_factory=list)
    """New tokens, so that a device's `Joined` and its token are one commit."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a start finds.

    Read `facts` to its end before the first commit; it raises StorageError at a damaged record. `epoch` counts the
    starts of this store, this one included. `notices` are for the administrator, such as a snapshot passed over.
    """

    snapshot: bytes | None
    facts: Iterator[Fact]
    last_seq: int
    last_now_ms: int
    epoch: int
    notices: list[str]


class Kept(Struct, frozen=True):
    """An outcome as it was kept. `accepted`: it is the task's result; else it tells of an ended attempt."""

    job: JobId
    stage: StageIndex
    index: TaskIndex
    attempt: AttemptId
    device: DeviceId
    accepted: bool
    blame: str
    reason: str
    outcome: Outcome


class FinishedJob(Struct, frozen=True):
    """A job that has left the scheduler's memory. `finished_ms` is wall time."""

    job: JobId
    state: str
    submitter: PrincipalId
    finished_ms: int
    view: JobView
