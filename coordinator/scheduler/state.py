"""What the scheduler remembers: jobs, stages, attempts, devices. Data only; `transitions` and its neighbours change it.

Durable parts follow from facts alone (see `restore`); volatile parts (what runs, readings, connections, bookings,
fairness) start anew after a restart. Identity is object identity, and every collection that is iterated keeps the
order of insertion.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from heapq import heappush
from typing import TYPE_CHECKING

from msgspec import Struct

from coordinator.scheduler.items import ItemList
from coordinator.scheduler.limits import Limits
from coordinator.scheduler.ranges import TaskQueue
from sparegrid.api import JobSpec, Need, StageSpec
from sparegrid.ids import AttemptId, DeviceId, JobId, PrincipalId, SessionId, StageIndex, TaskIndex, TaskRef
from sparegrid.messages import Capability, Payload, Reading
from sparegrid.states import TaskState

if TYPE_CHECKING:
    from coordinator.scheduler.marks import Marks
    from coordinator.scheduler.requirements import RequirementClass

WAITING, QUEUED, RUNNING, SUSPENDED, DONE, FAILED, CANCELLED, LOST = range(8)
"""Ordinals of TaskState, as the per-index bytes hold them."""
STATES: tuple[TaskState, ...] = tuple(TaskState)
STATE_COUNT = len(STATES)

ASSIGNED, STARTED, STOPPED, SPOOLED = range(4)
"""States of a live attempt: not started as far as is known, running, suspended, finished and its result announced."""

SILENT = "its device was silent past its lease"
LEFT = "its device left"
RESTARTED = "its worker was restarted"
UNKNOWN_THERE = "its device does not know it"
TAKEN_BACK = "taken back"
STOPPED_WANTED = "not wanted any more"
REVOKED_DEVICE = "its device was removed from the grid"
NEVER_SENT = "its result was announced, but never came"
WELCOME_LATER = frozenset({SILENT, LEFT, NEVER_SENT})
"""Reasons after which a late result of an unfinished task is still accepted."""

NO_SESSION = SessionId("")
NOBODY = PrincipalId("")

PoolEntry = tuple[int, int, int, "Device"]
"""(-speed in steps, -free milli-CPUs, member number, device): the order in which idle devices are chosen."""


class InvariantError(Exception):
    """The machine contradicts itself; the text is the story of the task, job or device."""


class Past(Struct, array_like=True, frozen=True):
    """An ended attempt, as remembered for views and stories."""

    attempt: AttemptId
    device: DeviceId
    number: int
    blame: str
    reason: str
    assigned_ms: int
    ended_ms: int
    crash: bool = False


@dataclass(slots=True, eq=False)
class Attempt:
    """One live try of a task on a device. It holds its place there until it has ended, also when revoked."""

    id: AttemptId
    stage: Stage
    index: TaskIndex
    device: Device
    number: int
    assigned_ms: int
    state: int = ASSIGNED
    booked: bool = False
    """Its resources are taken from the device's; else it waits there, ahead."""
    revoked: bool = False
    asked_back: bool = False
    cost: int = 0
    """What it was charged to its submitter's share."""
    started_ms: int = 0
    permille: int = 0
    note: str = ""


@dataclass(slots=True, eq=False)
class Lapsed:
    """An attempt that was requeued because its device went silent: its result is welcome while its task is unfinished.

    That holds over restarts of the coordinator; whether it may have been running does not.
    """

    id: AttemptId
    stage: Stage
    index: TaskIndex
    number: int
    assigned_ms: int
    begun: bool = False
    """It may have been running."""


@dataclass(slots=True, eq=False)
class NeedLink:
    """A need of stage `down` for stage `up`."""

    need: Need
    up: Stage
    down: Stage
    done_of_group: dict[int, int] = field(default_factory=dict)
    """For `groups`: done tasks of each group that is begun and not complete."""


