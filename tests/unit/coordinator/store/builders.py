"""Values for the store's tests: one of each fact, and short ways to make batches."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from coordinator.scheduler import facts as f
from coordinator.scheduler.effects import Keep, Retire
from coordinator.scheduler.facts import Fact
from coordinator.server.store import Batch, Store
from coordinator.server.store.committer import Chore
from sparegrid.api import Items, JobSpec, JobView, StageSpec, StageView, dump_json
from sparegrid.ids import AttemptId, BlobHash, DeviceId, JobId, PrincipalId, StageIndex, TaskIndex
from sparegrid.messages import BlobRef, FileEntry, Inline, Outcome

DEVICE = DeviceId("devicedevicedevicede")
STAGE = StageIndex(0)
ANNA = PrincipalId("anna")


def blob(number: int) -> BlobHash:
    """A blob's name."""
    return BlobHash(f"{number:064x}")


def spec(name: str = "job", **fields: Any) -> JobSpec:
    """A job of one stage with two items."""
    return JobSpec(name, [StageSpec(items=Items(values=["a", {"b": 1}]))], **fields)


def joined(number: int) -> f.Joined:
    """A small fact that says which one it is."""
    return f.Joined(DEVICE, "name", number)


def submitted(job: int, job_spec: JobSpec | None = None, submitter: PrincipalId = ANNA) -> f.Submitted:
    """A job was taken in."""
    return f.Submitted(JobId(job), job_spec or spec(f"job {job}"), submitter, 1000 + job, job)


def one_of_each_fact() -> list[Fact]:
    """Every kind of fact, with every field set."""
    job, index, attempt = JobId(7), TaskIndex(3), AttemptId(1 << 40)
    return [
        submitted(7),
        f.Appended(job, STAGE, [1, "two", None, {"three": [3.5]}]),
        f.Closed(job),
        f.Assigned(DEVICE, job, STAGE, [(attempt, index, 64, 1)], 5),
        f.Accepted(job, STAGE, DEVICE, [(index, attempt, 12, 2)], [(index, blob(1))], 6),
        f.Ended(job, STAGE, index, attempt, DEVICE, "task", "exit code 3", 7, BlobRef(blob(2), 9), True),
        f.Requeued(DEVICE, [attempt], "lease over", 8, True),
        f.Cancelled(job, ANNA, 9, 10),
        f.Retried(job, [(STAGE, index)]),
        f.Revived(job, b"state"),
        f.Finished(job, "done", 11),
        f.Removed(job),
        f.Prioritised(job, 9),
        f.Weighted(ANNA, 2000),
        f.Joined(DEVICE, "Küche", 12),
        f.Changed(DEVICE, "name", {"room": "1"}),
        f.PauseAsked(DEVICE, "pause", 13, ANNA),
        f.Sessioned(DEVICE, "0123456789abcdef", 14),
        f.Revoked(DEVICE, 15),
    ]


def keep(
    index: int, attempt: int, *, job: int = 7, accepted: bool = True, outcome: Outcome | None = None
) -> Keep:
    """An outcome whose exit code is its attempt's number."""
    blame, reason = ("", "") if accepted else ("task", f"exit code {attempt}")
    return Keep(
        JobId(job), STAGE, TaskIndex(index), AttemptId(attempt), DEVICE, accepted, blame, reason,
        outcome or Outcome(exit_code=attempt),
    )  # fmt: skip


def outcome_with_blobs(value: int, log: int, file: int) -> Outcome:
    """An outcome whose parts are these blobs."""
    return Outcome(
        value=BlobRef(blob(value), 1),
        log=BlobRef(blob(log), 1),
        files=[FileEntry("a", BlobRef(blob(file), 1)), FileEntry("b", Inline(b"x"))],
    )


def view(job: int, state: str = "done", finished_ms: int = 5000) -> JobView:
    """The last view of a job."""
    return JobView(
        id=str(job), name=f"job {job}", state=state, priority=5, submitter=ANNA, submitted_ms=1000,
        stages=[StageView("main", "command", 2, done=2)], finished_ms=finished_ms, total=2, done=2,
    )  # fmt: skip


def retire(job: int, state: str = "done", finished_ms: int = 5000) -> Retire:
    """The job left the scheduler's memory."""
    return Retire(JobId(job), dump_json(view(job, state, finished_ms)), b"revival %d" % job, [b"\4\4", b"\5"])


def commit(store: Store, *facts: Fact, **fields: Any) -> int:
    """Commit one batch and wait; its seq."""
    return store.commit(Batch(facts=list(facts), **fields)).result(10)


def settle(store: Store) -> None:
    """Wait until what goes on between the commits is done."""
    done: Future[None] = Future()
    store._committer.submit_chores([Chore(lambda _db: False, done)])
    done.result(10)


class Gate:
    """Keeps the committer busy, so that what is queued meanwhile becomes one group."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open = threading.Event()
        self._reached = threading.Event()
        self._work = store._write(lambda _db: self._wait())
        assert self._reached.wait(10)

    def _wait(self) -> None:
        self._reached.set()
        assert self._open.wait(10)

    def open(self) -> None:
        """Let it go on; returns when it has."""
        self._open.set()
        self._work.result(10)

    def open_at_close(self) -> None:
        """Open it as soon as the store is being closed."""

        def wait() -> None:
            while self._store._committer._ended is None:
                self._reached.wait(0)
            self.open()

        threading.Thread(target=wait).start()


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """The closed store's file, to be tampered with."""
    with closing(sqlite3.connect(path)) as db:
        yield db
        db.commit()
