"""The driver: what leaves when, in which order, and what happens when the disk or the clock misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from coordinator.scheduler.effects import AssignTasks, Effect, PublishJob, Retire
from coordinator.scheduler.events import (
    ClockJumped,
    DeviceAttached,
    DeviceHeard,
    DeviceJoined,
    JobCancelled,
    JobSubmitted,
    ResultDelivered,
    SchedulerEvent,
)
from coordinator.scheduler.facts import Submitted
from coordinator.scheduler.machine import Machine
from coordinator.server.clock import MAX_BEAT_GAP_MS, GridClock
from coordinator.server.driver import BURST_WHILE_COMMITTING, Driver
from coordinator.server.store import Batch, TokenRow
from sparegrid.api import Items, JobSpec, StageSpec
from sparegrid.errors import BadInputError, NotFoundError, StorageError
from sparegrid.ids import DeviceId, JobId, PrincipalId, SessionId, StageIndex, TaskIndex
from sparegrid.messages import Outcome, Reading
from tests.fakes.worker import capability

PC = DeviceId("pc")


class FakeJournal:
    """Commits when it is told to."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.batches: list[Batch] = []
        self.pending: list[Future[int]] = []
        self.snapshots: list[tuple[bytes, int]] = []

    def commit(self, batch: Batch) -> Future[int]:
        self.batches.append(batch)
        future: Future[int] = Future()
        self.pending.append(future)
        if self.at_once:
            self.land()
        return future

    def save_snapshot(self, data: bytes, seq: int) -> Future[None]:
        self.snapshots.append((data, seq))
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def land(self) -> None:
        """The oldest commit is on disk."""
        self.pending.pop(0).set_result(len(self.batches))

    def break_down(self, error: Exception) -> None:
        self.pending.pop(0).set_exception(error)


class FakeOutlet:
    """Remembers what was let out."""

    def __init__(self) -> None:
        self.prepared: list[Effect] = []
        self.released: list[Effect] = []
        self.speakers: list[object] = []

    def prepare(self, effect: Effect) -> object | None:
        self.prepared.append(effect)
        return effect

    def release(self, prepared: Sequence[object]) -> None:
        self.released.extend(prepared)  # type: ignore[arg-type]  # they are what `prepare` gave

    def speaks(self, event: DeviceAttached, link: object) -> None:
        self.speakers.append((event.device, link))


class FakeTime:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.ms = 0

    def elapsed(self) -> int:
        return self.ms


class Bench:
    """A driver with all its neighbours."""

    def __init__(self, *, at_once: bool = False, snapshot_facts: int = 10**9) -> None:
        self.journal = FakeJournal(at_once=at_once)
        self.outlet = FakeOutlet()
        self.time = FakeTime()
        self.fatal: list[BaseException] = []
        self.driver = Driver(
            Machine(),
            self.journal,
            GridClock(1000, elapsed=self.time.elapsed, wall=lambda: 5),
            on_fatal=self.fatal.append,
            snapshot_facts=snapshot_facts,
        )
        self.driver.start(self.outlet)

    async def close(self) -> None:
        """Everything commits from now on."""
        self.journal.at_once = True
        while self.journal.pending:
            self.journal.land()
        await self.driver.close()

    def submit(self, count: int = 1) -> asyncio.Future[None]:
        spec = JobSpec("j", [StageSpec(params={"argv": ["true"]}, items=Items(count=count))])
        job = self.driver.machine.next_job_id()
        return self.driver.submit(JobSubmitted(job=job, spec=spec, submitter=PrincipalId("local"), wall_ms=5))

    def join(self) -> None:
        self.driver.post(DeviceJoined(device=PC, name="pc", wall_ms=5))
        attached = DeviceAttached(
            device=PC,
            session=SessionId("s"),
            name="pc",
            capability=capability(),
            running=[],
            spooled=[],
            held=[],
            state="ready",
            reason="",
            unclean=False,
        )
        self.driver.post(attached, link="link")

    def released(self, kind: type[Effect]) -> list[Effect]:
        return [effect for effect in self.outlet.released if isinstance(effect, kind)]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def landed(bench: Bench) -> None:
    """Let every commit land, also those that follow."""
    while bench.journal.pending:
        bench.journal.land()
        await turns()


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await turns()
    return made


