"""What every executor must keep to, and how executors are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from executors.base import Executor
from executors.command import CommandExecutor, choose
from executors.registry import load_executors
from sparegrid.kinds import KIND_PARAMS, CommandParams, CommandVariant
from sparegrid.messages import Cancel, FileEntry, Inline, KindInfo, Started
from tests.unit.executors.grids import DEVICE, fake_grid, working

SAMPLES: dict[str, dict[str, Any]] = {
    "command": {
        "good": {"shell": "cat in.txt > out.txt; echo said"},
        "bad": {"shell": "echo said; exit 3"},
        "endless": {"shell": "while :; do sleep 0.01; done"},
        "foreign": {"no_such_parameter": 1},
    },
    "python": {
        "good": {"function": "m:good"},
        "bad": {"function": "m:bad"},
        "endless": {"function": "m:endless"},
        "foreign": {"no_such_parameter": 1},
    },
}
MODULE = """
import time
def good():
    open('out.txt', 'w').write(open('in.txt').read())
    print('said')
def bad():
    print('said')
    raise ValueError
def endless():
    while True: time.sleep(0.01)
"""
FILES = [FileEntry("in.txt", Inline(b"input")), FileEntry("m.py", Inline(MODULE.encode()))]


@pytest.mark.parametrize("kind", sorted(load_executors()))
class TestEveryExecutor:
    """One class for all: a new kind brings its samples, and keeps to these."""

    def test_its_kind_and_parameters_are_those_of_the_contract(self, kind: str) -> None:
        executor = load_executors()[kind]
        assert executor.kind == kind
        assert executor.params is KIND_PARAMS[kind]
        assert msgspec.json.schema(executor.params)

    def test_its_probe_is_truthful_here(self, kind: str) -> None:
        info = load_executors()[kind].probe()
        assert isinstance(info, KindInfo)
        assert info.schema

    async def test_success_gives_an_outcome_with_files_log_and_usage(self, kind: str, tmp_path: Path) -> None:
        async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
            (number,) = await grid.run(SAMPLES[kind]["good"], kind=kind, inputs=FILES, outputs=["out.txt"])
            outcome = await grid.outcome_of(number)
        assert (outcome.files, outcome.log) == ([FileEntry("out.txt", Inline(b"input"))], Inline(b"said\n"))
        assert outcome.usage.max_rss > 0

    async def test_failure_is_the_tasks_and_its_log_is_kept(self, kind: str, tmp_path: Path) -> None:
        async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
            ended = await grid.ended((await grid.run(SAMPLES[kind]["bad"], kind=kind, inputs=FILES))[0])
        assert ended.blame == "task"
        assert ended.reason
        assert grid.bytes_of(ended.outcome.log).startswith(b"said\n")

    async def test_parameters_of_another_version_are_the_devices_fault(
        self, kind: str, tmp_path: Path
    ) -> None:
        async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
            ended = await grid.ended((await grid.run(SAMPLES[kind]["foreign"], kind=kind))[0])
        assert (ended.blame, "not those of this version" in ended.reason) == ("device", True)

    async def test_cancel_ends_it(self, kind: str, tmp_path: Path) -> None:
        async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
            (number,) = await grid.run(SAMPLES[kind]["endless"], kind=kind, inputs=FILES, grace_ms=100)
            await grid.until(Started)
            await grid.send(Cancel(DEVICE, [number]))
            assert (await grid.ended(number)).blame == "grid"


class _Good:
    kind: ClassVar[str] = "good"
    params = CommandParams


class _Broken:
    def __init__(self) -> None:
        raise RuntimeError("broken")


def test_a_broken_or_second_executor_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    points = [
        _Point("a", _Good),
        _Point("b", _Broken),
        _Point("c", _Good),
    ]
    found = load_executors(points)  # type: ignore[arg-type]  # stands for installed ones
    assert list(found) == ["good"]
    assert "'b'" in caplog.text
    assert "a second executor for 'good'" in caplog.text


class _Point:
    """An entry point of a package that is not installed."""

    def __init__(self, name: str, target: type) -> None:
        self.name = name
        self.value = target.__name__
        self._target = target

    def load(self) -> type:
        return self._target

    def __lt__(self, other: _Point) -> bool:
        return self.name < other.name


def test_both_built_in_kinds_are_installed() -> None:
    found: dict[str, Executor] = dict(load_executors())
    assert {"command", "python"} <= set(found)


@pytest.mark.parametrize(
    ("platform", "argv", "env"),
    [
        ("linux/x86_64", ["/bin/sh", "-c", "generic linux"], {"A": "l", "B": "b"}),
        ("linux/aarch64", ["arm"], {"A": "l", "B": "arm"}),
        ("windows/x86_64", ["cmd", "/d", "/c", "dir"], {"A": "a", "B": "b"}),
        ("macos/aarch64", ["all"], {"A": "a", "B": "b"}),
    ],
)
def test_the_most_exact_variant_wins_and_adds_to_the_environment(
    platform: str, argv: list[str], env: dict[str, str]
) -> None:
    params = CommandParams(
        argv=["all"],
        env={"A": "a", "B": "b"},
        platforms={
            "linux": CommandVariant(shell="generic linux", env={"A": "l"}),
            "linux/aarch64": CommandVariant(argv=["arm"], env={"B": "arm"}),
            "windows": CommandVariant(shell="dir"),
        },
    )
    assert choose(params, platform) == [argv, env, ""]


def test_a_plan_is_made_once_a_stage() -> None:
    executor = CommandExecutor("linux/x86_64")
    params = CommandParams(argv=["x"])
    assert executor._plan(params) is executor._plan(params)
    for _ in range(200):
        executor._plan(CommandParams(argv=["y"]))
    assert len(executor._plans) <= 64