@dataclass(slots=True, eq=False)
class Stage:
    """A template and the compact state of its tasks."""

    job: Job
    index: StageIndex
    spec: StageSpec
    """Without its values: those are packed in `items`."""
    cls: RequirementClass
    items: ItemList
    states: bytearray = field(default_factory=bytearray)
    counts: list[int] = field(default_factory=lambda: [0] * STATE_COUNT)
    queue: TaskQueue = field(default_factory=TaskQueue)
    """Queued tasks without a live attempt."""
    unfinished: int = 0
    final: bool = False
    """Its number of tasks will not grow."""
    complete: bool = False
    """Final and all done: never changes again."""
    broken: str = ""
    """Why its items can never all be known, unless something is retried."""
    live: dict[int, Attempt] = field(default_factory=dict)
    copies: dict[int, list[Attempt]] = field(default_factory=dict)
    """Further live attempts of a task that is in `live`."""
    tries: dict[int, int] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    crashes: dict[int, list[DeviceId]] = field(default_factory=dict)
    excluded_on: dict[DeviceId, dict[int, str]] = field(default_factory=dict)
    checkpoints: dict[int, Payload] = field(default_factory=dict)
    story: dict[int, list[Past]] = field(default_factory=dict)
    ended_stories: int = 0
    needs: list[NeedLink] = field(default_factory=list)
    dependents: list[NeedLink] = field(default_factory=list)
    source: Stage | None = None
    feeds: list[Stage] = field(default_factory=list)
    feed_glob: str = ""
    file_counts: dict[int, int] = field(default_factory=dict)
    """Matching files of done tasks, for the stages in `feeds`."""
    starts: array[int] = field(default_factory=lambda: array("Q"))
    """With a source: the first index made of each upstream task's files, as far as they are known."""
    large: dict[int, list[str]] = field(default_factory=dict)
    """Large output blobs of done tasks, while others need them."""
    template_hashes: list[str] = field(default_factory=list)
    wants: dict[str, list[int]] = field(default_factory=dict)
    """Tasks by the large blobs that they alone need."""
    task_hashes: dict[int, list[str]] = field(default_factory=dict)
    wall_sum: int = 0
    timed: int = 0
    line_key: tuple[int, int, int] | None = None
    """Where it stands in its submitter's line while it has queued tasks."""
    next_tail_ms: int = 0

    @property
    def total(self) -> int:
        """Tasks known so far."""
        return len(self.states)

    @property
    def mean_ms(self) -> float:
        """Mean wall time of its accepted attempts; 0 when there are none."""
        return self.wall_sum / self.timed if self.timed else 0.0

    def ref(self, index: int) -> TaskRef:
        """The name of a task of this stage."""
        return TaskRef(self.job.id, self.index, TaskIndex(index))

    def attempts_of(self, index: int) -> list[Attempt]:
        """Live attempts of a task that are not revoked."""
        first = self.live.get(index)
        if first is None:
            return []
        return [first, *self.copies.get(index, ())]


@dataclass(slots=True, eq=False)
class Job:
    """A job in memory."""

    id: JobId
    spec: JobSpec
    """Without values of items."""
    submitter: PrincipalId
    share: Share
    submitted_ms: int
    submitted_wall_ms: int
    priority: int
    open: bool
    stages: list[Stage] = field(default_factory=list)
    order: list[Stage] = field(default_factory=list)
    """Stages, each after those that it needs."""
    cancelled_by: PrincipalId | None = None
    unfinished: int = 0
    ending: int = 0
    """Revoked attempts that have not ended."""
    devices: dict[DeviceId, None] = field(default_factory=dict)
    """Devices that were assigned something of it: they are told when it is over."""
    hold_until_ms: int = 0
    """A revived job stays in memory so long, waiting for its retry."""


@dataclass(slots=True, eq=False)
class Share:
    """A submitter's part of the grid: weight, and virtual time (work charged, divided by weight)."""

    name: PrincipalId
    weight: int = 1000
    vtime: int = 0
    jobs: int = 0
    lines: dict[RequirementClass, list[tuple[int, int, int, Stage]]] = field(default_factory=dict)
    """Stages with queued tasks, by what they require, most urgent first: (-priority, job, stage, Stage)."""


@dataclass(slots=True, eq=False)
class Bench:
    """Endings in a row of a stage's tasks on a device that were the device's or the grid's fault."""

    strikes: int = 0
    until_ms: int = 0
    reason: str = ""


