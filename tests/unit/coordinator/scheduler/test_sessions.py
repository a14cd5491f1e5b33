"""Devices that reconnect, restart, fall silent, pause and go; coordinators that restart."""

from __future__ import annotations

import pytest

from coordinator.scheduler.effects import AssignTasks, Send
from coordinator.scheduler.events import (
    ClockJumped,
    DeviceChanged,
    DevicePauseAsked,
    DevicePolicyChanged,
    DeviceRevoked,
)
from sparegrid.errors import NotFoundError
from sparegrid.ids import AttemptId, DeviceId, PrincipalId, SessionId
from sparegrid.messages import Attached, SetPause
from tests.unit.coordinator.scheduler.harness import Bench, stage


def running(grid: Bench, device: str) -> list[AttemptId]:
    return [AttemptId(one.attempt) for one in grid.on(device)]


def revoked(grid: Bench) -> list[int]:
    (told,) = [one.message for one in grid.of(Send) if isinstance(one.message, Attached)]
    return told.revoked


def device_state(grid: Bench, device: str) -> str:
    return grid.machine.device_view(DeviceId(device)).state


def test_a_reconnect_with_the_same_session_continues_and_reruns_nothing() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit()
    held = grid.on("pc")[0]
    grid.start(held)
    grid.detach("pc")
    grid.attach("pi")
    grid.wait(15_000, hear=["pi"])
    grid.attach("pc", running=running(grid, "pc"))
    assert revoked(grid) == []
    assert grid.on("pi") == []
    grid.deliver(held)
    assert grid.view(job).state == "done"


def test_what_never_reached_a_device_is_assigned_anew_when_it_reconnects() -> None:
    grid = Bench()
    grid.attach("pc", slots=2)
    grid.submit(stage(count=2))
    first, second = grid.on("pc")
    grid.detach("pc")
    del grid.held[second.attempt]
    grid.attach("pc", slots=2, running=[AttemptId(first.attempt)])
    again = grid.on("pc")[1]
    assert (again.index, again.attempt != second.attempt) == (second.index, True)


def test_a_new_session_requeues_at_once_what_the_old_one_had_not_finished() -> None:
    grid = Bench()
    grid.attach("pc", slots=2)
    job = grid.submit(stage(count=2, retries=0))
    first, second = grid.on("pc")
    grid.start(first, second)
    del grid.held[first.attempt]
    grid.attach("pc", slots=2, session=SessionId("pc-2"), spooled=[AttemptId(second.attempt)])
    assert [one.index for one in grid.on("pc")] == [second.index, first.index]
    grid.deliver(second)
    grid.work_off()
    assert grid.view(job).state == "done"
    assert set(grid.accepted.values()) == {1}


def test_an_announced_result_that_never_comes_is_given_up_in_time() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit()
    held = grid.on("pc")[0]
    grid.attach("pc", session=SessionId("pc-2"), spooled=[AttemptId(held.attempt)])
    del grid.held[held.attempt]
    grid.wait(60_000, hear=["pc"])
    assert [one.index for one in grid.on("pc")] == [0]
    grid.deliver(held)
    assert grid.view(job).done == 1


def test_a_silent_device_keeps_its_attempts_until_its_lease_ends() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.attach("pi")
    grid.submit(stage(count=2))
    grid.start(*grid.held.values())
    lost = grid.on("pc")[0]
    grid.detach("pc")
    grid.deliver(grid.on("pi")[0])
    grid.wait(39_000, hear=["pi"])
    assert grid.on("pi") == []
    grid.wait(2_000, hear=["pi"])
    assert [one.index for one in grid.on("pi")] == [lost.index]


def test_a_late_result_of_an_unfinished_task_is_welcome_and_the_other_attempt_is_revoked() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=1))
    lost = grid.on("pc")[0]
    grid.detach("pc")
    grid.wait(60_000)
    grid.attach("pi")
    other = grid.on("pi")[0]
    grid.attach("pc", spooled=[AttemptId(lost.attempt)])
    grid.deliver(lost)
    assert grid.view(job).state == "done"
    assert grid.cancels == [("pi", other.attempt)]
    grid.deliver(other)
    assert grid.accepted == {(job, 0, 0): 1}


