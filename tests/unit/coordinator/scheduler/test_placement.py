"""Which device gets which task: requirements, resources, locality, speed, credit, exclusion."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.scheduler.events import CapabilityReported, JobRevived
from coordinator.scheduler.limits import Limits
from coordinator.scheduler.placement import credit
from sparegrid.api import Items, Need, Requires
from sparegrid.ids import DeviceId
from sparegrid.messages import BlobRef, FileEntry, Gpu, KindInfo
from tests.unit.coordinator.scheduler.harness import Bench, capability, stage

BIG = 8 << 20
X, Y, Z = "a" * 64, "b" * 64, "c" * 64

FITTING: dict[str, tuple[Requires, dict[str, Any]]] = {
    "label": (Requires(labels={"gpu": "yes"}), {"labels": {"gpu": "yes"}}),
    "program": (Requires(programs=["ffmpeg"]), {"programs": {"ffmpeg": "6.1"}}),
    "memory": (Requires(memory=16 << 30), {"memory": 32 << 30}),
    "cpus": (Requires(cpus=3.5), {"slots": 4}),
    "gpu": (Requires(gpus=1, vram=4 << 30), {"gpus": [Gpu("0", "RTX", vram=8 << 30)]}),
    "count": (Requires(counts={"dongle": 1}), {"counts": {"dongle": 1}}),
    "kind": (Requires(), {"kinds": {"wasm": KindInfo(), "command": KindInfo()}}),
}


@pytest.mark.parametrize("what", FITTING)
def test_a_task_goes_only_to_a_device_that_has_what_it_requires(what: str) -> None:
    requires, has = FITTING[what]
    grid = Bench()
    kind = "wasm" if what == "kind" else "command"
    grid.attach("plain", speed=9.0)
    grid.submit(stage(count=1, requires=requires, kind=kind))
    assert grid.held == {}
    grid.attach("fitting", **{"slots": 1, **has})
    assert [one.device for one in grid.held.values()] == ["fitting"]


@pytest.mark.parametrize(
    ("requires", "fits"),
    [
        (Requires(os=["linux", "macos"]), True),
        (Requires(os=["windows"]), False),
        (Requires(arch=["aarch64"]), False),
        (Requires(platforms=["linux/x86_64"]), True),
        (Requires(platforms=["linux"]), True),
        (Requires(platforms=["linux/aarch64"]), False),
        (Requires(device="pc"), True),
        (Requires(device="pi"), False),
    ],
)
def test_platforms_and_pins_are_matched(requires: Requires, fits: bool) -> None:
    grid = Bench()
    grid.attach("pc")
    grid.submit(stage(requires=requires))
    assert bool(grid.held) is fits


def test_resources_are_not_given_twice() -> None:
    grid = Bench()
    grid.attach("pc", slots=8, memory=10 << 30, speed=1.0)
    job = grid.submit(stage(count=8, requires=Requires(memory=4 << 30)))
    grid.machine.check()
    view = grid.machine.device_view(DeviceId("pc"))
    assert view.assigned == 3  # two that fit, one ahead
    grid.work_off()
    assert grid.view(job).state == "done"


def test_a_big_task_is_not_starved_by_small_ones() -> None:
    grid = Bench()
    grid.attach("pc", slots=4)
    grid.submit(stage(count=200), who="ann")
    big = grid.submit(stage(requires=Requires(cpus=4)), who="bob")
    for _ in range(12):
        grid.deliver(next(iter(grid.held.values())), wall_ms=5_000)
    assert grid.view(big).state == "done"


def test_grid_wide_counts_are_shared_by_all_devices() -> None:
    grid = Bench(limits=Limits(counts={"licence": 2}))
    for name in ("a", "b", "c"):
        grid.attach(name, slots=4)
    job = grid.submit(stage(count=5, requires=Requires(counts={"licence": 1})))
    assert len(grid.held) == 2
    assert "2 of 2 licence are taken" in grid.explain(job, 4)
    grid.deliver(next(iter(grid.held.values())))
    assert len(grid.held) == 2
    grid.restart()
    grid.mirror = None
    grid.attach("d")
    assert len(grid.held) == 2
    for name in ("a", "b", "c"):
        grid.attach(name, slots=4, running=[one.attempt for one in grid.on(name)])
    grid.work_off()
    assert grid.view(job).state == "done"


def test_an_impossible_requirement_is_accepted_and_explained() -> None:
    grid = Bench()
    for n in range(7):
        grid.attach(f"pc{n}")
    job = grid.submit(stage(requires=Requires(labels={"gpu": "yes"})))
    assert grid.explain(job) == "Needs a device that has label gpu=yes; 0 of 7 devices have it"


def test_tasks_go_to_the_devices_that_hold_their_inputs() -> None:
    grid = Bench()
    grid.attach("fast", speed=4.0)
    grid.attach("slow", speed=1.0, held=[X])
    grid.submit(stage(inputs=[FileEntry("scene.blend", BlobRef(X, BIG))]))
    assert [one.device for one in grid.held.values()] == ["slow"]


def test_small_inputs_draw_nobody() -> None:
    grid = Bench()
    grid.attach("fast", speed=4.0)
    grid.attach("slow", speed=1.0, held=[X])
    grid.submit(stage(inputs=[FileEntry("scene.blend", BlobRef(X, 100))]))
    assert [one.device for one in grid.held.values()] == ["fast"]


def test_items_that_are_large_files_go_where_they_lie() -> None:
    grid = Bench()
    values = [
        {"file": {"path": "f", "content": {"t": "blob", "hash": one, "size": BIG}}} for one in (X, Y, Z)
    ]
    grid.attach("c", held=[Z])
    grid.attach("b", held=[Y])
    grid.attach("a", held=[X])
    grid.submit(stage(items=Items(values=values)))
    assert {one.device: one.index for one in grid.held.values()} == {"a": 0, "b": 1, "c": 2}


def test_dependents_go_where_the_large_outputs_that_they_need_were_made() -> None:
    grid = Bench()
    grid.attach("a")
    grid.attach("b")
    grid.submit(stage("cut", 2), stage("paint", 2, needs=[Need("cut", map="same")]))
    cut = {one.device: one for one in grid.held.values()}
    grid.attach("a", running=[cut["a"].attempt], held=[X])
    grid.attach("b", running=[cut["b"].attempt], held=[Y])
    results = [
        grid.result_event(cut[name], files=[FileEntry("f", BlobRef(blob, BIG))])
        for name, blob in (("b", Y), ("a", X))
    ]
    grid.held.clear()
    grid.do(*results)
    assert {one.device: one.index for one in grid.held.values()} == {
        name: one.index for name, one in cut.items()
    }


def test_faster_devices_go_first_and_equal_ones_share() -> None:
    grid = Bench()
    grid.attach("slow", slots=4, speed=0.5)
    grid.attach("fast", slots=4, speed=2.0)
    grid.submit(stage(count=3))
    assert {one.device for one in grid.held.values()} == {"fast"}
    even = Bench()
    for name in ("a", "b", "c"):
        even.attach(name, slots=4, speed=1.0)
    even.submit(stage(count=3))
    assert sorted(one.device for one in even.held.values()) == ["a", "b", "c"]


def test_a_device_that_is_to_blame_is_excluded_for_the_task_only() -> None:
    grid = Bench()
    grid.attach("pc", speed=9.0)
    grid.attach("pi")
    job = grid.submit(stage(count=1, retries=0))
    held = grid.on("pc")[0]
    grid.fail(held, blame="device", reason="disk full")
    assert grid.on("pc") == []
    assert [one.index for one in grid.on("pi")] == [held.index]
    assert grid.view(job).state == "active"


def test_a_task_that_no_device_is_left_for_fails_and_says_why() -> None:
    grid = Bench()
    grid.attach("pc", speed=9.0)
    grid.attach("pi")
    job = grid.submit(stage(count=1, retries=5))
    grid.fail(grid.on("pc")[0], blame="device", reason="no ffmpeg")
    grid.fail(grid.on("pi")[0], blame="device", reason="no ffmpeg")
    assert grid.view(job).state == "failed"
    grid.do(JobRevived(job, grid.retired[job].state))
    grid.retry(job)
    assert len(grid.held) == 1, "a retry lifts the exclusions"


def test_a_task_waits_for_a_device_that_is_away_and_may_be_the_right_one() -> None:
    grid = Bench()
    grid.attach("pc", speed=9.0)
    grid.attach("pi")
    grid.detach("pi")
    job = grid.submit(stage(count=1, retries=0))
    grid.fail(grid.on("pc")[0], blame="device", reason="no ffmpeg")
    assert grid.view(job).state == "active"
    assert "Excluded on pc after: no ffmpeg" in grid.explain(job)


def test_a_device_that_fails_task_after_task_sits_out_for_a_while() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=50, retries=0))
    for _ in range(3):
        grid.fail(grid.on("pc")[0], blame="device", reason="no sandbox")
    while grid.on("pc"):
        grid.fail(grid.on("pc")[0], blame="device", reason="no sandbox")
    assert "sits out" in grid.machine.explain_device(DeviceId("pc"), grid.now_ms).summary
    grid.wait(31_000, hear=["pc"])
    assert grid.on("pc")
    grid.deliver(grid.on("pc")[0])
    assert len(grid.on("pc")) >= 2
    assert grid.view(job).done == 1


def test_little_is_assigned_ahead_until_the_stage_is_measured() -> None:
    grid = Bench()
    grid.attach("pc", slots=2)
    grid.submit(stage(count=100_000))
    assert len(grid.on("pc")) == 3
    grid.deliver(*grid.on("pc"), wall_ms=0)
    assert 5 < len(grid.on("pc")) <= 20
    for _ in range(3):
        grid.deliver(*grid.on("pc"), wall_ms=0)
    assert len(grid.on("pc")) > 64


def test_long_tasks_get_one_or_two_ahead() -> None:
    grid = Bench()
    grid.attach("pc", slots=4)
    grid.submit(stage(count=1000))
    for _ in range(12):
        grid.deliver(grid.on("pc")[0], wall_ms=600_000)
    assert len(grid.on("pc")) == 6


@pytest.mark.parametrize(
    ("mean_ms", "slots", "most"), [(0, 1, 256), (10, 1, 40), (100, 2, 8), (1_000, 2, 2), (9_000, 8, 2)]
)
def test_credit_follows_the_mean_duration(mean_ms: int, slots: int, most: int) -> None:
    grid = Bench()
    grid.submit(stage(count=10_000))
    (measured,) = grid.machine._world.jobs[next(iter(grid.machine._world.jobs))].stages
    measured.timed, measured.wall_sum = 1_000, 1_000 * mean_ms
    assert credit(Limits(), measured, slots) == most


def test_a_changed_capability_changes_what_a_device_gets() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(requires=Requires(programs=["ffmpeg"])))
    assert "has program ffmpeg" in grid.explain(job)
    grid.do(CapabilityReported(DeviceId("pc"), capability(programs={"ffmpeg": ""})))
    assert len(grid.on("pc")) == 1


def test_a_busy_device_gets_new_work_ahead_so_that_it_can_fetch_its_inputs() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.submit()
    grid.submit()
    assert len(grid.on("pc")) == 2
