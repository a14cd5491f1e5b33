"""Weighted fair share between submitters, then priority, then age."""

from __future__ import annotations

import pytest

from coordinator.scheduler.events import PriorityChanged, WeightChanged
from sparegrid.errors import BadInputError
from sparegrid.ids import PrincipalId
from tests.unit.coordinator.scheduler.harness import Bench, stage


def served(grid: Bench, count: int, *, wall_ms: int = 3_000) -> list[int]:
    """Jobs in the order in which their tasks run."""
    order: list[int] = []
    while len(order) < count:
        held = next(iter(grid.held.values()))
        order.append(held.job)
        grid.deliver(held, wall_ms=wall_ms)
    return order


@pytest.mark.parametrize(("weight", "share"), [(1000, 0.5), (3000, 0.75)])
def test_submitters_share_by_weight_however_many_tasks_they_have(weight: int, share: float) -> None:
    grid = Bench(mirror=False)
    grid.do(WeightChanged(PrincipalId("bob"), weight))
    for _ in range(5):
        grid.submit(stage(count=1000), who="ann")
    bobs = grid.submit(stage(count=1000), who="bob")
    grid.attach("pc")
    order = served(grid, 200)
    assert abs(order.count(bobs) / len(order) - share) < 0.03


def test_shares_are_of_time_not_of_tasks() -> None:
    grid = Bench(mirror=False)
    grid.attach("pc")
    short = grid.submit(stage(count=5000), who="ann")
    long = grid.submit(stage(count=5000), who="bob")
    spent: dict[int, int] = {short: 0, long: 0}
    for _ in range(600):
        held = next(iter(grid.held.values()))
        wall_ms = 3_000 if held.job == short else 9_000
        spent[held.job] += wall_ms
        grid.deliver(held, wall_ms=wall_ms)
    assert 0.9 < spent[short] / spent[long] < 1.1


def test_who_comes_back_from_idling_does_not_starve_the_others() -> None:
    grid = Bench(mirror=False)
    grid.attach("pc")
    grid.submit(stage(count=1), who="bob")
    grid.work_off()
    anns = grid.submit(stage(count=1000), who="ann")
    served(grid, 300)
    bobs = grid.submit(stage(count=1000), who="bob")
    order = served(grid, 42)
    assert 15 <= order.count(bobs) <= 26
    assert anns in order[:5]


def test_priority_goes_before_age_within_a_submitter() -> None:
    grid = Bench()
    low = grid.submit(stage(count=2), priority=3)
    old = grid.submit(stage(count=2))
    young = grid.submit(stage(count=2))
    urgent = grid.submit(stage(count=2), priority=10)
    grid.attach("pc")
    assert served(grid, 8) == [urgent, urgent, old, old, young, young, low, low]


def test_a_changed_priority_reorders_what_is_queued() -> None:
    grid = Bench()
    first = grid.submit(stage(count=2))
    second = grid.submit(stage(count=2))
    grid.do(PriorityChanged(second, 9))
    grid.attach("pc")
    assert served(grid, 4) == [second, second, first, first]


@pytest.mark.parametrize("priority", [0, 11])
def test_a_priority_out_of_range_is_refused(priority: int) -> None:
    grid = Bench()
    job = grid.submit()
    with pytest.raises(BadInputError, match="between 1 and 10"):
        grid.do(PriorityChanged(job, priority))


def test_a_weight_out_of_range_is_refused() -> None:
    with pytest.raises(BadInputError, match="between 1 and"):
        Bench().do(WeightChanged(PrincipalId("ann"), 0))
