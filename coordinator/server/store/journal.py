"""The journal's ends: restoring from snapshot and facts, writing snapshots in parts, pruning what they replace."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from zlib import crc32

from coordinator.scheduler.facts import Fact
from coordinator.server.store.committer import Chore
from coordinator.server.store.damage import damaged
from coordinator.server.store.readers import Readers
from coordinator.server.store.records import UnreadableError, checksum, decode_facts
from coordinator.server.store.schema import Schema
from coordinator.server.store.values import Restored

PART_BYTES = 1 << 20
"""A snapshot is written in parts of this size, each in the transaction of other commits, so that it stalls none."""
PRUNE_ROWS = 500
"""Records dropped per transaction, for the same reason."""
KEPT_SNAPSHOTS = 2
"""The newest, and the one before it together with the facts since, in case that the newest is damaged."""
_PAGE_ROWS = 64


# ---- restoring ----------------------------------------------------------------------------------------------------


def restore(path: Path, readers: Readers, schema: Schema, epoch: int) -> Restored:
    """The newest snapshot that is whole, and the facts after it.

    Raises:
        StorageError: no snapshot is whole and the facts it replaced are pruned.
    """
    notices: list[str] = []
    snapshot: bytes | None = None
    base = now_ms = 0
    with readers.lend() as db:
        first, last = db.execute("SELECT ifnull(min(seq), 1), ifnull(max(seq), 0) FROM facts").fetchone()
        for seq, crc, at_ms, parts in db.execute("SELECT * FROM snapshots ORDER BY seq DESC").fetchall():
            rows = db.execute(
                "SELECT bytes FROM snapshot_parts WHERE seq = ? ORDER BY part", (seq,)
            ).fetchall()
            data = b"".join(row[0] for row in rows)
            if len(rows) == parts and crc32(data) == crc:
                snapshot, base, now_ms = data, seq, at_ms
                break
            notices.append(
                f"{path}: the snapshot at record {seq} is damaged; an older one and the journal replace it"
            )
        newest = db.execute("SELECT now_ms FROM facts WHERE seq = ?", (last,)).fetchone()
    if first > base + 1:
        raise damaged(path, f"records {base + 1} to {first - 1} of the journal are missing")
    last_now_ms = max(now_ms, newest[0] if newest else 0)
    return Restored(snapshot, _facts(path, readers, schema, base, last), last, last_now_ms, epoch, notices)


def _facts(path: Path, readers: Readers, schema: Schema, base: int, last: int) -> Iterator[Fact]:
    """Facts of the records base + 1 to last. Page by page, so that no read transaction stays open meanwhile."""
    seq = base
    while seq < last:
        with readers.lend() as db:
            rows = db.execute(
                "SELECT * FROM facts WHERE seq > ? ORDER BY seq LIMIT ?", (seq, min(_PAGE_ROWS, last - seq))
            ).fetchall()
        if not rows:
            raise damaged(path, f"records {seq + 1} to {last} of the journal are missing")
        for found, version, crc, now_ms, data in rows:
            seq += 1
            if found != seq:
                raise damaged(path, f"record {seq} of the journal is missing")
            try:
                whole = checksum(version, now_ms, data) == crc
            except TypeError:
                whole = False  # A flipped bit can change the type of a column, too.
            if not whole:
                raise damaged(path, f"record {seq} of the journal does not match its checksum")
            try:
                yield from decode_facts(version, data, schema.upcasters, schema.facts_version)
            except UnreadableError as error:
                raise damaged(path, f"record {seq} of the journal {error}") from error


def bytes_since_snapshot(db: sqlite3.Connection) -> int:
    """How much a start would have to replay."""
    return int(
        db.execute(
            "SELECT ifnull(sum(length(bytes)), 0) FROM facts WHERE seq > (SELECT ifnull(max(seq), 0) FROM snapshots)"
        ).fetchone()[0]
    )


# ---- snapshots and pruning ----------------------------------------------------------------------------------------


def snapshot_chores(data: bytes, seq: int, now_ms: int, future: Future[None]) -> Iterator[Chore]:
    """The steps that write a snapshot and then drop what it replaces; the future resolves when it is whole."""
    starts = range(0, max(len(data), 1), PART_BYTES)
    for part, start in enumerate(starts):
        yield _insert("snapshot_parts", (seq, part, data[start : start + PART_BYTES]))
    yield _insert("snapshots", (seq, crc32(data), now_ms, len(starts)), future)
    yield Chore(prune)


def _insert(table: str, row: tuple[int | bytes, ...], future: Future[None] | None = None) -> Chore:
    def step(db: sqlite3.Connection) -> bool:
        db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        return False

    return Chore(step, future)


def prune(db: sqlite3.Connection) -> bool:
    """Drop some of what the kept snapshots replace, and parts of an unfinished one. True while there is more."""
    kept = [
        row[0] for row in db.execute("SELECT seq FROM snapshots ORDER BY seq DESC LIMIT ?", (KEPT_SNAPSHOTS,))
    ]
    if len(kept) == KEPT_SNAPSHOTS:
        dropped = db.execute(
            "DELETE FROM facts WHERE seq IN (SELECT seq FROM facts WHERE seq <= ? ORDER BY seq LIMIT ?)",
            (kept[-1], PRUNE_ROWS),
        ).rowcount
        if dropped == PRUNE_ROWS:
            return True
        db.execute("DELETE FROM snapshots WHERE seq < ?", (kept[-1],))
    db.execute("DELETE FROM snapshot_parts WHERE seq NOT IN (SELECT seq FROM snapshots)")
    return False
