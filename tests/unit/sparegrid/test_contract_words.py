"""Ids and errors: the small words of the contract."""

from __future__ import annotations

import pytest

from sparegrid.errors import (
    BadInputError,
    DeniedError,
    GridError,
    TooLargeError,
    UnauthenticatedError,
    error_classes,
)
from sparegrid.ids import (
    JobId,
    StageIndex,
    TaskIndex,
    TaskRef,
    TaskText,
    parse_blob_hash,
    parse_job_id,
    parse_task_text,
)


def test_a_task_is_written_with_dots() -> None:
    assert str(TaskRef(JobId(17), StageIndex(0), TaskIndex(5))) == "17.0.5"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("17", TaskText(JobId(17), None, None)),
        ("17.0.5", TaskText(JobId(17), "0", TaskIndex(5))),
        ("17.render ü.5", TaskText(JobId(17), "render ü", TaskIndex(5))),
    ],
)
def test_jobs_and_tasks_are_read_as_people_write_them(text: str, expected: TaskText) -> None:
    assert parse_task_text(text) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "17.", "17.0", "17.0.x", "17.a.b.5", "-1", "1" * 19, "17.0.12345678901", "17\n"]
)
def test_what_is_neither_a_job_nor_a_task_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="neither a job"):
        parse_task_text(text)


@pytest.mark.parametrize("text", ["", "x", "1.0", "٣", "1" * 19, "-1", " 1"])
def test_what_is_no_job_id_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="not a job's number"):
        parse_job_id(text)


def test_a_blob_is_named_by_64_lower_case_hex_digits() -> None:
    assert parse_job_id("7") == 7
    assert parse_blob_hash("0a" * 32) == "0a" * 32
    for text in ("", "0A" * 32, "0a" * 31, "0a" * 33, "0a" * 32 + "\n", "../" + "a" * 61):
        with pytest.raises(BadInputError, match="64 lower-case hex"):
            parse_blob_hash(text)


def test_an_error_reads_as_title_message_and_next_step() -> None:
    assert str(GridError("Title")) == "Title"
    assert str(GridError("Title", "what")) == "Title: what"
    assert str(GridError("Title", "what", "Do this")) == "Title: what. Do this"


def test_every_error_has_a_code_of_its_own_and_is_found_by_it() -> None:
    classes = error_classes()
    assert classes["error"] is GridError
    assert classes["too-large"] is TooLargeError
    assert issubclass(classes["unauthenticated"], DeniedError)
    assert {cls.code: cls for cls in classes.values()} == classes
    assert UnauthenticatedError.http_status == 401
    for code, cls in classes.items():
        assert 400 <= cls.http_status < 600, code
        assert 1 <= cls.exit_code < 64, code
