"""Snapshots bound what a start replays; two are kept, so that either can restore."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.server.store import Batch, Store, journal
from sparegrid.errors import StorageError
from tests.unit.coordinator.store.builders import Gate, commit, database, joined, settle


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "grid.db"


def numbers(store: Store) -> tuple[bytes | None, list[int]]:
    """The snapshot and the numbers of the facts after it."""
    restored = store.load()
    return restored.snapshot, [getattr(fact, "wall_ms", -1) for fact in restored.facts]


def fill(store: Store, first: int, last: int) -> None:
    for future in [store.commit(Batch(facts=[joined(n)], now_ms=n)) for n in range(first, last + 1)]:
        future.result(10)


def rows(path: Path, sql: str) -> list[tuple[int, ...]]:
    with database(path) as db:
        return db.execute(sql).fetchall()


def test_a_start_takes_the_snapshot_and_the_facts_after_it(path: Path) -> None:
    with Store.open(path) as store:
        fill(store, 1, 3)
        store.save_snapshot(b"one to three", 3).result(10)
        fill(store, 4, 5)
    with Store.open(path) as store:
        assert numbers(store) == (b"one to three", [4, 5])


def test_a_snapshot_may_be_older_than_the_newest_commit(path: Path) -> None:
    with Store.open(path) as store:
        fill(store, 1, 5)
        store.save_snapshot(b"one to three", 3).result(10)
        assert numbers(store) == (b"one to three", [4, 5])


def test_a_snapshot_of_the_newest_commit_leaves_nothing_to_replay(path: Path) -> None:
    with Store.open(path) as store:
        fill(store, 1, 2)
        store.save_snapshot(b"", 2).result(10)
    with Store.open(path) as store:
        restored = store.load()
        assert (restored.snapshot, list(restored.facts), restored.last_seq) == (b"", [], 2)
        assert restored.last_now_ms == 2
        assert commit(store, joined(3)) == 3


def test_facts_before_the_older_of_two_snapshots_are_dropped(path: Path) -> None:
    with Store.open(path) as store:
        for last in (1000, 2000, 3000):
            fill(store, last - 999, last)
            store.save_snapshot(b"to %d" % last, last).result(10)
        assert store.bytes_since_snapshot == 0
        settle(store)
    with Store.open(path) as store:
        assert numbers(store) == (b"to 3000", [])
    assert rows(path, "SELECT seq FROM snapshots") == [(2000,), (3000,)]
    assert rows(path, "SELECT DISTINCT seq FROM snapshot_parts") == [(2000,), (3000,)]
    assert rows(path, "SELECT min(seq), max(seq) FROM facts") == [(2001, 3000)]


def test_a_damaged_snapshot_is_passed_over_with_a_notice_and_loses_nothing(path: Path) -> None:
    with Store.open(path) as store:
        for last in (10, 20):
            fill(store, last - 9, last)
            store.save_snapshot(b"to %d" % last, last).result(10)
        fill(store, 21, 22)
    with database(path) as db:
        db.execute("UPDATE snapshot_parts SET bytes = x'00' WHERE seq = 20")
    with Store.open(path) as store:
        assert numbers(store) == (b"to 10", list(range(11, 23)))
        [notice] = store.load().notices
        assert "snapshot at record 20 is damaged" in notice
    with database(path) as db:
        db.execute("DELETE FROM snapshot_parts WHERE seq = 10")
    with (
        Store.open(path) as store,
        pytest.raises(StorageError, match=r"records 1 to 10 of the journal are missing"),
    ):
        store.load()


def test_one_damaged_snapshot_alone_is_replaced_by_the_whole_journal(path: Path) -> None:
    with Store.open(path) as store:
        fill(store, 1, 5)
        store.save_snapshot(b"to 5", 5).result(10)
    with database(path) as db:
        db.execute("UPDATE snapshots SET crc = crc + 1")
    with Store.open(path) as store:
        assert numbers(store) == (None, [1, 2, 3, 4, 5])


def test_a_large_snapshot_is_written_in_parts_between_the_commits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PART_BYTES", 10)
    data = bytes(range(256)) * 4
    with Store.open(path, sync="normal") as store:
        fill(store, 1, 1)
        saved = store.save_snapshot(data, 1)
        fill(store, 2, 30)
        saved.result(10)
    assert rows(path, "SELECT seq, parts FROM snapshots") == [(1, 103)]
    with Store.open(path) as store:
        assert numbers(store) == (data, list(range(2, 31)))


def test_a_snapshot_that_closing_interrupts_fails_and_is_cleared_away_at_the_next_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PART_BYTES", 1)
    with Store.open(path) as store:
        fill(store, 1, 1)
        gate = Gate(store)
        saved = store.save_snapshot(bytes(1000), 1)
        gate.open_at_close()
    with pytest.raises(StorageError, match="before this was written"):
        saved.result(0)
    with database(path) as db:
        db.execute(
            "INSERT INTO snapshot_parts VALUES (9, 0, x'00')"
        )  # What a crash leaves in the middle of one.
    with Store.open(path) as store:
        assert numbers(store) == (None, [1])
        store.save_snapshot(b"", 1).result(10)  # Behind the clearing.
    assert rows(path, "SELECT seq, part FROM snapshot_parts") == [(1, 0)]


def test_bytes_since_the_snapshot_tell_how_much_a_start_replays(path: Path) -> None:
    with Store.open(path) as store:
        fill(store, 1, 10)
        before = store.bytes_since_snapshot
        store.save_snapshot(b"x", 10).result(10)
        assert before > 0 == store.bytes_since_snapshot
        fill(store, 11, 12)
        after = store.bytes_since_snapshot
    with Store.open(path) as store:
        assert store.bytes_since_snapshot == after > 0
