"""The log of several tasks: whole lines, each behind its task's id."""

from __future__ import annotations

import pytest

from sparegrid.api import DeviceView, TaskResult
from sparegrid.cli.joblog import LinePrinter, ending_of
from sparegrid.cli.verbs.device import follows
from sparegrid.messages import Outcome, PauseVerb


def test_a_line_is_printed_when_it_is_whole() -> None:
    written: list[bytes] = []
    lines = LinePrinter("17.0.5", written.append)
    lines.write(b"one\ntw")
    assert written == [b"17.0.5: one\n"]
    lines.write(b"o\n\nthree")
    assert written[1:] == [b"17.0.5: two\n17.0.5: \n"]
    lines.end()
    lines.end()
    assert written[2:] == [b"17.0.5: three\n"]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Outcome(), "Task 17.0.5 failed: exit code 3; it printed nothing"),
        (Outcome(log_bytes=9), "Task 17.0.5 failed: exit code 3"),
    ],
)
def test_a_failure_is_told_with_its_reason(outcome: Outcome, told: str) -> None:
    result = TaskResult("17.0.5", "main", 5, "failed", outcome=outcome, reason="exit code 3")
    assert ending_of(result).plain == told


@pytest.mark.parametrize(
    ("verb", "state", "assigned", "done"),
    [
        (PauseVerb.RESUME, "paused", 0, False),
        (PauseVerb.RESUME, "computing", 1, True),
        (PauseVerb.PAUSE, "paused", 2, True),
        (PauseVerb.GIVE_BACK, "paused", 2, False),
        (PauseVerb.GIVE_BACK, "paused", 0, True),
        (PauseVerb.FINISH, "draining", 1, True),
    ],
)
def test_a_verb_has_done_its_work_when_the_device_is_as_it_wants(
    verb: PauseVerb, state: str, assigned: int, done: bool
) -> None:
    assert follows(verb, DeviceView("d", "attic", state, assigned=assigned)) is done