def test_a_late_result_after_a_restart_of_the_coordinator_is_welcome_too() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=1))
    lost = grid.on("pc")[0]
    grid.detach("pc")
    grid.wait(60_000)
    grid.mirror = None
    grid.restart()
    grid.attach("pc", spooled=[AttemptId(lost.attempt)])
    grid.deliver(lost)
    assert grid.view(job).state == "done"


def test_a_device_that_comes_back_late_goes_on_with_what_nobody_else_has() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=1))
    held = grid.on("pc")[0]
    grid.detach("pc")
    grid.wait(60_000)
    assert grid.state(job) == "queued"
    grid.attach("pc", running=[AttemptId(held.attempt)])
    assert revoked(grid) == []
    assert not grid.of(AssignTasks)
    grid.deliver(held)
    assert grid.view(job).state == "done"


def test_a_device_that_comes_back_with_finished_work_is_told_to_drop_it() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.submit(stage(count=1))
    held = grid.on("pc")[0]
    grid.detach("pc")
    grid.wait(60_000)
    grid.attach("pi")
    grid.deliver(grid.on("pi")[0])
    grid.attach("pc", running=[AttemptId(held.attempt), AttemptId(4711)])
    assert revoked(grid) == [held.attempt, 4711]


def test_a_device_that_slept_with_its_connection_open_goes_on() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=1))
    held = grid.on("pc")[0]
    grid.wait(60_000)
    assert device_state(grid, "pc") == "offline"
    assert grid.machine.device_view(DeviceId("pc")).reason == "not heard of past its lease"
    grid.hear("pc")
    assert device_state(grid, "pc") == "ready"
    grid.deliver(held)
    assert grid.view(job).state == "done"


def test_a_clean_goodbye_requeues_at_once() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.attach("pi")
    grid.submit(stage(count=1))
    first = next(iter(grid.held.values())).device
    grid.held.clear()
    grid.detach(first, for_good=True)
    assert len(grid.held) == 1
    assert next(iter(grid.held.values())).device != first


def test_words_of_an_older_session_change_nothing() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.attach("pc", session=SessionId("pc-2"))
    grid.detach("pc", session="pc-1", for_good=True)
    assert device_state(grid, "pc") == "ready"


def test_a_task_is_lost_after_it_crashed_five_distinct_devices_and_not_before() -> None:
    grid = Bench()
    job = grid.submit(stage(retries=0))
    for n in range(5):
        name = f"pc{n}"
        for repeat in range(2):
            grid.attach(name, session=SessionId(f"{name}-{repeat}"), unclean=repeat > 0)
            if grid.view(job).state != "active":
                break
            held = grid.on(name)[0]
            grid.start(held)
            del grid.held[held.attempt]
            if repeat:
                grid.detach(name, for_good=True, session=f"{name}-1")
            assert grid.view(job).state == "active"
    assert grid.view(job).lost == 1
    assert grid.view(job).state == "failed"
    assert "5 devices crashed" in grid.view(job).reason


def test_what_only_waited_there_does_not_count_as_crashed() -> None:
    grid = Bench()
    job = grid.submit(stage(count=12, retries=0))
    behind: dict[int, None] = {}
    for n in range(12):
        name = f"pc{n}"
        grid.attach(name)
        behind[grid.on(name)[1].index] = None
        for one in grid.on(name):
            del grid.held[one.attempt]
        grid.attach(name, session=SessionId("next"), unclean=True, state="paused")
    lost = [index for index, state in enumerate(grid.states(job)) if state == "lost"]
    assert lost[:2] == [0, 1]
    assert len(lost) == 2


def test_a_crash_during_the_silence_counts_when_the_device_is_back() -> None:
    grid = Bench()
    job = grid.submit(stage(retries=0))
    for n in range(5):
        name = f"pc{n}"
        grid.attach(name)
        held = grid.on(name)[0]
        grid.start(held)
        del grid.held[held.attempt]
        grid.detach(name)
        grid.wait(60_000)
        grid.attach(name, session=SessionId("next"), unclean=True, state="paused")
    assert grid.view(job).lost == 1


def test_leases_extend_by_the_time_that_the_coordinator_slept() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit(stage(count=1))
    grid.start(grid.on("pc")[0])
    grid.now_ms += 100_000
    grid.do(ClockJumped(gap_ms=100_000))
    assert grid.state(job) == "running"
    grid.wait(45_000)
    assert grid.state(job) == "queued"


