"""The event stream: a snapshot first, then changes, scoped and bounded; and followed logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest

from coordinator.server.auth import Principal
from coordinator.server.hub import MAX_WAITING_BYTES, Watcher
from sparegrid.api import (
    DeviceChanged,
    Event,
    Items,
    JobChanged,
    JobSpec,
    LogEvent,
    PauseRequest,
    Snapshot,
    StageSpec,
    StreamError,
    Subscribe,
    TasksChanged,
)
from sparegrid.codec import FrameCodec
from sparegrid.ids import PrincipalId
from sparegrid.messages import Ended, Follow, Inline, LogChunk, Outcome
from sparegrid.states import Role
from sparegrid.trust.pinning import Pin
from tests.fakes.coordinator import RunningCoordinator, running_coordinator
from tests.fakes.worker import busy

E = TypeVar("E")
LIMIT_S = 20.0


class FakeWatcher:
    """A watcher that speaks the real wire and remembers everything."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.events: list[Any] = []
        self._codec: FrameCodec[Event] = FrameCodec(Event, text=True)

    async def subscribe(self, subscribe: Subscribe) -> Snapshot:
        """The snapshot that answers."""
        self.events.clear()
        await self.socket.send_str(self._codec.encode([subscribe]).decode())
        return await self.until(Snapshot)

    async def until(self, kind: type[E], wanted: Callable[[E], bool] = lambda _: True) -> E:
        """The first event of this kind that came or comes and is wanted."""
        seen = 0
        async with asyncio.timeout(LIMIT_S):
            while True:
                for event in self.events[seen:]:
                    seen += 1
                    if isinstance(event, kind) and wanted(event):
                        return event
                frame = await self.socket.receive()
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    raise ConnectionError(f"closed before {kind.__name__}: {self.events}")
                known, unknown = self._codec.decode(frame.data.encode())
                assert not unknown
                self.events += known


@asynccontextmanager
async def watching(grid: RunningCoordinator, token: str = "") -> AsyncIterator[FakeWatcher]:
    headers = {"Authorization": f"Bearer {token or grid.access.token}"}
    connector = aiohttp.TCPConnector(ssl=Pin(grid.access.fingerprint))
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as http,
        http.ws_connect(grid.url + "/v1/events", protocols=("v1.json",), max_msg_size=0) as socket,
    ):
        yield FakeWatcher(socket)


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[RunningCoordinator]:
    async with running_coordinator(tmp_path) as running:
        yield running


def spec(count: int = 1, **fields: Any) -> JobSpec:
    return JobSpec("j", [StageSpec(params={"argv": ["true"]}, items=Items(count=count), **fields)])


# ---- jobs and devices -------------------------------------------------------------------------------------------


async def test_a_snapshot_comes_first_and_changes_after_it_have_higher_revisions(
    grid: RunningCoordinator,
) -> None:
    client = await grid.client()
    await client.submit(spec())
    async with watching(grid) as watcher:
        snapshot = await watcher.subscribe(Subscribe())
        assert [(view.id, view.state) for view in snapshot.jobs] == [("1", "active")]
        async with await grid.worker("pc"):
            joined = await watcher.until(DeviceChanged, lambda event: event.device.state != "offline")
            ended = await watcher.until(JobChanged, lambda event: event.job.state == "done")
        assert joined.device.name == "pc"
        assert (ended.job.revision.epoch, ended.job.revision.n > snapshot.revision.n) == (1, True)
        await watcher.until(DeviceChanged, lambda event: event.device.state == "offline")


async def test_a_later_subscription_replaces_the_one_before(grid: RunningCoordinator) -> None:
    async with watching(grid) as watcher:
        await watcher.subscribe(Subscribe())
        snapshot = await watcher.subscribe(Subscribe(jobs=False))
        assert snapshot.jobs == []
        await (await grid.client()).submit(spec())
        async with await grid.worker("pc"):
            await watcher.until(DeviceChanged, lambda event: event.device.state != "offline")
        assert not [event for event in watcher.events if isinstance(event, JobChanged)]


async def test_submitters_hear_of_their_own_jobs_only(grid: RunningCoordinator) -> None:
    alice, bob = await grid.token("submitter", "alice"), await grid.token("submitter", "bob")
    async with grid.client_of(alice) as hers, grid.client_of(bob) as his, watching(grid, bob) as watcher:
        await hers.submit(spec())
        assert (await watcher.subscribe(Subscribe())).jobs == []
        await hers.cancel("1")
        mine = await his.submit(spec())
        first = await watcher.until(JobChanged)
        assert first.job.id == mine.id
        await watcher.socket.send_str('[{"t": "subscribe", "job": "1", "limit": 10}]')
        assert (await watcher.until(StreamError)).problem.code == "not-found"
        await watcher.socket.send_str('[{"t": "subscribe", "task": "1.0.0"}]')
        await watcher.until(StreamError, lambda event: "job 1" in event.problem.message)


