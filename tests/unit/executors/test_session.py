"""The session decides: what runs where, what is stopped, what is said and what is kept. No socket, no clock."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from executors.agent.instructions import (
    CloseLane,
    Do,
    Fetch,
    FollowAttempt,
    Forget,
    Keep,
    OpenLane,
    Recall,
    ReleaseJob,
    Say,
    Start,
    Stop,
    SuspendAll,
)
from executors.agent.lanes import PATIENCE_MS
from executors.agent.session import STUCK_MS, Session
from executors.agent.slots import Ledger
from sparegrid.messages import (
    Ack,
    Assign,
    Attached,
    Blame,
    BlobRef,
    Cancel,
    Capability,
    Delivered,
    DeviceState,
    Ended,
    FileEntry,
    Follow,
    Needed,
    Outcome,
    PolicyChanged,
    Release,
    Run,
    SetPause,
    Started,
    Suspended,
    TakeBack,
    Template,
    Usage,
)

DEVICE = "d"


def session(slots: int = 2, **capability: Any) -> Session:
    made = Session(DEVICE, Ledger.of(Capability(slots=slots, **capability)))
    made.on_message(Attached(DEVICE), 0)
    return made


def template(job: int = 1, stage: int = 0, **more: Any) -> Template:
    return Template(DEVICE, job, stage, "command", msgspec.Raw(b"\x80"), **more)


def assign(*attempts: int, job: int = 1, stage: int = 0) -> Assign:
    return Assign(DEVICE, job, stage, [Run(number, number) for number in attempts])


def given(machine: Session, *attempts: int, now_ms: int = 0, job: int = 1, **more: Any) -> list[Do]:
    machine.on_message(template(job, **more), now_ms)
    return machine.on_message(assign(*attempts, job=job), now_ms)


def delivered(number: int, wall_ms: int = 1000, job: int = 1) -> Delivered:
    return Delivered(DEVICE, job, 0, number, number, Outcome(usage=Usage(wall_ms=wall_ms)))


def of(kind: type, does: list[Do]) -> list[Any]:
    return [one for one in does if isinstance(one, kind)]


def said(does: list[Do], kind: type) -> list[Any]:
    return [one.message for one in does if isinstance(one, Say) and isinstance(one.message, kind)]


def started(does: list[Do]) -> list[int]:
    return [one.attempt for one in of(Start, does)]


# ---- placing ------------------------------------------------------------------------------------------------------


def test_attempts_start_in_order_as_resources_allow() -> None:
    machine = session(slots=2)
    assert started(given(machine, 1, 2, 3, 4)) == [1, 2]
    assert started(machine.on_finished(delivered(2), 5, sendable=True)) == [3]
    assert started(machine.on_finished(delivered(1), 6, sendable=True)) == [4]


def test_a_lane_goes_on_with_its_stage_and_closes_when_nothing_waits() -> None:
    machine = session(slots=1)
    assert of(OpenLane, given(machine, 1, 2)) == [OpenLane(1, 1, 0, machine.lanes[1].grant)]
    does = machine.on_finished(delivered(1), 5, sendable=True)
    assert (of(OpenLane, does), of(CloseLane, does), of(Start, does)) == ([], [], [Start(2, 1)])
    assert of(CloseLane, machine.on_finished(delivered(2), 6, sendable=True)) == [CloseLane(1)]
    assert machine.ledger.milli_cpus == 1000


def test_short_tasks_are_queued_ahead_evenly_and_long_ones_are_not() -> None:
    machine = session(slots=2)
    given(machine, *range(1, 200))
    assert started(machine.on_finished(delivered(1, wall_ms=1000), 5, sendable=True)) == [3]
    for number in (2, 3):
        machine.on_finished(delivered(number, wall_ms=0), 6, sendable=True)
    machine._lanes.mean_ms[1, 0] = 1.0
    machine.place(7)
    assert [len(lane.attempts) for lane in machine.lanes.values()] == [16, 16]


def test_what_waits_behind_a_head_that_turned_out_long_is_recalled_and_runs_elsewhere() -> None:
    machine = session(slots=2)
    given(machine, *range(1, 10))
    machine._lanes.mean_ms[1, 0] = 1.0
    machine.place(1)
    assert machine.on_tick(STUCK_MS)[:-1] == []
    recalls = of(Recall, machine.on_tick(STUCK_MS + 1))
    assert [one.lane for one in recalls] == [1, 2]
    behind = machine.lanes[1].attempts[1:]
    machine.on_finished(delivered(machine.lanes[2].attempts[0]), 200, sendable=True)
    does = machine.on_recalled(1, behind, 201)
    assert machine.lanes[1].attempts == [1]
    assert set(started(does)) <= set(behind)


def test_recalled_attempts_keep_their_place_in_front() -> None:
    machine = session(slots=1)
    given(machine, *range(1, 6))
    machine._lanes.mean_ms[1, 0] = 4.0
    machine.place(1)
    assert machine.lanes[1].attempts == [1, 2, 3, 4]
    machine._lanes.mean_ms[1, 0] = 1000.0
    machine.on_recalled(1, [2, 3, 4], 2)
    order = []
    for number in range(1, 6):
        order += started(machine.on_finished(delivered(number), 3, sendable=True))
    assert order == [2, 3, 4, 5]


def test_smaller_ones_overtake_one_that_does_not_fit_but_not_for_ever() -> None:
    machine = session(slots=2)
    given(machine, 1, job=1)
    given(machine, 2, job=2, needed=Needed(milli_cpus=2000))
    assert started(given(machine, 3, job=3, now_ms=1)) == [3]
    assert started(given(machine, 4, 5, job=4, now_ms=PATIENCE_MS + 10)) == []
    machine.on_finished(delivered(1), PATIENCE_MS + 20, sendable=True)
    assert started(machine.on_finished(delivered(3, job=3), PATIENCE_MS + 30, sendable=True)) == [2]


@pytest.mark.parametrize(
    ("needed", "fits"),
    [
        (Needed(memory=600), 1),
        (Needed(disk=600), 1),
        (Needed(counts={"licence": 1}), 1),
        (Needed(gpus=1), 1),
        (Needed(milli_cpus=500), 4),
        (Needed(counts={"other": 1}), 0),
        (Needed(gpus=1, vram=11), 0),
        (Needed(gpus=2), 0),
    ],
)
def test_every_resource_limits(needed: Needed, fits: int) -> None:
    from sparegrid.messages import Gpu

    machine = session(
        slots=2, memory=1000, disk_free=1000, counts={"licence": 1}, gpus=[Gpu(id="g", name="G", vram=10)]
    )
    assert len(started(given(machine, *range(1, 9), needed=needed))) == fits


def test_the_grant_names_the_gpus_and_frees_them() -> None:
    from sparegrid.messages import Gpu

    ledger = Ledger.of(
        Capability(slots=4, gpus=[Gpu(id="big", name="B", vram=20), Gpu(id="small", name="S", vram=10)])
    )
    first = ledger.take(Needed(gpus=1, vram=5))
    second = ledger.take(Needed(gpus=1))
    assert first is not None
    assert second is not None
    assert (first.gpus, second.gpus, ledger.take(Needed(gpus=1))) == (("small",), ("big",), None)
    ledger.give_back(first)
    assert ledger.vram == {"small": 10}


# ---- files --------------------------------------------------------------------------------------------------------


def test_an_attempt_with_files_starts_once_they_are_here() -> None:
    machine = session()
    does = given(machine, 1, inputs=[FileEntry("a", BlobRef("0" * 64, 5))])
    assert does == [Fetch(1)]
    assert started(machine.on_fetched(1, 5)) == [1]
    assert machine.on_fetched(1, 6) == []


def test_a_result_with_files_is_said_once_they_are_uploaded() -> None:
    machine = session()
    given(machine, 1)
    does = machine.on_finished(delivered(1), 5, sendable=False)
    assert (of(Keep, does), said(does, Delivered)) == ([Keep(delivered(1))], [])
    assert said(machine.on_uploaded(1), Delivered) == [delivered(1)]


# ---- stop ---------------------------------------------------------------------------------------------------------


def test_cancel_stops_what_runs_and_ends_what_waits() -> None:
    machine = session(slots=1)
    given(machine, 1, 2)
    does = machine.on_message(Cancel(DEVICE, [1, 2, 77], "cancelled by ann"), 5)
    assert of(Stop, does) == [Stop(1, Blame.GRID, "cancelled by ann")]
    (ended,) = said(does, Ended)
    assert (ended.attempt, ended.unstarted, ended.blame, ended.reason) == (
        2,
        True,
        "grid",
        "cancelled by ann",
    )
    assert machine.on_message(Cancel(DEVICE, [1, 2]), 6) == []
    assert machine.lanes, "the slot is free only when the attempt has ended"


def test_a_cancelled_attempt_that_its_slot_had_not_begun_ends_unstarted() -> None:
    machine = session(slots=1)
    given(machine, 1, 2)
    machine._lanes.mean_ms[1, 0] = 1.0
    machine.place(1)
    assert of(Stop, machine.on_message(Cancel(DEVICE, [2]), 2)) == [Stop(2, Blame.GRID, "cancelled")]
    (ended,) = said(machine.on_recalled(1, [2], 3), Ended)
    assert (ended.attempt, ended.unstarted) == (2, True)


def test_take_back_gives_only_what_has_not_started() -> None:
    machine = session(slots=1)
    given(machine, 1, 2, 3)
    does = machine.on_message(TakeBack(DEVICE, [1, 2, 3, 9]), 5)
    assert [(ended.attempt, ended.reason) for ended in said(does, Ended)] == [
        (2, "taken back"),
        (3, "taken back"),
    ]
    assert of(Recall, does) == [Recall(1)], "its slot may not have begun it"
    assert machine.on_recalled(1, [], 6) == []
    assert machine.attempts[1].taken_back is False


def test_a_task_over_its_limit_is_stopped_and_suspension_does_not_count() -> None:
    machine = session(slots=1)
    given(machine, 1, timeout_ms=1000)
    machine.on_message(SetPause(DEVICE, "pause"), 900)
    assert machine.on_tick(5000) == []
    machine.on_message(SetPause(DEVICE, "resume"), 10_000)
    assert of(Stop, machine.on_tick(10_050)) == []
    assert of(Stop, machine.on_tick(10_100)) == [Stop(1, Blame.TASK, "timed out after 1 s")]


def test_suspended_time_is_no_usage() -> None:
    machine = session(slots=1)
    given(machine, 1)
    machine.on_message(SetPause(DEVICE, "pause"), 100)
    machine.on_message(SetPause(DEVICE, "resume"), 700)
    (kept,) = of(Keep, machine.on_finished(delivered(1, wall_ms=1000), 1000, sendable=True))
    assert kept.message.outcome.usage.wall_ms == 400


# ---- pause --------------------------------------------------------------------------------------------------------


def test_pause_suspends_what_runs_and_gives_the_rest_to_others() -> None:
    machine = session(slots=1)
    given(machine, 1, 2)
    does = machine.on_message(SetPause(DEVICE, "pause", until_ms=99, by="ann"), 5)
    assert said(does, PolicyChanged) == [PolicyChanged(DEVICE, DeviceState.PAUSED, "paused by ann", 99)]
    assert [(ended.attempt, ended.blame) for ended in said(does, Ended)] == [(2, "owner")]
    assert of(SuspendAll, does) == [SuspendAll(True)]
    assert said(does, Suspended) == [Suspended(DEVICE, [1])]
    (ended,) = said(machine.on_message(assign(3), 6), Ended)
    assert (ended.attempt, ended.unstarted) == (3, True)
    does = machine.on_message(SetPause(DEVICE, "resume"), 7)
    assert of(SuspendAll, does) == [SuspendAll(False)]
    assert said(does, Suspended) == [Suspended(DEVICE, [1], False)]
    assert started(machine.on_message(assign(4), 8)) == []
    assert machine.on_message(SetPause(DEVICE, "resume"), 9) == []


def test_finish_lets_what_runs_end_and_takes_nothing_new() -> None:
    machine = session(slots=1)
    given(machine, 1)
    does = machine.on_message(SetPause(DEVICE, "finish"), 5)
    assert said(does, PolicyChanged)[0].state == DeviceState.DRAINING
    assert (of(Stop, does), of(SuspendAll, does)) == ([], [])


def test_give_back_lets_go_of_everything() -> None:
    machine = session(slots=1)
    given(machine, 1, 2)
    machine.on_message(SetPause(DEVICE, "pause"), 5)
    does = machine.on_message(SetPause(DEVICE, "give_back"), 6)
    assert of(SuspendAll, does) == [SuspendAll(False)], "a stopped process cannot hear that it shall end"
    assert of(Stop, does) == [Stop(1, Blame.OWNER, "given back by the owner")]


# ---- what is owed -------------------------------------------------------------------------------------------------


def test_an_ack_forgets_and_the_same_assign_again_does_nothing() -> None:
    machine = session()
    given(machine, 1)
    machine.on_finished(delivered(1), 5, sendable=True)
    assert given(machine, 1) == []
    assert machine.held() == ([], [1])
    assert machine.on_message(Ack(DEVICE, [1, 8]), 6) == [Forget([1])]
    assert machine.held() == ([], [])


def test_after_a_reconnect_what_is_owed_is_said_again_and_what_is_not_wanted_is_dropped() -> None:
    machine = session(slots=2)
    given(machine, 1, 2, 3, 4)
    machine.on_finished(delivered(1), 5, sendable=True)
    machine.on_finished(delivered(2), 5, sendable=True)
    machine.on_tick(50)
    machine.on_unlinked()
    assert machine.held() == ([3, 4], [1, 2])
    assert machine.on_uploaded(1) == []
    does = machine.on_message(Attached(DEVICE, revoked=[1, 3]), 60)
    assert of(Forget, does) == [Forget([1])]
    assert of(Stop, does) == [Stop(3, Blame.GRID, "not wanted any more")]
    assert said(does, Delivered) == [delivered(2)]
    assert said(machine.on_tick(100), Started) == [Started(DEVICE, [3, 4])], "told anew"


def test_results_of_an_earlier_run_are_owed_too() -> None:
    machine = Session(DEVICE, Ledger.of(Capability(slots=1)), {5: delivered(5), 6: delivered(6)})
    machine.on_uploaded(5)
    assert machine.held() == ([], [5, 6])
    assert said(machine.on_message(Attached(DEVICE), 0), Delivered) == [delivered(5)]
    assert said(machine.on_uploaded(6), Delivered) == [delivered(6)]
    assert machine.on_message(Ack(DEVICE, [5, 6]), 1) == [Forget([5, 6])]


def test_only_what_runs_for_a_while_is_told_as_started_once() -> None:
    machine = session(slots=1)
    given(machine, 1)
    assert said(machine.on_tick(50), Started) == [Started(DEVICE, [1])]
    assert machine.on_tick(100) == []


def test_an_assign_without_its_template_is_the_grids_fault() -> None:
    (ended,) = said(session().on_message(assign(1), 0), Ended)
    assert (ended.blame, ended.unstarted) == ("grid", True)


def test_release_and_follow_go_to_who_runs() -> None:
    machine = session()
    given(machine, 1)
    assert machine.on_message(Follow(DEVICE, 1, True, 5), 1) == [FollowAttempt(1, True, 5)]
    assert machine.on_message(Follow(DEVICE, 2), 1) == []
    assert machine.on_message(Release(DEVICE, 1), 1) == [ReleaseJob(1)]
