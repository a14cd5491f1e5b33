"""While the file cannot be written for a passing reason, commits wait; the log of SQLite stays short meanwhile."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.server.store import Batch, Store, checkpoints
from sparegrid.errors import StorageError
from tests.unit.coordinator.store.builders import commit, joined


class Heard:
    def __init__(self) -> None:
        self.errors: list[StorageError] = []
        self.held = threading.Event()
        self.resumed = threading.Event()

    def on_held(self, error: StorageError) -> None:
        self.errors.append(error)
        self.held.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "grid.db"


def test_commits_wait_while_another_program_holds_the_file_and_go_on_by_themselves(path: Path) -> None:
    heard = Heard()
    with (
        Store.open(path, on_held=heard.on_held, on_resumed=heard.resumed.set, retry_s=0.01) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        waiting = store.commit(Batch(facts=[joined(1)]))
        assert heard.held.wait(10)
        assert not waiting.done()
        while_held = store.held
        other.execute("ROLLBACK")
        assert waiting.result(10) == 1
        assert heard.resumed.wait(10)
        assert (while_held, store.held) == (heard.errors[0], None)
    assert [error.title for error in heard.errors] == ["Store is locked"]


def test_the_log_is_copied_and_begun_anew_while_commits_go_on(path: Path) -> None:
    with Store.open(path, sync="normal", log_pages=50) as store:
        commit(store, joined(0))
        generations = {generation(path)}
        number = 0
        while len(generations) < 4:
            number += 1
            commit(store, joined(number))
            generations.add(generation(path))
    with Store.open(path) as store:
        assert list(store.load().facts) == [joined(n) for n in range(number + 1)]


def generation(path: Path) -> bytes:
    """The salt in the log's header, which changes whenever SQLite begins the log anew."""
    with path.with_name(f"{path.name}-wal").open("rb") as log:
        return log.read(24)[16:]


def test_the_committer_waits_for_the_copy_before_the_log_grows_without_bound(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MOST_PAGES", 60)
    with Store.open(path, sync="normal", log_pages=50) as store:
        futures = [store.commit(Batch(facts=[joined(number)])) for number in range(500)]
        assert [future.result(10) for future in futures] == list(range(1, 501))


def test_a_long_read_neither_stops_the_commits_nor_sees_them(path: Path) -> None:
    with Store.open(path, sync="normal", log_pages=20) as store, store._readers.lend() as reader:
        commit(store, joined(0))
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM facts").fetchone() == (1,)
        for number in range(1, 200):
            commit(store, joined(number))
        assert reader.execute("SELECT count(*) FROM facts").fetchone() == (1,)
        reader.execute("COMMIT")
    with Store.open(path) as store:
        assert list(store.load().facts) == [joined(number) for number in range(200)]
