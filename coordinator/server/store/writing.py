"""A batch as SQL: which rows it adds, changes and drops. Encodes in the caller's thread, writes in the committer's."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import msgspec

from coordinator.scheduler.effects import Keep, Retire
from coordinator.scheduler.facts import FACTS_VERSION, Appended, Ended, Revived, Revoked, Submitted
from coordinator.server.store.pins import blobs_of_items, blobs_of_outcome, blobs_of_payload, blobs_of_spec
from coordinator.server.store.records import checksum, encode_facts
from coordinator.server.store.trust import INSERT_TOKEN, TokenRow
from coordinator.server.store.values import Batch
from sparegrid.api import JobView
from sparegrid.errors import BadInputError, TooLargeError
from sparegrid.ids import BlobHash, JobId

MAX_RECORD_BYTES = 900 << 20
"""SQLite's own limit of one value is 1,000,000,000 bytes."""

_ROW_BYTES = 64
"""What a row of any table takes beside its large values, about."""

_INSERT_FACTS = "INSERT INTO facts (version, crc, now_ms, bytes) VALUES (?, ?, ?, ?)"
_INSERT_JOB = "INSERT OR REPLACE INTO jobs (job, submitter, submitted_ms, keep_s) VALUES (?, ?, ?, ?)"
_INSERT_SPEC = "INSERT OR REPLACE INTO specs VALUES (?, ?)"
_INSERT_OUTCOME = "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_PIN = "INSERT OR IGNORE INTO pins VALUES (?, ?)"
_INSERT_STATES = "INSERT OR REPLACE INTO task_states VALUES (?, ?, ?)"
_RETIRE = "UPDATE jobs SET state = ?, finished_ms = ?, view = ? WHERE job = ?"
_INSERT_REVIVAL = "INSERT OR REPLACE INTO revivals VALUES (?, ?)"
_UNRETIRE = "UPDATE jobs SET state = NULL, finished_ms = NULL, view = NULL WHERE job = ?"
_DROP_REVIVAL = "DELETE FROM revivals WHERE job = ?"
_DROP_STATES = "DELETE FROM task_states WHERE job = ?"
_REVOKE_DEVICE = "UPDATE tokens SET revoked_ms = max(1, ?) WHERE device = ? AND revoked_ms = 0"
_FORGET = (
    "INSERT OR IGNORE INTO forgotten VALUES (?)", "DELETE FROM jobs WHERE job = ?", "DELETE FROM specs WHERE job = ?",
    _DROP_REVIVAL, _DROP_STATES,
)  # fmt: skip
"""At once; what may be millions of rows goes in the background (clearing.py)."""

_encode = msgspec.msgpack.Encoder().encode
_decode_view = msgspec.json.Decoder(JobView).decode

Row = tuple[Any, ...]
"""Values of one row, in SQLite's own types."""


class EncodedBatch:
    """A batch as bytes: nothing in it changes when its values change later.

    Raises:
        TooLargeError: its facts are more than MAX_RECORD_BYTES.
        BadInputError: an item holds a number that MessagePack cannot.
    """

    def __init__(self, batch: Batch) -> None:
        self.now_ms = batch.now_ms
        try:
            self.record = encode_facts(batch.facts)
        except OverflowError as error:
            raise BadInputError(
                "Number too large", f"an item holds a number of more than 64 bits ({error})"
            ) from error
        if len(self.record) > MAX_RECORD_BYTES:
            raise TooLargeError(
                "Too much at once",
                f"one change of {len(self.record)} bytes is over the journal's limit of {MAX_RECORD_BYTES} bytes",
                "Submit the items in several parts",
            )
        self.crc = checksum(FACTS_VERSION, batch.now_ms, self.record)
        self._beside = 0
        self.rows: dict[str, list[Row]] = defaultdict(list)
        for fact in batch.facts:
            self._follow(fact)
        for keep in batch.keeps:
            self._keep(keep)
        for retired in batch.retired:
            self._retire(retired)
        for job, name in batch.pins:
            self._pin(job, [name])
        for token in batch.tokens:
            self._token(token)
        for job in batch.forgotten:
            for sql in _FORGET:
                self._add(sql, (job,))

    @property
    def size(self) -> int:
        """About how many bytes it writes."""
        return len(self.record) + self._beside

    def write(self, db: sqlite3.Connection) -> int:
        """Write everything inside the caller's transaction. Returns the seq, one more than the newest record's."""
        seq = db.execute(_INSERT_FACTS, (FACTS_VERSION, self.crc, self.now_ms, self.record)).lastrowid
        for sql, rows in self.rows.items():
            db.executemany(sql, rows)
        assert seq is not None
        return seq

    def _add(self, sql: str, row: Row, size: int = 0) -> None:
        self.rows[sql].append(row)
        self._beside += _ROW_BYTES + size

    def _follow(self, fact: object) -> None:
        match fact:
            case Submitted():
                spec = _encode(fact.spec)
                self._add(_INSERT_JOB, (fact.job, fact.submitter, fact.wall_ms, fact.spec.keep_s))
                self._add(_INSERT_SPEC, (fact.job, spec), len(spec))
                self._pin(fact.job, blobs_of_spec(fact.spec))
            case Appended():
                self._pin(fact.job, blobs_of_items(fact.items))
            case Ended() if fact.checkpoint is not None:
                self._pin(fact.job, blobs_of_payload(fact.checkpoint))
            case Revived():
                self._add(_UNRETIRE, (fact.job,))
                self._add(_DROP_REVIVAL, (fact.job,))
                self._add(_DROP_STATES, (fact.job,))
            case Revoked():
                self._add(_REVOKE_DEVICE, (fact.now_ms, fact.device))
            case _:
                pass

    def _keep(self, keep: Keep) -> None:
        data = _encode(keep.outcome)
        self._add(_INSERT_OUTCOME, (
            keep.job, keep.stage, keep.index, keep.attempt, keep.device, keep.accepted, keep.blame, keep.reason,
            crc32(data), data,
        ), len(data))  # fmt: skip
        self._pin(keep.job, blobs_of_outcome(keep.outcome))

    def _retire(self, retired: Retire) -> None:
        view = _decode_view(retired.view)
        self._add(_RETIRE, (view.state, view.finished_ms, retired.view, retired.job), len(retired.view))
        self._add(_INSERT_REVIVAL, (retired.job, retired.state), len(retired.state))
        for stage, states in enumerate(retired.states):
            self._add(_INSERT_STATES, (retired.job, stage, states), len(states))

    def _pin(self, job: JobId, names: Iterable[BlobHash]) -> None:
        for name in names:
            self._add(_INSERT_PIN, (job, bytes.fromhex(name)))

    def _token(self, token: TokenRow) -> None:
        self._add(INSERT_TOKEN, tuple(token))
