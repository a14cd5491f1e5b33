"""When the write-ahead log goes into the database file. Keeps the log short without stalling the committer.

A second thread with its own connection copies the bulk while commits go on; afterwards the committer itself copies the
few pages that were added meanwhile, and SQLite then begins the log anew.

At most one of the two connections checkpoints at any time, and the bulk copy starts only right after a commit, so
that there is always a frame that is not copied yet. This keeps clear of the race of SQLite 3.7.0 to 3.51.2
(https://sqlite.org/wal.html#walresetbug): it needs a checkpoint that begins when everything is copied already, while
another connection starts the log anew.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from coordinator.server.store.damage import Trouble, judge

log = logging.getLogger(__name__)

PAGE_BYTES = 4096
PAGES_PER_COMMIT = 4
"""A guess at the pages that a commit touches beside its bytes: leaves of the tables and indexes."""
BULK_PAGES = 2000
"""Log size at which the bulk copy starts: 8 MB."""
MOST_PAGES = 32_000
"""Log size at which the committer waits for the copy to catch up: 128 MB."""
_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """Decides after each commit; owned by the committer. `on_error` is told of errors that end the store."""

    def __init__(self, db: sqlite3.Connection, path: Path, *, bulk_pages: int = BULK_PAGES) -> None:
        self.on_error: Callable[[sqlite3.Error], None] = lambda _error: None
        self.runs = 0
        self._db = db
        self._path = path
        self._bulk_pages = bulk_pages
        self._pages = 0
        self._copied = False
        self._asked = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="store-checkpoints")
        self._thread.start()

    def committed(self, db: sqlite3.Connection, size: int) -> None:
        """A commit of about `size` bytes is durable; `db` is the committer's connection, free to use."""
        self._pages += PAGES_PER_COMMIT + size // PAGE_BYTES
        if self._pages >= MOST_PAGES:
            self._idle.wait()
        if not self._idle.is_set():
            return
        if self._copied:
            self._copied = False
            self._pages = 0
            self._checkpoint(db)
        elif self._pages >= self._bulk_pages:
            self._copied = True
            self._idle.clear()
            self._asked.set()

    def close(self) -> None:
        """End the thread and close its connection."""
        self._closing = True
        self._asked.set()
        self._thread.join()
        self._db.close()

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._closing:
                return
            self._checkpoint(self._db)
            self._idle.set()

    def _checkpoint(self, db: sqlite3.Connection) -> None:
        try:
            db.execute(_CHECKPOINT).fetchone()
            self.runs += 1
        except sqlite3.Error as error:
            # Without space the log keeps what is committed, and a later run copies it. After any other error nobody
            # knows what the database file holds.
            trouble, told = judge(self._path, error)
            if trouble is Trouble.HOLD:
                log.warning("The log of %s could not be copied: %s", self._path, told)
            else:
                self.on_error(error)
