"""A grid in miniature for tests of the scheduler: every value that goes in or comes out is encoded and decoded.

`Bench` feeds events to a Machine, keeps its facts, mirrors them into a second machine that only applies facts, and
after each batch checks the invariants and that both machines hold the same. Devices are names; what was assigned to
them and not answered is in `Bench.held`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from coordinator.scheduler.effects import AckAttempts, AssignTasks, Effect, Record, Retire, Send
from coordinator.scheduler.events import (
    AttemptEnded,
    AttemptsStarted,
    DeviceAttached,
    DeviceDetached,
    DeviceHeard,
    JobCancelled,
    JobRetried,
    JobSubmitted,
    ResultDelivered,
    SchedulerEvent,
    Ticked,
)
from coordinator.scheduler.facts import Accepted, Fact
from coordinator.scheduler.limits import Limits
from coordinator.scheduler.machine import Machine
from sparegrid.api import Items, JobSpec, JobView, Need, StageSpec
from sparegrid.ids import AttemptId, DeviceId, JobId, PrincipalId, SessionId, StageIndex, TaskIndex, TaskRef
from sparegrid.messages import (
    Cancel,
    Capability,
    FileEntry,
    Inline,
    KindInfo,
    Outcome,
    Reading,
    TakeBack,
    Usage,
)
from sparegrid.states import TaskState

_STATES = tuple(TaskState)
T = TypeVar("T")


def through_codec(value: T, union: Any) -> T:
    """The value as it is after a journey."""
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=union)
    assert again == value, f"{value} became {again}"
    return again  # type: ignore[no-any-return]


def stage(
    name: str = "main", count: int | None = 1, *, needs: Sequence[Need] = (), **fields: Any
) -> StageSpec:
    """A stage of `count` tasks."""
    items = fields.pop("items", None) or Items(count=count)
    return StageSpec(name=name, items=items, needs=list(needs), **fields)


def capability(slots: int = 1, **fields: Any) -> Capability:
    """What a PC offers."""
    fields.setdefault("kinds", {"command": KindInfo(speed=fields.pop("speed", 0.0))})
    fields.setdefault("memory", 8 << 30)
    return Capability(os="linux", arch="x86_64", cpus=slots, slots=slots, disk_free=1 << 40, **fields)


class Held:
    """An attempt that a device has been assigned and has not answered."""

    def __init__(
        self, device: str, job: int, stage_index: int, index: int, attempt: int, number: int
    ) -> None:
        self.device, self.job, self.stage, self.index = device, job, stage_index, index
        self.attempt, self.number = attempt, number

    def __repr__(self) -> str:
        return f"{self.attempt}:{self.job}.{self.stage}.{self.index}@{self.device}"


class Bench:
    """A machine on the test bench. `mirror=False` leaves out the second machine, for large numbers."""

    def __init__(
        self, *, limits: Limits | None = None, mirror: bool = True, heartbeat_ms: int = 10_000
    ) -> None:
        self.limits = limits or Limits()
        self.heartbeat_ms = heartbeat_ms
        self.machine = Machine(heartbeat_ms=heartbeat_ms, limits=self.limits)
        self.mirror = Machine(heartbeat_ms=heartbeat_ms, limits=self.limits) if mirror else None
        self.now_ms = 1_000
        self.facts: list[Fact] = []
        self.held: dict[int, Held] = {}
        self.accepted: dict[tuple[int, int, int], int] = {}
        """How often each task's result was accepted."""
        self.acked: list[int] = []
        self.cancels: list[tuple[str, int]] = []
        self.take_backs: list[tuple[str, int]] = []
        self.retired: dict[int, Retire] = {}
        self.effects: list[Effect] = []
        """Of the last batch."""

    # ---- in and out --------------------------------------------------------------------------------------------

    def do(self, *events: SchedulerEvent) -> list[Effect]:
        """Handle these events as one burst."""
        sent = [through_codec(event, SchedulerEvent) for event in events]
        self.effects = [through_codec(one, Effect) for one in self.machine.handle_all(sent, self.now_ms)]
        for effect in self.effects:
            self._take_in(effect)
        self.machine.check()
        if self.mirror is not None:
            assert self.mirror.snapshot() == self.machine.snapshot(), (
                "the facts tell another story than the machine"
            )
        return self.effects

    def _take_in(self, effect: Effect) -> None:
        match effect:
            case Record(fact):
                self.facts.append(through_codec(fact, Fact))
                if self.mirror is not None:
                    self.mirror.apply(self.facts[-1])
                if isinstance(fact, Accepted):
                    for index, _, _, _ in fact.entries:
                        key = (fact.job, fact.stage, index)
                        self.accepted[key] = self.accepted.get(key, 0) + 1
            case AssignTasks(device, job, stage_index, allots):
                for allot in allots:
                    for k in range(allot.count):
                        held = Held(
                            device, job, stage_index, allot.index + k, allot.attempt + k, allot.number
                        )
                        assert held.attempt not in self.held
                        self.held[held.attempt] = held
            case AckAttempts(_, attempts):
                self.acked += attempts
            case Send(Cancel(device=device, attempts=attempts)):
                self.cancels += [(device, one) for one in attempts]
            case Send(TakeBack(device=device, attempts=attempts)):
                self.take_backs += [(device, one) for one in attempts]
            case Retire():
                self.retired[effect.job] = effect
            case _:
                pass

    def of(self, kind: type[T]) -> list[T]:
        """Effects of the last batch of this type."""
        return [one for one in self.effects if isinstance(one, kind)]

    def restart(self) -> None:
        """The coordinator ends, and begins again from its facts alone; devices are not attached yet."""
        self.machine = Machine(heartbeat_ms=self.heartbeat_ms, limits=self.limits)
        for fact in self.facts:
            self.machine.apply(fact)
        self.machine.resume(self.now_ms)
        self.machine.check()

    # ---- what people do ----------------------------------------------------------------------------------------

    def submit(self, *stages: StageSpec, who: str = "ann", name: str = "job", **fields: Any) -> JobId:
        """Submit a job of these stages."""
        job = self.machine.next_job_id()
        spec = JobSpec(name=name, stages=list(stages) or [stage()], **fields)
        self.do(JobSubmitted(job, spec, PrincipalId(who), self.wall_ms))
        return job

    def cancel(self, job: JobId, by: str = "ann") -> None:
        self.do(JobCancelled(job, PrincipalId(by), self.wall_ms))

    def retry(self, job: JobId, tasks: list[tuple[int, int]] | None = None) -> None:
        chosen = None if tasks is None else [(StageIndex(one), TaskIndex(index)) for one, index in tasks]
        self.do(JobRetried(job, chosen))

    # ---- what devices do ---------------------------------------------------------------------------------------

    def attach(self, device: str, slots: int = 1, **fields: Any) -> None:
        """A device comes, or comes back. Keywords of DeviceAttached, the rest describes its capability."""
        own = {
            "session": SessionId(f"{device}-1"), "running": [], "spooled": [], "held": [], "state": "ready",
            "reason": "", "unclean": False,
        }  # fmt: skip
        for key in list(own):
            if key in fields:
                own[key] = fields.pop(key)
        what = fields.pop("capability", None) or capability(slots, **fields)
        self.do(
            DeviceAttached(device=DeviceId(device), name=device, capability=what, wall_ms=self.wall_ms, **own)  # type: ignore[arg-type]
        )

    def detach(self, device: str, *, for_good: bool = False, session: str = "") -> None:
        self.do(DeviceDetached(DeviceId(device), SessionId(session or f"{device}-1"), for_good))

    def hear(self, *devices: str) -> None:
        self.do(*(DeviceHeard(DeviceId(one), Reading()) for one in devices))

    def start(self, *helds: Held) -> None:
        self.do(*(AttemptsStarted(DeviceId(one.device), [AttemptId(one.attempt)]) for one in helds))

    def result_event(
        self, held: Held, *, wall_ms: int = 100, files: Sequence[str | FileEntry] = ()
    ) -> ResultDelivered:
        entries = [one if isinstance(one, FileEntry) else FileEntry(one, Inline(b"")) for one in files]
        return ResultDelivered(
            DeviceId(held.device), JobId(held.job), StageIndex(held.stage), TaskIndex(held.index),
            AttemptId(held.attempt), Outcome(exit_code=0, files=entries, usage=Usage(wall_ms=wall_ms)),
        )  # fmt: skip

    def deliver(
        self, *helds: Held, wall_ms: int = 100, files: Sequence[str | FileEntry] = ()
    ) -> list[Effect]:
        """These attempts succeed."""
        for one in helds:
            self.held.pop(one.attempt, None)
        return self.do(*(self.result_event(one, wall_ms=wall_ms, files=files) for one in helds))

    def fail(
        self, held: Held, blame: str = "task", reason: str = "exit code 3", **fields: Any
    ) -> list[Effect]:
        """This attempt ends without a result."""
        self.held.pop(held.attempt, None)
        return self.do(
            AttemptEnded(
                DeviceId(held.device), JobId(held.job), StageIndex(held.stage), TaskIndex(held.index),
                AttemptId(held.attempt), blame, reason, Outcome(exit_code=3), **fields,
            )
        )  # fmt: skip

    def give_back(self, *attempts: int) -> None:
        """Unstarted attempts go back, as asked."""
        for one in attempts:
            self.fail(self.held[one], blame="grid", reason="taken back", unstarted=True)

    def work_off(self, most: int = 10_000, *, wall_ms: int = 100) -> None:
        """Deliver everything that is or will be assigned."""
        for _ in range(most):
            if not self.held:
                return
            self.deliver(next(iter(self.held.values())), wall_ms=wall_ms)
        raise AssertionError(f"still held after {most} deliveries: {list(self.held.values())[:5]}")

    # ---- time and looks ----------------------------------------------------------------------------------------

    @property
    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.now_ms

    def wait(self, ms: int, *, hear: Sequence[str] = ()) -> None:
        """Time passes; deadlines are met, and these devices give signs of life every 5 seconds."""
        end = self.now_ms + ms
        while self.now_ms < end:
            self.now_ms = min(end, self.now_ms + 5_000)
            self.do(Ticked())
            if hear:
                self.hear(*hear)

    def on(self, device: str) -> list[Held]:
        """What the device holds, in the order of assignment."""
        return [one for one in self.held.values() if one.device == device]

    def state(self, job: JobId, index: int = 0, stage_index: int = 0) -> str:
        return str(_STATES[self.machine.task_states(job, StageIndex(stage_index))[index]])

    def states(self, job: JobId, stage_index: int = 0) -> list[str]:
        return [str(_STATES[one]) for one in self.machine.task_states(job, StageIndex(stage_index))]

    def view(self, job: JobId) -> JobView:
        """The job's view, from memory or from when it left."""
        if self.machine.has_job(job):
            return self.machine.job_view(job)
        return msgspec.json.decode(self.retired[job].view, type=JobView)

    def explain(self, job: JobId, index: int = 0, stage_index: int = 0) -> str:
        ref = TaskRef(job, StageIndex(stage_index), TaskIndex(index))
        return self.machine.explain_task(ref, self.now_ms).summary
