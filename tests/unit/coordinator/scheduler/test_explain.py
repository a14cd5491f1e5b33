"""Explanations in plain words, and the story that an impossible transition tells."""

from __future__ import annotations

import pytest

from coordinator.scheduler.events import DevicePauseAsked
from coordinator.scheduler.facts import Accepted, Ended
from coordinator.scheduler.state import InvariantError
from sparegrid.api import Need
from sparegrid.errors import NotFoundError
from sparegrid.ids import AttemptId, DeviceId, JobId, PrincipalId, StageIndex, TaskIndex, TaskRef
from tests.unit.coordinator.scheduler.harness import Bench, stage


def test_without_devices_a_task_says_so() -> None:
    grid = Bench()
    job = grid.submit()
    assert grid.explain(job) == "No device has joined the grid"


def test_with_devices_away_a_task_says_so() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.detach("pc")
    job = grid.submit()
    assert grid.explain(job) == "No device is connected"


def test_a_queued_task_tells_how_many_are_before_it() -> None:
    grid = Bench()
    for name in ("a", "b", "c", "d"):
        grid.attach(name)
    grid.submit(stage(count=100), priority=9)
    job = grid.submit(stage(count=50))
    assert grid.explain(job, 28) == "All 4 suitable devices are busy; 120 tasks are ahead"


def test_a_queued_task_with_one_device_is_told_of_it_alone() -> None:
    grid = Bench()
    grid.attach("pc")
    first = grid.submit(stage(count=4))
    assert grid.explain(first, 3).startswith("The only suitable device, pc, is busy; ")
    grid.do(DevicePauseAsked(DeviceId("pc"), "pause", 0, PrincipalId("ann"), grid.wall_ms))
    assert grid.explain(first, 3) == "The only suitable device, pc, is paused"


def test_an_unknown_device_is_answered_with_the_nearest_name() -> None:
    grid = Bench()
    grid.attach("pc2")
    with pytest.raises(NotFoundError) as caught:
        grid.machine.find_device("pc1")
    assert caught.value.hint == "Did you mean `pc2`? `sparegrid devices` lists them"


def test_a_running_task_tells_where_and_for_how_long() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit()
    assert "about to start" in grid.explain(job)
    grid.start(*grid.on("pc"))
    grid.now_ms += 5_000
    assert grid.explain(job) == "Runs on pc for 5 s"
    grid.detach("pc")
    assert "which is not connected" in grid.explain(job)


def test_a_failed_task_tells_its_story() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=2, retries=1))
    grid.fail(grid.on("pc")[0])
    while grid.state(job, 0) != "failed":
        grid.fail(next(one for one in grid.on("pc") if one.index == 0), reason="timed out after 60 s")
    told = grid.machine.explain_task(TaskRef(job, StageIndex(0), TaskIndex(0)), grid.now_ms)
    assert told.summary == "It failed: timed out after 60 s"
    assert told.details[0] == "try 1 on pc: exit code 3 (blame: task)"
    view = grid.machine.task_view(TaskRef(job, StageIndex(0), TaskIndex(0)))
    assert (view.failures, [one.number for one in view.attempts]) == (2, [1, 2])


def test_a_job_tells_what_holds_it() -> None:
    grid = Bench()
    job = grid.submit(stage("render", 3), stage("merge", 1, needs=[Need("render")]))
    told = grid.machine.explain_job(job, grid.now_ms)
    assert told.summary == "No device has joined the grid"
    assert "waits for 3 tasks of stage render" in told.details[1]
    grid.attach("pc")
    grid.start(*grid.on("pc")[:1])
    assert grid.machine.explain_job(job, grid.now_ms).summary == "1 of its 4 unfinished tasks runs"
    grid.cancel(job)
    assert "attempts are still being stopped" in grid.machine.explain_job(job, grid.now_ms).summary


def test_a_device_tells_why_it_idles() -> None:
    grid = Bench()
    grid.attach("pc")
    pc = DeviceId("pc")
    assert grid.machine.explain_device(pc, grid.now_ms).summary == "Ready: no task is queued"
    grid.submit(stage(kind="wasm"))
    assert "is not a device that runs wasm tasks" in grid.machine.explain_device(pc, grid.now_ms).summary
    grid.submit()
    assert "about to start" in grid.machine.explain_device(pc, grid.now_ms).summary
    grid.start(*grid.on("pc"))
    assert grid.machine.explain_device(pc, grid.now_ms).summary == "Computing: 1 attempt runs"
    grid.detach("pc")
    told = grid.machine.explain_device(pc, grid.now_ms)
    assert told.summary == "Offline: not connected"
    assert "given to others in 40 s" in told.details[1]


def test_an_impossible_transition_tells_the_story_of_the_task() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=2))
    held = grid.on("pc")[0]
    grid.fail(held, reason="exit code 7")
    grid.deliver(*[one for one in grid.on("pc") if one.index == 1])
    again = Accepted(
        job, StageIndex(0), DeviceId("pc"), [(TaskIndex(1), AttemptId(99), 1, 0)], [], grid.now_ms
    )
    with pytest.raises(InvariantError, match=r"task 1\.0\.1 \(main\) is done"):
        grid.machine.apply(again)
    unknown = Ended(job, StageIndex(0), TaskIndex(0), AttemptId(99), DeviceId("pc"), "task", "x", 1)
    with pytest.raises(InvariantError, match="attempt 99"):
        grid.machine.apply(unknown)
    strange = Accepted(JobId(77), StageIndex(0), DeviceId("pc"), [], [], 1)
    with pytest.raises(InvariantError, match="job 77"):
        grid.machine.apply(strange)
    nobody = Accepted(job, StageIndex(0), DeviceId("nobody"), [], [], 1)
    with pytest.raises(InvariantError, match="nobody, which never joined"):
        grid.machine.apply(nobody)


def test_checks_find_a_contradiction() -> None:
    grid = Bench(mirror=False)
    grid.attach("pc")
    job = grid.submit(stage(count=3))
    grid.machine._world.jobs[job].stages[0].states[2] = 4
    with pytest.raises(InvariantError, match=r"stage 1\.0: counts"):
        grid.machine.check()
