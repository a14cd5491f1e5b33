"""Reads of what jobs left behind: outcomes, specs, finished jobs. Callable from any thread; each call is short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from coordinator.server.store.damage import damaged
from coordinator.server.store.readers import Readers
from coordinator.server.store.values import FinishedJob, Kept, Pin
from sparegrid.api import JobSpec, JobView
from sparegrid.errors import NotFoundError
from sparegrid.ids import AttemptId, BlobHash, DeviceId, JobId, PrincipalId, StageIndex, TaskIndex
from sparegrid.messages import Outcome

_KEPT = "SELECT job, stage, idx, attempt, device, accepted, blame, reason, crc, outcome FROM outcomes"
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
_decode_spec = msgspec.msgpack.Decoder(JobSpec).decode
_decode_view = msgspec.json.Decoder(JobView).decode


class Queries:
    """The reading half of the store."""

    def __init__(self, path: Path, readers: Readers) -> None:
        self._path = path
        self._readers = readers

    def outcomes(self, job: JobId, stage: StageIndex, first: int = 0, limit: int = 100) -> list[Kept]:
        """One outcome per task from index `first` on, at most `limit`: the accepted one, else its newest attempt's."""
        with self._readers.lend() as db:
            rows = db.execute(
                f"{_KEPT} WHERE job = ? AND stage = ? AND idx >= ? ORDER BY idx, accepted DESC, attempt DESC",
                (job, stage, first),
            )
            found: list[Kept] = []
            for row in rows:
                if found and found[-1].index == row[2]:
                    continue
                if len(found) == limit:
                    break
                found.append(self._kept(row))
            return found

    def outcome(
        self, job: JobId, stage: StageIndex, index: TaskIndex, attempt: AttemptId | None = None
    ) -> Kept | None:
        """The accepted outcome of a task, else its newest attempt's; or that of one attempt."""
        with self._readers.lend() as db:
            row = db.execute(
                f"{_KEPT} WHERE job = ? AND stage = ? AND idx = ? AND attempt = ifnull(?, attempt)"
                " ORDER BY accepted DESC, attempt DESC LIMIT 1",
                (job, stage, index, attempt),
            ).fetchone()
        return None if row is None else self._kept(row)

    def attempts(self, job: JobId, stage: StageIndex, index: TaskIndex) -> list[Kept]:
        """Every kept outcome of a task, oldest attempt first."""
        with self._readers.lend() as db:
            rows = db.execute(
                f"{_KEPT} WHERE job = ? AND stage = ? AND idx = ? ORDER BY attempt", (job, stage, index)
            )
            return [self._kept(row) for row in rows]

    def spec(self, job: JobId) -> JobSpec:
        """The job as it was submitted. Raises NotFoundError."""
        return _decode_spec(self._value("SELECT spec FROM specs WHERE job = ?", job))

    def finished_jobs(
        self,
        states: Sequence[str] = (),
        limit: int = 100,
        after: JobId | None = None,
        submitter: PrincipalId | None = None,
    ) -> list[FinishedJob]:
        """Jobs that left the scheduler's memory, newest first, those before `after`; of these states if any."""
        marks = ", ".join("?" * len(states))
        sql = "SELECT job, state, submitter, finished_ms, view FROM jobs WHERE view IS NOT NULL"
        values: list[Any] = []
        for clause, given in (
            (f"state IN ({marks})", list(states)),
            ("job < ?", [] if after is None else [after]),
            ("submitter = ?", [] if submitter is None else [submitter]),
        ):
            if given:
                sql += f" AND {clause}"
                values += given
        with self._readers.lend() as db:
            rows = db.execute(f"{sql} ORDER BY job DESC LIMIT ?", [*values, limit]).fetchall()
        return [
            FinishedJob(JobId(job), state, PrincipalId(by), at_ms, _decode_view(view))
            for job, state, by, at_ms, view in rows
        ]

    def finished_view(self, job: JobId) -> JobView | None:
        """The last view of a job that left the scheduler's memory; None for others."""
        with self._readers.lend() as db:
            row = db.execute("SELECT view FROM jobs WHERE job = ?", (job,)).fetchone()
        return None if row is None or row[0] is None else _decode_view(row[0])

    def retired_state(self, job: JobId) -> bytes:
        """What `JobRevived` needs. Raises NotFoundError for a job that has not been retired."""
        state: bytes = self._value("SELECT state FROM revivals WHERE job = ?", job)
        return state

    def task_states(self, job: JobId) -> list[bytes]:
        """One TaskState ordinal per task, stage after stage, of a retired job; empty for others."""
        with self._readers.lend() as db:
            rows = db.execute("SELECT states FROM task_states WHERE job = ? ORDER BY stage", (job,))
            return [row[0] for row in rows]

    def expired_jobs(self, wall_ms: int, limit: int = 100, *, default_keep_s: float = 0) -> list[JobId]:
        """Retired jobs whose `keep_s` is over, oldest first: remove them. Jobs that do not say how long they are
        kept have `default_keep_s`; 0 is for ever."""
        with self._readers.lend() as db:
            rows = db.execute(
                "SELECT job FROM (SELECT job, finished_ms, iif(keep_s > 0, keep_s, ?) AS kept_s FROM jobs"
                " WHERE view IS NOT NULL) WHERE kept_s > 0 AND finished_ms + kept_s * 1000 <= ?"
                " ORDER BY job LIMIT ?",
                (default_keep_s, wall_ms, limit),
            )
            return [JobId(row[0]) for row in rows]

    def pins(self, job: JobId) -> list[Pin]:
        """The blobs that a job holds."""
        with self._readers.lend() as db:
            rows = db.execute("SELECT hash FROM pins WHERE job = ?", (job,))
            return [Pin(job, BlobHash(row[0].hex())) for row in rows]

    def pinned(self, names: Iterable[BlobHash]) -> set[BlobHash]:
        """Those of these blobs that some job holds."""
        with self._readers.lend() as db:
            return {
                name
                for name in names
                if db.execute("SELECT 1 FROM pins WHERE hash = ? LIMIT 1", (bytes.fromhex(name),)).fetchone()
            }

    def _value(self, sql: str, job: JobId) -> Any:
        with self._readers.lend() as db:
            row = db.execute(sql, (job,)).fetchone()
        if row is None:
            raise NotFoundError("No such job", f"job {job} is not in the store")
        return row[0]

    def _kept(self, row: tuple[Any, ...]) -> Kept:
        job, stage, index, attempt, device, accepted, blame, reason, crc, data = row
        if crc32(data) != crc:
            raise damaged(
                self._path, f"the outcome of task {job}.{stage}.{index} does not match its checksum"
            )
        return Kept(
            JobId(job), StageIndex(stage), TaskIndex(index), AttemptId(attempt), DeviceId(device), bool(accepted),
            blame, reason, _decode_outcome(data),
        )  # fmt: skip
