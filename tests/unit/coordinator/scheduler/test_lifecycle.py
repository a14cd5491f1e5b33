"""A task's way: submitted, assigned, accepted; failed, retried, given up; cancelled."""

from __future__ import annotations

import pytest

from coordinator.scheduler.effects import AckAttempts, AssignTasks, Forget, Keep, PublishJob, Retire, Send
from coordinator.scheduler.events import JobCancelled, JobRemoved, JobRevived
from sparegrid.errors import ConflictError, NotFoundError
from sparegrid.ids import JobId, PrincipalId
from sparegrid.messages import Release
from tests.unit.coordinator.scheduler.harness import Bench, stage


def test_a_submitted_job_waits_until_a_device_comes_and_then_runs() -> None:
    grid = Bench()
    job = grid.submit(stage(count=2))
    assert grid.states(job) == ["queued", "queued"]
    grid.attach("pc", slots=2)
    assert [one.index for one in grid.on("pc")] == [0, 1]
    grid.start(*grid.on("pc"))
    assert grid.states(job) == ["running", "running"]
    grid.deliver(*grid.on("pc"))
    assert grid.view(job).state == "done"
    assert grid.view(job).done == 2


def test_a_finished_job_leaves_memory_with_its_view_and_its_devices_are_told() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit()
    effects = grid.deliver(*grid.on("pc"))
    assert not grid.machine.has_job(job)
    assert [one.job for one in effects if isinstance(one, Retire)] == [job]
    assert [
        one.message.device for one in effects if isinstance(one, Send) and isinstance(one.message, Release)
    ] == ["pc"]
    assert not [one for one in effects if isinstance(one, PublishJob)]


def test_a_delivery_is_kept_and_acknowledged() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=5))
    held = grid.on("pc")[0]
    effects = grid.deliver(held)
    assert [(one.index, one.accepted) for one in effects if isinstance(one, Keep)] == [(0, True)]
    assert [one.attempts for one in effects if isinstance(one, AckAttempts)] == [[held.attempt]]
    assert grid.view(job).done == 1


def test_a_duplicate_delivery_is_acknowledged_and_changes_nothing() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.submit(stage(count=5))
    held = grid.on("pc")[0]
    grid.deliver(held)
    effects = grid.deliver(held)
    assert [type(one) for one in effects] == [AckAttempts]


def test_a_result_from_a_device_that_was_not_assigned_the_attempt_is_not_accepted() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.attach("pi")
    job = grid.submit(stage(count=1))
    held = next(iter(grid.held.values()))
    held.device = "pi" if held.device == "pc" else "pc"
    grid.deliver(held)
    assert grid.view(job).done == 0


def test_a_task_fails_after_its_retries_are_spent() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(retries=2))
    for number in (1, 2, 3):
        held = grid.on("pc")[0]
        assert held.number == number
        grid.fail(held)
    assert grid.view(job).state == "failed"
    assert "exit code 3" in grid.view(job).reason


@pytest.mark.parametrize("blame", ["owner", "grid"])
def test_what_is_not_the_tasks_fault_spends_no_retries(blame: str) -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(retries=0))
    for _ in range(20):
        grid.wait(2_000_000, hear=["pc"])
        grid.fail(grid.on("pc")[0], blame=blame, reason="gave back")
    assert grid.view(job).state == "active"


def test_an_unknown_blame_of_a_newer_worker_counts_as_the_grids() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(retries=0))
    grid.fail(grid.on("pc")[0], blame="weather")
    assert grid.view(job).state == "active"


