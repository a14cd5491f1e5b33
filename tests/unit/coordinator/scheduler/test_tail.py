"""Idle devices near the end: unstarted work is taken back, stragglers get a second attempt."""

from __future__ import annotations

from tests.unit.coordinator.scheduler.harness import Bench, stage


def test_unstarted_work_is_taken_back_when_another_device_idles() -> None:
    grid = Bench()
    grid.attach("slow")
    job = grid.submit(stage(count=2))
    running, waiting = grid.on("slow")
    grid.start(running)
    grid.attach("fast", speed=4.0)
    assert grid.take_backs == [("slow", waiting.attempt)]
    grid.give_back(waiting.attempt)
    assert [(one.index, one.number) for one in grid.on("fast")] == [(waiting.index, 1)]
    grid.work_off()
    assert grid.view(job).state == "done"


def test_nothing_is_asked_back_twice() -> None:
    grid = Bench()
    grid.attach("slow")
    grid.submit(stage(count=2))
    grid.attach("fast")
    grid.wait(10_000, hear=["slow", "fast"])
    assert len(grid.take_backs) == 1


def straggling(*, restartable: bool = True) -> Bench:
    """Five tasks took 4 s each on `fast`; one runs on `slow` for a minute, and `fast` idles."""
    grid = Bench()
    grid.attach("fast", slots=5, speed=4.0)
    grid.attach("slow")
    grid.submit(stage(count=6, restartable=restartable))
    grid.start(*grid.held.values())
    grid.now_ms += 4_000
    grid.deliver(*grid.on("fast"), wall_ms=4_000)
    grid.wait(60_000, hear=["fast", "slow"])
    return grid


def test_a_straggler_gets_a_second_attempt_and_the_first_result_wins() -> None:
    grid = straggling()
    (slow,), (copy,) = grid.on("slow"), grid.on("fast")
    assert slow.index == copy.index
    grid.start(copy)
    grid.deliver(copy)
    assert grid.cancels == [("slow", slow.attempt)]
    grid.fail(slow, blame="grid", reason="cancelled")
    assert grid.view(1).state == "done"  # type: ignore[arg-type]
    assert set(grid.accepted.values()) == {1}


def test_a_failed_copy_leaves_the_first_attempt_running() -> None:
    grid = straggling()
    (copy,) = grid.on("fast")
    grid.fail(copy, blame="grid", reason="gone")
    assert grid.state(1, copy.index) == "running"  # type: ignore[arg-type]


def test_the_first_attempt_may_end_while_its_copy_goes_on() -> None:
    grid = straggling()
    (slow,), (copy,) = grid.on("slow"), grid.on("fast")
    grid.start(copy)
    grid.fail(slow, blame="owner", reason="given back")
    assert grid.state(1, copy.index) == "running"  # type: ignore[arg-type]
    grid.deliver(copy)
    assert grid.view(1).state == "done"  # type: ignore[arg-type]


def test_what_may_not_run_twice_gets_no_second_attempt() -> None:
    grid = straggling(restartable=False)
    assert grid.on("fast") == []


def test_an_ordinary_task_gets_no_second_attempt() -> None:
    grid = Bench()
    grid.attach("fast", slots=5)
    grid.attach("slow")
    grid.submit(stage(count=6))
    grid.start(*grid.held.values())
    grid.deliver(*grid.on("fast"), wall_ms=60_000)
    grid.wait(60_000, hear=["fast", "slow"])
    assert grid.on("fast") == []
