"""Workers that say what cannot be: drawn within bounds, or their connection ends; the coordinator goes on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.scheduler.events import SchedulerEvent
from coordinator.server import bounding, workers_ws
from coordinator.server.bounding import MAX_SLOTS, bounded
from coordinator.server.hearing import EVENTS
from sparegrid.api import MAX_BYTES, JobSpec, StageSpec
from sparegrid.errors import BadInputError
from sparegrid.messages import (
    Attach,
    Attached,
    Capability,
    CapabilityChanged,
    Delivered,
    Ended,
    FileEntry,
    Gpu,
    Heartbeat,
    Inline,
    KindInfo,
    Outcome,
    PolicyChanged,
    Progress,
    Reading,
    Refused,
    Usage,
)
from tests.fakes.coordinator import RunningCoordinator, running_coordinator

HUGE = 2**63


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[RunningCoordinator]:
    async with running_coordinator(tmp_path) as running:
        yield running


def _broken(_message: Heartbeat) -> SchedulerEvent:
    raise ValueError("a mistake in the making of an event")


async def still_works(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker("honest"):
        sent = await client.submit(JobSpec("j", [StageSpec(params={"argv": ["true"]})]))
        assert (await client.wait(sent.id)).state == "done"


@pytest.mark.parametrize("speed", [math.inf, -math.inf, math.nan, -1.0, 1e300])
async def test_an_impossible_speed_is_drawn_within_bounds(grid: RunningCoordinator, speed: float) -> None:
    odd = Capability(os="linux", slots=0, kinds={"command": KindInfo(speed=speed)})
    async with await grid.worker("odd", capability=odd) as worker:
        await worker.send(CapabilityChanged(worker.device, odd))
        await worker.heartbeat()
        await still_works(grid)
        shown = (await (await grid.client()).device("odd")).capability.kinds["command"].speed
        assert 0 <= shown <= 1e9


async def test_absurd_resources_are_drawn_within_bounds(grid: RunningCoordinator) -> None:
    odd = Capability(
        os="li\x1b[31mnux\n", cpus=HUGE, slots=-5, memory=HUGE, disk_free=-1,
        gpus=[Gpu("0", "g" * 1000, vram=-1)] * 100, counts={"licence": -HUGE}, labels={"\x00a": "b" * 1000},
    )  # fmt: skip
    async with await grid.worker("odd", capability=odd) as worker:
        await worker.send(Heartbeat(worker.device, Reading(load=-HUGE, memory_free=HUGE)))
        await still_works(grid)
        shown = (await (await grid.client()).device("odd")).capability
    assert (shown.cpus, shown.slots, shown.memory, shown.disk_free) == (MAX_SLOTS, 0, MAX_BYTES, 0)
    assert (shown.os, shown.counts) == ("li [31mnux ", {"licence": 0})
    assert [len(shown.gpus), len(shown.gpus[0].name), shown.gpus[0].vram] == [64, 200, 0]
    assert shown.labels == {" a": "b" * 200}


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", "", "a\\b", "c:x", "nul\x00"])
def test_a_result_whose_files_lie_elsewhere_is_the_devices_fault(path: str) -> None:
    outcome = Outcome(files=[FileEntry(path, Inline(b""))])
    heard = bounded(Delivered("pc", 1, 0, 0, 7, outcome))
    assert isinstance(heard, Ended)
    assert (heard.blame, heard.attempt) == ("device", 7)
    ended = bounded(Ended("pc", 1, 0, 0, 7, "task", "exit code 1", outcome))
    assert isinstance(ended, Ended)
    assert (ended.blame, ended.outcome.files) == ("task", [])


def test_a_result_of_too_many_files_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounding, "MAX_RESULT_FILES", 2)
    outcome = Outcome(files=[FileEntry(f"{at}", Inline(b"")) for at in range(3)])
    heard = bounded(Delivered("pc", 1, 0, 0, 7, outcome))
    assert isinstance(heard, Ended)
    assert "2 is the limit" in heard.reason


def test_numbers_of_results_progress_and_policy_are_drawn_within_bounds() -> None:
    heard = bounded(Delivered("pc", 1, 0, 0, 7, Outcome(exit_code=HUGE, usage=Usage(-1, HUGE, HUGE))))
    assert isinstance(heard, Delivered)
    assert (heard.outcome.exit_code, heard.outcome.usage) == (None, Usage(0, MAX_BYTES, MAX_BYTES))
    assert bounded(Progress("pc", 7, -3, "a\nb")) == Progress("pc", 7, 0, "a b")
    assert bounded(PolicyChanged("pc", "ready", "", HUGE)) == PolicyChanged("pc", "ready", "", MAX_BYTES)


@pytest.mark.parametrize("device", ["", "x" * 201, "a\x00b"])
def test_an_id_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(BadInputError, match="device"):
        bounded(Attach(device, "s", "pc", Capability()))


async def test_more_boards_than_one_connection_may_carry_are_refused(
    grid: RunningCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_ws, "MAX_BOARDS", 2)
    async with await grid.worker("pc") as worker:
        for board in ("a", "b", "c"):
            await worker.send(Attach(board, worker.session, board, Capability(os="bare")))
        refused = await worker.until(Refused)
    assert refused.title == "Too many devices"


async def test_a_message_that_breaks_its_handling_drops_its_connection_only(
    grid: RunningCoordinator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with await grid.worker("odd") as worker:
        with monkeypatch.context() as patch:
            patch.setitem(EVENTS, Heartbeat, _broken)
            await worker.heartbeat()
            with pytest.raises(ConnectionError):
                await worker.until(int)
    assert "a message cannot be taken" in caplog.text
    caplog.clear()
    await still_works(grid)


async def test_a_frame_without_end_closes_its_connection_with_one_warning(
    grid: RunningCoordinator, caplog: pytest.LogCaptureFixture
) -> None:
    async with await grid.worker("odd") as worker:
        await worker.socket.send_bytes(b"\x91" * 5000)
        with pytest.raises(ConnectionError):
            await worker.until(int)
    assert [record.getMessage() for record in caplog.records] == ["a frame cannot be read"]
    caplog.clear()
    await still_works(grid)


async def test_a_removed_device_is_told_and_its_connection_ends(grid: RunningCoordinator) -> None:
    async with await grid.worker("pc") as worker, asyncio.timeout(5):
        await (await grid.client()).remove_device("pc")
        assert (await worker.until(Refused)).title == "Removed from the grid"
        with pytest.raises(ConnectionError):
            await worker.until(int)


async def test_a_removed_board_leaves_the_others_their_connection(grid: RunningCoordinator) -> None:
    async with await grid.worker("pc") as worker:
        await worker.send(Attach("mac-1", worker.session, "esp32", Capability(os="bare")))
        await worker.until(Attached, lambda message: message.device == "mac-1")
        client = await grid.client()
        await client.remove_device("esp32")
        sent = await client.submit(JobSpec("j", [StageSpec(params={"argv": ["true"]})]))
        assert (await client.wait(sent.id)).state == "done"
