"""Jobs built from command lines."""

from __future__ import annotations

import pytest

from sparegrid.api import Items, RangeAxis
from sparegrid.cli.specs import TaskOptions, command_stage, job_name, job_of
from sparegrid.cli.verbs.map import axis, split_values
from sparegrid.errors import BadInputError


def test_a_command_becomes_one_stage_that_is_not_tried_twice() -> None:
    stage = command_stage(["uname", "-a"], TaskOptions(outputs=["*.png"], env=["A=1"], timeout=5.0))
    assert stage.params == {"argv": ["uname", "-a"], "env": {"A": "1"}}
    assert (stage.retries, stage.outputs, stage.timeout_s, stage.items) == (0, ["*.png"], 5.0, Items())


def test_a_shell_line_is_passed_as_it_was_typed() -> None:
    assert command_stage(["nproc; uptime"], TaskOptions(shell=True)).params == {"shell": "nproc; uptime"}


def test_requirements_and_a_device_meet_in_one_place() -> None:
    stage = command_stage(["true"], TaskOptions(require=["memory=1G"]), device="attic")
    assert (stage.requires.memory, stage.requires.device) == (1 << 30, "attic")


def test_a_requirement_out_of_its_range_is_refused() -> None:
    with pytest.raises(BadInputError, match="gpus"):
        command_stage(["true"], TaskOptions(require=["gpus=1000"]))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/usr/bin/uname", "-a"], "uname -a"),
        (["echo", "two words"], "echo 'two words'"),
        (["nproc;\n uptime"], "nproc; uptime"),
        (["x" * 100], "x" * 59 + "…"),
        ([" "], "command"),
    ],
)
def test_a_job_is_named_after_its_command(command: list[str], name: str) -> None:
    assert job_name(command) == name
    assert job_of([], command, TaskOptions()).name == name
    assert job_of([], command, TaskOptions(name="mine", priority=9)).name == "mine"


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("mode=fast,good", "mode", ["fast", "good"]),
        ("n=1,2.5,007,1e3,nan", "n", [1, 2.5, "007", "1e3", "nan"]),
        ("seed=1:100", "seed", RangeAxis(1, 100, 1)),
        ("t=0:1:0.05", "t", RangeAxis(0, 1, 0.05)),
        ("down=10:-10:-5", "down", RangeAxis(10, -10, -5)),
        ("eq=a=b", "eq", ["a=b"]),
    ],
)
def test_an_axis_is_a_list_or_a_range(text: str, name: str, values: object) -> None:
    assert axis(text) == (name, values)


@pytest.mark.parametrize("text", ["", "seed", "=1", "seed=", "n=1:5:0"])
def test_a_wrong_axis_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="Not an axis"):
        axis(text)


def test_values_follow_the_three_colons() -> None:
    assert split_values(["gzip", "{{item}}", ":::", "a", "b"]) == (["gzip", "{{item}}"], ["a", "b"])
    assert split_values(["gzip", "-k"]) == (["gzip", "-k"], None)
    with pytest.raises(BadInputError, match="No command"):
        split_values([":::", "a"])