async def test_nothing_leaves_before_its_commit(bench: Bench) -> None:
    answer = bench.submit()
    await turns()
    assert isinstance(bench.journal.batches[0].facts[0], Submitted)
    assert not answer.done()
    assert bench.outlet.released == []
    bench.journal.land()
    await turns()
    assert answer.done()
    assert bench.released(PublishJob)
    await bench.close()


async def test_assignments_are_prepared_at_once_and_leave_after_the_commit(bench: Bench) -> None:
    bench.join()
    answer = bench.submit()
    await turns()
    assert [effect for effect in bench.outlet.prepared if isinstance(effect, AssignTasks)]
    assert not bench.released(AssignTasks)
    await landed(bench)
    await answer
    assert bench.released(AssignTasks)
    assert bench.outlet.speakers == [(PC, "link")]
    await bench.close()


async def test_events_that_come_during_a_commit_share_the_next_one(bench: Bench) -> None:
    first = bench.submit()
    await turns()
    others = [bench.submit() for _ in range(10)]
    await turns()
    assert len(bench.journal.batches) == 1
    bench.journal.land()
    await turns()
    assert len(bench.journal.batches) == 2
    assert sum(isinstance(fact, Submitted) for fact in bench.journal.batches[1].facts) == 10
    assert first.done()
    assert not any(answer.done() for answer in others)
    await landed(bench)
    assert all(answer.done() for answer in others)
    await bench.close()


async def test_many_events_are_handled_while_the_disk_is_busy(bench: Bench) -> None:
    bench.submit()
    await turns()
    for _ in range(BURST_WHILE_COMMITTING):
        bench.submit()
    await turns()
    assert len(list(bench.driver.machine.jobs())) == BURST_WHILE_COMMITTING + 1
    assert len(bench.journal.batches) == 1
    await landed(bench)
    await bench.close()


async def test_a_refused_request_is_told_at_once_and_changes_nothing(bench: Bench) -> None:
    answer = bench.driver.submit(JobCancelled(job=JobId(9), by=PrincipalId("local")))
    await turns()
    with pytest.raises(NotFoundError):
        await answer
    assert bench.journal.batches == []
    await bench.close()


async def test_a_request_that_is_refused_leaves_its_neighbours_alone(bench: Bench) -> None:
    good = bench.submit()
    bad = bench.driver.submit(JobCancelled(job=JobId(9), by=PrincipalId("local")))
    also_good = bench.submit()
    await turns()
    await landed(bench)
    assert good.result() is None
    assert also_good.result() is None
    assert isinstance(bad.exception(), NotFoundError)
    await bench.close()


async def test_tokens_commit_together_with_what_they_come_with(bench: Bench) -> None:
    row = TokenRow(b"h" * 32, "worker", PrincipalId("pc"), PC)
    answer = bench.driver.submit(DeviceJoined(device=PC, name="pc", wall_ms=5), tokens=[row])
    await turns()
    assert bench.journal.batches[0].tokens == [row]
    assert bench.journal.batches[0].facts
    await landed(bench)
    await answer
    await bench.close()


async def test_a_heartbeat_costs_no_commit(bench: Bench) -> None:
    bench.join()
    await turns()
    await landed(bench)
    before = len(bench.journal.batches)
    bench.driver.post(DeviceHeard(device=PC, reading=Reading(load=1)))
    await turns()
    assert len(bench.journal.batches) == before
    await bench.close()


async def test_readers_wait_for_what_is_not_durable_yet(bench: Bench) -> None:
    bench.submit()
    await turns()
    reader = asyncio.ensure_future(bench.driver.settled())
    await turns()
    assert not reader.done()
    await landed(bench)
    assert reader.done()
    await asyncio.wait_for(bench.driver.settled(), 1)
    await bench.close()


async def test_a_full_disk_pauses_intake_and_keeps_hearing_devices(bench: Bench) -> None:
    bench.join()
    await turns()
    await landed(bench)
    answer = bench.submit()
    await turns()
    bench.driver.held(StorageError("Disk full", "no space left"))
    with pytest.raises(StorageError, match="Intake is paused: no space left"):
        bench.driver.check_intake()
    assert "no space left" in bench.driver.notice
    # Time goes on for hours; only the heartbeats keep the lease.
    for _ in range(20):
        bench.time.ms += 4000
        bench.driver.post(DeviceHeard(device=PC, reading=Reading()))
        await turns()
    assert bench.driver.machine.device_view(PC).state != "offline"
    assert not answer.done()
    assert len(bench.journal.batches) == 2
    bench.driver.resumed()
    await landed(bench)
    await turns()
    await landed(bench)
    assert answer.done()
    bench.driver.check_intake()
    assert bench.driver.notice == ""
    await bench.close()


