"""Power is cut at many points of a recorded history; whatever was promised before is there afterwards."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.scheduler.facts import Joined
from coordinator.server.store import Store
from sparegrid.ids import JobId, StageIndex
from sparegrid.messages import Inline
from tests.powerloss.disk import Disk, Op, Record, read_log
from tests.powerloss.recording import Recording, build_recorder, record, scratch
from tests.powerloss.work import SESSIONS, content

CUTS = 110
SEED = 20_26
WORK = "tests.powerloss.work"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made


@pytest.fixture(scope="module")
def library(folder: Path) -> Path:
    return build_recorder(folder)


@pytest.fixture(scope="module")
def honest(folder: Path, library: Path) -> Recording:
    (folder / "honest").mkdir()
    return record(library, folder / "honest", WORK)


class LostError(AssertionError):
    """A promise was broken."""


class Promises:
    """What the program had been told to be durable."""

    def __init__(self) -> None:
        self.batches: set[int] = set()
        self.blobs: set[str] = set()
        self.epoch = 0

    def note(self, mark: Record) -> None:
        match mark.data.decode().split():
            case ["batch", number]:
                self.batches.add(int(number))
            case ["blob", name]:
                self.blobs.add(name)
            case ["epoch", number]:
                self.epoch = int(number)
            case _:
                pass

    def check(self, image: Path) -> None:
        self._check_store(image / "store" / "grid.db")
        self._check_blobs(image / "blobs" / "stored")

    def _check_store(self, path: Path) -> None:
        if not path.parent.exists():
            self._kept(not self.batches and not self.epoch, "the whole store")
            return
        with Store.open(path, sync="normal") as store:
            restored = store.load()
            base = int(restored.snapshot or b"0")
            found = [fact.wall_ms for fact in restored.facts if isinstance(fact, Joined)]
            self._kept(
                found == list(range(base + 1, base + 1 + len(found))), f"order of {found} after {base}"
            )
            last = base + len(found)
            self._kept(
                last >= max(self.batches, default=0), f"batch {max(self.batches, default=0)} of {last}"
            )
            self._kept(restored.epoch > self.epoch, f"epoch {self.epoch}")
            self._kept(not restored.notices, f"the snapshot ({restored.notices})")
            self._kept(restored.last_now_ms == last, f"time {restored.last_now_ms} of {last}")
            kept = store.outcomes(JobId(1), StageIndex(0), 0, 10_000)
            self._kept([one.index for one in kept] == list(range(1, last + 1)), "outcomes beside their facts")
            self._kept(
                all(one.outcome.value == Inline(content(one.index, 7000)) for one in kept),
                "what the outcomes say",
            )

    def _check_blobs(self, stored: Path) -> None:
        for name in self.blobs:
            self._kept((stored / name[:2] / name).exists(), f"blob {name}")
        for blob in stored.glob("*/*"):
            self._kept(
                hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name, f"the bytes of blob {blob.name}"
            )

    def _kept(self, held: bool, what: str) -> None:
        if not held:
            raise LostError(f"lost: {what}")


def cut(recording: Recording, folder: Path, *, cuts: int, survivors: bool) -> int:
    """Cut the power at this many points spread over the history, and check each. Returns how many were checked."""
    history = read_log(recording.log)
    dice = random.Random(SEED)
    # Right after a promise is the sharpest moment.
    marks = [n for n, step in enumerate(history) if step.op is Op.MARK]
    points = set(dice.sample(marks, cuts // 2)) | set(dice.sample(range(len(history)), cuts // 2))
    disk, promises = Disk(recording.root), Promises()
    for n, step in enumerate(history):
        disk.apply(step)
        if step.op is Op.MARK:
            promises.note(step)
        if n in points:
            image = folder / f"cut-{n}-{survivors}"
            disk.write_image(image, random.Random(SEED + n) if survivors else None)
            try:
                promises.check(image)
            except Exception as error:
                error.add_note(f"power cut after step {n} of {len(history)}; the disk's image is {image}")
                raise
    return len(points)


def test_the_recording_is_complete_replaying_all_of_it_gives_the_real_folder(
    honest: Recording, folder: Path
) -> None:
    disk = Disk(honest.root)
    for step in read_log(honest.log):
        disk.apply(step)
    disk.write_image(folder / "replayed", everything=True)
    assert contents(folder / "replayed") == contents(honest.root)


def test_the_recorded_work_starts_the_log_of_sqlite_anew_many_times(honest: Recording) -> None:
    fds: dict[int, str] = {}
    begun = 0
    for step in read_log(honest.log):
        if step.op is Op.OPEN:
            fds[step.fd] = step.path
        begun += step.op is Op.WRITE and step.number == 0 and fds[step.fd].endswith("-wal")
    assert begun > 2 * SESSIONS


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_nothing_promised_is_lost_when_every_unsynced_write_is_dropped(
    honest: Recording, folder: Path
) -> None:
    assert cut(honest, folder, cuts=CUTS, survivors=False) > CUTS * 0.9


def test_nothing_promised_is_lost_when_some_unsynced_writes_survive_torn(
    honest: Recording, folder: Path
) -> None:
    assert cut(honest, folder, cuts=CUTS, survivors=True) > CUTS * 0.9


def test_a_commit_without_fsync_would_be_noticed(folder: Path, library: Path) -> None:
    (folder / "normal").mkdir()
    cheating = record(library, folder / "normal", WORK, "normal")
    with pytest.raises(LostError, match="batch"):
        cut(cheating, folder / "normal", cuts=CUTS, survivors=False)


def test_a_blob_without_an_fsync_of_its_folder_would_be_noticed(folder: Path, library: Path) -> None:
    (folder / "nodirsync").mkdir()
    cheating = record(library, folder / "nodirsync", WORK, "nodirsync")
    with pytest.raises(LostError, match="blob"):
        cut(cheating, folder / "nodirsync", cuts=CUTS, survivors=False)
