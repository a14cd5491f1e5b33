"""Lines of the log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from coordinator.server.log import configure_logging

log = logging.getLogger("sparegrid.coordinator.test")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger("sparegrid")
    before = (root.level, root.propagate, list(root.handlers))
    handler = configure_logging("info", stream)
    yield stream
    root.removeHandler(handler)
    root.level, root.propagate, root.handlers = before


def test_a_record_is_one_line_with_its_fields(lines: io.StringIO) -> None:
    log.info("worker connected", extra={"device": "abc", "reason": "a cable was\npulled"})
    line = lines.getvalue()
    assert line.endswith('INFO coordinator.test: worker connected device=abc reason="a cable was\\npulled"\n')
    assert line[:4].isdigit()


def test_nobodys_text_looks_like_another_record(lines: io.StringIO) -> None:
    log.warning("%s", "evil\n2026-01-01T00:00:00.000Z ERROR fake")
    assert lines.getvalue().count("\n") == 1


def test_what_is_below_the_level_is_left_out(lines: io.StringIO) -> None:
    log.debug("nothing")
    assert lines.getvalue() == ""


def test_a_traceback_follows_its_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it failed")
    assert "it failed\nTraceback" in lines.getvalue()
    assert lines.getvalue().endswith("ValueError: why\n")


def test_configuring_twice_does_not_write_twice(lines: io.StringIO) -> None:
    again = configure_logging("info", lines)
    log.info("once")
    assert lines.getvalue().count("once") == 1
    logging.getLogger("sparegrid").removeHandler(again)
