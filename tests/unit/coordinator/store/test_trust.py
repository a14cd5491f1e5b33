"""Tokens, join codes and the audit trail: hashes only, each change durable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.scheduler.facts import Revoked
from coordinator.server.store import AuditRow, JoinCodeRow, Store, TokenRow
from sparegrid.errors import BadInputError, DeniedError
from sparegrid.ids import DeviceId
from tests.unit.coordinator.store.builders import ANNA, DEVICE, commit, joined

TOKEN = TokenRow(b"t" * 32, "worker", ANNA, DEVICE, 1000)
CODE = JoinCodeRow(b"c" * 32, "worker", 600_000, created_by="anna")
WRONG = b"w" * 32
GUESS = CODE.hash[:4] + b"w" * 28
"""A wrong secret for CODE."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "grid.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path, sync="normal") as opened:
        yield opened


def use(store: Store, code_hash: bytes = CODE.hash, wall_ms: int = 1000) -> JoinCodeRow:
    return store.trust.use_join_code(code_hash, wall_ms).result(10)


def test_a_token_is_found_by_its_hash_after_a_restart(path: Path) -> None:
    with Store.open(path) as store:
        store.trust.add_token(TOKEN).result(10)
    with Store.open(path) as store:
        assert store.trust.token(TOKEN.hash) == TOKEN
        assert store.trust.token(WRONG) is None
        assert store.trust.tokens() == [TOKEN]


def test_a_device_and_its_token_are_one_commit(store: Store) -> None:
    commit(store, joined(1), tokens=[TOKEN])
    assert store.trust.token(TOKEN.hash) == TOKEN


def test_a_revoked_token_is_shown_as_revoked_and_only_revoked_once(store: Store) -> None:
    store.trust.add_token(TOKEN).result(10)
    assert store.trust.revoke_token(TOKEN.hash, 5000).result(10)
    assert not store.trust.revoke_token(TOKEN.hash, 6000).result(10)
    assert not store.trust.revoke_token(WRONG, 6000).result(10)
    assert store.trust.token(TOKEN.hash) == TOKEN._replace(revoked_ms=5000)


def test_a_revoked_device_loses_its_tokens_in_the_same_commit(store: Store) -> None:
    other = TOKEN._replace(hash=b"o" * 32, device=DeviceId("other"))
    commit(store, tokens=[TOKEN, other])
    commit(store, Revoked(DEVICE, 0))
    found = store.trust.token(TOKEN.hash)
    assert found is not None
    assert found.revoked_ms > 0
    assert store.trust.token(other.hash) == other


def test_a_join_code_works_once(store: Store) -> None:
    store.trust.add_join_code(CODE).result(10)
    assert use(store) == CODE._replace(used_ms=1000)
    with pytest.raises(DeniedError, match="used already"):
        use(store)


def test_an_expired_join_code_is_refused(store: Store) -> None:
    store.trust.add_join_code(CODE).result(10)
    with pytest.raises(DeniedError, match="expired"):
        use(store, wall_ms=600_000)
    assert use(store, wall_ms=599_999).role == "worker"


def test_wrong_tries_close_a_code_and_survive_a_restart(path: Path) -> None:
    with Store.open(path) as store:
        store.trust.add_join_code(CODE).result(10)
        for _ in range(4):
            with pytest.raises(DeniedError, match="not known"):
                use(store, GUESS)
    with Store.open(path) as store:
        with pytest.raises(DeniedError, match="not known"):
            use(store, GUESS)
        with pytest.raises(DeniedError, match="too many wrong tries"):
            use(store)


def test_a_code_still_works_after_four_wrong_tries(store: Store) -> None:
    store.trust.add_join_code(CODE).result(10)
    for _ in range(4):
        with pytest.raises(DeniedError):
            use(store, GUESS)
    assert use(store).tries_left == 1


def test_wrong_tries_at_one_code_cost_the_others_nothing(store: Store) -> None:
    other = CODE._replace(hash=b"o" * 32)
    store.trust.add_join_code(CODE).result(10)
    store.trust.add_join_code(other).result(10)
    for _ in range(5):
        with pytest.raises(DeniedError, match="not known"):
            use(store, GUESS)
    assert use(store, other.hash).tries_left == 5
    with pytest.raises(DeniedError, match="too many wrong tries"):
        use(store)


def test_a_code_that_does_not_fit_is_not_spent(store: Store) -> None:
    store.trust.add_join_code(CODE).result(10)
    with pytest.raises(BadInputError, match="for a worker"):
        store.trust.use_join_code(
            CODE.hash, 1000, lambda code: BadInputError("Refused", f"for a {code.role}")
        ).result(10)
    assert use(store).tries_left == 5


def test_codes_long_expired_are_dropped_when_a_new_one_is_made(store: Store) -> None:
    store.trust.add_join_code(CODE).result(10)
    later = CODE._replace(hash=b"d" * 32, expires_ms=CODE.expires_ms + 3 * 86_400_000)
    store.trust.add_join_code(later).result(10)
    with pytest.raises(DeniedError, match="not known"):
        use(store)


def test_the_audit_trail_is_read_newest_first(path: Path) -> None:
    rows = [AuditRow(n, "anna", "pause", f"device-{n}", "for an hour") for n in range(5)]
    with Store.open(path) as store:
        for row in rows:
            store.trust.audit(row).result(10)
    with Store.open(path) as store:
        assert store.trust.audit_rows() == rows[::-1]
        assert store.trust.audit_rows(2) == [rows[4], rows[3]]
