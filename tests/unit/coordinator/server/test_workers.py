"""The workers' WebSocket, met by a fake worker that speaks the real wire."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from coordinator.server.links import MAX_WAITING, Link, Links, Parcel
from coordinator.server.workers_ws import FRAME_BYTES, frames
from sparegrid.api import Items, JobSpec, Need, StageItems, StageSpec
from sparegrid.codec import FrameCodec
from sparegrid.errors import TooLargeError
from sparegrid.ids import DeviceId, SessionId
from sparegrid.kinds import CommandParams
from sparegrid.messages import (
    Ack,
    Assign,
    Attach,
    Attached,
    BlobRef,
    Cancel,
    Capability,
    FileEntry,
    Hello,
    Inline,
    Outcome,
    Refused,
    Release,
    Run,
    SetPause,
    Template,
    ToWorker,
    Welcome,
)
from sparegrid.trust.keys import DeviceKey
from tests.fakes.coordinator import RunningCoordinator, running_coordinator
from tests.fakes.worker import busy


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[RunningCoordinator]:
    async with running_coordinator(tmp_path) as running:
        yield running


def stage(count: int = 1, name: str = "main", **fields: object) -> StageSpec:
    made = StageSpec(name=name, params={"argv": ["true"]}, items=Items(count=count))
    return msgspec.structs.replace(made, **fields)


# ---- greeting ---------------------------------------------------------------------------------------------------


async def test_a_worker_is_welcomed_with_the_grid_and_its_lease(grid: RunningCoordinator) -> None:
    async with await grid.worker() as worker:
        assert worker.welcome is not None
        assert worker.welcome.grid == grid.access.grid
        assert worker.welcome.lease_ms >= 4 * worker.welcome.heartbeat_ms > 0
        assert worker.welcome.epoch == 1
        assert worker.socket.protocol == "v1.msgpack"


async def test_another_major_version_is_refused_naming_both(grid: RunningCoordinator) -> None:
    worker = await grid.worker()
    await worker.connect(Hello(2, 7, "worker", worker.token, worker.session))
    refused = await worker.until(Refused)
    assert refused.code == "version"
    assert "2.7" in refused.message
    assert "1.0" in refused.message
    assert "coordinator" in refused.hint
    await worker.close()


async def test_an_unknown_token_is_refused(grid: RunningCoordinator) -> None:
    worker = await grid.worker()
    worker.token = "sgt_unknown"
    await worker.connect()
    assert (await worker.until(Refused)).code == "unauthenticated"
    await worker.close()


async def test_a_token_of_another_role_is_refused(grid: RunningCoordinator) -> None:
    worker = await grid.worker()
    worker.token = await grid.token("submitter")
    await worker.connect()
    assert "submitter" in (await worker.until(Refused)).message
    await worker.close()


async def test_the_first_message_must_be_hello(grid: RunningCoordinator) -> None:
    worker = await grid.worker()
    await worker.connect(worker.attach())  # type: ignore[arg-type]  # the very mistake
    assert "Attach" in (await worker.until(Refused)).message
    await worker.close()


async def test_a_worker_cannot_speak_for_another_device(grid: RunningCoordinator) -> None:
    async with await grid.worker("one") as one, await grid.worker("two") as two:
        await two.send(Attach(one.device, two.session, "one", Capability()))
        assert (await two.until(Refused)).code == "denied"


async def test_a_board_attaches_through_a_worker_and_becomes_a_member(grid: RunningCoordinator) -> None:
    async with await grid.worker("pc") as pc:
        await pc.send(Attach("mac-0011", pc.session, "esp32", Capability(os="bare")))
        await pc.until(Attached, lambda message: message.device == "mac-0011")
        assert (await (await grid.client()).device("esp32")).state == "ready"


async def test_an_unknown_message_costs_its_neighbours_nothing(grid: RunningCoordinator) -> None:
    async with await grid.worker() as worker:
        odd = {"t": "from_the_future", "device": worker.device}
        await worker.socket.send_bytes(msgspec.msgpack.encode([odd, msgspec.to_builtins(worker.attach())]))
        worker.received.clear()
        assert (await worker.until(Attached)).device == worker.device


async def test_a_frame_that_cannot_be_read_ends_the_connection(grid: RunningCoordinator) -> None:
    worker = await grid.worker()
    async with worker:
        await worker.socket.send_bytes(b"\xc1 nonsense")
        with pytest.raises(ConnectionError):
            await worker.until(int)


# ---- tasks ------------------------------------------------------------------------------------------------------


async def test_a_job_runs_to_its_end_and_its_results_can_be_read(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker(
        answer=lambda _, run: Outcome(exit_code=0, value=Inline(str(run.index).encode()))
    ):
        sent = await client.submit(JobSpec("j", [stage(300)]))
        view = await client.wait(sent.id)
        assert (view.state, view.done) == ("done", 300)
        values = [result.outcome.value async for result in client.results(sent.id)]
        assert values == [Inline(str(at).encode()) for at in range(300)]


async def test_a_template_goes_out_once_and_says_all_that_tasks_share(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker() as worker:
        first = JobSpec("films", [stage(200, inputs=[FileEntry("a.txt", Inline(b"a"))], timeout_s=1.5)])
        await client.wait((await client.submit(first)).id)
        templates = [message for message in worker.received if isinstance(message, Template)]
        assert len(templates) == 1
        template = templates[0]
        assert (template.job_name, template.stage_name, template.submitter) == ("films", "main", "local")
        assert (template.timeout_ms, template.needed.milli_cpus) == (1500, 1000)
        assert template.inputs == [FileEntry("a.txt", Inline(b"a"))]
        assert msgspec.msgpack.decode(template.params, type=CommandParams).argv == ["true"]
        await worker.until(Release, lambda message: message.job == 1)


async def test_results_are_acknowledged(grid: RunningCoordinator) -> None:
    async with await grid.worker() as worker:
        await (await grid.client()).submit(JobSpec("j", [stage()]))
        run = (await worker.until_runs(1))[0]
        assert (
            await worker.until(Ack, lambda message: run.attempt in message.attempts)
        ).device == worker.device


async def test_items_and_numbers_reach_the_task(grid: RunningCoordinator) -> None:
    client = await grid.client()
    fails = {"left": 1}

    def once(_template: Template, run: Run) -> Outcome | tuple[str, str]:
        if run.index == 1 and fails["left"]:
            fails["left"] -= 1
            return ("task", "exit code 3")
        return Outcome(exit_code=0)

    file = {"path": "in.txt", "content": {"t": "inline", "data": "aGk="}}
    async with await grid.worker(answer=once) as worker:
        items = Items(values=[{"x": 1, "file": file}, {"x": 2}])
        view = await client.wait((await client.submit(JobSpec("j", [stage(items=items)]))).id)
        assert view.state == "done"
        runs = {(run.index, run.number): run for _, _, run in worker.runs}
        assert runs[0, 1].item == {"x": 1, "file": "in.txt"}
        assert runs[0, 1].files == [FileEntry("in.txt", Inline(b"hi"))]
        assert runs[1, 2].item == {"x": 2}
        task = await client.task("1.0.1")
        assert [(each.number, each.blame) for each in task.attempts] == [(1, "task"), (2, "")]


async def test_outputs_of_needed_tasks_arrive_where_the_need_says(grid: RunningCoordinator) -> None:
    client = await grid.client()

    def produce(_template: Template, run: Run) -> Outcome:
        return Outcome(
            files=[FileEntry("out.txt", Inline(b"%d" % run.index)), FileEntry("x.log", Inline(b""))]
        )

    stages = [
        stage(3, "make", outputs=["*"]),
        stage(3, "each", needs=[Need("make", map="same", files="*.txt", into="in")]),
        stage(2, "pairs", needs=[Need("make", map="groups", size=2, files="out.*")]),
        stage(1, "all", needs=[Need("make", files="**", into="parts/{{index}}")]),
    ]
    async with await grid.worker(answer=produce) as worker:
        assert (await client.wait((await client.submit(JobSpec("j", stages))).id)).state == "done"
        files = {(number, run.index): run.files for _, number, run in worker.runs}
        assert files[1, 2] == [FileEntry("in/out.txt", Inline(b"2"))]
        assert files[2, 0] == [FileEntry("0/out.txt", Inline(b"0")), FileEntry("1/out.txt", Inline(b"1"))]
        assert files[2, 1] == [FileEntry("out.txt", Inline(b"2"))]
        assert files[3, 0] is None
        shared = [entry.path for entry in worker.templates[1, 3].inputs]
        assert shared == [f"parts/{at}/{name}" for at in range(3) for name in ("out.txt", "x.log")]


async def test_files_of_one_stage_are_the_items_of_the_next(grid: RunningCoordinator) -> None:
    client = await grid.client()

    def split(template: Template, run: Run) -> Outcome:
        if template.stage_name != "split":
            return Outcome()
        names = [f"c{at}.bin" for at in range(run.index + 1)]
        return Outcome(files=[FileEntry(name, Inline(name.encode())) for name in [*names, "notes.txt"]])

    stages = [
        stage(2, "split", outputs=["**"]),
        stage(
            name="work", items=Items(stage=StageItems("split", "*.bin")), params={"argv": ["x", "{{file}}"]}
        ),
    ]
    async with await grid.worker(answer=split) as worker:
        view = await client.wait((await client.submit(JobSpec("film", stages))).id)
        assert (view.state, view.total) == ("done", 5)
        work = {run.index: run for _, number, run in worker.runs if number == 1}
        assert [work[at].item for at in range(3)] == [
            {"file": "c0.bin"},
            {"file": "c0.bin"},
            {"file": "c1.bin"},
        ]
        assert work[2].files == [FileEntry("c1.bin", Inline(b"c1.bin"))]


async def test_a_result_whose_file_was_never_uploaded_is_not_taken(grid: RunningCoordinator) -> None:
    client = await grid.client()
    ref = BlobRef(hashlib.sha256(b"never").hexdigest(), 5)
    async with await grid.worker(answer=lambda *_: Outcome(files=[FileEntry("a", ref)])) as worker:
        await client.submit(JobSpec("j", [stage()]))
        run = (await worker.until_runs(1))[0]
        await worker.until(Ack, lambda message: run.attempt in message.attempts)
        task = await client.task("1.0.0")
        assert task.attempts[0].blame == "device"
        assert ref.hash in task.attempts[0].reason
        # No other device is there that could do better.
        assert task.state == "failed"


async def test_cancelling_tells_the_worker_at_once(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker(answer=busy) as worker:
        sent = await client.submit(JobSpec("j", [stage()]))
        run = (await worker.until_runs(1))[0]
        assert (await client.cancel(sent.id)).state == "cancelled"
        await worker.until(Cancel, lambda message: run.attempt in message.attempts)
        await worker.until(Release)


async def test_a_pause_asked_at_the_coordinator_reaches_the_worker(grid: RunningCoordinator) -> None:
    from sparegrid.api import PauseRequest

    async with await grid.worker("pc") as worker:
        await (await grid.client()).pause("pc", PauseRequest("finish"))
        assert (await worker.until(SetPause)).verb == "finish"


# ---- connections that break -------------------------------------------------------------------------------------


async def test_a_second_connection_of_the_same_session_replaces_the_first(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker("pc", answer=busy) as first:
        await client.submit(JobSpec("j", [stage()]))
        run = (await first.until_runs(1))[0]
        second = await grid.worker("pc", first.key, session=first.session, running=[run.attempt])
        async with second:
            with pytest.raises(ConnectionError):
                await first.until(int)
            assert (await second.until(Attached)).revoked == []
            assert (await client.device("pc")).state == "computing"
            second.attempts = first.attempts
            await second.deliver(run.attempt)
            assert (await client.wait("1")).state == "done"
        assert len(first.runs) == 1
        assert second.runs == []


async def test_a_restarted_worker_gets_its_unfinished_tasks_anew(grid: RunningCoordinator) -> None:
    client = await grid.client()
    key = DeviceKey.make()
    async with await grid.worker("pc", key, answer=busy) as first:
        await client.submit(JobSpec("j", [stage()]))
        await first.until_runs(1)
        first.cut()
    async with await grid.worker("pc", key) as second:
        assert (await client.wait("1")).done == 1
        assert len(second.runs) == 1


async def test_a_connection_on_which_nothing_is_heard_is_dropped(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path, heartbeat_s=0.1) as grid:
        async with await grid.worker("pc") as worker:
            with pytest.raises(ConnectionError):
                await worker.until(int)
        assert (await (await grid.client()).device("pc")).state == "offline"


async def test_heartbeats_keep_a_connection_open(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path, heartbeat_s=0.2) as grid, await grid.worker("pc") as worker:
        for _ in range(12):
            await worker.heartbeat()
            await asyncio.sleep(0.1)
        assert worker._reader is not None
        assert not worker._reader.done()


async def test_a_stop_says_goodbye_to_workers(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path) as grid:
        worker = await grid.worker("pc")
        await worker.connect()
        grid.stop.set()
        with pytest.raises(ConnectionError):
            await worker.until(int)
        assert worker.socket.close_code == 1001
        await worker.close()


# ---- frames -----------------------------------------------------------------------------------------------------


def test_frames_are_split_between_messages_and_runs() -> None:
    codec: FrameCodec[ToWorker] = FrameCodec(ToWorker)
    big = [Run(at, at, "x" * 300_000) for at in range(40)]
    messages = [Ack("d", [1]), Assign("d", 1, 0, big), Ack("d", [2])]
    made = frames(messages)
    assert len(made) > 2
    assert max(len(frame) for frame in made) <= FRAME_BYTES
    decoded = [message for frame in made for message in codec.decode(frame)[0]]
    assert decoded[0] == messages[0]
    assert decoded[-1] == messages[-1]
    runs = [run for message in decoded[1:-1] if isinstance(message, Assign) for run in message.runs]
    assert runs == big


def test_a_single_run_over_the_wires_limit_is_refused() -> None:
    with pytest.raises(TooLargeError, match="16777216"):
        frames([Assign("d", 1, 0, [Run(1, 0, "x" * (17 << 20))])])


def test_welcome_is_small() -> None:
    assert len(frames([Welcome("g", "n", "1", 1, 1)])[0]) < 200


async def test_a_task_whose_inputs_are_too_many_fails_with_the_reason(
    grid: RunningCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.server.expand.MAX_FILES", 3)
    client = await grid.client()
    files = [FileEntry(f"{at}.txt", Inline(b"")) for at in range(2)]
    stages = [stage(2, "make", outputs=["*"]), stage(1, "join", needs=[Need("make")], retries=1)]
    async with await grid.worker(answer=lambda *_: Outcome(files=files)) as worker:
        view = await client.wait((await client.submit(JobSpec("j", stages))).id)
        assert view.state == "failed"
        assert "more than 3 files" in (await client.task("1.join.0")).reason
        assert not [run for _, number, run in worker.runs if number == 1]


async def test_a_worker_that_lets_messages_pile_up_is_dropped() -> None:
    dropped: list[str] = []
    link = Link("127.0.0.1", DeviceId("pc"), dropped.append)
    for number in range(MAX_WAITING + 1):
        link.outbox.put(Ack("pc", [number]))
    assert len(dropped) == 1
    assert await link.outbox.take() == []


async def test_what_comes_behind_a_parcel_waits_for_it() -> None:
    link = Link("127.0.0.1", DeviceId("pc"), lambda _reason: None)
    parcel = Parcel()
    link.outbox.put("before")
    link.outbox.put(parcel)
    link.outbox.put("after")
    assert await link.outbox.take() == ["before"]
    waiting = asyncio.ensure_future(link.outbox.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    parcel.fill(["a", "b"])
    assert await waiting == ["a", "b", "after"]


async def test_a_device_speaks_through_its_new_connection_once_the_scheduler_knows() -> None:
    links = Links()
    old, new = (Link("127.0.0.1", DeviceId("pc"), lambda _reason: None) for _ in range(2))
    links.own(DeviceId("pc"), SessionId("s"), old)
    links.speak(DeviceId("pc"), old)
    assert links.own(DeviceId("pc"), SessionId("s"), new) is old
    assert links.of(DeviceId("pc")) is old
    links.speak(DeviceId("pc"), new)
    assert links.of(DeviceId("pc")) is new
    assert links.disown(DeviceId("pc"), old) is None
    assert links.disown(DeviceId("pc"), new) == "s"
    assert links.of(DeviceId("pc")) is None