async def test_a_broken_disk_ends_everything(bench: Bench) -> None:
    answer, later = bench.submit(), bench.submit()
    await turns()
    bench.journal.break_down(StorageError("Disk error", "fsync failed"))
    await turns()
    assert [str(error) for error in bench.fatal] == ["Disk error: fsync failed"]
    for each in (answer, later, bench.submit()):
        assert isinstance(each.exception(), StorageError)
    assert bench.outlet.released == []
    await bench.close()


async def test_a_scheduler_that_fails_ends_everything(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> list[Effect]:
        raise RuntimeError("impossible transition")

    monkeypatch.setattr(bench.driver.machine, "handle_all", broken)
    bench.driver.post(DeviceHeard(device=PC, reading=Reading()))
    await turns()
    assert [str(error) for error in bench.fatal] == ["impossible transition"]
    assert "the scheduler failed" in caplog.text
    await bench.close()


async def test_a_sleep_is_told_to_the_scheduler_before_anything_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    handle_all = bench.driver.machine.handle_all

    def seeing(events: Sequence[SchedulerEvent], now_ms: int) -> list[Effect]:
        seen.extend(events)
        return handle_all(events, now_ms)

    monkeypatch.setattr(bench.driver.machine, "handle_all", seeing)
    bench.time.ms += 3_600_000
    bench.driver.post(DeviceHeard(device=PC, reading=Reading()))
    await turns()
    assert isinstance(seen[0], ClockJumped)
    assert seen[0].gap_ms == 3_600_000
    await bench.close()


def test_short_pauses_are_no_sleep_and_long_ones_are() -> None:
    time = FakeTime()
    clock = GridClock(50, elapsed=time.elapsed)
    time.ms = MAX_BEAT_GAP_MS
    assert clock.beat() == 0
    time.ms += MAX_BEAT_GAP_MS + 1
    assert clock.beat() == MAX_BEAT_GAP_MS + 1
    assert clock.beat() == 0
    assert clock.now_ms() == 50 + time.ms


async def test_snapshots_are_taken_after_so_many_facts_and_match_their_commit() -> None:
    bench = Bench(snapshot_facts=3)
    for _ in range(3):
        bench.submit()
    await turns()
    assert bench.journal.snapshots == []
    await landed(bench)
    (data, seq), *_ = bench.journal.snapshots
    assert seq == 1
    restored = Machine()
    restored.load(data)
    assert list(restored.jobs()) == list(bench.driver.machine.jobs())
    await bench.close()


async def test_closing_commits_what_is_queued_and_takes_a_last_snapshot() -> None:
    bench = Bench(at_once=True)
    answer = bench.submit()
    await bench.close()
    assert answer.done()
    assert len(bench.journal.snapshots) == 1
    assert bench.journal.snapshots[0][1] == len(bench.journal.batches)


async def test_the_last_view_of_a_job_is_released_with_its_result() -> None:
    bench = Bench(at_once=True)
    bench.join()
    bench.submit()
    await turns(20)
    assigned = bench.released(AssignTasks)[0]
    assert isinstance(assigned, AssignTasks)
    bench.driver.post(
        ResultDelivered(
            device=PC,
            job=JobId(1),
            stage=StageIndex(0),
            index=TaskIndex(0),
            attempt=assigned.allots[0].attempt,
            outcome=Outcome(exit_code=0),
        )
    )
    await turns(20)
    assert bench.released(Retire)
    assert bench.journal.batches[-1].retired
    assert bench.journal.batches[-1].keeps
    await bench.close()


@pytest.mark.parametrize("what", ["number", "nesting"])
async def test_a_request_that_the_journal_cannot_keep_is_refused_before_it_is_handled(
    bench: Bench, what: str
) -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    values = [2**70] if what == "number" else deep
    spec = JobSpec("j", [StageSpec(kind="mine", params={"odd": values})])
    job = bench.driver.machine.next_job_id()
    event = JobSubmitted(job=job, spec=spec, submitter=PrincipalId("local"), wall_ms=5)
    with pytest.raises(BadInputError, match="Cannot be kept"):
        await bench.driver.submit(event)
    assert not bench.fatal
    assert not bench.driver.machine.has_job(job)
    answer = bench.submit()
    await turns()
    await landed(bench)
    await answer
    await bench.close()