async def test_a_busy_view_comes_at_most_ten_times_a_second(grid: RunningCoordinator) -> None:
    client = await grid.client()
    loop = asyncio.get_running_loop()
    async with watching(grid) as watcher, await grid.worker("pc", answer=busy) as worker:
        await watcher.subscribe(Subscribe())
        await client.submit(spec(200))
        await worker.until_runs(1)
        start = loop.time()
        while loop.time() - start < 1.0 and worker.attempts:
            await worker.deliver(next(iter(worker.attempts)))
            worker.attempts.pop(next(iter(worker.attempts)))
            await asyncio.sleep(0.005)
        changes = 0
        await client.cancel("1")
        await watcher.until(JobChanged, lambda event: event.job.state == "cancelled")
        seconds = loop.time() - start
        changes = sum(1 for event in watcher.events if isinstance(event, JobChanged))
        assert 5 <= changes <= 10 * seconds + 8


async def test_the_last_view_of_a_job_does_not_wait(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker("pc"), watching(grid) as watcher:
        await watcher.subscribe(Subscribe())
        for number in range(1, 20):
            await client.submit(spec(20))
            assert (await watcher.until(JobChanged, is_done(str(number)))).job.done == 20


def is_done(job: str) -> Callable[[JobChanged], bool]:
    return lambda event: event.job.id == job and event.job.state == "done"


async def test_a_removed_job_is_gone(grid: RunningCoordinator) -> None:
    client = await grid.client()
    await client.cancel((await client.submit(spec())).id)
    async with watching(grid) as watcher:
        await watcher.subscribe(Subscribe())
        await client.remove_job("1")
        assert (await watcher.until(JobChanged, lambda event: event.gone)).job.id == "1"


async def test_a_removed_device_is_gone(grid: RunningCoordinator) -> None:
    async with await grid.worker("pc") as pc, watching(grid) as watcher:
        await watcher.subscribe(Subscribe())
        await (await grid.client()).remove_device("pc")
        assert (await watcher.until(DeviceChanged, lambda event: event.gone)).device.id == pc.device


async def test_a_window_shows_its_tasks_and_no_others(grid: RunningCoordinator) -> None:
    client = await grid.client()
    await client.submit(spec(100))
    async with watching(grid) as watcher:
        snapshot = await watcher.subscribe(Subscribe(job="1", first=10, limit=5))
        assert [task.index for task in snapshot.tasks] == [10, 11, 12, 13, 14]
        async with await grid.worker("pc"):
            await client.wait("1")
            done: set[int] = set()
            while len(done) < 5:
                changed = await watcher.until(TasksChanged)
                done |= {task.index for task in changed.tasks if task.state == "done"}
                watcher.events.remove(changed)
        assert done == {10, 11, 12, 13, 14}


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("nonsense", "malformed"),
        ('[{"t": "subscribe", "jobs": 3}]', "jobs"),
        ('[{"t": "subscribe", "job": "x"}]', "'x'"),
        ('[{"t": "subscribe", "job": "1", "limit": 5000}]', "1000 tasks"),
        ('[{"t": "subscribe", "task": "1"}]', "'1'"),
        ('[{"t": "subscribe", "task": "1.0.7"}]', "0 to 0"),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused_in_words(
    grid: RunningCoordinator, frame: str, words: str
) -> None:
    await (await grid.client()).submit(spec())
    async with watching(grid) as watcher:
        await watcher.socket.send_str(frame)
        problem = (await watcher.until(StreamError)).problem
        assert words in f"{problem.title} {problem.message}"
        assert (await watcher.subscribe(Subscribe())).jobs


async def test_a_watcher_that_does_not_read_is_dropped_with_an_error() -> None:
    watcher = Watcher(Principal(PrincipalId("x"), Role.VIEWER))
    for _ in range(MAX_WAITING_BYTES // 1_000_000 + 2):
        watcher.push(b"x" * 1_000_000)
    assert watcher.closed
    assert b'"slow"' in (await watcher.take())[0]
    assert await watcher.take() == []


async def test_the_stream_ends_when_the_coordinator_stops(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path) as grid, watching(grid) as watcher:
        await watcher.subscribe(Subscribe())
        grid.stop.set()
        with pytest.raises(ConnectionError):
            await watcher.until(StreamError)


# ---- logs -------------------------------------------------------------------------------------------------------


async def test_a_log_is_asked_for_only_while_somebody_watches(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker("pc", answer=busy) as worker:
        await client.submit(spec())
        run = (await worker.until_runs(1))[0]
        assert not [message for message in worker.received if isinstance(message, Follow)]
        async with watching(grid) as watcher:
            await watcher.subscribe(Subscribe(jobs=False, devices=False, task="1.0.0"))
            asked = await worker.until(Follow)
            assert (asked.attempt, asked.on, asked.offset) == (run.attempt, True, 0)
            await worker.send(
                LogChunk(worker.device, run.attempt, 0, b"hello "),
                LogChunk(worker.device, run.attempt, 6, b"you"),
            )
            pieces = [await watcher.until(LogEvent)]
            pieces.append(await watcher.until(LogEvent, lambda event: event.offset == 6))
            assert b"".join(piece.data for piece in pieces) == b"hello you"
        await worker.until(Follow, lambda message: not message.on)


async def test_the_rest_of_a_log_comes_from_what_was_kept(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker("pc", answer=busy) as worker, watching(grid) as watcher:
        await client.submit(spec())
        run = (await worker.until_runs(1))[0]
        await watcher.subscribe(Subscribe(jobs=False, devices=False, task="1.0.0"))
        await worker.until(Follow)
        await worker.send(LogChunk(worker.device, run.attempt, 0, b"hello "))
        await watcher.until(LogEvent)
        await worker.deliver(run.attempt, Outcome(exit_code=0, log=Inline(b"hello world"), log_bytes=11))
        last = await watcher.until(LogEvent, lambda event: event.last)
        text = b"".join(event.data for event in watcher.events if isinstance(event, LogEvent))
        assert (text, last.attempt) == (b"hello world", str(run.attempt))


async def test_a_task_that_has_not_started_is_followed_once_it_does(grid: RunningCoordinator) -> None:
    client = await grid.client()
    await client.submit(spec())
    async with watching(grid) as watcher:
        await watcher.subscribe(Subscribe(jobs=False, devices=False, task="1.main.0"))
        outcome = Outcome(exit_code=0, log=Inline(b"done\n"), log_bytes=5)
        async with await grid.worker("pc", answer=lambda *_: outcome):
            await watcher.until(LogEvent, lambda event: event.last)
    assert [event.data for event in watcher.events if isinstance(event, LogEvent)] == [b"done\n", b""]


async def test_the_log_of_an_ended_task_comes_whole(grid: RunningCoordinator) -> None:
    client = await grid.client()
    text = b"0123456789" * 20_000
    ref = await client.put_blob(text)
    async with await grid.worker("pc", answer=lambda *_: Outcome(exit_code=0, log=ref, log_bytes=len(text))):
        await client.wait((await client.submit(spec())).id)
    async with watching(grid) as watcher:
        await watcher.subscribe(Subscribe(jobs=False, devices=False, task="1.0.0", log_offset=5))
        await watcher.until(LogEvent, lambda event: event.last)
        assert b"".join(event.data for event in watcher.events if isinstance(event, LogEvent)) == text[5:]
    assert await client.log("1.0.0") == text


async def test_a_retried_task_starts_its_log_anew(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker("pc", answer=busy) as worker, watching(grid) as watcher:
        await client.submit(spec())
        await watcher.subscribe(Subscribe(jobs=False, devices=False, task="1.0.0"))
        first = (await worker.until_runs(1))[0]
        await worker.send(
            Ended(
                worker.device,
                1,
                0,
                0,
                first.attempt,
                "task",
                "exit code 1",
                Outcome(log=Inline(b"no\n"), log_bytes=3),
            )
        )
        second = (await worker.until_runs(2))[1]
        await worker.deliver(second.attempt, Outcome(exit_code=0, log=Inline(b"yes\n"), log_bytes=4))
        await watcher.until(LogEvent, lambda event: event.last)
        heard = [
            (event.attempt, event.offset, event.data)
            for event in watcher.events
            if isinstance(event, LogEvent)
        ]
        assert heard == [
            (str(first.attempt), 0, b"no\n"),
            (str(second.attempt), 0, b"yes\n"),
            (str(second.attempt), 4, b""),
        ]


async def test_a_followed_log_goes_on_after_the_worker_was_cut(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker("pc", answer=busy) as first, watching(grid) as watcher:
        await client.submit(spec())
        run = (await first.until_runs(1))[0]
        await watcher.subscribe(Subscribe(jobs=False, devices=False, task="1.0.0"))
        await first.until(Follow)
        await first.send(LogChunk(first.device, run.attempt, 0, b"abc"))
        await watcher.until(LogEvent)
        first.cut()
        again = await grid.worker("pc", first.key, session=first.session, running=[run.attempt])
        async with again:
            assert (await again.until(Follow)).offset == 3
            await again.send(LogChunk(first.device, run.attempt, 3, b"def"))
            assert (await watcher.until(LogEvent, lambda event: event.offset == 3)).data == b"def"


async def test_pausing_shows_on_every_screen(grid: RunningCoordinator) -> None:
    async with await grid.worker("pc"), watching(grid) as watcher:
        await watcher.subscribe(Subscribe())
        await (await grid.client()).pause("pc", PauseRequest("pause"))
        changed = await watcher.until(DeviceChanged, lambda event: event.device.state == "paused")
        assert "local" in changed.device.reason