def test_the_heartbeat_interval_grows_with_the_number_of_devices() -> None:
    grid = Bench(mirror=False)
    assert (grid.machine.heartbeat_ms(), grid.machine.lease_ms()) == (10_000, 40_000)
    slow = Bench(mirror=False, heartbeat_ms=1)
    for n in range(50):
        slow.attach(f"pc{n}")
    assert slow.machine.heartbeat_ms() == 100
    assert slow.machine.lease_ms() == 30_000


@pytest.mark.parametrize("verb", ["pause", "finish", "give_back"])
def test_a_verb_given_here_is_sent_kept_over_restarts_and_told_again(verb: str) -> None:
    grid = Bench()
    grid.attach("pc")
    grid.do(DevicePauseAsked(DeviceId("pc"), verb, 0, PrincipalId("ann"), grid.wall_ms))
    assert [one.message for one in grid.of(Send)] == [SetPause("pc", verb, 0, "ann")]
    grid.submit()
    assert grid.on("pc") == []
    grid.mirror = None
    grid.restart()
    grid.attach("pc")
    assert SetPause("pc", verb, 0, "ann") in [one.message for one in grid.of(Send)]
    assert device_state(grid, "pc") == ("draining" if verb == "finish" else "paused")
    grid.do(DevicePauseAsked(DeviceId("pc"), "resume", 0, PrincipalId("ann"), grid.wall_ms))
    assert len(grid.on("pc")) == 1


def test_a_timed_pause_ends_by_itself() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.do(
        DevicePauseAsked(DeviceId("pc"), "pause", grid.wall_ms + 60_000, PrincipalId("ann"), grid.wall_ms)
    )
    grid.submit()
    grid.wait(59_000, hear=["pc"])
    assert grid.on("pc") == []
    grid.wait(2_000, hear=["pc"])
    assert len(grid.on("pc")) == 1


def test_a_paused_device_gets_nothing_new_and_says_why() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.do(DevicePolicyChanged(DeviceId("pc"), "paused", "somebody is at the keyboard", 0))
    job = grid.submit()
    assert grid.on("pc") == []
    view = grid.machine.device_view(DeviceId("pc"))
    assert (view.state, view.reason) == ("paused", "somebody is at the keyboard")
    assert "paused" in grid.explain(job)
    grid.do(DevicePolicyChanged(DeviceId("pc"), "ready", "", 0))
    assert len(grid.on("pc")) == 1


def test_a_revoked_device_loses_what_it_has_at_once() -> None:
    grid = Bench()
    grid.attach("pc")
    job = grid.submit()
    grid.held.clear()
    grid.do(DeviceRevoked(DeviceId("pc")))
    assert grid.state(job) == "queued"
    with pytest.raises(NotFoundError):
        grid.machine.device_view(DeviceId("pc"))


def test_devices_are_renamed_labelled_and_found_by_name() -> None:
    grid = Bench()
    grid.attach("pc")
    grid.attach("pi")
    grid.do(DeviceChanged(DeviceId("pc"), "big one", {"room": "attic"}))
    assert grid.machine.find_device("big one") == "pc"
    assert grid.machine.device_view(DeviceId("pc")).labels == {"room": "attic"}
    grid.do(DeviceChanged(DeviceId("pi"), "big one", {}))
    assert grid.machine.device_view(DeviceId("pi")).name == "big one-2"
    with pytest.raises(NotFoundError):
        grid.machine.find_device("pcc")


def test_a_restarted_coordinator_reruns_nothing_that_runs() -> None:
    grid = Bench()
    grid.attach("pc", slots=2)
    grid.attach("pi")
    job = grid.submit(stage(count=4))
    grid.deliver(grid.on("pc")[0])
    grid.mirror = None
    grid.restart()
    grid.wait(10_000)
    grid.attach("pi", running=running(grid, "pi"))
    grid.attach("pc", slots=2, running=running(grid, "pc"))
    grid.work_off()
    assert grid.view(job).state == "done"
    assert set(grid.accepted.values()) == {1}
    numbers = [fact for fact in grid.facts if type(fact).__name__ == "Requeued"]
    assert numbers == []
