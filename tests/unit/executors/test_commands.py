"""Commands in a real slot: what they get, what is kept of them, and that nothing of them is left."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from executors.agent.slot_handle import RecalledError
from executors.nursery.protocol import Place, RunCommand
from sparegrid.messages import BlobRef, FileEntry, Inline
from tests.unit.executors.nurseries import bed, expect_soon, is_running, pids_in, shell, state_of


async def test_a_command_gives_its_output_exit_code_and_usage(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh("echo out; echo err >&2")
    assert (done.blame, done.outcome.exit_code, done.outcome.log) == ("", 0, Inline(b"out\nerr\n"))
    assert done.outcome.log_bytes == 8
    assert done.outcome.usage.max_rss > 0


@pytest.mark.parametrize(
    ("line", "code", "signal_name", "reason"),
    [
        ("exit 3", 3, "", "exit code 3"),
        ("kill -SEGV $$", None, "SIGSEGV", "ended by SIGSEGV"),
        ("kill -40 $$", None, "SIGRT_40", "ended by"),
    ],
)
async def test_a_failure_is_named(
    tmp_path: Path, line: str, code: int | None, signal_name: str, reason: str
) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh(line)
    assert done.outcome.exit_code == code
    assert done.blame == "task"
    assert done.reason.startswith(reason)
    assert signal_name[:3] == done.outcome.signal[:3].upper()


async def test_other_exit_codes_may_mean_success(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        assert (await it.sh("exit 3", ok_codes=(0, 3))).blame == ""


async def test_it_reads_its_standard_input_and_sees_its_environment(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        request = RunCommand(1, ["/bin/sh", "-c", 'cat; echo "$X"'], {"X": "y"}, 1000, stdin="text ü\n")
        assert (await it.submit(request)).outcome.log == Inline("text ü\ny\n".encode())


async def test_without_standard_input_there_is_none(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        assert (await it.sh("cat; readlink /proc/self/fd/0")).outcome.log == Inline(b"/dev/null\n")


async def test_a_command_gets_no_descriptor_but_the_three(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        done = await it.submit(RunCommand(1, ["ls", "/proc/self/fd"], {}, 1000))
    assert it.bytes_of(done) == b"0\n1\n2\n3\n", "3 is ls's own"


@pytest.mark.parametrize(
    ("argv", "blame", "reason"),
    [
        (["no-such-program"], "device", "'no-such-program' is not found"),
        (["/no/such/program"], "device", "could not be started: No such file"),
        (["./missing"], "task", "could not be started: No such file"),
        (["./data"], "task", "could not be started: Permission denied"),
        (["/bin/true", "a\0b"], "task", "could not be started: embedded null byte"),
        (["/bin/true", "x" * (1 << 18)], "task", "could not be started: Argument list too long"),
    ],
)
async def test_what_cannot_be_started_says_why_and_by_whose_fault(
    tmp_path: Path, argv: list[str], blame: str, reason: str
) -> None:
    async with bed(tmp_path) as it:
        done = await it.submit(RunCommand(1, argv, {}, 1000, files=[Place("data", data=b"x")]))
        assert (done.blame, done.outcome.exit_code) == (blame, None)
        assert reason in done.reason
        assert (await it.sh("echo fine")).outcome.log == Inline(b"fine\n")


async def test_what_a_task_made_is_gone_when_it_has_ended(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh("echo secret > big; mkdir deep; chmod 0 deep; pwd")
        folder = Path(it.bytes_of(done).decode().strip())
        assert not folder.exists()
        assert (await it.sh("pwd; ls -A")).outcome.exit_code == 0


async def test_each_attempt_finds_a_fresh_folder(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        await it.sh("touch a; mkdir -p d/e; touch d/e/f; chmod 0 d; chmod 0 .")
        assert (await it.sh("ls -A; stat -c %a .")).outcome.log == Inline(b"700\n")


async def test_a_large_log_is_a_blob_and_a_long_one_is_cut_and_says_so(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh("head -c 600000 /dev/zero | tr '\\0' x")
        assert isinstance(done.outcome.log, BlobRef)
        assert it.bytes_of(done) == b"x" * 600_000
        assert hashlib.sha256(it.bytes_of(done)).hexdigest() == done.outcome.log.hash
        cut = await it.sh("head -c 60000000 /dev/zero | tr '\\0' x", max_log_bytes=300_000)
    assert (cut.blame, cut.outcome.log_cut, cut.outcome.log_bytes) == ("", True, 60_000_000)
    kept = it.bytes_of(cut)
    assert kept.startswith(b"x" * 300_000)
    assert kept.splitlines()[-1] == b"[log cut: 300000 of 60000000 bytes kept]"


async def test_outputs_are_collected_inline_or_to_the_outbox(tmp_path: Path) -> None:
    line = "echo small > a.txt; mkdir -p d/e; head -c 20000 /dev/zero > d/e/big.bin; echo no > b.log; chmod +x a.txt"
    async with bed(tmp_path) as it:
        done = await it.sh(line, outputs=["*.txt", "d/**"])
    digest = hashlib.sha256(bytes(20_000)).hexdigest()
    assert done.outcome.files == [
        FileEntry("a.txt", Inline(b"small\n"), executable=True),
        FileEntry("d/e/big.bin", BlobRef(digest, 20_000)),
    ]
    assert (it.outbox / digest).read_bytes() == bytes(20_000)


async def test_a_folder_as_output_is_everything_below_it(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh("mkdir -p out/x; echo 1 > out/1; echo 2 > out/x/2", outputs=["out"])
    assert [entry.path for entry in done.outcome.files] == ["out/1", "out/x/2"]


async def test_inputs_that_were_not_changed_are_no_outputs(tmp_path: Path) -> None:
    files = [Place("same.txt", data=b"1"), Place("changed.txt", data=b"2"), Place("named.txt", data=b"3")]
    async with bed(tmp_path) as it:
        done = await it.sh("echo more >> changed.txt", files=files, outputs=["*.txt", "named.txt"])
    assert [entry.path for entry in done.outcome.files] == ["changed.txt", "named.txt"]


@pytest.mark.parametrize(
    ("line", "outputs", "reason"),
    [
        ("true", ["x.png"], "'x.png' was not made"),
        ("ln -s /etc/passwd p", ["p"], "link to outside"),
        ("ln -s /etc e", ["e/passwd"], "was not made"),
        ("mkfifo f", ["f"], "not a plain file"),
        ("true", ["../x"], "not a plain relative path"),
    ],
)
async def test_outputs_that_are_missing_or_reach_out_fail_the_task(
    tmp_path: Path, line: str, outputs: list[str], reason: str
) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh(line, outputs=outputs)
    assert done.blame == "task"
    assert reason in done.reason


async def test_a_link_within_the_folder_is_the_file_it_means(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh("echo x > a; ln -s a b", outputs=["b"])
    assert done.outcome.files == [FileEntry("b", Inline(b"x\n"))]


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "a//b", "./a", "c:x", "a\\b", "a\0b"])
async def test_inputs_that_reach_out_are_refused(tmp_path: Path, path: str) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh("true", files=[Place(path, data=b"x")])
    assert done.blame == "task"
    assert "not a plain relative path" in done.reason


async def test_inputs_come_from_bytes_and_from_the_cache_and_the_cache_stays_whole(tmp_path: Path) -> None:
    cached = tmp_path / "cached"
    cached.write_bytes(b"y" * (2 << 20))
    cached.chmod(0o400)
    files = [
        Place("bin/run", data=b"#!/bin/sh\necho ran\n", executable=True),
        Place("deep/er/big", source=str(cached)),
    ]
    async with bed(tmp_path) as it:
        done = await it.sh(
            "bin/run; wc -c < deep/er/big; echo z >> deep/er/big 2>/dev/null; true", files=files
        )
    assert done.outcome.log == Inline(b"ran\n2097152\n")
    assert cached.read_bytes() == b"y" * (2 << 20)


async def test_a_missing_input_is_the_devices_fault(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh("true", files=[Place("x", source=str(tmp_path / "nowhere"))])
    assert done.blame == "device"
    assert "'x' could not be placed" in done.reason


async def test_a_request_of_any_size_arrives(tmp_path: Path) -> None:
    files = [Place("x", data=b"x" * 500_000)]
    async with bed(tmp_path) as it:
        assert (await it.sh("wc -c < x", files=files)).outcome.log == Inline(b"500000\n")
        assert not list(it.nursery.folder.glob("request-*"))


async def test_more_requests_than_the_channel_holds_all_run_in_order(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        futures = [it.slot.submit(shell(f"echo {number} # {'x' * 20_000}")) for number in range(40)]
        logs = [(await future).outcome.log for future in futures]
    assert logs == [Inline(b"%d\n" % number) for number in range(40)]


# ---- the tree ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "leave",
    [
        "sleep 1000 & echo $! >> {pids}",
        "(trap '' TERM HUP INT; while :; do sleep 1000; done) & echo $! >> {pids}",
        "setsid sh -c 'echo $$ >> {pids}; setsid sh -c \"echo \\$\\$ >> {pids}; sleep 1000\" & sleep 1000' & sleep 0.2",
        "(setsid setsid sh -c 'echo $$ >> {pids}; exec sleep 1000' &) ; sleep 0.2",
    ],
    ids=["background", "ignores-signals", "setsid", "double-fork"],
)
async def test_nothing_outlives_the_first_process(tmp_path: Path, leave: str) -> None:
    pids = tmp_path / "pids"
    async with bed(tmp_path) as it:
        done = await it.sh(leave.format(pids=pids) + "; echo end")
        assert (done.blame, it.bytes_of(done)) == ("", b"end\n")
        assert pids_in(pids)
        assert not any(is_running(pid) for pid in pids_in(pids))


async def test_processes_that_fork_as_fast_as_they_can_do_not_get_away(tmp_path: Path) -> None:
    (tmp_path / "runner.py").write_text(
        "import os\nfor _ in range(3):\n    if os.fork() == 0: break\nwhile os.fork() == 0: os.setsid()\n"
    )
    request = RunCommand(
        1, [sys.executable, "-S", str(tmp_path / "runner.py")], {"MARK": str(tmp_path)}, 1000
    )
    async with bed(tmp_path) as it:
        done = await it.submit(request)
    assert (done.blame, done.worn) == ("", False)
    assert not [one.pid for one in psutil.process_iter() if _mark_of(one) == str(tmp_path)]


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else process.environ().get("MARK")
    except (psutil.Error, OSError):
        return None


async def test_a_left_process_that_keeps_the_output_open_does_not_hold_the_end_up(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        assert (await it.sh("sleep 1000 & echo end")).outcome.log == Inline(b"end\n")


async def test_kill_takes_the_whole_tree_however_it_resists(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    line = (
        f"trap '' TERM INT HUP; for n in 1 2 3; do setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}; "
        f"while :; do sleep 0.01; done' & done; echo $$ >> {pids}; while :; do sleep 0.01; done"
    )
    async with bed(tmp_path) as it:
        request = shell(line)
        future = it.slot.submit(request)
        await expect_soon(lambda: len(pids_in(pids)) == 4, "four processes run")
        it.slot.signal(request.attempt, signal.SIGTERM, tree=True)
        it.slot.kill(request.attempt)
        done = await future
        assert (done.blame, done.outcome.signal) == ("task", "SIGKILL")
        assert not any(is_running(pid) for pid in pids_in(pids))
        assert (await it.sh("echo next")).outcome.log == Inline(b"next\n")


async def test_a_signal_asks_for_a_checkpoint_that_comes_with_the_end(tmp_path: Path) -> None:
    started = tmp_path / "started"
    line = f"trap 'echo state > ck; exit 0' USR1; touch {started}; while :; do sleep 0.01; done"
    async with bed(tmp_path) as it:
        request = shell(line, checkpoint_glob="ck*")
        future = it.slot.submit(request)
        await expect_soon(started.exists, "it runs")
        it.slot.signal(request.attempt, signal.SIGUSR1, tree=False)
        checkpoint = (await future).checkpoint
        assert checkpoint is not None
        payload = {
            Inline: lambda: Place(
                "", data=checkpoint.data if isinstance(checkpoint, Inline) else b"", archive=True
            ),
            BlobRef: lambda: Place(
                "",
                source=str(it.outbox / checkpoint.hash) if isinstance(checkpoint, BlobRef) else "",
                archive=True,
            ),
        }[type(checkpoint)]()
        assert (await it.sh("cat ck", files=[payload])).outcome.log == Inline(b"state\n")


async def test_a_damaged_checkpoint_fails_the_task_in_words(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        done = await it.sh("true", files=[Place("", data=b"no tar" * 200, archive=True)])
    assert done.blame == "task"
    assert "the checkpoint could not be unpacked" in done.reason


async def test_suspend_stops_the_whole_tree_and_resume_lets_it_end(tmp_path: Path) -> None:
    pids, go = tmp_path / "pids", tmp_path / "go"
    line = (
        f"for n in 1 2 3; do setsid sh -c 'echo $$ >> {pids}; while [ ! -e {go} ]; do :; done' & done; "
        f"echo $$ >> {pids}; wait; echo end"
    )
    async with bed(tmp_path) as it:
        future = it.slot.submit(shell(line))
        await expect_soon(lambda: len(pids_in(pids)) == 4, "four processes run")
        assert await it.nursery.suspend(it.slot, on=True) >= 5
        await expect_soon(lambda: {state_of(pid) for pid in pids_in(pids)} == {"T"}, "all are stopped")
        go.touch()
        assert await it.nursery.suspend(it.slot, on=False) >= 5
        assert (await future).outcome.log == Inline(b"end\n")


async def test_what_the_slot_has_not_begun_is_taken_back_exactly(tmp_path: Path) -> None:
    go, began = tmp_path / "go", tmp_path / "began"
    async with bed(tmp_path) as it:
        first = it.slot.submit(shell(f"touch {began}; while [ ! -e {go} ]; do sleep 0.01; done"))
        waiting = [shell("echo never") for _ in range(5)]
        futures = [it.slot.submit(request) for request in waiting]
        await expect_soon(began.exists, "the first runs")
        assert it.slot.recall() == [request.attempt for request in waiting]
        for future in futures:
            with pytest.raises(RecalledError):
                await future
        go.touch()
        assert (await first).blame == ""
        assert (await it.sh("echo after")).outcome.log == Inline(b"after\n")


async def test_a_log_is_followed_from_where_it_was_asked(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with bed(tmp_path) as it:
        request = shell(f"echo one; echo two; while [ ! -e {go} ]; do sleep 0.01; done; echo three")
        it.slot.follow(request.attempt, on=True, offset=4)
        future = it.slot.submit(request)
        await expect_soon(lambda: it.pieces, "a piece comes")
        go.touch()
        await future
    first = it.pieces[0]
    assert (first.attempt, first.offset, first.data[:4], first.skipped) == (request.attempt, 4, b"two\n", 0)


async def test_a_flood_is_followed_by_its_newest_pieces(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with bed(tmp_path) as it:
        request = shell(f"head -c 200000 /dev/zero | tr '\\0' x; while [ ! -e {go} ]; do sleep 0.01; done")
        future = it.slot.submit(request)
        await expect_soon(lambda: it.slot.pid and any(it.nursery.folder.iterdir()), "it runs")
        it.slot.follow(request.attempt, on=True, offset=0)
        await expect_soon(
            lambda: sum(len(one.data) + one.skipped for one in it.pieces) == 200_000, "all is told of"
        )
        go.touch()
        await future
    assert max(len(one.data) for one in it.pieces) <= 32 << 10


async def test_the_nurserys_end_is_the_end_of_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with bed(tmp_path) as it:
        it.slot.submit(shell(f"echo $$ >> {pids}; setsid sh -c 'echo $$ >> {pids}; sleep 1000' & sleep 1000"))
        await expect_soon(lambda: len(pids_in(pids)) == 2, "both run")
        slot = it.slot.pid
    await expect_soon(lambda: not any(is_running(pid) for pid in [*pids_in(pids), slot]), "all ended")


async def test_a_killed_nursery_takes_its_tasks_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with bed(tmp_path) as it:
        future = it.slot.submit(
            shell(f"echo $$ >> {pids}; setsid sh -c 'echo $$ >> {pids}; sleep 1000' & sleep 1000")
        )
        await expect_soon(lambda: len(pids_in(pids)) == 2, "both run")
        process = it.nursery._process
        assert process is not None
        process.kill()
        with pytest.raises(Exception, match="9"):
            await future
        assert not it.nursery.alive
        await expect_soon(lambda: not any(is_running(pid) for pid in pids_in(pids)), "all ended")


async def test_the_agents_death_is_the_end_of_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    line = f"echo $$ >> {pids}; setsid sh -c 'echo $$ >> {pids}; sleep 1000' & sleep 1000"
    agent = start_agent(tmp_path, line)
    try:
        await expect_soon(lambda: len(pids_in(pids)) == 2, "both run")
    finally:
        agent.kill()
        agent.wait()
    await expect_soon(lambda: not any(is_running(pid) for pid in pids_in(pids)), "all ended")


def start_agent(folder: Path, line: str) -> subprocess.Popen[bytes]:
    """A process of its own that has a nursery run a shell's line."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.unit.executors.nurseries import Bed\n"
        "async def main(folder, line):\n"
        "    await Bed(Path(folder)).sh(line)\n"
        "asyncio.run(main(*sys.argv[1:]))\n"
    )
    return subprocess.Popen([sys.executable, "-c", program, str(folder), line])
