"""Stages that need others: all, same, groups; items made of outputs; failures that spread, retries that revive."""

from __future__ import annotations

import pytest

from coordinator.scheduler.events import ItemsAppended, JobClosed, JobRevived
from coordinator.scheduler.limits import Limits
from sparegrid.api import Items, Need, RangeAxis, StageItems
from sparegrid.errors import BadInputError, ConflictError, TooLargeError
from sparegrid.ids import JobId, StageIndex, TaskIndex
from tests.unit.coordinator.scheduler.harness import Bench, Held, stage

MACHINES = 8


def bench(slots: int = MACHINES) -> Bench:
    grid = Bench()
    grid.attach("pc", slots=slots)
    return grid


def task(grid: Bench, stage_index: int, index: int) -> Held:
    (found,) = [one for one in grid.held.values() if (one.stage, one.index) == (stage_index, index)]
    return found


def test_a_stage_that_needs_all_of_another_waits_for_its_last_task() -> None:
    grid = bench()
    job = grid.submit(stage("render", 3), stage("merge", 1, needs=[Need("render")]))
    grid.deliver(task(grid, 0, 0), task(grid, 0, 2))
    assert grid.states(job, 1) == ["waiting"]
    assert grid.explain(job, 0, 1) == "Waits for 1 task of stage render"
    grid.deliver(task(grid, 0, 1))
    assert grid.states(job, 1) == ["queued"]
    grid.work_off()
    assert grid.view(job).state == "done"


def test_same_releases_each_task_by_the_one_of_its_number() -> None:
    grid = bench()
    job = grid.submit(stage("cut", 3), stage("paint", 3, needs=[Need("cut", map="same")]))
    grid.deliver(task(grid, 0, 1))
    assert grid.states(job, 1) == ["waiting", "queued", "waiting"]
    assert grid.machine.needed_tasks(job, StageIndex(1), TaskIndex(2))[0][2] == range(2, 3)


def test_groups_release_a_task_when_its_group_is_complete_also_the_smaller_last_one() -> None:
    grid = bench()
    job = grid.submit(stage("count", 5), stage("sum", 3, needs=[Need("count", map="groups", size=2)]))
    grid.deliver(task(grid, 0, 4))
    assert grid.states(job, 1) == ["waiting", "waiting", "queued"]
    grid.deliver(task(grid, 0, 0), task(grid, 0, 2), task(grid, 0, 3))
    assert grid.states(job, 1) == ["waiting", "queued", "queued"]
    assert [list(one[2]) for one in grid.machine.needed_tasks(job, StageIndex(1), TaskIndex(2))] == [[4]]
    grid.work_off()
    assert grid.view(job).state == "done"


def test_a_task_with_several_needs_waits_for_all_of_them() -> None:
    grid = bench()
    needs = [Need("a", map="same"), Need("b")]
    job = grid.submit(stage("a", 2), stage("b", 1), stage("c", 2, needs=needs))
    grid.deliver(task(grid, 0, 0))
    assert grid.states(job, 2) == ["waiting", "waiting"]
    grid.deliver(task(grid, 1, 0))
    assert grid.states(job, 2) == ["queued", "waiting"]


def test_a_failed_need_cancels_its_dependents_and_a_retry_revives_them() -> None:
    grid = bench()
    job = grid.submit(
        stage("a", 3, retries=0),
        stage("b", 3, needs=[Need("a", map="same")]),
        stage("c", 1, needs=[Need("b")]),
    )
    grid.fail(task(grid, 0, 1))
    assert grid.states(job, 1) == ["waiting", "cancelled", "waiting"]
    assert grid.states(job, 2) == ["cancelled"]
    assert grid.explain(job, 1, 1) == "It was cancelled: a task that it needs did not succeed"
    grid.work_off()
    assert grid.view(job).state == "failed"
    grid.do(JobRevived(job, grid.retired[job].state))
    grid.retry(job, [(0, 1)])
    assert grid.states(job, 1) == ["done", "waiting", "done"]
    assert grid.states(job, 2) == ["waiting"]
    grid.work_off()
    assert grid.view(job).state == "done"
    assert set(grid.accepted.values()) == {1}


