"""Texts and numbers as people read them."""

from __future__ import annotations

import pytest

from sparegrid.cli.wording import ago, duration, number, plural, safe, safe_lines, sentence

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("bell\a back\b c1\x9b2J", "bell\ufffd back\ufffd c1\ufffd2J"),
        ("evil\u202etxt.exe", "evil\ufffdtxt.exe"),
        ("zero\u200bwidth", "zero\ufffdwidth"),
        ("cut \udcff surrogate", "cut \ufffd surrogate"),
        ("película 🎬 👩\u200d🚀", "película 🎬 👩\u200d🚀"),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
    ],
)
def test_a_foreign_text_cannot_command_the_terminal(foreign: str, shown: str) -> None:
    assert safe(foreign) == shown


def test_a_reason_on_its_own_line_begins_with_a_capital() -> None:
    assert sentence("task 2.0.1: exit code 1") == "Task 2.0.1: exit code 1"
    assert sentence("") == ""


def test_safe_lines_keeps_the_line_breaks_only() -> None:
    assert safe_lines("one\r\ntwo\x1b") == "one\ntwo\ufffd"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.042, "42 ms"),
        (0.42, "0.4 s"),
        (12.4, "12 s"),
        (192, "3 min 12 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("then_ms", "text"),
    [(0, ""), (NOW_MS + 50_000, "just now"), (NOW_MS - 1000, "just now"), (NOW_MS - 200_000, "3 min ago")],
)
def test_an_age_has_one_unit_and_never_lies_in_the_future(then_ms: int, text: str) -> None:
    assert ago(then_ms, NOW_MS) == text


def test_counts_are_separated_and_agree_with_their_noun() -> None:
    assert (number(1234567), plural(1, "task"), plural(2, "task"), plural(0, "task")) == (
        "1,234,567",
        "1 task",
        "2 tasks",
        "0 tasks",
    )
