"""Full disks, failed writes and failed fsyncs: what is told, what stops, and what is there afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.powerloss import faults
from tests.powerloss.recording import build_recorder, record, scratch

Tell = Callable[[Callable[[Path], dict[str, Any]]], dict[str, Any]]


@pytest.fixture(scope="module")
def tell() -> Iterator[Tell]:
    with scratch() as folder:
        library = build_recorder(folder)

        def told(story: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
            place = folder / story.__name__
            place.mkdir()
            found: dict[str, Any] = json.loads(
                record(library, place, "tests.powerloss.faults", story.__name__).printed
            )
            return found

        yield told


def test_a_full_disk_holds_commits_and_space_lets_them_through_in_order(tell: Tell) -> None:
    found = tell(faults.full_disk)
    assert found["done"] == [False, False]
    assert found["titles"] == ["Disk full"]
    assert "grid.db" in found["held"]
    assert found["seqs"] == [2, 3]
    assert found["after"] is None
    assert found["facts"] == 3


def test_a_full_disk_gives_up_the_ballast_for_what_waits_and_intake_waits_for_its_return(tell: Tell) -> None:
    found = tell(faults.full_disk_with_ballast)
    assert found["blocks"] >= 1 << 20
    assert found["seqs"] == [2, 3]
    assert "Disk full" in found["held"]
    assert (found["there"], found["resumed"], found["again"], found["left"]) == (False, False, True, False)


def test_closing_on_a_full_disk_fails_what_is_held_and_keeps_what_was_promised(tell: Tell) -> None:
    found = tell(faults.full_disk_until_closed)
    assert found["error"].startswith("Disk full")
    assert found["facts"] == 1
    assert not found["fatal"]


def test_a_failed_fsync_of_the_log_is_fatal_and_ends_all_commits(tell: Tell) -> None:
    found = tell(faults.failed_fsync)
    assert found["error"].startswith("Disk error")
    assert "SQLITE_IOERR_FSYNC" in found["error"]
    assert found["later"] == "Disk error"
    assert found["titles"] == ["Disk error"]
    assert found["facts"] >= 1


def test_a_failed_fsync_of_a_checkpoint_is_fatal_and_loses_nothing(tell: Tell) -> None:
    found = tell(faults.failed_fsync_of_a_checkpoint)
    assert found["titles"] == ["Disk error"]
    assert found["facts"] >= found["acknowledged"] > 0


def test_want_of_space_for_a_checkpoint_stops_no_commit(tell: Tell) -> None:
    found = tell(faults.no_space_for_a_checkpoint)
    assert found["without"] == 0
    assert found["later"] > 0
    assert (found["facts"], found["titles"]) == (119, [])


def test_a_failed_write_is_fatal_unless_it_is_for_want_of_space(tell: Tell) -> None:
    found = tell(faults.failed_write)
    assert "SQLITE_IOERR_WRITE" in found["error"]
    assert found["fatal"]


def test_an_exhausted_quota_holds_like_a_full_disk(tell: Tell) -> None:
    assert tell(faults.quota) == {"seq": 1, "titles": ["Disk full"]}


def test_an_upload_on_a_full_disk_goes_on_later_where_it_was(tell: Tell) -> None:
    found = tell(faults.blob_on_a_full_disk)
    assert found["error"].startswith("Disk full")
    assert found["offset"] == 1 << 20
    assert found["same"]


def test_nothing_of_an_upload_is_kept_after_a_failed_fsync(tell: Tell) -> None:
    assert tell(faults.blob_whose_fsync_fails) == {
        "told": ["Disk error", "Disk error"],
        "size": None,
        "bytes": 0,
        "stored": True,
    }
