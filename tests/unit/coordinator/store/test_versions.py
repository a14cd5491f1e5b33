"""Newer stores are refused by name; older ones are copied, then upgraded, tables and facts alike."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from coordinator.scheduler.facts import FACTS_VERSION, Joined
from coordinator.server.store import Batch, Store
from coordinator.server.store.records import UnreadableError, decode_facts
from coordinator.server.store.schema import CURRENT, Schema
from sparegrid.errors import StorageError
from tests.unit.coordinator.store.builders import DEVICE, commit, database, joined


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of the current version with one fact."""
    path = tmp_path / "grid.db"
    with Store.open(path) as store:
        commit(store, joined(1))
    return path


def add_column(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE jobs ADD COLUMN colour TEXT")


def rename_device(facts: list[Any]) -> list[Any]:
    return [{**fact, "name": fact["name"].upper()} for fact in facts]


NEWER = Schema(
    version=CURRENT.version + 1,
    facts_version=FACTS_VERSION + 1,
    steps={CURRENT.version: add_column},
    upcasters={FACTS_VERSION: rename_device},
)


def test_an_older_store_is_copied_and_then_upgraded(path: Path) -> None:
    with Store.open(path, schema=NEWER) as store:
        assert list(store.load().facts) == [Joined(DEVICE, "NAME", 1)]
        backup = store.backup
        assert store.epoch == 2
    assert backup is not None
    assert backup.name == f"grid.db.v{CURRENT.version}.{FACTS_VERSION}-1.backup"
    assert backup.stat().st_mode & 0o777 == 0o600
    with database(path) as db:
        assert "colour" in [row[1] for row in db.execute("PRAGMA table_info(jobs)")]
    with Store.open(backup) as store:
        assert list(store.load().facts) == [joined(1)]


def test_an_upgraded_store_is_not_copied_again_and_backups_are_never_overwritten(path: Path) -> None:
    Store.open(path, schema=NEWER).close()
    with Store.open(path, schema=NEWER) as store:
        assert store.backup is None
    with database(path) as db:
        db.execute(f"PRAGMA user_version = {CURRENT.version}")
        db.execute("ALTER TABLE jobs DROP COLUMN colour")
    with Store.open(path, schema=NEWER) as store:
        assert store.backup is not None
    assert sorted(file.name[-8:] for file in path.parent.glob("*.backup")) == ["1.backup", "1.backup"]


def test_a_newer_store_is_refused_naming_both_versions(path: Path) -> None:
    Store.open(path, schema=NEWER).close()
    with pytest.raises(StorageError) as caught:
        Store.open(path)
    assert caught.value.title == "Store of a newer version"
    assert f"version {CURRENT.version + 1}.{FACTS_VERSION + 1}" in caught.value.message
    assert f"up to {CURRENT.version}.{FACTS_VERSION}" in caught.value.message
    assert "backup" in caught.value.hint


def test_newer_facts_alone_are_refused_too(path: Path) -> None:
    with database(path) as db:
        db.execute("UPDATE meta SET value = value + 1 WHERE key = 'facts_version'")
    with pytest.raises(StorageError, match="newer version"):
        Store.open(path)


def test_a_store_without_a_way_up_is_refused(path: Path) -> None:
    with pytest.raises(StorageError, match="no way up from version 1"):
        Store.open(path, schema=Schema(version=3, steps={2: add_column}))


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(path: Path) -> None:
    def fail(db: sqlite3.Connection) -> None:
        add_column(db)
        db.execute("ALTER TABLE absent ADD COLUMN colour TEXT")

    with pytest.raises(StorageError, match="no such table"):
        Store.open(path, schema=Schema(version=2, steps={1: fail}))
    with Store.open(path) as store:
        assert list(store.load().facts) == [joined(1)]


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with database(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StorageError, match="another program"):
        Store.open(path)
    with database(path) as db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(StorageError, match="another program"):
        Store.open(path)
    with database(path) as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]


def test_a_record_of_a_newer_version_is_refused() -> None:
    with pytest.raises(UnreadableError, match="of version 2, and this program reads up to version 1"):
        decode_facts(2, b"", current=1)


def test_a_record_too_old_to_be_read_is_refused() -> None:
    with pytest.raises(UnreadableError, match="of version 1, which this program cannot read any more"):
        decode_facts(1, b"\x90", upcasters={2: rename_device}, current=3)


def test_every_older_version_of_facts_has_an_upcaster() -> None:
    assert set(CURRENT.upcasters) == set(range(1, FACTS_VERSION))
    assert set(CURRENT.steps) == set(range(1, CURRENT.version))


def test_a_copy_is_made_while_commits_go_on_and_opens_as_a_store(path: Path) -> None:
    with Store.open(path) as store:
        for number in range(2, 100):
            store.commit(Batch(facts=[joined(number)]))
        commit(store, joined(100))
        copies = [store.back_up(), store.back_up()]
        commit(store, joined(101))
    assert [copy.name for copy in copies] == ["grid.db.manual-1.backup", "grid.db.manual-2.backup"]
    with Store.open(copies[1]) as store:
        assert list(store.load().facts) == [joined(number) for number in range(1, 101)]