def test_cancelling_is_recorded_at_once_and_the_slot_is_free_when_the_attempt_has_ended() -> None:
    grid = Bench()
    grid.attach("pc")
    first = grid.submit(stage(count=1))
    held = grid.on("pc")[0]
    grid.start(held)
    second = grid.submit(stage(count=3))
    assert grid.on("pc")[1:]  # one task waits there, ahead
    ahead = grid.on("pc")[1]
    grid.cancel(first)
    assert grid.view(first).state == "cancelled"
    assert grid.cancels == [("pc", held.attempt)]
    assert grid.machine.has_job(first)
    assert grid.machine.device_view(grid.machine.find_device("pc")).running == 1
    grid.fail(held, blame="grid", reason="cancelled")
    assert not grid.machine.has_job(first)
    grid.deliver(ahead)
    assert grid.view(second).done == 1


def test_a_result_that_crosses_a_cancel_is_not_accepted() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=2))
    held = grid.on("pc")[0]
    grid.cancel(job)
    for one in list(grid.held.values()):
        grid.deliver(one)
    assert grid.view(job).state == "cancelled"
    assert grid.view(job).done == 0
    assert held.attempt in grid.acked


def test_a_failed_job_comes_back_by_retry() -> None:
    grid = Bench()
    grid.attach("pc", slots=2)
    job = grid.submit(stage(count=2, retries=0))
    bad, good = grid.on("pc")
    grid.fail(bad)
    grid.deliver(good)
    assert grid.view(job).state == "failed"
    grid.do(JobRevived(job, grid.retired[job].state))
    assert grid.machine.has_job(job)
    grid.retry(job)
    assert [one.index for one in grid.on("pc")] == [bad.index]
    grid.work_off()
    assert grid.view(job).state == "done"
    assert grid.accepted == {(job, 0, 0): 1, (job, 0, 1): 1}


def test_a_revived_job_that_nobody_retries_leaves_memory_again() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(retries=0))
    grid.fail(grid.on("pc")[0])
    grid.do(JobRevived(job, grid.retired[job].state))
    grid.wait(120_000, hear=["pc"])
    assert not grid.machine.has_job(job)


def test_a_retry_while_the_cancelled_attempt_still_runs_does_not_take_its_result() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit()
    old = grid.on("pc")[0]
    grid.start(old)
    grid.cancel(job)
    grid.retry(job)
    grid.deliver(old)
    assert grid.view(job).done == 0
    grid.work_off()
    assert grid.view(job).state == "done"


def test_requests_that_make_no_sense_are_refused_and_change_nothing() -> None:
    grid = Bench()
    grid.attach("pc")
    done = grid.submit()
    grid.work_off()
    active = grid.submit(stage(count=5))
    before = grid.machine.snapshot()
    with pytest.raises(ConflictError):
        grid.cancel(done)
    with pytest.raises(NotFoundError):
        grid.cancel(JobId(99))
    with pytest.raises(ConflictError):
        grid.retry(active)
    with pytest.raises(NotFoundError):
        grid.retry(active, [(0, 17)])
    with pytest.raises(ConflictError):
        grid.do(JobRemoved(active))
    with pytest.raises(NotFoundError):
        grid.do(JobRemoved(JobId(99)))
    assert grid.machine.snapshot() == before


def test_cancelling_twice_changes_nothing() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit()
    grid.cancel(job)
    assert grid.do(JobCancelled(job, PrincipalId("bob"))) == []


def test_a_removed_job_is_forgotten() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit()
    grid.work_off()
    grid.do(JobRemoved(job))
    assert grid.of(Forget) == [Forget(job)]


def test_a_job_without_tasks_is_done_at_once() -> None:
    grid = Bench()
    job = grid.submit(stage(count=0))
    assert grid.view(job).state == "done"


def test_assignments_and_results_are_told_in_ranges() -> None:
    grid = Bench()
    grid.submit(stage(count=8))
    grid.attach("pc", slots=8)
    (assigned,) = grid.of(AssignTasks)
    assert [(one.index, one.count) for one in assigned.allots] == [(0, 8)]
    facts = len(grid.facts)
    grid.deliver(*grid.on("pc"))
    assert [type(one).__name__ for one in grid.facts[facts:]] == ["Accepted", "Finished"]
