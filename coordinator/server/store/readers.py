"""A few read-only connections, lent to one thread at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, LifoQueue

from coordinator.server.store.damage import translate
from sparegrid.errors import StorageError

KEPT = 4


class Readers:
    """`with readers.lend() as db:`; at most KEPT stay open between uses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue(KEPT)
        self._closed = False

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=10,
        )
        # A reader that checkpoints could meet the committer's checkpoint (see checkpoints.py).
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA query_only = 1")
        return db

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        """A connection of one's own. SQLite's errors come out as StorageError."""
        if self._closed:
            raise StorageError("Store is closed", f"{self._path} cannot be read any more")
        try:
            db = self._take()
            try:
                yield db
            finally:
                self._give_back(db)
        except sqlite3.Error as error:
            raise translate(self._path, error) from error

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.get(block=False)
        except Empty:
            return self._open()

    def _give_back(self, db: sqlite3.Connection) -> None:
        if self._closed or self._idle.full():
            db.close()
        else:
            self._idle.put(db)

    def close(self) -> None:
        """Close the idle ones; a lent one closes when it comes back."""
        self._closed = True
        while not self._idle.empty():
            self._idle.get().close()