@dataclass(slots=True, eq=False)
class Device:
    """A member of the grid."""

    id: DeviceId
    seq: int
    """Counts devices as they become known: the stable tie-break."""
    name: str
    joined_wall_ms: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    """Set by an admin; they go before those that the device carries itself."""
    session: SessionId = field(default=NO_SESSION)
    asked: str = ""
    """The pause verb given at the coordinator; empty when there is none."""
    asked_until_wall_ms: int = 0
    asked_by: PrincipalId = field(default=NOBODY)
    done: int = 0
    failed: int = 0
    live: dict[AttemptId, Attempt] = field(default_factory=dict)
    lapsed: dict[AttemptId, Lapsed] = field(default_factory=dict)
    # Volatile from here on.
    attached: bool = False
    silent: bool = False
    """Connected, but its lease has ended."""
    lease_until_ms: int = 0
    lease_listed: bool = False
    last_seen_ms: int = 0
    capability: Capability = field(default_factory=Capability)
    all_labels: dict[str, str] = field(default_factory=dict)
    reading: Reading = field(default_factory=Reading)
    policy: str = "ready"
    policy_reason: str = ""
    policy_until_wall_ms: int = 0
    asked_until_ms: int = 0
    spool_until_ms: int = 0
    """When announced results that have not come are given up."""
    held: dict[str, None] = field(default_factory=dict)
    classes: list[RequirementClass] = field(default_factory=list)
    """What it suits, while attached."""
    pooled: dict[RequirementClass, PoolEntry] = field(default_factory=dict)
    benches: dict[Stage, Bench] = field(default_factory=dict)
    ahead: deque[Attempt] = field(default_factory=deque)
    """Not booked, in the order of assignment; entries that are booked or ended meanwhile are skipped."""
    ahead_count: int = 0
    running: int = 0
    """Live attempts that were reported started and are not suspended."""
    blocked: bool = False
    """The first ahead waits for CPUs or memory: nothing may overtake it."""
    free_milli: int = 0
    free_memory: int = 0
    free_disk: int = 0
    free_gpus: int = 0
    free_vram: int = 0
    free_counts: dict[str, int] = field(default_factory=dict)

    @property
    def accepting(self) -> bool:
        """Whether it takes new work."""
        return self.attached and not self.asked and self.policy not in {"paused", "draining", "offline"}


@dataclass(slots=True, eq=False)
class World:
    """Everything, and the time of the event that is being handled."""

    limits: Limits
    base_heartbeat_ms: int
    marks: Marks
    jobs: dict[JobId, Job] = field(default_factory=dict)
    devices: dict[DeviceId, Device] = field(default_factory=dict)
    names: dict[str, DeviceId] = field(default_factory=dict)
    """Members by name; names differ."""
    attempts: dict[AttemptId, Attempt] = field(default_factory=dict)
    shares: dict[PrincipalId, Share] = field(default_factory=dict)
    classes: dict[tuple[object, ...], RequirementClass] = field(default_factory=dict)
    holders: dict[str, dict[Device, None]] = field(default_factory=dict)
    """Attached devices by the large blobs they hold."""
    grid_used: dict[str, int] = field(default_factory=dict)
    """Booked of the grid-wide named counts."""
    leases: list[tuple[int, int, Device]] = field(default_factory=list)
    """A heap; an entry may be early, never late."""
    ripples: deque[tuple[Stage, int, int]] = field(default_factory=deque)
    """Stages whose dependents must be looked at: tasks low to high - 1 ended badly (none: the stage as a whole)."""
    wakes: list[int] = field(default_factory=list)
    """A heap of times at which idle devices are looked at again."""
    held: dict[Job, None] = field(default_factory=dict)
    """Revived jobs that wait for their retry."""
    next_job: int = 1
    next_attempt: int = 1
    next_device: int = 1
    attached: int = 0
    vclock: int = 0
    now_ms: int = 0
    wall_offset_ms: int = 0
    done_tasks: int = 0

    def wake_at(self, time_ms: int) -> None:
        """Look at idle devices again then."""
        heappush(self.wakes, time_ms)

    @property
    def wall_ms(self) -> int:
        """Wall time as far as the events have told it."""
        return self.now_ms + self.wall_offset_ms
