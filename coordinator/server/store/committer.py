"""The one thread that writes: drains its queue into one transaction, then resolves the futures in order.

Owns the writing connection. Knows works (a function of the connection and a future), not what they write.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from coordinator.server.store.ballast import Ballast
from coordinator.server.store.checkpoints import Checkpoints
from coordinator.server.store.damage import Trouble, is_full, judge
from sparegrid.errors import GridError, StorageError

log = logging.getLogger(__name__)

MAX_GROUP_BYTES = 16 << 20
"""A transaction takes no further work beyond this: the first future of a burst should not wait for its last."""


@dataclass(slots=True)
class Work:
    """Something to write. `apply` may run more than once, each time after a rollback. A GridError that it *returns*
    becomes the future's exception, and what it wrote stays.
    """

    apply: Callable[[sqlite3.Connection], Any]
    size: int = 64
    future: Future[Any] = field(default_factory=Future)
    after: Callable[[], None] | None = None
    """Called in the committer's thread when it is durable, before the future resolves."""


@dataclass(slots=True)
class Chore:
    """A small step in the background of the commits, in the same transaction as one. `step` returns True to be called
    again; like `Work.apply` it may run once more after a rollback. The future resolves when its last step is durable.
    """

    step: Callable[[sqlite3.Connection], bool]
    future: Future[None] | None = None


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Called from the committer's thread; they must hand over quickly, as with `loop.call_soon_threadsafe`."""

    on_held: Callable[[StorageError], None]
    on_resumed: Callable[[], None]
    on_fatal: Callable[[StorageError], None]


