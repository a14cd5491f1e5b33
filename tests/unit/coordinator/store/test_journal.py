"""Facts in, facts out: order, sequence, group commit, epochs, time, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from coordinator.scheduler.facts import Appended, Fact
from coordinator.server.store import Batch, Store, writing
from sparegrid.errors import BadInputError, StorageError, TooLargeError
from sparegrid.ids import JobId
from tests.unit.coordinator.store.builders import (
    STAGE,
    Gate,
    commit,
    joined,
    keep,
    one_of_each_fact,
    settle,
    submitted,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "grid.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path, sync="normal") as opened:
        yield opened


def test_an_empty_store_restores_nothing(store: Store) -> None:
    restored = store.load()
    assert (restored.snapshot, list(restored.facts), restored.last_seq, restored.last_now_ms) == (
        None,
        [],
        0,
        0,
    )
    assert (restored.epoch, restored.notices) == (1, [])


def test_every_kind_of_fact_comes_back_as_it_was(path: Path) -> None:
    facts = one_of_each_fact()
    assert {type(fact) for fact in facts} == set(get_args(Fact))
    with Store.open(path) as store:
        commit(store, *facts)
    with Store.open(path) as store:
        assert list(store.load().facts) == facts


def test_facts_come_back_in_the_order_of_the_commits(path: Path) -> None:
    with Store.open(path, sync="normal") as store:
        futures = [store.commit(Batch(facts=[joined(n), joined(n + 1000)])) for n in range(300)]
        assert [future.result(10) for future in futures] == list(range(1, 301))
    with Store.open(path) as store:
        restored = store.load()
        assert list(restored.facts) == [joined(n + more) for n in range(300) for more in (0, 1000)]
        assert restored.last_seq == 300


def test_a_batch_without_facts_has_a_sequence_number_too(store: Store) -> None:
    assert [commit(store, joined(1)), commit(store), commit(store, joined(2))] == [1, 2, 3]


def test_what_is_queued_while_the_committer_works_becomes_one_transaction(store: Store) -> None:
    settle(store)
    statements: list[str] = []
    gate = Gate(store)
    store._db.set_trace_callback(statements.append)
    futures = [store.commit(Batch(facts=[joined(n)])) for n in range(100)]
    gate.open()
    assert [future.result(10) for future in futures] == list(range(1, 101))
    assert statements.count("COMMIT") == 2  # The gate's own, and one for the hundred.


def test_futures_resolve_in_the_order_of_the_commits(store: Store) -> None:
    resolved: list[int] = []
    gate = Gate(store)
    futures = [store.commit(Batch(facts=[joined(n)])) for n in range(50)]
    for future in futures:
        future.add_done_callback(lambda done: resolved.append(done.result()))
    gate.open()
    futures[-1].result(10)
    assert resolved == list(range(1, 51))


def test_a_value_changed_after_commit_does_not_change_the_record(path: Path) -> None:
    with Store.open(path) as store:
        items: list[object] = [1]
        gate = Gate(store)
        future = store.commit(Batch(facts=[Appended(JobId(1), STAGE, items)]))
        items.append(2)
        gate.open()
        future.result(10)
    with Store.open(path) as store:
        assert list(store.load().facts) == [Appended(JobId(1), STAGE, [1])]


def test_the_epoch_counts_the_starts(path: Path) -> None:
    for start in (1, 2, 3):
        with Store.open(path) as store:
            assert store.epoch == store.load().epoch == start


def test_the_schedulers_time_goes_on_from_the_last_commit(path: Path) -> None:
    with Store.open(path) as store:
        commit(store, joined(1), now_ms=70_000)
        commit(store, now_ms=80_000)
    with Store.open(path) as store:
        assert store.load().last_now_ms == 80_000


def test_closing_commits_what_is_queued(path: Path) -> None:
    with Store.open(path) as store:
        gate = Gate(store)
        future = store.commit(Batch(facts=[joined(1)]))
        gate.open_at_close()
    assert future.result(0) == 1
    with Store.open(path) as store:
        assert list(store.load().facts) == [joined(1)]


def test_a_closed_store_takes_and_tells_nothing(path: Path) -> None:
    with Store.open(path) as store:
        pass
    with pytest.raises(StorageError, match="closed"):
        store.commit(Batch())
    with pytest.raises(StorageError, match="closed"):
        store.spec(JobId(1))


def test_a_change_larger_than_a_record_may_be_is_refused_and_the_store_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_RECORD_BYTES", 100)
    with pytest.raises(TooLargeError, match=r"limit of 100 bytes"):
        store.commit(Batch(facts=[submitted(1)]))
    assert commit(store, joined(1)) == 1


def test_a_number_that_no_record_can_hold_is_refused(store: Store) -> None:
    with pytest.raises(BadInputError, match="64 bits"):
        store.commit(Batch(facts=[Appended(JobId(1), STAGE, [1 << 70])]))


async def test_a_cancelled_waiter_does_not_take_the_commit_back(path: Path) -> None:
    with Store.open(path) as store:
        gate = Gate(store)
        waiting = asyncio.wrap_future(store.commit(Batch(facts=[joined(1)])))
        waiting.cancel()
        gate.open()
        assert commit(store, joined(2)) == 2
    with Store.open(path) as store:
        assert list(store.load().facts) == [joined(1), joined(2)]


def test_an_error_of_our_own_in_the_committer_ends_the_store(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[StorageError] = []
    with Store.open(path, on_fatal=told.append) as store:
        gate = Gate(store)
        broken = store._write(lambda _db: 1 // 0)
        behind = store.commit(Batch(facts=[joined(1)]))
        gate.open()
        assert isinstance(broken.exception(10), StorageError)
        assert isinstance(behind.exception(10), StorageError)
        with pytest.raises(StorageError, match="ZeroDivisionError"):
            store.commit(Batch())
    assert [error.title for error in told] == ["Store has failed"]
    assert "has failed" in caplog.text
    with Store.open(path) as store:
        assert list(store.load().facts) == []


def test_a_callback_that_fails_is_logged_and_hurts_nobody(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Store.open(path, on_fatal=lambda _error: [].pop()) as store:
        assert isinstance(store._write(lambda _db: 1 // 0).exception(10), StorageError)
    assert "A callback of the store has failed" in caplog.text


def test_facts_and_outcomes_of_a_batch_are_there_together(path: Path) -> None:
    with Store.open(path) as store:
        commit(store, joined(1), keeps=[keep(0, 1), keep(1, 2)])
    with Store.open(path) as store:
        assert list(store.load().facts) == [joined(1)]
        assert [kept.attempt for kept in store.outcomes(JobId(7), STAGE)] == [1, 2]
