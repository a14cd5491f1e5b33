"""A damaged file is refused by name and record, and says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.server.store import Store
from coordinator.server.store.records import checksum
from sparegrid.errors import StorageError
from sparegrid.ids import JobId, TaskIndex
from tests.unit.coordinator.store.builders import STAGE, commit, database, joined, keep


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with five records and one outcome."""
    path = tmp_path / "grid.db"
    with Store.open(path) as store:
        for number in range(5):
            commit(store, joined(number))
        commit(store, keeps=[keep(3, 4)])
    return path


def refusal(path: Path) -> StorageError:
    with Store.open(path) as store, pytest.raises(StorageError) as caught:
        list(store.load().facts)
    return caught.value


def tamper(path: Path, sql: str, *values: object) -> None:
    with database(path) as db:
        db.execute(sql, values)


def test_a_changed_byte_is_refused_naming_the_file_the_record_and_the_way_out(path: Path) -> None:
    tamper(path, "UPDATE facts SET bytes = CAST(substr(bytes, 1, 9) || x'00' AS BLOB) WHERE seq = 3")
    error = refusal(path)
    assert error.title == "Store is damaged"
    assert str(path) in error.message
    assert "record 3 " in error.message
    assert "backup" in error.hint


def test_a_changed_time_is_noticed_like_a_changed_fact(path: Path) -> None:
    tamper(path, "UPDATE facts SET now_ms = now_ms + 1 WHERE seq = 2")
    assert "record 2 " in refusal(path).message


@pytest.mark.parametrize(
    "change", ["bytes = 5", "bytes = 'text'", "bytes = CAST(x'ff' AS TEXT)", "now_ms = 'text'"]
)
def test_a_value_of_another_type_is_noticed(path: Path, change: str) -> None:
    tamper(path, f"UPDATE facts SET {change} WHERE seq = 2")
    assert refusal(path).title == "Store is damaged"


@pytest.mark.parametrize(("where", "told"), [("seq = 1", "records 1 to 1"), ("seq = 3", "record 3 of")])
def test_a_missing_record_is_noticed(path: Path, where: str, told: str) -> None:
    tamper(path, f"DELETE FROM facts WHERE {where}")
    assert told in refusal(path).message


def test_a_record_that_is_no_list_of_facts_is_refused(path: Path) -> None:
    data = b"\xc1"
    tamper(path, "UPDATE facts SET bytes = ?, crc = ? WHERE seq = 4", data, checksum(1, 0, data))
    assert "record 4 of the journal cannot be decoded" in refusal(path).message


def test_records_that_vanish_while_they_are_read_are_noticed(path: Path) -> None:
    with Store.open(path) as store:
        facts = store.load().facts
        store._write(lambda db: db.execute("DELETE FROM facts")).result(10)
        with pytest.raises(StorageError, match=r"records 1 to 6 of the journal are missing"):
            list(facts)


def test_a_changed_outcome_is_refused_naming_its_task(path: Path) -> None:
    tamper(path, "UPDATE outcomes SET outcome = x'80'")
    with Store.open(path) as store, pytest.raises(StorageError, match=r"outcome of task 7\.0\.3"):
        store.outcome(JobId(7), STAGE, TaskIndex(3))


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"These are not the bytes of a database.\n" * 300)
    with pytest.raises(StorageError, match="SQLITE_NOTADB") as caught:
        Store.open(path)
    assert str(path) in caught.value.message


def test_a_database_with_overwritten_pages_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xaa" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="SQLITE_CORRUPT"):
        Store.open(path)


def test_a_damaged_page_met_by_a_read_is_told_as_a_damaged_store(path: Path) -> None:
    with database(path) as db:
        [(page,)] = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'outcomes'")
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xaa" * 4096
    path.write_bytes(data)
    with Store.open(path) as store, pytest.raises(StorageError, match="Store is damaged"):
        store.outcomes(JobId(7), STAGE)


def test_a_refused_store_is_not_left_locked(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError):
        Store.open(path)
    path.write_bytes(whole)
    Store.open(path).close()