def test_a_dependent_of_two_failures_is_revived_only_when_both_are_retried() -> None:
    grid = bench()
    job = grid.submit(
        stage("a", 1, retries=0), stage("b", 1, retries=0), stage("c", 1, needs=[Need("a"), Need("b")])
    )
    grid.fail(task(grid, 0, 0))
    grid.fail(task(grid, 1, 0))
    grid.do(JobRevived(job, grid.retired[job].state))
    grid.retry(job, [(0, 0)])
    assert grid.states(job, 2) == ["cancelled"]
    grid.retry(job, [(1, 0)])
    assert grid.states(job, 2) == ["waiting"]
    grid.work_off()
    assert grid.view(job).state == "done"


def test_a_thousand_stages_deep_a_failure_still_reaches_the_last() -> None:
    grid = bench()
    chain = [stage("s0", 1, retries=0)]
    chain += [stage(f"s{n}", 1, needs=[Need(f"s{n - 1}")]) for n in range(1, 1000)]
    job = grid.submit(*chain)
    grid.fail(task(grid, 0, 0))
    assert grid.view(job).state == "failed"
    assert grid.view(job).cancelled == 999


def test_items_are_made_of_another_stages_files_in_order_of_task_and_path() -> None:
    grid = bench()
    job = grid.submit(
        stage("split", 2),
        stage("encode", items=Items(stage=StageItems("split", "*.mp4"))),
        stage("join", 1, needs=[Need("encode")]),
    )
    grid.deliver(task(grid, 0, 1), files=["c.mp4"])
    assert grid.states(job, 1) == []
    assert grid.machine.job_view(job).stages[1].open
    grid.deliver(task(grid, 0, 0), files=["b.mp4", "a.mp4", "log.txt", "sub/x.mp4"])
    assert grid.states(job, 1) == ["queued"] * 3
    assert not grid.machine.job_view(job).stages[1].open
    sources = [grid.machine.source_of(job, StageIndex(1), TaskIndex(n)) for n in range(3)]
    assert sources == [(0, 0, 0), (0, 0, 1), (0, 1, 0)]
    grid.work_off()
    assert grid.view(job).state == "done"


def test_items_appear_as_soon_as_the_tasks_before_them_are_known() -> None:
    grid = bench()
    job = grid.submit(stage("split", 3), stage("encode", items=Items(stage=StageItems("split"))))
    grid.deliver(task(grid, 0, 0), files=["a", "b"])
    assert grid.states(job, 1) == ["queued", "queued"]


def test_no_matching_file_makes_no_task_and_what_needs_them_goes_on() -> None:
    grid = bench()
    job = grid.submit(
        stage("split", 1),
        stage("encode", items=Items(stage=StageItems("split", "*.mp4"))),
        stage("join", 1, needs=[Need("encode")]),
    )
    grid.deliver(task(grid, 0, 0))
    assert grid.states(job, 2) == ["queued"]
    grid.work_off()
    assert grid.view(job).state == "done"


def test_a_failed_source_leaves_its_items_unknown_until_it_is_retried() -> None:
    grid = bench()
    job = grid.submit(
        stage("split", 2, retries=0),
        stage("encode", items=Items(stage=StageItems("split"))),
        stage("join", 1, needs=[Need("encode")]),
    )
    grid.deliver(task(grid, 0, 0), files=["a"])
    grid.fail(task(grid, 0, 1))
    grid.work_off()
    assert grid.view(job).state == "failed"
    grid.do(JobRevived(job, grid.retired[job].state))
    grid.retry(job)
    assert grid.states(job, 2) == ["waiting"]
    grid.deliver(task(grid, 0, 1), files=["b", "c"])
    assert grid.states(job, 1) == ["done", "queued", "queued"]
    grid.work_off()
    assert grid.view(job).state == "done"


