"""Snapshots and facts make an equal machine; damage and other versions are refused."""

from __future__ import annotations

import msgspec
import pytest

from coordinator.scheduler.events import ItemsAppended, JobRevived, WeightChanged
from coordinator.scheduler.machine import Machine
from sparegrid.api import Items, JobSpec, Need, RangeAxis, StageItems, StageSpec
from sparegrid.errors import StorageError
from sparegrid.ids import JobId, PrincipalId, StageIndex, TaskIndex
from sparegrid.messages import Inline
from tests.unit.coordinator.scheduler.harness import Bench, stage


def eventful() -> tuple[Bench, JobId]:
    """A grid in which a little of everything has happened."""
    grid = Bench()
    grid.attach("a", slots=4)
    grid.attach("b", slots=2)
    grid.do(WeightChanged(PrincipalId("bob"), 2500))
    job = grid.submit(
        stage("split", 3, retries=3),
        stage("encode", items=Items(stage=StageItems("split"))),
        stage("sum", 2, needs=[Need("split", map="groups", size=2)]),
        stage("grid", items=Items(axes={"x": [1, 2], "y": RangeAxis(0, 1, 0.5)})),
        stage("open", items=Items(values=["u"])),
        open=True,
    )
    grid.do(ItemsAppended(job, StageIndex(4), ["v", {"w": 1}]))
    first, second, *rest = list(grid.held.values())
    grid.deliver(first, files=["x", "y"])
    grid.fail(second, checkpoint=Inline(b"half"))
    grid.fail(rest[0], blame="device", reason="disk full")
    grid.detach("b")
    grid.wait(60_000, hear=["a"])
    return grid, job


def test_a_snapshot_makes_an_equal_machine() -> None:
    grid, job = eventful()
    again = Machine()
    again.load(grid.machine.snapshot())
    assert again.snapshot() == grid.machine.snapshot()
    again.check()
    for number in range(5):
        old = grid.machine.task_states(job, StageIndex(number))
        assert len(again.task_states(job, StageIndex(number))) == len(old)
        for index in range(len(old)):
            where = (job, StageIndex(number), TaskIndex(index))
            assert again.item(*where) == grid.machine.item(*where)
            assert again.source_of(*where) == grid.machine.source_of(*where)


def test_a_machine_goes_on_from_a_snapshot_and_later_facts() -> None:
    grid, _ = eventful()
    kept = len(grid.facts)
    again = Machine()
    again.load(grid.machine.snapshot())
    while grid.on("a"):
        grid.deliver(grid.on("a")[0])
    for fact in grid.facts[kept:]:
        again.apply(fact)
    again.check()
    assert again.snapshot() == grid.machine.snapshot()


def test_the_spec_comes_back_with_the_values_that_were_appended() -> None:
    grid, job = eventful()
    spec = grid.machine.spec(job)
    assert spec.stages[4].items.values == ["u", "v", {"w": 1}]
    assert msgspec.json.decode(msgspec.json.encode(spec), type=JobSpec) == spec


def test_a_retired_job_comes_back_as_it_was() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage("a", items=Items(values=["x", "y"]), retries=0), stage("b", 1, needs=[Need("a")]))
    grid.fail(grid.on("pc")[0])
    grid.work_off()
    view = grid.view(job)
    grid.do(JobRevived(job, grid.retired[job].state))
    again = grid.machine.job_view(job)
    again.finished_ms = view.finished_ms
    assert again == view
    assert grid.machine.spec(job).stages[0].items.values == ["x", "y"]


def test_attempt_and_job_numbers_are_never_reused() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.submit()
    last = grid.on("pc")[0].attempt
    grid.work_off()
    grid.restart()
    again = grid.machine
    assert again.next_job_id() == 2
    assert again.next_job_id() == 3
    grid.mirror = None
    grid.attach("pc")
    grid.submit()
    assert grid.on("pc")[0].attempt > last


@pytest.mark.parametrize(
    ("data", "title"),
    [
        (b"", "damaged"),
        (b"\xff\xff", "damaged"),
        (msgspec.msgpack.encode([7]), "another version"),
        (b"\x91\x01", "damaged"),
    ],
)
def test_a_snapshot_that_cannot_be_read_is_refused(data: bytes, title: str) -> None:
    with pytest.raises(StorageError, match=title):
        Machine().load(data)


def test_a_retired_job_that_cannot_be_read_is_refused() -> None:
    grid = Bench()
    with pytest.raises(StorageError, match="damaged job"):
        grid.do(JobRevived(JobId(1), b"\x00"))


def test_ten_million_tasks_are_taken_in_and_restored_in_little_memory() -> None:
    grid = Bench(mirror=False)
    grid.attach("pc", slots=8)
    job = grid.submit(StageSpec(name="huge", items=Items(count=10_000_000)))
    assert len(grid.on("pc")) == 9
    data = grid.machine.snapshot()
    assert len(data) < 100_000
    again = Machine()
    again.load(data)
    assert again.job_view(job).queued == 10_000_000
    grid.cancel(job)
    assert grid.view(job).cancelled == 10_000_000
    grid.retry(job)
    assert grid.view(job).queued == 10_000_000
