"""A disk that is full or failing, logs and processes without end: whose fault it is, and that the worker works on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from executors.agent.guard import count_threads
from executors.nursery.folder import FolderError, WorkFolder, disk_error, size_of
from executors.nursery.log import TaskLog
from executors.nursery.protocol import Place
from sparegrid.messages import Blame, BlobRef, Ended, FileEntry, Inline
from tests.unit.executors.grids import fake_grid, working


class _Disk:
    """What statvfs tells of a disk with so much room."""

    def __init__(self, free: int) -> None:
        self.f_bavail = free
        self.f_frsize = 1


def made(tmp_path: Path) -> WorkFolder:
    (tmp_path / "outbox").mkdir()
    return WorkFolder(tmp_path / "work", tmp_path / "outbox")


def full(*_arguments: object, **_options: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def _where_we_are() -> Iterator[None]:
    """Work folders become the current one."""
    before = Path.cwd()
    yield
    os.chdir(before)


@pytest.mark.parametrize(("quota", "blame"), [(100_000, "task"), (10_000_000, "device"), (0, "device")])
def test_a_full_disk_is_the_tasks_fault_when_it_filled_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, blame: str
) -> None:
    folder = made(tmp_path)
    folder.enter([Place("big", data=b"x" * 200_000)])
    assert folder.full_disk(quota) is None
    monkeypatch.setattr(os, "statvfs", lambda _path: _Disk(5))
    found = folder.full_disk(quota)
    assert found is not None
    assert found.blame == blame
    assert "disk" in found.reason
    folder.remove()


def test_an_input_that_does_not_fit_is_the_devices_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path)
    (tmp_path / "source").write_bytes(b"x" * 100)
    monkeypatch.setattr(os, "sendfile", full)
    with pytest.raises(FolderError, match="'big' could not be placed: the disk is full") as caught:
        folder.enter([Place("big", source=str(tmp_path / "source"))])
    assert caught.value.blame == "device"
    folder.remove()


def test_an_output_that_does_not_fit_is_the_devices_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path)
    folder.enter([])
    (tmp_path / "work" / "r").write_bytes(b"x" * 100_000)
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(FolderError, match="could not be kept: the disk is full"):
        folder.collect(["r"])
    folder.remove()


def test_a_log_on_a_full_disk_keeps_its_head_and_says_why_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path)
    log = TaskLog(1 << 20, str(tmp_path / "spill"))
    log.feed(b"head" * 60_000)
    monkeypatch.setattr(os, "open", full)
    for _ in range(5):
        log.feed(b"x" * 100_000)
    monkeypatch.undo()
    assert (log.total, log.is_cut) == (740_000, True)
    ref = log.finish(folder)
    assert isinstance(ref, BlobRef)
    kept = (tmp_path / "outbox" / ref.hash).read_bytes()
    assert kept.startswith(b"headhead")
    assert kept.endswith(b"\n[log cut: No space left on device: 240000 of 740000 bytes kept]\n")


def test_errors_of_the_disk_are_told_in_words() -> None:
    assert disk_error(OSError(errno.EDQUOT, "x"), "doing").reason == "doing: the disk is full"
    assert disk_error(OSError(errno.EIO, "Input/output error"), "doing").reason == "doing: Input/output error"


def test_the_size_of_a_folder_is_what_it_takes_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x" * 100_000)
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 30)
    assert 100_000 <= size_of(str(tmp_path)) < 200_000


async def test_the_task_that_fills_the_disk_is_stopped_and_the_worker_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("executors.agent.guard.GUARD_S", 0.05)
    monkeypatch.setattr("executors.agent.guard.MIN_STOPPED_BYTES", 2_999_999)
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, disk_free=0):
        number = await grid.sh("head -c 3000000 /dev/zero > big; exec sleep 1000", grace_ms=100)
        ended: Ended = await grid.ended(number)
        assert ended.blame == Blame.TASK
        assert ended.reason.startswith("the disk is full, and its work folder is the largest with 3")
        assert (await grid.outcome_of(await grid.sh("echo on"))).log == Inline(b"on\n")


async def test_a_call_that_prints_without_end_is_cut_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executors.agent.guard.GUARD_S", 0.02)
    source = (
        "import os\ndef f():\n    data = b'x' * (1 << 20)\n    largest = 0\n"
        "    while largest < 18 << 20: os.write(1, data); largest += len(data)\n"
        "    while os.fstat(1).st_size > 17 << 20: pass\n    return largest"
    )
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        inputs = [FileEntry("m.py", Inline(source.encode()))]
        (number,) = await grid.run({"function": "m:f"}, kind="python", inputs=inputs)
        outcome = await grid.outcome_of(number)
    assert outcome.log_cut
    assert grid.bytes_of(outcome.log).endswith(b"bytes kept]\n")


async def test_a_task_with_too_many_processes_is_stopped_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executors.agent.guard.GUARD_S", 0.05)
    monkeypatch.setattr("executors.agent.guard.MAX_PROCESSES", 20)
    line = "trap '' TERM; for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do sleep 1000 & done; wait"
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        ended = await grid.ended(await grid.sh(line))
    assert (ended.blame, ended.outcome.signal) == ("task", "SIGKILL")
    assert ended.reason.endswith("processes, over the limit of 20")


async def test_what_a_task_left_is_off_the_disk_before_its_end_is_told(tmp_path: Path) -> None:
    big = "head -c 3000000 /dev/zero > big"
    killed = {"function": "os:system", "args": [f"{big}; kill -9 $PPID; sleep 1000"]}
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        work = tmp_path / "worker" / "work"
        await grid.outcome_of(await grid.sh(big))
        assert size_of(str(work)) < 1 << 20
        (number,) = await grid.run(killed, kind="python")
        assert (await grid.ended(number)).outcome.signal == "SIGKILL"
        assert size_of(str(work)) < 1 << 20


async def test_processes_that_become_many_between_two_looks_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executors.agent.guard.GUARD_S", 1000.0)
    monkeypatch.setattr("executors.agent.guard.GROWTH", 30)
    monkeypatch.setattr("executors.agent.guard.MAX_PROCESSES", 100)
    line = "n=0; while [ $n -lt 300 ]; do sleep 1000 & n=$((n+1)); done; wait"
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        ended = await grid.ended(await grid.sh(line))
    assert ended.reason.endswith("processes, over the limit of 100")


def test_where_the_system_does_not_count_threads_nothing_is_made_of_it(tmp_path: Path) -> None:
    assert count_threads(tmp_path / "missing") == 0
    (tmp_path / "odd").write_text("1.0")
    assert count_threads(tmp_path / "odd") == 0
    (tmp_path / "linux").write_text("1.73 30.69 321.76 2/87 18209\n")
    assert count_threads(tmp_path / "linux") == 87