def test_outputs_that_would_exceed_the_limit_fail_the_job_and_say_so() -> None:
    grid = Bench(limits=Limits(max_tasks_per_job=3))
    grid.attach("pc")
    job = grid.submit(stage("split", 1), stage("encode", items=Items(stage=StageItems("split"))))
    grid.deliver(task(grid, 0, 0), files=["a", "b", "c"])
    assert grid.view(job).state == "failed"
    assert "more than 3 tasks" in grid.view(job).reason


def test_an_open_job_takes_items_until_it_is_closed() -> None:
    grid = bench()
    job = grid.submit(
        stage("calls", items=Items(values=[])), stage("sum", 1, needs=[Need("calls")]), open=True
    )
    assert grid.view(job).state == "active"  # its last stage waits
    grid.do(ItemsAppended(job, StageIndex(0), ["x", {"n": 2}]))
    assert grid.machine.item(job, StageIndex(0), TaskIndex(1)) == {"n": 2}
    grid.work_off()
    assert grid.states(job, 1) == ["waiting"]
    grid.do(JobClosed(job))
    assert grid.states(job, 1) == ["queued"]
    with pytest.raises(ConflictError):
        grid.do(ItemsAppended(job, StageIndex(0), ["y"]))
    grid.work_off()
    assert grid.view(job).state == "done"


def test_an_open_job_without_unfinished_tasks_is_open() -> None:
    grid = bench()
    job = grid.submit(stage(items=Items(values=[])), open=True)
    assert grid.view(job).state == "open"
    assert "waits for more items" in grid.machine.explain_job(job, grid.now_ms).summary
    grid.do(JobClosed(job))
    assert grid.view(job).state == "done"


@pytest.mark.parametrize("mapping", ["same", "groups"])
def test_an_open_dependent_beyond_the_final_end_of_its_need_is_cancelled(mapping: str) -> None:
    grid = bench()
    job = grid.submit(
        stage("a", items=Items(values=[1])), stage("b", items=Items(values=[1, 2]), needs=[Need("a", map=mapping)]),
        open=True,
    )  # fmt: skip
    grid.work_off()
    assert grid.states(job, 1) == ["done", "waiting"]
    grid.do(JobClosed(job))
    assert grid.view(job).stages[1].cancelled == 1


BAD_STAGES = {
    "A cycle in needs": [stage("a", needs=[Need("b")]), stage("b", needs=[Need("a")])],
    "Unknown stage": [stage("a", needs=[Need("zzz")])],
    "Two stages of one name": [stage("a"), stage("a")],
    "Needs do not fit": [stage("a", 2), stage("b", 3, needs=[Need("a", map="same")])],
    "Items given twice": [stage("a", items=Items(count=1, values=[1]))],
    "Not a range": [stage("a", items=Items(axes={"x": RangeAxis(0, 1, 0)}))],
    "Not a possible item": [stage("a", items=Items(values=[1 << 70]))],
}


@pytest.mark.parametrize("title", BAD_STAGES)
def test_stages_that_do_not_fit_together_are_refused_by_name(title: str) -> None:
    machine = Bench(mirror=False).machine
    from coordinator.scheduler.events import JobSubmitted
    from sparegrid.api import JobSpec
    from sparegrid.ids import PrincipalId

    before = machine.snapshot()
    with pytest.raises(BadInputError) as caught:
        machine.handle(JobSubmitted(JobId(1), JobSpec("x", BAD_STAGES[title]), PrincipalId("ann"), 1), 1)
    assert caught.value.title == title
    assert machine.snapshot() == before


def test_too_many_tasks_are_refused_with_the_limit() -> None:
    grid = Bench(limits=Limits(max_tasks_per_job=10))
    with pytest.raises(TooLargeError, match="at most 10"):
        grid.submit(stage(count=11))
