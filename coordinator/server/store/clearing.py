"""Forgotten jobs: their outcomes and pins, perhaps millions, are dropped in small steps between the commits.

A forgotten job is gone for every reader at once, because its row is; a start goes on with what was left.
"""

from __future__ import annotations

import sqlite3

CLEARED_ROWS = 2000
"""Rows dropped per transaction: a few milliseconds."""

_STEPS = (
    """DELETE FROM outcomes WHERE (job, stage, idx, attempt) IN
       (SELECT job, stage, idx, attempt FROM outcomes WHERE job = ? LIMIT ?)""",
    "DELETE FROM pins WHERE (job, hash) IN (SELECT job, hash FROM pins WHERE job = ? LIMIT ?)",
)


def clear_forgotten(db: sqlite3.Connection) -> bool:
    """Drop some rows of the oldest forgotten job. True while there is more."""
    row = db.execute("SELECT min(job) FROM forgotten").fetchone()
    if row[0] is None:
        return False
    for sql in _STEPS:
        if db.execute(sql, (row[0], CLEARED_ROWS)).rowcount == CLEARED_ROWS:
            return True
    db.execute("DELETE FROM forgotten WHERE job = ?", row)
    return True
