"""What the worker owes is on disk before it is sent, and survives all that may happen to the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from executors.agent.spool import COMPACT_FROM_BYTES, Spool, blobs_of_result
from sparegrid.messages import BlobRef, Delivered, Ended, FileEntry, Inline, Outcome, Usage


def result(number: int, size: int = 10, wall_ms: int = 1) -> Delivered:
    return Delivered(
        "d", 1, 0, number, number, Outcome(log=Inline(b"x" * size), usage=Usage(wall_ms=wall_ms))
    )


def reopened(path: Path) -> dict[int, Delivered | Ended]:
    spool = Spool(path)
    spool.close()
    return spool.results


def test_what_was_kept_is_there_after_a_restart_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "spool.bin"
    spool = Spool(path)
    ended = Ended("d", 1, 0, 7, 7, "task", "exit code 1")
    spool.keep([result(3), ended])
    spool.keep([result(1)])
    spool.forget([3, 99])
    spool.close()
    assert reopened(path) == {7: ended, 1: result(1)}
    assert list(reopened(path)) == [7, 1]


def test_costly_results_are_worth_a_sync_and_cheap_ones_are_not(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    assert spool.keep([result(1, wall_ms=10)]) is False
    assert spool.keep([result(2, wall_ms=60_000)]) is True
    spool.sync()
    spool.close()


@pytest.mark.parametrize("cut", [1, 5, 9, 20])
def test_a_torn_tail_costs_the_last_record_only(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    spool = Spool(path)
    spool.keep([result(1), result(2)])
    spool.close()
    os.truncate(path, path.stat().st_size - cut)
    assert reopened(path) == {1: result(1)}
    assert reopened(path) == {1: result(1)}, "and the file is whole again"


def test_a_flipped_bit_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "s"
    spool = Spool(path)
    spool.keep([result(1), result(2)])
    spool.close()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert reopened(path) == {1: result(1)}


def test_a_file_of_another_form_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"something else entirely")
    assert reopened(path) == {}
    assert (tmp_path / "s.unreadable").read_bytes() == b"something else entirely"


def test_the_file_does_not_grow_with_what_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "s"
    spool = Spool(path)
    spool.keep([result(0)])
    for number in range(1, 40):
        spool.keep([result(number, size=300_000)])
        spool.forget([number])
    assert path.stat().st_size < COMPACT_FROM_BYTES + 400_000
    spool.forget([0])
    assert path.stat().st_size < 100
    spool.keep([result(50)])
    spool.close()
    assert reopened(path) == {50: result(50)}


def test_a_full_disk_loses_nothing_in_memory_and_no_older_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    spool = Spool(path)
    spool.keep([result(1)])
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full)
    spool.keep([result(2)])
    monkeypatch.undo()
    spool.keep([result(3)])
    assert list(spool.results) == [1, 2, 3]
    assert "stay in memory" in caplog.text
    spool.close()
    assert list(reopened(path)) == [1, 3]


def test_the_blobs_of_a_result_are_named_once() -> None:
    ref, other = BlobRef("a" * 64, 1), BlobRef("b" * 64, 2)
    outcome = Outcome(value=ref, log=other, files=[FileEntry("x", ref), FileEntry("y", Inline(b""))])
    assert blobs_of_result(Ended("d", 1, 0, 0, 1, "task", "", outcome, checkpoint=other)) == [
        ref,
        other,
        other,
    ]
