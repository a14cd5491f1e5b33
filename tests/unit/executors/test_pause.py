"""A pause holds over restarts, and no longer than whoever gave it wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from executors.agent.pause import PauseFile
from sparegrid.messages import Attach, Attached, DeviceState, PauseVerb, PolicyChanged, SetPause
from tests.unit.executors.grids import DEVICE, FakeGrid, fake_grid, working
from tests.unit.executors.nurseries import expect_soon


async def attached(grid: FakeGrid, session: str) -> tuple[str, str]:
    """State and reason with which this run of the worker came."""
    attach = await grid.until(Attach, lambda one: one.session == session)
    return attach.state, attach.reason


@pytest.mark.parametrize(
    ("verb", "state"), [("pause", "paused"), ("finish", "draining"), ("give_back", "paused")]
)
async def test_the_owners_pause_survives_a_restart_and_ends_when_resumed(
    tmp_path: Path, verb: str, state: str
) -> None:
    async with fake_grid(tmp_path) as grid:
        async with working(grid, tmp_path, session="s1") as agent:
            agent.pause(PauseVerb(verb), "the owner")
        async with working(grid, tmp_path, session="s2") as agent:
            assert await attached(grid, "s2") == (state, f"{state} by the owner")
            await grid.until(PolicyChanged, lambda one: one.state == state)
            refused = await grid.ended(await grid.sh("true"))
            assert (refused.unstarted, refused.blame) == (True, "owner")
            agent.pause(PauseVerb.RESUME)
            assert (await grid.outcome_of(await grid.sh("true"))).exit_code == 0
        async with working(grid, tmp_path, session="s3"):
            assert await attached(grid, "s3") == ("ready", "")


async def test_a_pause_whose_time_ends_while_the_worker_is_away_is_over_soon_after(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid:
        async with working(grid, tmp_path) as agent:
            agent.pause(PauseVerb.PAUSE, until_ms=1)
        async with working(grid, tmp_path) as agent:
            await expect_soon(lambda: agent.session.state is DeviceState.READY, "it is over")
        assert not (tmp_path / "worker" / "pause.json").exists()


async def test_the_coordinators_pause_survives_until_it_says_otherwise(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid:
        async with working(grid, tmp_path, session="s1") as agent:
            await grid.send(SetPause(DEVICE, "pause", by="ann"))
            await expect_soon(lambda: agent.session.state is DeviceState.PAUSED, "it is paused")
        async with working(grid, tmp_path, session="s2") as agent:
            # It was resumed meanwhile: the answer to Attach repeats no pause.
            assert await attached(grid, "s2") == ("paused", "paused by ann")
            await expect_soon(lambda: agent.session.state is DeviceState.READY, "it is resumed")
            await grid.send(Attached(DEVICE), SetPause(DEVICE, "pause", by="ann"))
            await expect_soon(lambda: agent.session.state is DeviceState.PAUSED, "it is paused anew")
            await grid.send(Attached(DEVICE), SetPause(DEVICE, "finish", by="ann"))
            await expect_soon(lambda: agent.session.state is DeviceState.DRAINING, "the repeated one holds")


@pytest.mark.parametrize("data", [b"", b"\xff", b'{"state": "paused"}', b"[]"])
def test_a_pause_that_cannot_be_read_holds(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pause.json"
    path.write_bytes(data)
    found = PauseFile(path).load()
    assert found is not None
    assert found.state is DeviceState.PAUSED
    assert "cannot be read" in caplog.text


def test_a_disk_that_fails_does_not_keep_the_owner_from_pausing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PauseFile(tmp_path / "missing" / "pause.json").keep(PolicyChanged(DEVICE, "paused"))
    assert "not kept over a restart" in caplog.text
