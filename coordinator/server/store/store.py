"""`Store`: opens the file, puts its parts together, and is what the driver holds. See the package for the API."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from coordinator.server.store.ballast import Ballast
from coordinator.server.store.checkpoints import BULK_PAGES, Checkpoints
from coordinator.server.store.clearing import clear_forgotten
from coordinator.server.store.committer import Callbacks, Chore, Committer, Work
from coordinator.server.store.damage import translate
from coordinator.server.store.durable import prepare_folder, sync_folder
from coordinator.server.store.guard import StoreLock, refuse_network_filesystem
from coordinator.server.store.journal import bytes_since_snapshot, prune, restore, snapshot_chores
from coordinator.server.store.queries import Queries
from coordinator.server.store.readers import Readers
from coordinator.server.store.schema import CURRENT, Schema, back_up, make_or_upgrade
from coordinator.server.store.trust import Trust
from coordinator.server.store.values import Batch, Restored
from coordinator.server.store.writing import EncodedBatch
from sparegrid.errors import StorageError

Sync = Literal["full", "normal"]
"""`full`: a commit is durable when its future resolves. `normal`: it may be lost with the power, never torn."""


def _ignore(_error: StorageError) -> None:
    return None


class Store(Queries):
    """The store of one grid. Make it with `Store.open`; use it from any thread."""

    def __init__(
        self, path: Path, lock: StoreLock, db: sqlite3.Connection, checkpoints_db: sqlite3.Connection, *,
        schema: Schema, epoch: int, callbacks: Callbacks, retry_s: float, log_pages: int, ballast_bytes: int,
        backup: Path | None,
    ) -> None:  # fmt: skip
        super().__init__(path, Readers(path))
        self.path = path
        self.epoch = epoch
        self.backup = backup
        """The copy that was made before this start upgraded the store."""
        self._lock = lock
        self._db = db
        self._schema = schema
        self._unsnapshotted = bytes_since_snapshot(db)
        self._now_ms = 0
        self._checkpoints = Checkpoints(checkpoints_db, path, bulk_pages=log_pages)
        self._ballast = Ballast(path.with_name(f"{path.name}.ballast"), ballast_bytes)
        self._committer = Committer(db, path, callbacks, self._checkpoints, self._ballast, retry_s=retry_s)
        self._committer.submit_chores([Chore(prune), Chore(clear_forgotten)])
        self.trust = Trust(self._readers.lend, self._write)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        sync: Sync = "full",
        on_held: Callable[[StorageError], None] = _ignore,
        on_resumed: Callable[[], None] = lambda: None,
        on_fatal: Callable[[StorageError], None] = _ignore,
        retry_s: float = 1.0,  # How often a full disk is tried again.
        log_pages: int = BULK_PAGES,  # Size of SQLite's log at which it is copied.
        ballast_bytes: int = 0,  # Room that is kept for ends and cancels on a full disk.
        schema: Schema = CURRENT,
    ) -> Store:
        """Open or make the store in this file, upgrade it if need be, and count the start.

        Raises:
            StorageError: in use, on a network file system, of a newer version, damaged, or the disk refuses.
        """
        prepare_folder(path.parent)
        refuse_network_filesystem(path.parent)
        with contextlib.ExitStack() as opened:
            lock = opened.enter_context(StoreLock(path.with_name(f"{path.name}.lock")))
            try:
                db = opened.enter_context(contextlib.closing(_connect(path)))
                backup = make_or_upgrade(db, path, schema)
                epoch = _count_start(db)
                sync_folder(path.parent)
                # Only now: the epoch fences what happened before a crash, also where commits may be lost.
                db.execute(f"PRAGMA synchronous = {sync}")
                store = cls(
                    path, lock, db, opened.enter_context(contextlib.closing(_connect(path))), schema=schema,
                    epoch=epoch, callbacks=Callbacks(on_held, on_resumed, on_fatal), retry_s=retry_s,
                    log_pages=log_pages, ballast_bytes=ballast_bytes, backup=backup,
                )  # fmt: skip
            except sqlite3.Error as error:
                raise translate(path, error) from error
            except OSError as error:
                raise StorageError("Store cannot be opened", f"{path}: {error}") from error
            opened.pop_all()
            return store

    def load(self) -> Restored:
        """What the start finds: the newest whole snapshot, then the facts after it. Call once, before `commit`."""
        return restore(self.path, self._readers, self._schema, self.epoch)

    def commit(self, batch: Batch) -> Future[int]:
        """Queue a batch; the future gives its seq when it is durable. Batches commit in the order of these calls.

        Raises:
            TooLargeError: its facts are over MAX_RECORD_BYTES; nothing was queued.
            StorageError: the store is closed or has failed.
        """
        encoded = EncodedBatch(batch)
        work = Work(encoded.write, encoded.size)
        self._committer.submit(work)
        self._now_ms = batch.now_ms
        self._unsnapshotted += len(encoded.record)
        if batch.forgotten:
            self._committer.submit_chores([Chore(clear_forgotten)])
        return work.future

    def save_snapshot(self, data: bytes, seq: int) -> Future[None]:
        """Keep the scheduler's snapshot that contains every fact up to `seq`, which is committed.

        It is written in parts between the commits. Afterwards the facts up to the snapshot *before* this one are
        dropped, so that either of the two can restore.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        self._committer.submit_chores(snapshot_chores(data, seq, self._now_ms, future))
        self._unsnapshotted = 0
        return future

    def back_up(self, label: str = "manual") -> Path:
        """Make a durable copy of everything committed so far beside the store, while commits go on. Blocks; any thread.

        Raises:
            StorageError: the disk is full or fails.
        """
        with self._readers.lend() as db:
            return back_up(db, self.path, label)

    @property
    def bytes_since_snapshot(self) -> int:
        """How much a start would replay: take a snapshot when this grows large."""
        return self._unsnapshotted

    @property
    def held(self) -> StorageError | None:
        """Why nothing can be committed just now (disk full), or None."""
        return self._committer.held

    def retry_now(self) -> None:
        """Try again at once instead of after `retry_s`."""
        self._committer.retry_now()

    def close(self) -> None:
        """Commit what is queued (what a full disk holds fails), end the threads, release the lock."""
        self._committer.close()
        self._ballast.close()
        self._checkpoints.close()
        self._readers.close()
        # The last connection to close copies the log into the file and removes it.
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._lock.release()

    def _write(self, apply: Callable[[sqlite3.Connection], Any]) -> Future[Any]:
        work = Work(apply)
        self._committer.submit(work)
        return work.future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _count_start(db: sqlite3.Connection) -> int:
    db.execute("UPDATE meta SET value = value + 1 WHERE key = 'epoch'")
    return int(db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0])


def _connect(path: Path) -> sqlite3.Connection:
    # Our own file mode: SQLite would use the umask, and the log and the index follow the file's.
    path.touch(mode=0o600)
    db = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=0.5, cached_statements=256
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        # Debian's SQLite overwrites what is deleted with zeros by default: pruning would write as much as it drops.
        db.execute("PRAGMA secure_delete = OFF")
        # Gives the space back after a burst; smaller would cost each fdatasync a change of the file's size.
        db.execute("PRAGMA journal_size_limit = 67108864")
        if sys.platform == "darwin":
            # macOS's fsync does not reach the disk's platter; F_FULLFSYNC does.
            db.execute("PRAGMA fullfsync = 1")
            db.execute("PRAGMA checkpoint_fullfsync = 1")
    except BaseException:
        db.close()
        raise
    return db
