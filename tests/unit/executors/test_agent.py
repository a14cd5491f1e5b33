"""A whole agent against a fake coordinator: real TLS, real nursery, faults on request."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from executors.agent.measure import differs
from sparegrid.messages import (
    Ack,
    Attach,
    BlobRef,
    Cancel,
    CapabilityChanged,
    Delivered,
    Detach,
    Ended,
    FileEntry,
    Follow,
    Heartbeat,
    Held,
    Inline,
    PolicyChanged,
    Release,
    Run,
    SetPause,
    Started,
    Suspended,
    TakeBack,
)
from tests.unit.executors.grids import DEVICE, FakeGrid, fake_grid, working
from tests.unit.executors.nurseries import expect_soon, is_running, pids_in, state_of


def upload(grid: FakeGrid, data: bytes) -> BlobRef:
    """Put a blob into the fake coordinator."""
    name = hashlib.sha256(data).hexdigest()
    grid.fake.blobs[name] = bytearray(data)
    grid.fake.whole.add(name)
    return BlobRef(name, len(data))


async def test_a_command_runs_and_is_acknowledged(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path) as agent:
        outcome = await grid.outcome_of(
            await grid.sh("echo $SPAREGRID_JOB $SPAREGRID_STAGE $SPAREGRID_INDEX")
        )
        assert outcome.log == Inline(b"1 main 0\n")
        await expect_soon(lambda: not agent.session.attempts, "the ack is heard")
    assert isinstance(grid.heard[-1], Detach)
    assert grid.heard[-1].for_good


async def test_placeholders_and_variables_come_from_the_item(tmp_path: Path) -> None:
    params = {
        "shell": 'echo {{x}} {{index}} $SPAREGRID_ITEM_X $SPAREGRID_ITEM_LONG_NAME "$SPAREGRID_ITEM" $E; cat',
        "env": {"E": "{{x}}!"},
        "stdin": "in {{x}}",
    }
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        (number,) = await grid.run(params, {"x": 5, "long name": "v"})
        log = (await grid.outcome_of(number)).log
    assert log == Inline(b'5 0 5 v {"x":5,"long name":"v"} 5!\nin 5')


async def test_this_platforms_variant_is_run(tmp_path: Path) -> None:
    params = {
        "argv": ["false"],
        "platforms": {
            "linux": {"argv": ["sh", "-c", "echo $A"], "env": {"A": "b"}},
            "windows": {"shell": "x"},
        },
    }
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        assert (await grid.outcome_of((await grid.run(params))[0])).log == Inline(b"b\n")
        ended = await grid.ended((await grid.run({"platforms": {"windows": {"shell": "x"}}}))[0])
    assert (ended.blame, ended.reason[:32]) == ("device", "the stage has no command for lin")


@pytest.mark.parametrize(
    ("params", "kind", "blame", "reason"),
    [
        ({"argv": ["false"]}, "command", "task", "exit code 1"),
        ({"argv": ["echo", "{{nope}}"]}, "command", "task", "Unknown placeholder"),
        ({"argv": 5}, "command", "device", "the parameters are not those of this version's 'command'"),
        ({}, "quantum", "device", "does not run tasks of the kind 'quantum'"),
        ({"function": "os:abort"}, "python", "task", "ended by SIGABRT"),
        ({"function": "os:_exit", "args": [3]}, "python", "task", "ended its process with exit code 3"),
        (
            {"function": "signal:raise_signal", "args": [9]},
            "python",
            "task",
            "it may have used up the memory",
        ),
        ({"function": "json:loads", "args": ["{"]}, "python", "task", "JSONDecodeError"),
    ],
)
async def test_every_failure_names_blame_and_reason(
    tmp_path: Path, params: dict[str, object], kind: str, blame: str, reason: str
) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        ended = await grid.ended((await grid.run(params, kind=kind))[0])
        assert ended.blame == blame
        assert reason in ended.reason
        assert (await grid.outcome_of(await grid.sh("echo next"))).log == Inline(b"next\n")


async def test_a_flood_of_tiny_tasks_is_run_once_each(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        commands = await grid.run({"argv": ["echo", "{{item}}"]}, *range(200))
        calls = await grid.run({"function": "operator:neg"}, *range(500), kind="python", job=2)
        for number in [*commands, *calls]:
            await grid.end_of(number)
        ends = [one for one in grid.heard if isinstance(one, Delivered | Ended)]
    assert len(ends) == 700
    assert all(isinstance(one, Delivered) for one in ends)
    values = {one.attempt: one.outcome for one in ends}
    assert [values[number].log for number in commands] == [Inline(b"%d\n" % item) for item in range(200)]
    assert [json.loads(grid.bytes_of(values[number].value)) for number in calls] == [
        -item for item in range(500)
    ]


# ---- files --------------------------------------------------------------------------------------------------------


async def test_inputs_are_fetched_once_and_outputs_uploaded_before_they_are_told(tmp_path: Path) -> None:
    data = b"z" * (3 << 20)
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path) as agent:
        blob = upload(grid, data)
        entry = FileEntry("in/big.bin", blob)
        runs = [Run(number, number, files=[FileEntry("n", Inline(b"%d" % number))]) for number in (1, 2, 3)]
        line = "cat in/big.bin n > out.bin; cat n"
        numbers = await grid.assign({"shell": line}, runs, inputs=[entry], outputs=["out.bin"])
        for number in numbers:
            outcome = await grid.outcome_of(number)
            assert outcome.log == Inline(b"%d" % number)
            assert grid.bytes_of(outcome.files[0].content) == data + b"%d" % number
        assert grid.fake.requests.count(f"GET /v1/blobs/{blob.hash}") == 1
        held = await grid.until(Held)
        assert held.added
        assert not any((tmp_path / "worker" / "outbox").iterdir()), "what was uploaded is in the cache"
        await expect_soon(lambda: not agent._cache._pins, "no pin is left")


async def test_transfers_that_are_cut_go_on_where_they_stopped(tmp_path: Path) -> None:
    data = bytes(range(256)) * (40 << 10)
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        grid.fake.cut_downloads_after = [3 << 20, 2 << 20]
        grid.fake.cut_uploads_after = [2 << 20, 3 << 20]
        entry = FileEntry("a", upload(grid, data))
        number = await grid.sh("cat a a > b", inputs=[entry], outputs=["b"])
        assert grid.bytes_of((await grid.outcome_of(number)).files[0].content) == data * 2
    assert len(grid.fake.ranges) == 3
    assert grid.fake.ranges[0] == ""
    assert all(one.startswith("bytes=") for one in grid.fake.ranges[1:])


async def test_a_blob_that_the_coordinator_lacks_is_the_grids_fault(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        ended = await grid.ended(await grid.sh("true", inputs=[FileEntry("a", BlobRef("0" * 64, 5))]))
    assert (ended.blame, ended.reason) == ("grid", "the coordinator does not have the blob 0000000000000000…")


async def test_a_failed_tasks_long_log_is_uploaded_too(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        ended = await grid.ended(await grid.sh("head -c 50000 /dev/zero; exit 3"))
        assert grid.bytes_of(ended.outcome.log) == bytes(50_000)


# ---- stop and pause -----------------------------------------------------------------------------------------------


async def test_cancel_ends_the_whole_tree_and_then_says_so(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    line = f"trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}; while :; do sleep 0.01; done' & "
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, slots=1):
        number = await grid.sh(f"{line} echo $$ >> {pids}; while :; do sleep 0.01; done", grace_ms=50)
        waiting = await grid.sh("true")
        await expect_soon(lambda: len(pids_in(pids)) == 2, "both run")
        await grid.send(Cancel(DEVICE, [number, waiting], "cancelled by ann"))
        ended = await grid.ended(number)
        assert not any(is_running(pid) for pid in pids_in(pids))
        assert (ended.blame, ended.reason, ended.outcome.signal) == ("grid", "cancelled by ann", "SIGKILL")
        assert (await grid.ended(waiting)).unstarted


async def test_a_call_is_cancelled_although_it_never_listens(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, slots=1):
        stuck, behind = await grid.run({"function": "time:sleep"}, 1000, 0, kind="python")
        await grid.until(Started)
        await grid.send(Cancel(DEVICE, [stuck]))
        assert (await grid.ended(stuck)).reason == "cancelled"
        await grid.outcome_of(behind)


async def test_a_task_over_its_time_is_stopped_and_gives_its_checkpoint_to_the_next_try(
    tmp_path: Path,
) -> None:
    line = "cat ck 2>/dev/null; trap 'echo kept > ck; exit 0' USR1; while [ ! -e ck ]; do sleep 0.01; done"
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        number = await grid.sh(
            line, timeout_ms=300, checkpoint_signal="SIGUSR1", checkpoint_glob="ck", grace_ms=5000
        )
        ended = await grid.ended(number)
        assert (ended.blame, ended.reason) == ("task", "timed out after 0.3 s")
        assert ended.checkpoint is not None
        runs = [Run(50, 0, checkpoint=ended.checkpoint, number=2)]
        await grid.assign({"shell": f"{line}; echo $SPAREGRID_ATTEMPT"}, runs)
        assert (await grid.outcome_of(50)).log == Inline(b"kept\n2\n")


async def test_what_has_not_begun_is_taken_back(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, slots=1):
        line = f"touch {go}.began; while [ ! -e {go} ]; do sleep 0.01; done"
        first, *rest = await grid.run({"shell": line}, *range(4))
        await expect_soon((tmp_path / "go.began").exists, "the first runs")
        await grid.send(TakeBack(DEVICE, [first, *rest]))
        assert {(await grid.ended(number)).reason for number in rest} == {"taken back"}
        go.touch()
        await grid.outcome_of(first)


async def test_pause_stops_the_tree_where_it_is_and_resume_lets_it_end(tmp_path: Path) -> None:
    pids, go = tmp_path / "pids", tmp_path / "go"
    line = f"echo $$ >> {pids}; while [ ! -e {go} ]; do :; done; echo end"
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, slots=1):
        number = await grid.sh(line)
        await expect_soon(lambda: pids_in(pids), "it runs")
        await grid.send(SetPause(DEVICE, "pause", by="ann"))
        (pid,) = pids_in(pids)
        await expect_soon(lambda: state_of(pid) == "T", "it is stopped")
        assert (await grid.until(PolicyChanged)).reason == "paused by ann"
        assert (await grid.until(Suspended)).attempts == [number]
        go.touch()
        await grid.send(SetPause(DEVICE, "resume"))
        assert (await grid.outcome_of(number)).log == Inline(b"end\n")
        assert (await grid.until(PolicyChanged, lambda one: one.state == "ready")).reason == ""


async def test_give_back_ends_what_was_suspended(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, slots=1):
        number = await grid.sh("sleep 1000", grace_ms=100)
        await grid.until(Started)
        await grid.send(SetPause(DEVICE, "pause"), SetPause(DEVICE, "give_back"))
        ended = await grid.ended(number)
    assert (ended.blame, ended.reason) == ("owner", "given back by the owner")


# ---- logs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["command", "python"])
async def test_a_followed_log_comes_while_it_grows_and_ends(tmp_path: Path, kind: str) -> None:
    go = tmp_path / "go"
    source = (
        "import os, time\ndef f(path):\n    print('one', flush=True)\n"
        "    while not os.path.exists(path): time.sleep(0.01)\n    print('two')"
    )
    params: dict[str, object] = {"function": "m:f", "args": [str(go)]}
    if kind == "command":
        params = {"shell": f"echo one; while [ ! -e {go} ]; do sleep 0.01; done; echo two"}
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, slots=1):
        (number,) = await grid.run(params, kind=kind, inputs=[FileEntry("m.py", Inline(source.encode()))])
        await grid.send(Follow(DEVICE, number))
        await expect_soon(lambda: grid.chunks_of(number), "a piece comes")
        assert grid.chunks_of(number)[0].data == b"one\n"
        go.touch()
        await grid.outcome_of(number)
        await expect_soon(lambda: grid.chunks_of(number)[-1].last, "the end is told")
    assert b"".join(one.data for one in grid.chunks_of(number)) == b"one\ntwo\n"


# ---- connection ---------------------------------------------------------------------------------------------------


async def test_a_cut_loses_nothing_and_reruns_nothing(tmp_path: Path) -> None:
    trace, go = tmp_path / "trace", tmp_path / "go"
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, slots=1):
        number = await grid.sh(f"echo ran >> {trace}; while [ ! -e {go} ]; do sleep 0.01; done; echo end")
        await expect_soon(trace.exists, "it runs")
        grid.heard.clear()
        grid.cut()
        attach = await grid.until(Attach)
        assert (attach.running, attach.spooled, attach.session) == ([number], [], "s1")
        await grid.until(Started)
        go.touch()
        assert (await grid.outcome_of(number)).log == Inline(b"end\n")
    assert trace.read_text() == "ran\n"


async def test_a_result_that_nobody_acknowledged_is_sent_again_by_the_next_worker(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid:
        grid.acks = False
        async with working(grid, tmp_path, goodbye=False):
            number = await grid.sh("head -c 50000 /dev/zero; echo $SPAREGRID_JOB > r", outputs=["r"])
            first = await grid.outcome_of(number)
            unfinished = await grid.sh("sleep 1000")
            await grid.until(Started)
        grid.heard.clear()
        grid.acks = True
        async with working(grid, tmp_path, session="s2") as agent:
            attach = await grid.until(Attach)
            assert (attach.session, attach.running, attach.spooled) == ("s2", [], [number])
            assert await grid.outcome_of(number) == first
            await expect_soon(lambda: not agent._spool.results, "the ack is heard")
        assert unfinished not in agent.session.attempts
        grid.heard.clear()
        async with working(grid, tmp_path, session="s3"):
            assert (await grid.until(Attach)).spooled == []


async def test_a_result_whose_upload_was_interrupted_is_uploaded_by_the_next_worker(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid:
        refused = asyncio.Event()

        async def refuse(_request: object) -> object:
            refused.set()
            raise ConnectionResetError

        data = bytes(100_000)
        name = hashlib.sha256(data).hexdigest()
        grid.fake.on("HEAD", f"/blobs/{name}", refuse)  # type: ignore[arg-type]  # it never answers
        async with working(grid, tmp_path, goodbye=False):
            number = await grid.sh("head -c 100000 /dev/zero > r", outputs=["r"])
            await asyncio.wait_for(refused.wait(), 10)
        assert not [one for one in grid.heard if isinstance(one, Delivered)]
        grid.fake.handlers.clear()
        grid.fake.on("GET", "/worker", grid._serve)
        async with working(grid, tmp_path, session="s2"):
            assert grid.bytes_of((await grid.outcome_of(number)).files[0].content) == data


async def test_attempts_that_were_revoked_meanwhile_are_stopped(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path, slots=1):
        number = await grid.sh("sleep 1000", grace_ms=100)
        await grid.until(Started)
        grid.revoked = [number]
        grid.cut()
        assert (await grid.ended(number)).reason == "not wanted any more"


async def test_heartbeats_go_on_also_while_paused(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        await grid.send(SetPause(DEVICE, "pause"))
        await grid.until(PolicyChanged)
        grid.heard.clear()
        assert (await grid.until(Heartbeat)).device == DEVICE


async def test_a_released_job_leaves_no_process_of_its_calls(tmp_path: Path) -> None:
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        number = (await grid.run({"function": "os:getpid"}, kind="python"))[0]
        pid = int(grid.bytes_of((await grid.outcome_of(number)).value))
        assert is_running(pid), "it stays warm"
        await grid.send(Release(DEVICE, 1), Ack(DEVICE, []))
        await expect_soon(lambda: not is_running(pid), "it has ended")


async def test_the_workers_end_is_the_end_of_its_tasks(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with fake_grid(tmp_path) as grid:
        async with working(grid, tmp_path):
            await grid.sh(f"echo $$ >> {pids}; setsid sh -c 'echo $$ >> {pids}; sleep 1000' & sleep 1000")
            await expect_soon(lambda: len(pids_in(pids)) == 2, "both run")
        assert not any(is_running(pid) for pid in pids_in(pids))
    assert not (tmp_path / "worker" / "work").exists()


async def test_latency_and_bandwidth_are_measured_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executors.agent.measure.MEASURE_S", 0.05)
    async with fake_grid(tmp_path) as grid, working(grid, tmp_path):
        assert (await grid.until(CapabilityChanged)).capability.latency_us > 0
        await grid.outcome_of(await grid.sh("true", inputs=[FileEntry("a", upload(grid, bytes(5 << 20)))]))
        changed = await grid.until(CapabilityChanged, lambda one: one.capability.bandwidth)
    assert changed.capability.bandwidth > 1 << 20
    assert differs(0, 5)
    assert not differs(5, 0)
    assert not differs(100, 120)
    assert differs(100, 200)
    assert differs(200, 100)
