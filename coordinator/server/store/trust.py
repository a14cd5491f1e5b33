"""Tables for trust: hashed tokens, one-time join codes, the audit trail. Knows hashes only, never a secret."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from sparegrid.errors import DeniedError, GridError
from sparegrid.ids import PrincipalId

INSERT_TOKEN = "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?)"
CODE_ID_BYTES = 4
"""How much of a join code's key is public: tries are counted for the codes whose key begins alike."""
_INSERT_CODE = "INSERT INTO join_codes VALUES (?, ?, ?, ?, ?, ?)"
_WRONG_TRY = (
    "UPDATE join_codes SET tries_left = tries_left - 1"
    f" WHERE substr(hash, 1, {CODE_ID_BYTES}) = ? AND tries_left > 0 AND used_ms = 0"
)


class TokenRow(NamedTuple):
    """A token, by the SHA-256 of its bytes. Wall milliseconds; `revoked_ms` 0: valid. `device` may be empty."""

    hash: bytes
    role: str
    principal: PrincipalId
    device: str = ""
    created_ms: int = 0
    revoked_ms: int = 0


class JoinCodeRow(NamedTuple):
    """A one-time code, by its public id and the SHA-256 of its secret. `used_ms` 0: not used yet."""

    hash: bytes
    role: str
    expires_ms: int
    tries_left: int = 5
    used_ms: int = 0
    created_by: str = ""


class AuditRow(NamedTuple):
    """Who did what to whom, for the administrator."""

    wall_ms: int
    principal: str
    action: str
    subject: str
    detail: str = ""


Reader = Callable[[], AbstractContextManager[sqlite3.Connection]]
Writer = Callable[[Callable[[sqlite3.Connection], Any]], Future[Any]]


class Trust:
    """Reads from any thread at once; writes return futures that resolve when durable."""

    def __init__(self, read: Reader, write: Writer) -> None:
        self._read = read
        self._write = write

    def token(self, token_hash: bytes) -> TokenRow | None:
        """The token, revoked or not."""
        with self._read() as db:
            row = db.execute("SELECT * FROM tokens WHERE hash = ?", (token_hash,)).fetchone()
        return None if row is None else TokenRow(*row)

    def tokens(self) -> list[TokenRow]:
        """All tokens, oldest first."""
        with self._read() as db:
            return [TokenRow(*row) for row in db.execute("SELECT * FROM tokens ORDER BY created_ms, hash")]

    def add_token(self, token: TokenRow) -> Future[None]:
        """Keep a new token (`Batch.tokens` does it together with facts)."""
        return self._write(lambda db: _none(db.execute(INSERT_TOKEN, token)))

    def revoke_token(self, token_hash: bytes, wall_ms: int) -> Future[bool]:
        """From now on it opens nothing. False when there is no such valid token."""
        return self._write(
            lambda db: (
                db.execute(
                    "UPDATE tokens SET revoked_ms = ? WHERE hash = ? AND revoked_ms = 0",
                    (wall_ms, token_hash),
                ).rowcount
                == 1
            )
        )

    def add_join_code(self, code: JoinCodeRow) -> Future[None]:
        """Keep a new code; codes that expired a day ago are dropped on the way."""
        return self._write(lambda db: _add_code(db, code))

    def use_join_code(
        self, code_hash: bytes, wall_ms: int, unfit: Callable[[JoinCodeRow], GridError | None] | None = None
    ) -> Future[JoinCodeRow]:
        """Spend a code. A wrong secret costs the code of the same id one of its tries, so that guessing ends soon.

        Args:
            code_hash: the code's id, then the hash of its secret.
            wall_ms: now.
            unfit: why an open code must not be spent; called in the committer's thread.

        The future raises DeniedError: unknown, used, expired, or out of tries; or what `unfit` gave.
        """
        return self._write(lambda db: _use_code(db, code_hash, wall_ms, unfit))

    def audit(self, row: AuditRow) -> Future[None]:
        """Keep a line of the audit trail."""
        return self._write(
            lambda db: _none(
                db.execute(
                    "INSERT INTO audit (wall_ms, principal, action, subject, detail) VALUES (?, ?, ?, ?, ?)",
                    row,
                )
            )
        )

    def audit_rows(self, limit: int = 100) -> list[AuditRow]:
        """The newest lines of the audit trail, newest first."""
        with self._read() as db:
            rows = db.execute(
                "SELECT wall_ms, principal, action, subject, detail FROM audit ORDER BY id DESC LIMIT ?",
                (limit,),
            )
            return [AuditRow(*row) for row in rows]


def _none(_cursor: object) -> None:
    return None


def _add_code(db: sqlite3.Connection, code: JoinCodeRow) -> None:
    db.execute("DELETE FROM join_codes WHERE expires_ms < ?", (code.expires_ms - 2 * 86_400_000,))
    db.execute(_INSERT_CODE, code)


def _use_code(
    db: sqlite3.Connection,
    code_hash: bytes,
    wall_ms: int,
    unfit: Callable[[JoinCodeRow], GridError | None] | None,
) -> JoinCodeRow | GridError:
    row = db.execute("SELECT * FROM join_codes WHERE hash = ?", (code_hash,)).fetchone()
    if row is None:
        db.execute(_WRONG_TRY, (code_hash[:CODE_ID_BYTES],))
        return _denied("is not known here")
    code = JoinCodeRow(*row)
    if code.used_ms:
        return _denied("has been used already")
    if code.expires_ms <= wall_ms:
        return _denied("has expired")
    if code.tries_left <= 0:
        return _denied("was closed after too many wrong tries")
    refused = None if unfit is None else unfit(code)
    if refused is not None:
        return refused
    db.execute("UPDATE join_codes SET used_ms = ? WHERE hash = ?", (wall_ms, code_hash))
    return code._replace(used_ms=wall_ms)


def _denied(why: str) -> DeniedError:
    return DeniedError("Join code refused", f"the code {why}", "Make a new one with `sparegrid join-code`")
