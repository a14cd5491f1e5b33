"""Runs and agents that end, are recalled or are begun anew at the worst moment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from executors.agent.attempts import Attempt, Phase
from executors.agent.run import Runner
from executors.agent.slot_handle import RecalledError
from executors.context import TaskContext
from sparegrid.messages import Delivered, Detach, Ended, KindInfo, Outcome, Run, Template
from tests.unit.executors.grids import DEVICE, ENVIRON, fake_grid, working
from tests.unit.executors.nurseries import DEADLINE_S, expect_soon


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.finished: list[int] = []
        self.recalled: list[int] = []

    def on_finished(self, message: Delivered | Ended) -> None:
        self.finished.append(message.attempt)

    def on_recalled(self, lane: int, attempts: list[int]) -> None:
        self.recalled += attempts

    def on_log(self, attempt: int, offset: int, data: bytes, skipped: int, last: bool) -> None:
        raise AssertionError("nobody follows")


class Puppet:
    """An executor whose runs end as a test says."""

    kind: ClassVar[str] = "puppet"
    params: ClassVar[type[msgspec.Struct]] = msgspec.defstruct("Nothing", [])

    def __init__(self) -> None:
        self.ends: list[asyncio.Future[Outcome]] = []

    def probe(self) -> KindInfo:
        return KindInfo()

    async def run(self, params: Any, ctx: TaskContext) -> Outcome:
        self.ends.append(asyncio.get_running_loop().create_future())
        return await self.ends[-1]


async def test_an_attempt_begun_anew_before_its_recall_is_heard_runs_once(tmp_path: Path) -> None:
    heard, puppet = Heard(), Puppet()
    runner = Runner(DEVICE, {"puppet": puppet}, tmp_path / "work", tmp_path / "outbox", ENVIRON, heard)
    stage = Template(DEVICE, 1, 0, "puppet", msgspec.Raw(b"\x80"))
    attempt = Attempt(1, stage, Run(1, 0), Phase.RUNNING, 0)
    runner.start(attempt, 1, [])
    await expect_soon(lambda: len(puppet.ends) == 1, "it runs")
    # As `recall` does: the run is forgotten here, and its own task hears of it a turn later.
    del runner._runs[1]
    puppet.ends[0].set_exception(RecalledError())
    runner.start(attempt, 2, [])
    await expect_soon(lambda: len(puppet.ends) == 2, "it runs again")
    puppet.ends[1].set_result(Outcome())
    await expect_soon(lambda: heard.finished, "it has ended")
    assert (heard.finished, heard.recalled) == ([1], [])
    await runner.close()


@pytest.mark.parametrize("turns", range(6))
async def test_an_agent_ends_in_whatever_turn_it_is_told_to(tmp_path: Path, turns: int) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path) as agent:
        ticking = asyncio.create_task(agent._tick_for_ever())
        agent._busy.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        ticking.cancel()
        done, _ = await asyncio.wait([ticking], timeout=DEADLINE_S)
        assert done
        assert ticking.cancelled()


async def test_nothing_is_said_after_goodbye(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, goodbye=False) as agent:
        await agent.say_goodbye()
        agent.on_log(1, 0, b"late", 0, last=False)
        assert not agent._outgoing._messages
        await grid.until(Detach)
    assert isinstance(grid.heard[-1], Detach)
