"""The tables of the store and their version: making them, refusing newer ones, upgrading older ones after a backup."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.scheduler.facts import FACTS_VERSION
from coordinator.server.store.durable import sync_file, sync_folder
from coordinator.server.store.records import FACT_UPCASTERS, Upcaster
from sparegrid.errors import StorageError

APPLICATION_ID = 0x53504752
"""`SPGR`: tells `file` and us whose database this is."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (
    seq INTEGER PRIMARY KEY, version INTEGER NOT NULL, crc INTEGER NOT NULL, now_ms INTEGER NOT NULL,
    bytes BLOB NOT NULL
);
CREATE TABLE snapshots (
    seq INTEGER PRIMARY KEY, crc INTEGER NOT NULL, now_ms INTEGER NOT NULL, parts INTEGER NOT NULL
);
CREATE TABLE snapshot_parts (seq INTEGER NOT NULL, part INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (seq, part));
CREATE TABLE jobs (
    job INTEGER PRIMARY KEY, submitter TEXT NOT NULL, submitted_ms INTEGER NOT NULL, keep_s INTEGER NOT NULL,
    state TEXT, finished_ms INTEGER, view BLOB
);
CREATE TABLE specs (job INTEGER PRIMARY KEY, spec BLOB NOT NULL);
CREATE TABLE revivals (job INTEGER PRIMARY KEY, state BLOB NOT NULL);
CREATE TABLE forgotten (job INTEGER PRIMARY KEY);
CREATE INDEX jobs_finished ON jobs (state, job) WHERE view IS NOT NULL;
CREATE TABLE task_states (
    job INTEGER NOT NULL, stage INTEGER NOT NULL, states BLOB NOT NULL, PRIMARY KEY (job, stage)
);
CREATE TABLE outcomes (
    job INTEGER NOT NULL, stage INTEGER NOT NULL, idx INTEGER NOT NULL, attempt INTEGER NOT NULL,
    device TEXT NOT NULL, accepted INTEGER NOT NULL, blame TEXT NOT NULL, reason TEXT NOT NULL, crc INTEGER NOT NULL,
    outcome BLOB NOT NULL, PRIMARY KEY (job, stage, idx, attempt)
) WITHOUT ROWID;
CREATE TABLE pins (job INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (job, hash)) WITHOUT ROWID;
CREATE INDEX pins_hash ON pins (hash);
CREATE TABLE tokens (
    hash BLOB PRIMARY KEY, role TEXT NOT NULL, principal TEXT NOT NULL, device TEXT NOT NULL,
    created_ms INTEGER NOT NULL, revoked_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tokens_device ON tokens (device);
CREATE TABLE join_codes (
    hash BLOB PRIMARY KEY, role TEXT NOT NULL, expires_ms INTEGER NOT NULL, tries_left INTEGER NOT NULL,
    used_ms INTEGER NOT NULL, created_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY, wall_ms INTEGER NOT NULL, principal TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, detail TEXT NOT NULL
);
"""

Step = Callable[[sqlite3.Connection], None]
"""Changes tables of version n into those of version n + 1, inside a transaction."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What this program reads and writes: versions of the tables and of the facts, and the ways up to them."""

    version: int = 1
    facts_version: int = FACTS_VERSION
    tables: str = TABLES
    steps: Mapping[int, Step] = field(default_factory=dict)
    upcasters: Mapping[int, Upcaster] = field(default_factory=lambda: FACT_UPCASTERS)


CURRENT = Schema()


def make_or_upgrade(db: sqlite3.Connection, path: Path, schema: Schema) -> Path | None:
    """Bring the tables to `schema`. Returns the backup that was made before an upgrade.

    Raises:
        StorageError: the file is of a newer version, of one too old, or is no store of ours.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version == 0:
        _make(db, path, schema)
        return None
    if int(db.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION_ID:
        raise StorageError("Not a store", f"{path} is a database of another program", "Move it away")
    facts_version = int(db.execute("SELECT value FROM meta WHERE key = 'facts_version'").fetchone()[0])
    if version > schema.version or facts_version > schema.facts_version:
        raise StorageError(
            "Store of a newer version",
            f"{path} has version {version}.{facts_version}, and this program reads up to "
            f"{schema.version}.{schema.facts_version}",
            "Start the newer Sparegrid again, or put back the backup beside it that the upgrade made",
        )
    if (version, facts_version) == (schema.version, schema.facts_version):
        return None
    missing = [step for step in range(version, schema.version) if step not in schema.steps]
    if missing:
        raise StorageError(
            "Store too old",
            f"{path} has version {version}, and this program knows no way up from version {missing[0]}",
            "Upgrade with an intermediate version of Sparegrid first",
        )
    backup = back_up(db, path, f"v{version}.{facts_version}")
    _upgrade(db, version, schema)
    return backup


def _make(db: sqlite3.Connection, path: Path, schema: Schema) -> None:
    if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StorageError("Not a store", f"{path} is a database of another program", "Move it away")
    # executescript would commit in between: half a schema must never be durable.
    statements = [statement for statement in schema.tables.split(";") if statement.strip()]
    db.execute("BEGIN IMMEDIATE")
    for statement in statements:
        db.execute(statement)
    db.executemany("INSERT INTO meta VALUES (?, ?)", [("epoch", 0), ("facts_version", schema.facts_version)])
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {schema.version}")
    db.execute("COMMIT")


def _upgrade(db: sqlite3.Connection, version: int, schema: Schema) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in range(version, schema.version):
            schema.steps[step](db)
        db.execute("UPDATE meta SET value = ? WHERE key = 'facts_version'", (schema.facts_version,))
        db.execute(f"PRAGMA user_version = {schema.version}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def back_up(db: sqlite3.Connection, path: Path, label: str) -> Path:
    """A durable copy of the whole store beside it, named after the version it has. Never overwrites an older one."""
    number = 1
    while (target := path.with_name(f"{path.name}.{label}-{number}.backup")).exists():
        number += 1
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(partial)) as copy:
        db.backup(copy)
    partial.chmod(0o600)
    with partial.open("rb+") as file:
        sync_file(file.fileno())
    partial.replace(target)
    sync_folder(path.parent)
    return target