class Committer:
    """Group commit over one connection. Use `submit` from any thread; `close` commits what is queued."""

    def __init__(
        self,
        db: sqlite3.Connection,
        path: Path,
        callbacks: Callbacks,
        checkpoints: Checkpoints,
        ballast: Ballast,
        *,
        retry_s: float,
    ) -> None:
        self._db = db
        self._path = path
        self._callbacks = callbacks
        self._checkpoints = checkpoints
        self._ballast = ballast
        self._retry_s = retry_s
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._chores: deque[Chore] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._lock = threading.Lock()
        self._ended: StorageError | None = None
        self._held: StorageError | None = None
        self._thread = threading.Thread(target=self._run, name="store-committer")
        checkpoints.on_error = self.fail
        self._thread.start()

    @property
    def held(self) -> StorageError | None:
        """Why nothing can be written just now, or None."""
        return self._held

    def submit(self, work: Work) -> None:
        """Queue it. Its future cannot be cancelled: what is queued will be written.

        Raises:
            StorageError: the store is closed, or has failed.
        """
        work.future.set_running_or_notify_cancel()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._queue.put(work)

    def fail(self, error: sqlite3.Error) -> None:
        """End with this error of another connection on the same file."""

        def apply(db: sqlite3.Connection) -> None:
            raise error

        work = Work(apply)
        work.future.set_running_or_notify_cancel()
        self._queue.put(work)

    def submit_chores(self, chores: Iterable[Chore]) -> None:
        """Queue chores, to be done one after the other, after those queued before. Raises StorageError as `submit`."""
        added = list(chores)
        self.submit(Work(lambda _db: None, after=lambda: self._chores.extend(added)))

    def retry_now(self) -> None:
        """Somebody made space: try again at once."""
        self._wake.set()

    def close(self) -> None:
        """Commit what is queued (unless held: then fail it), end the thread."""
        self._closing = True
        with self._lock:
            if self._ended is None:
                self._ended = StorageError("Store is closed", f"{self._path} takes no more commits")
            self._queue.put(None)
        self._wake.set()
        self._thread.join()

    # ---- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (group := self._gather()) is not None:
                if not self._commit(group):
                    return
            self._drop_chores(
                StorageError("Store is closed", f"{self._path} was closed before this was written")
            )
        except Exception as error:
            log.exception("The committer of %s has failed", self._path)
            self._die(StorageError("Store has failed", f"{self._path}: {error!r}"), [])

    def _gather(self) -> list[Work] | None:
        """Everything that is queued, at least one work unless chores wait; None when closed and drained."""
        group: list[Work] = []
        size = 0
        try:
            while size < MAX_GROUP_BYTES:
                work = self._next(block=not group and not self._chores)
                if work is None:
                    if not group:
                        return None
                    self._queue.put(None)
                    break
                group.append(work)
                size += work.size
        except Empty:
            pass
        return group

    def _next(self, *, block: bool) -> Work | None:
        """Raises Empty unless `block`. While the ballast is given up, somebody has to look for room meanwhile."""
        while block and self._held is not None:
            try:
                return self._queue.get(timeout=self._retry_s)
            except Empty:
                self._resume()
        return self._queue.get(block=block)

    def _resume(self) -> None:
        """Commits go through again; so does intake, once there is room for the ballast."""
        if self._held is not None and self._ballast.restore():
            self._held = None
            self._call(self._callbacks.on_resumed)

    def _commit(self, group: list[Work]) -> bool:
        """Commit the group and tell, waiting while held. False when the thread must end."""
        results = self._persist(group)
        if results is None:
            return False
        self._resume()
        for work, result in zip(group, results, strict=True):
            if work.after is not None:
                work.after()
            if isinstance(result, GridError):
                work.future.set_exception(result)
            else:
                work.future.set_result(result)
        self._checkpoints.committed(self._db, sum(work.size for work in group))
        return True

    def _persist(self, group: list[Work]) -> list[Any] | None:
        """One transaction, tried until it is durable: what each work returned. None when the store has ended."""
        while True:
            try:
                return self._transact(group)
            except sqlite3.Error as error:
                self._roll_back()
                trouble, told = judge(self._path, error)
                if trouble is Trouble.FATAL:
                    self._die(told, group)
                    return None
                if is_full(told) and self._ballast.give_up():
                    self._hold(told)
                    continue
                if not self._wait(told):
                    self._die(told, group, fatal=False)
                    return None
            except Exception as error:
                self._roll_back()
                log.exception("A write to %s has failed", self._path)
                self._die(StorageError("Store has failed", f"{self._path}: {error!r}"), group)
                return None

    def _transact(self, group: list[Work]) -> list[Any]:
        self._db.execute("BEGIN IMMEDIATE")
        results = [work.apply(self._db) for work in group]
        again = bool(self._chores) and self._chores[0].step(self._db)
        self._db.execute("COMMIT")
        if self._chores and not again:
            done = self._chores.popleft().future
            if done is not None:
                done.set_result(None)
        return results

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                # SQLite has rolled back by itself, as it does after some I/O errors.
                log.debug("Nothing to roll back in %s", self._path)

    def _wait(self, why: StorageError) -> bool:
        """Wait for space. False when the store is being closed instead."""
        self._hold(why)
        if self._closing:
            return False
        self._wake.wait(self._retry_s)
        self._wake.clear()
        return True

    def _hold(self, why: StorageError) -> None:
        if self._held is None:
            self._held = why
            self._call(lambda: self._callbacks.on_held(why))

    def _die(self, error: StorageError, group: list[Work], *, fatal: bool = True) -> None:
        """Fail every future and take nothing more."""
        with self._lock:
            self._ended = error
        try:
            while True:
                work = self._queue.get(block=False)
                if work is not None:
                    group.append(work)
        except Empty:
            pass
        for work in group:
            work.future.set_exception(error)
        self._drop_chores(error)
        if fatal:
            self._call(lambda: self._callbacks.on_fatal(error))

    def _drop_chores(self, error: StorageError) -> None:
        for chore in self._chores:
            if chore.future is not None:
                chore.future.set_exception(error)
        self._chores.clear()

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            log.exception("A callback of the store has failed")
