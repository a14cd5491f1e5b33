"""Whatever happens, in whatever order: invariants hold, facts tell the whole story, no result is accepted twice.

Each step goes through `Bench.do`, which encodes and decodes every value, checks the invariants, and compares the
machine with one that only applied its facts. Time moves; devices reconnect, restart, crash; the coordinator restarts.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.scheduler.events import (
    ClockJumped,
    DevicePauseAsked,
    DevicePolicyChanged,
    DeviceRevoked,
    ItemsAppended,
    JobClosed,
    JobRevived,
    PriorityChanged,
    Ticked,
)
from coordinator.scheduler.limits import Limits
from sparegrid.api import Items, Need, Requires, StageItems, StageSpec
from sparegrid.errors import GridError
from sparegrid.ids import AttemptId, DeviceId, JobId, PrincipalId, SessionId, StageIndex
from sparegrid.messages import BlobRef, FileEntry
from tests.unit.coordinator.scheduler.harness import Bench, Held, stage

DEVICES = ("a", "b", "c", "d")
PICK = st.integers(0, 1 << 16)
BLOBS = [letter * 64 for letter in "abcdef"]


@st.composite
def stages(draw: st.DrawFn) -> list[StageSpec]:
    """A few stages that may need each other."""
    made: list[StageSpec] = []
    for at in range(draw(st.integers(1, 4))):
        needs: list[Need] = []
        items = Items(count=draw(st.integers(0, 6)))
        if at and draw(st.booleans()):
            up = draw(st.integers(0, at - 1))
            mapping = draw(st.sampled_from(["all", "same", "groups", "items"]))
            size = draw(st.integers(1, 3))
            count = made[up].items.count
            if mapping == "items":
                items = Items(stage=StageItems(f"s{up}"))
            else:
                if mapping != "all" and count is not None:
                    items = Items(count=count if mapping == "same" else -(-count // size))
                needs.append(Need(f"s{up}", map=mapping, size=size))
        requires = draw(
            st.sampled_from(
                [Requires(), Requires(cpus=2), Requires(memory=5 << 30), Requires(counts={"licence": 1})]
            )
        )
        retries = draw(st.integers(0, 1))
        made.append(stage(f"s{at}", items=items, needs=needs, requires=requires, retries=retries))
    return made


class Anything(RuleBasedStateMachine):
    """Random lives of a small grid."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = Bench(limits=Limits(counts={"licence": 2}, lost_after_devices=2))
        self.sessions = dict.fromkeys(DEVICES, 1)
        self.connected: dict[str, None] = {}
        self.lost: dict[int, Held] = {}
        """Held by devices that were given up meanwhile."""

    def _pick(self, pick: int) -> Held | None:
        held = [one for one in self.grid.held.values() if one.device in self.connected]
        return held[pick % len(held)] if held else None

    def _job(self, pick: int) -> JobId | None:
        jobs = list(self.grid.machine.jobs())
        return jobs[pick % len(jobs)] if jobs else None

    def _session(self, device: str) -> SessionId:
        return SessionId(f"{device}-{self.sessions[device]}")

    def _try(self, *events: Any) -> None:
        """A request that may be refused, but never half done."""
        before = self.grid.machine.snapshot()
        try:
            self.grid.do(*events)
        except GridError:
            assert self.grid.machine.snapshot() == before

    # ---- people ------------------------------------------------------------------------------------------------

    @rule(
        made=stages(), who=st.sampled_from(["ann", "bob"]), priority=st.integers(1, 10), is_open=st.booleans()
    )
    def submit(self, made: list[StageSpec], who: str, priority: int, is_open: bool) -> None:
        if len(list(self.grid.machine.jobs())) < 4:
            self.grid.submit(*made, who=who, priority=priority, open=is_open)

    @rule(pick=PICK, count=st.integers(0, 3))
    def append(self, pick: int, count: int) -> None:
        job = self._job(pick)
        if job is not None:
            self._try(ItemsAppended(job, StageIndex(pick % 3), list(range(count))))

    @rule(pick=PICK, what=st.sampled_from(["close", "cancel", "retry", "priority"]))
    def ask(self, pick: int, what: str) -> None:
        job = self._job(pick)
        if job is None:
            return
        if what == "close":
            self._try(JobClosed(job))
        elif what == "priority":
            self._try(PriorityChanged(job, 1 + pick % 10))
        else:
            try:
                self.grid.cancel(job) if what == "cancel" else self.grid.retry(job)
            except GridError:
                return

    @precondition(lambda self: self.grid.retired)
    @rule(pick=PICK)
    def revive_and_retry(self, pick: int) -> None:
        jobs = list(self.grid.retired)
        job = JobId(jobs[pick % len(jobs)])
        if not self.grid.machine.has_job(job):
            self.grid.do(JobRevived(job, self.grid.retired[job].state))
            try:
                self.grid.retry(job)
            except GridError:
                assert self.grid.view(job).state in {"done", "failed", "cancelled"}

    # ---- devices -----------------------------------------------------------------------------------------------

    @rule(
        device=st.sampled_from(DEVICES),
        slots=st.integers(1, 4),
        held=st.lists(st.sampled_from(BLOBS), max_size=2),
    )
    def attach(self, device: str, slots: int, held: list[str]) -> None:
        mine = [AttemptId(one.attempt) for one in self.grid.on(device)]
        keep = [one for one in mine if one % 5]
        for gone in mine:
            if gone not in keep:
                del self.grid.held[gone]
        self.grid.attach(
            device,
            slots=slots,
            held=held,
            session=self._session(device),
            running=keep[::2],
            spooled=keep[1::2],
        )
        self.connected[device] = None

    @rule(device=st.sampled_from(DEVICES), unclean=st.booleans())
    def restart_worker(self, device: str, unclean: bool) -> None:
        for one in self.grid.on(device):
            del self.grid.held[one.attempt]
        self.sessions[device] += 1
        self.grid.attach(device, slots=2, session=self._session(device), unclean=unclean)
        self.connected[device] = None

    @rule(device=st.sampled_from(DEVICES), for_good=st.booleans())
    def detach(self, device: str, for_good: bool) -> None:
        self.grid.detach(device, for_good=for_good, session=self._session(device))
        self.connected.pop(device, None)

    @rule(device=st.sampled_from(DEVICES), on=st.booleans())
    def pause(self, device: str, on: bool) -> None:
        self.grid.do(DevicePolicyChanged(DeviceId(device), "paused" if on else "ready", "", 0))

    @rule(
        device=st.sampled_from(DEVICES),
        verb=st.sampled_from(["pause", "resume", "finish"]),
        timed=st.booleans(),
    )
    def ask_pause(self, device: str, verb: str, timed: bool) -> None:
        until = self.grid.wall_ms + 30_000 if timed else 0
        self._try(DevicePauseAsked(DeviceId(device), verb, until, PrincipalId("ann"), self.grid.wall_ms))

    @rule(device=st.sampled_from(DEVICES))
    def revoke(self, device: str) -> None:
        self._try(DeviceRevoked(DeviceId(device)))
        self.connected.pop(device, None)

    @rule(pick=PICK)
    def start(self, pick: int) -> None:
        held = self._pick(pick)
        if held is not None:
            self.grid.start(held)

    @rule(picks=st.lists(PICK, min_size=1, max_size=6), files=st.integers(0, 3), large=st.booleans())
    def deliver(self, picks: list[int], files: int, large: bool) -> None:
        content = [FileEntry(f"f{n}", BlobRef(BLOBS[n], (4 << 20) if large else 5)) for n in range(files)]
        events = []
        for pick in picks:
            held = self._pick(pick)
            if held is not None:
                del self.grid.held[held.attempt]
                events.append(self.grid.result_event(held, files=content, wall_ms=pick % 5_000))
        if events:
            self.grid.do(*events)

    @rule(pick=PICK, blame=st.sampled_from(["task", "device", "owner", "grid"]), unstarted=st.booleans())
    def fail(self, pick: int, blame: str, unstarted: bool) -> None:
        held = self._pick(pick)
        if held is not None:
            self.grid.fail(held, blame=blame, unstarted=unstarted)

    # ---- time --------------------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([10, 3_000, 45_000, 90_000]), hear=st.booleans())
    def wait(self, ms: int, hear: bool) -> None:
        self.grid.now_ms += ms
        self.grid.do(Ticked())
        if hear and self.connected:
            self.grid.hear(*self.connected)

    @rule(gap=st.sampled_from([5_000, 100_000]))
    def sleep(self, gap: int) -> None:
        self.grid.now_ms += gap
        self.grid.do(ClockJumped(gap))

    @rule(from_snapshot=st.booleans())
    def restart_coordinator(self, from_snapshot: bool) -> None:
        if self.grid.mirror is None:
            return
        before = self.grid.machine.snapshot()
        self.grid.machine = self.grid.mirror
        fresh = type(self.grid.machine)(limits=self.grid.limits)
        fresh.load(before)
        if from_snapshot:
            self.grid.machine, fresh = fresh, self.grid.machine
        self.grid.mirror = fresh
        self.grid.machine.resume(self.grid.now_ms)
        self.connected.clear()
        assert self.grid.machine.snapshot() == before
        self.grid.machine.check()

    @invariant()
    def no_task_is_accepted_twice(self) -> None:
        assert all(count == 1 for count in self.grid.accepted.values())

    def teardown(self) -> None:
        """Every grid can still finish: good devices come, everything is delivered."""
        grid = self.grid
        for job in list(grid.machine.jobs()):
            self._try(JobClosed(job))
        for device in DEVICES:
            self._try(DevicePauseAsked(DeviceId(device), "resume", 0, PrincipalId("ann"), grid.wall_ms))
            self.restart_worker(device, False)
        grid.attach("rescue", slots=4)
        for _ in range(3000):
            if not list(grid.machine.jobs()):
                return
            if grid.held:
                held = next(iter(grid.held.values()))
                grid.deliver(held)
            else:
                grid.wait(60_000, hear=[*DEVICES, "rescue"])
        told = [grid.machine.explain_job(job, grid.now_ms) for job in grid.machine.jobs()]
        raise AssertionError(f"never over: {told}")


Anything.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
TestAnything = Anything.TestCase
