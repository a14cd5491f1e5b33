"""What jobs leave behind can be read while the committer writes: outcomes, specs, finished jobs, pins."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.scheduler.facts import Appended, Ended, Revived
from coordinator.server.store import Batch, Pin, Store, clearing
from sparegrid.api import Items, JobSpec, RangeAxis, StageSpec
from sparegrid.errors import NotFoundError
from sparegrid.ids import AttemptId, BlobHash, JobId, PrincipalId, TaskIndex
from sparegrid.messages import BlobRef, FileEntry, Inline, Outcome
from tests.unit.coordinator.store.builders import (
    ANNA,
    DEVICE,
    STAGE,
    Gate,
    blob,
    commit,
    database,
    keep,
    outcome_with_blobs,
    retire,
    settle,
    spec,
    submitted,
    view,
)

JOB = JobId(7)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "grid.db", sync="normal") as opened:
        yield opened


def attempts(store: Store, first: int = 0, limit: int = 100) -> list[tuple[int, int]]:
    return [(kept.index, kept.attempt) for kept in store.outcomes(JOB, STAGE, first, limit)]


def pinned(store: Store, job: JobId = JOB) -> set[int]:
    return {int(pin.hash, 16) for pin in store.pins(job)}


# ---- outcomes -----------------------------------------------------------------------------------------------------


def test_an_outcome_comes_back_as_it_was_kept(store: Store) -> None:
    outcome = Outcome(
        exit_code=3, signal="SIGSEGV", value=Inline(b"\0"), files=[FileEntry("a", BlobRef(blob(1), 5), True)],
        log=Inline(b"log"), log_bytes=9, log_cut=True,
    )  # fmt: skip
    commit(store, keeps=[keep(3, 8, accepted=False, outcome=outcome)])
    kept = store.outcome(JOB, STAGE, TaskIndex(3))
    assert kept is not None
    assert kept.outcome == outcome
    assert (kept.job, kept.stage, kept.index, kept.attempt, kept.device) == (JOB, STAGE, 3, 8, DEVICE)
    assert (kept.accepted, kept.blame, kept.reason) == (False, "task", "exit code 8")


def test_outcomes_are_read_in_windows_in_order_of_their_tasks(store: Store) -> None:
    commit(store, keeps=[keep(index, 100 + index) for index in reversed(range(10))])
    commit(store, keeps=[keep(0, 1, job=8)])
    assert attempts(store, 0, 4) == [(0, 100), (1, 101), (2, 102), (3, 103)]
    assert attempts(store, 8, 4) == [(8, 108), (9, 109)]
    assert attempts(store, 10, 4) == []
    assert attempts(store, 0, 0) == []


def test_a_tasks_outcome_is_the_accepted_one_even_if_a_later_attempt_ended(store: Store) -> None:
    commit(store, keeps=[keep(0, 1, accepted=False), keep(0, 2), keep(0, 3, accepted=False), keep(1, 4)])
    assert attempts(store) == [(0, 2), (1, 4)]
    found = store.outcome(JOB, STAGE, TaskIndex(0))
    assert found is not None
    assert found.attempt == 2
    assert [kept.attempt for kept in store.attempts(JOB, STAGE, TaskIndex(0))] == [1, 2, 3]


def test_a_task_without_an_accepted_outcome_shows_its_newest_attempt(store: Store) -> None:
    commit(store, keeps=[keep(0, 1, accepted=False), keep(0, 2, accepted=False)])
    assert attempts(store) == [(0, 2)]


def test_the_outcome_of_one_attempt_can_be_asked_for(store: Store) -> None:
    commit(store, keeps=[keep(0, 1, accepted=False), keep(0, 2)])
    found = store.outcome(JOB, STAGE, TaskIndex(0), AttemptId(1))
    assert found is not None
    assert found.outcome.exit_code == 1
    assert store.outcome(JOB, STAGE, TaskIndex(0), AttemptId(9)) is None
    assert store.outcome(JOB, STAGE, TaskIndex(9)) is None


def test_an_attempt_kept_twice_is_kept_once(store: Store) -> None:
    commit(store, keeps=[keep(0, 1, accepted=False)])
    commit(store, keeps=[keep(0, 1)])
    assert [kept.accepted for kept in store.attempts(JOB, STAGE, TaskIndex(0))] == [True]


def test_reads_from_many_threads_go_on_while_the_committer_writes(store: Store) -> None:
    found: list[int] = []
    errors: list[Exception] = []

    def read() -> None:
        try:
            while len(attempts(store)) < 50:
                pass
            found.append(len(attempts(store)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for index in range(50):
        commit(store, keeps=[keep(index, index + 1)])
    for thread in threads:
        thread.join(10)
    assert errors == []
    assert found == [50] * 8


# ---- jobs ---------------------------------------------------------------------------------------------------------


def test_a_spec_is_read_as_it_was_submitted(store: Store) -> None:
    job_spec = spec("Bäckerei 🥐/1", priority=9, keep_s=60)
    commit(store, submitted(7, job_spec))
    assert store.spec(JOB) == job_spec
    with pytest.raises(NotFoundError, match="job 8"):
        store.spec(JobId(8))


def test_a_job_in_the_schedulers_memory_is_not_among_the_finished(store: Store) -> None:
    commit(store, submitted(7))
    assert store.finished_jobs() == []
    assert store.finished_view(JOB) is None
    assert store.task_states(JOB) == []
    with pytest.raises(NotFoundError):
        store.retired_state(JOB)


def test_a_retired_job_can_be_read_and_revived(store: Store) -> None:
    commit(store, submitted(7))
    commit(store, retired=[retire(7)])
    assert store.finished_view(JOB) == view(7)
    assert store.task_states(JOB) == [b"\4\4", b"\5"]
    assert store.retired_state(JOB) == b"revival 7"
    commit(store, Revived(JOB, b"revival 7"))
    assert store.finished_view(JOB) is None
    assert store.task_states(JOB) == []
    assert store.spec(JOB) == spec("job 7")


def test_a_job_revived_and_retired_in_one_batch_is_retired(store: Store) -> None:
    commit(store, submitted(7), retired=[retire(7)])
    commit(store, Revived(JOB, b""), retired=[retire(7, "failed")])
    [finished] = store.finished_jobs()
    assert finished.state == "failed"


def test_finished_jobs_are_listed_newest_first_by_state_submitter_and_cursor(store: Store) -> None:
    states = {1: "done", 2: "failed", 3: "done", 4: "cancelled"}
    for job, state in states.items():
        commit(store, submitted(job, submitter=PrincipalId("otto" if job == 3 else "anna")))
        commit(store, retired=[retire(job, state, 1000 * job)])

    def listed(*args: object, **kwargs: object) -> list[int]:
        return [finished.job for finished in store.finished_jobs(*args, **kwargs)]  # type: ignore[arg-type]

    assert listed() == [4, 3, 2, 1]
    assert listed(limit=2) == [4, 3]
    assert listed(limit=2, after=JobId(3)) == [2, 1]
    assert listed(["done", "failed"]) == [3, 2, 1]
    assert listed(submitter=ANNA) == [4, 2, 1]
    assert listed(["done"], submitter=ANNA, after=JobId(3)) == [1]
    newest = store.finished_jobs(limit=1)[0]
    assert (newest.state, newest.submitter, newest.finished_ms) == ("cancelled", "anna", 4000)
    assert newest.view == view(4, "cancelled", 4000)


def test_jobs_expire_when_they_have_been_kept_long_enough_and_not_before_they_end(store: Store) -> None:
    for job, keep_s in ((1, 0), (2, 10), (3, 20), (4, 1)):
        commit(store, submitted(job, spec(keep_s=keep_s)))
    commit(store, retired=[retire(job, finished_ms=5000) for job in (1, 2, 3)])
    assert store.expired_jobs(14_999) == []
    assert store.expired_jobs(15_000) == [2]
    assert store.expired_jobs(25_000) == [2, 3]
    assert store.expired_jobs(25_000, limit=1) == [2]
    assert store.expired_jobs(14_999, default_keep_s=9.5) == [1], "a job that does not say so itself"


def test_a_forgotten_job_leaves_nothing(store: Store) -> None:
    for job in (7, 8):
        commit(store, submitted(job), keeps=[keep(0, job, job=job, outcome=outcome_with_blobs(1, 2, 3))])
        commit(store, retired=[retire(job)])
    commit(store, forgotten=[JOB])
    assert [finished.job for finished in store.finished_jobs()] == [8]
    with pytest.raises(NotFoundError):
        store.spec(JOB)
    with pytest.raises(NotFoundError):
        store.retired_state(JOB)
    settle(store)
    assert (attempts(store), store.task_states(JOB), pinned(store)) == ([], [], set())
    assert pinned(store, JobId(8)) == {1, 2, 3}


def test_a_large_forgotten_job_is_cleared_in_steps_and_a_start_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearing, "CLEARED_ROWS", 10)
    path = tmp_path / "large.db"
    with Store.open(path, sync="normal") as store:
        commit(
            store, submitted(7), keeps=[keep(n, n, outcome=outcome_with_blobs(n, n, n)) for n in range(95)]
        )
        commit(store, keeps=[keep(0, 5000, job=8, outcome=outcome_with_blobs(1, 2, 3))])
        gate = Gate(store)
        store.commit(Batch(forgotten=[JOB]))
        gate.open_at_close()
    with database(path) as db:
        assert db.execute("SELECT count(*) FROM outcomes WHERE job = 7").fetchone()[0] >= 85
        assert db.execute("SELECT job FROM forgotten").fetchall() == [(7,)]
    with Store.open(path, sync="normal") as store:
        settle(store)
    with database(path) as db:
        for table, count in (("outcomes", 1), ("pins", 3), ("forgotten", 0)):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (count,)


# ---- pins ---------------------------------------------------------------------------------------------------------


def test_blobs_of_a_spec_are_pinned_with_its_submission(store: Store) -> None:
    stages = [
        StageSpec("a", inputs=[FileEntry("x", BlobRef(blob(1), 1)), FileEntry("y", Inline(b""))]),
        StageSpec("b", items=Items(blob=BlobRef(blob(2), 1))),
        StageSpec("c", items=Items(values=[{"file": {"path": "x", "content": {"t": "blob", "hash": blob(3)}}}, 1, {}])),
        StageSpec("d", items=Items(axes={"file": [FileEntry("x", BlobRef(blob(4), 1)), 5], "n": RangeAxis(1, 2)})),
    ]  # fmt: skip
    commit(store, submitted(7, JobSpec("job", stages)))
    assert pinned(store) == {1, 2, 3, 4}


def test_blobs_of_appended_items_outcomes_and_checkpoints_are_pinned(store: Store) -> None:
    items = [{"file": FileEntry("x", BlobRef(blob(1), 1))}, {"file": "no entry"}]
    ended = Ended(
        JOB, STAGE, TaskIndex(0), AttemptId(1), DEVICE, "owner", "given back", 1, BlobRef(blob(5), 1)
    )
    commit(store, Appended(JOB, STAGE, items), ended, keeps=[keep(0, 2, outcome=outcome_with_blobs(2, 3, 4))])
    assert pinned(store) == {1, 2, 3, 4, 5}


def test_pins_are_added_by_hand_and_counted_once_per_job(store: Store) -> None:
    commit(store, pins=[Pin(JOB, blob(1)), Pin(JOB, blob(1)), Pin(JobId(8), blob(1)), Pin(JobId(8), blob(2))])
    names = [blob(1), blob(2), blob(3)]
    assert store.pinned(names) == {blob(1), blob(2)}
    commit(store, forgotten=[JobId(8)])
    settle(store)
    assert store.pinned(names) == {blob(1)}
    commit(store, forgotten=[JOB])
    settle(store)
    assert store.pinned(names) == set()


def test_a_name_that_no_blob_can_have_pins_nothing(store: Store) -> None:
    outcome = Outcome(value=BlobRef("../../etc/passwd", 1), log=BlobRef(BlobHash("Z" * 64), 1))
    items = [{"file": {"path": "x", "content": {"t": "blob", "hash": "short"}}}]
    commit(store, Appended(JOB, STAGE, items), keeps=[keep(0, 1, outcome=outcome)])
    assert pinned(store) == set()


def test_a_batch_is_read_as_soon_as_its_future_is_done(store: Store) -> None:
    for index in range(20):
        store.commit(Batch(keeps=[keep(index, index + 1)])).result(10)
        assert len(attempts(store)) == index + 1
