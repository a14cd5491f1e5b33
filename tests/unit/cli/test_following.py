"""Logs without gaps and repeats, and the exit code that stands for a task."""

from __future__ import annotations

import pytest

from sparegrid.api import LogEvent, TaskResult
from sparegrid.cli.following import LogPrinter, exit_code_of
from sparegrid.messages import Outcome


class Sheet:
    """Keeps what was printed and remarked."""

    def __init__(self, *, gaps: bool = True) -> None:
        self.text = b""
        self.remarks: list[str] = []
        self.printer = LogPrinter(self.write, self.remarks.append, gaps=gaps)

    def write(self, data: bytes) -> None:
        self.text += data

    def take(self, offset: int, data: bytes, *, attempt: str = "1", skipped: int = 0) -> None:
        self.printer.take(LogEvent("1.0.0", attempt, offset, data, skipped))


def test_a_file_gets_every_byte_in_order_although_pieces_came_too_fast() -> None:
    sheet = Sheet(gaps=False)
    sheet.take(0, b"one ")
    sheet.take(8, b"three ", skipped=4)
    sheet.take(14, b"four")
    assert sheet.text == b"one "
    sheet.printer.complete(b"one two three four")
    assert (sheet.text, sheet.remarks) == (b"one two three four", [])


def test_pieces_are_printed_once_even_when_they_overlap() -> None:
    sheet = Sheet()
    sheet.take(0, b"hello ")
    sheet.take(0, b"hello wor")
    sheet.take(6, b"world")
    sheet.printer.complete(b"hello world!\n")
    assert sheet.text == b"hello world!\n"
    assert sheet.remarks == []


def test_the_kept_log_alone_is_printed_whole() -> None:
    sheet = Sheet()
    sheet.printer.complete(b"short task\n")
    assert sheet.text == b"short task\n"


def test_a_gap_is_told() -> None:
    sheet = Sheet()
    sheet.take(0, b"abc")
    sheet.take(1003, b"def", skipped=1000)
    assert sheet.text == b"abcdef"
    assert "1,000 bytes left out" in sheet.remarks[0]


def test_a_new_try_starts_anew_and_says_so() -> None:
    sheet = Sheet()
    sheet.take(0, b"first")
    sheet.take(0, b"second", attempt="2")
    assert sheet.text == b"firstsecond"
    assert "tried again" in sheet.remarks[0]


@pytest.mark.parametrize(
    ("state", "outcome", "reason", "code"),
    [
        ("done", Outcome(exit_code=0), "", 0),
        ("done", Outcome(exit_code=3), "", 3),
        ("done", Outcome(), "", 0),
        ("failed", Outcome(exit_code=7), "exit code 7", 7),
        ("failed", Outcome(signal="SIGSEGV"), "SIGSEGV", 139),
        ("failed", Outcome(signal="SIGUNKNOWN"), "", 1),
        ("failed", Outcome(signal="SIGKILL"), "timed out after 5 s", 124),
        ("lost", Outcome(), "five devices crashed", 1),
        ("cancelled", Outcome(), "", 1),
    ],
)
def test_a_task_ends_as_a_program_would(state: str, outcome: Outcome, reason: str, code: int) -> None:
    assert exit_code_of(TaskResult("1.0.0", "main", 0, state, outcome=outcome, reason=reason)) == code
