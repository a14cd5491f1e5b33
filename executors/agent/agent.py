"""The agent of one grid: carries out what `session` decides, and tells it what happens.

This is the edge: it owns the clock and all that runs beside the session. Everything runs on one loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from executors.agent.cache import BlobCache
from executors.agent.guard import Guard
from executors.agent.inputs import Inputs
from executors.agent.instructions import (
    CloseLane,
    Do,
    Fetch,
    FollowAttempt,
    Forget,
    Keep,
    OpenLane,
    Recall,
    ReleaseJob,
    RunDo,
    Say,
    Start,
    Stop,
    SuspendAll,
)
from executors.agent.link import Link
from executors.agent.measure import Distance
from executors.agent.outgoing import Outgoing
from executors.agent.pause import PauseFile, holds_no_pause
from executors.agent.run import Runner
from executors.agent.session import Session
from executors.agent.slots import Ledger
from executors.agent.spool import Spool, blobs_of_result
from executors.agent.transfer import Transfers
from executors.base import AttemptFailedError, Executor
from sparegrid import __version__
from sparegrid.client.transport import Transport
from sparegrid.messages import (
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Attach,
    Blame,
    Capability,
    CapabilityChanged,
    Delivered,
    Detach,
    DeviceState,
    Ended,
    Heartbeat,
    Held,
    Hello,
    LogChunk,
    PauseVerb,
    PolicyChanged,
    Reading,
    SetPause,
    ToWorker,
    Welcome,
)

log = logging.getLogger(__name__)

BUSY_TICK_S = 0.05
IDLE_TICK_S = 1.0
HEARTBEAT_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Identity:
    """Which device this is, in which grid."""

    device: str
    name: str
    token: str
    session: str


class Agent:
    """Serves one grid.

    Args:
        identity: who it is.
        capability: what it offers.
        transport: the way to the coordinator.
        executors: by kind.
        folder: the grid's data on this device: spool, outbox, work folders.
        cache: blobs for tasks.
        environ: environment of tasks.
        read: takes a reading of the machine's health.
        unclean: the run before this one did not end by itself.
    """

    def __init__(
        self,
        identity: Identity,
        capability: Capability,
        transport: Transport,
        executors: Mapping[str, Executor],
        folder: Path,
        cache: BlobCache,
        environ: Mapping[str, str],
        read: Callable[[], Reading],
        *,
        unclean: bool = False,
    ) -> None:
        self.identity = identity
        self.grid_name = ""
        self.link_state = "connecting"
        self.done = 0
        self.failed = 0
        self._read = read
        self._unclean = unclean
        self._cache = cache
        self._spool = Spool(folder / "spool.bin")
        outbox = folder / "outbox"
        self.session = Session(identity.device, Ledger.of(capability), self._spool.results)
        self._runner = Runner(
            identity.device, executors, folder / "work", outbox, environ, self, capability.disk_free
        )
        self._transfers = Transfers(transport, cache, outbox)
        self._inputs = Inputs(cache, self._transfers)
        self._link = Link(transport, self)
        self._outgoing = Outgoing(self._link, self._spool)
        self._guard = Guard(self._runner, lambda: bool(self.session.lanes), self._disk_free, self._stop_now)
        self._distance = Distance(transport, self._transfers, capability, self._on_capability)
        self._heartbeat_ms = 10_000
        self._welcomed = asyncio.Event()
        self._busy = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._drop_orphans(outbox)
        self._pause = PauseFile(folder / "pause.json")
        self._pause.restore(self.session)

    def _drop_orphans(self, outbox: Path) -> None:
        """Files of results that were never spooled are of no use."""
        wanted = {ref.hash for result in self._spool.results.values() for ref in blobs_of_result(result)}
        for path in outbox.iterdir():
            if path.name not in wanted:
                path.unlink()

    # -- life

    async def run(self) -> None:
        """Serve until cancelled; then everything of it has ended.

        Raises:
            DeniedError: the device is not a member of the grid any more.
        """
        self._runner.warm_up()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._link.run())
            group.create_task(self._outgoing.run())
            group.create_task(self._tick_for_ever())
            group.create_task(self._beat_for_ever())
            group.create_task(self._guard.run())
            group.create_task(self._distance.run())
            for result in list(self._spool.results.values()):
                self._deliver(result)

    async def close(self) -> None:
        """End what runs and say goodbye: what was not finished requeues at once."""
        await self._runner.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._transfers.close()
        self._spool.close()

    async def say_goodbye(self) -> None:
        """Tell the coordinator that this session will not be back."""
        await self._outgoing.finish(Detach(self.identity.device, for_good=True, reason="stopped"))

    # -- the link's Peer

    def hello(self) -> Hello:
        """The first message of a connection."""
        return Hello(
            PROTOCOL_MAJOR, PROTOCOL_MINOR, "worker", self.identity.token, self.identity.session, __version__
        )

    def on_welcome(self, welcome: Welcome) -> Attach:
        """Say what this device is and what it holds."""
        self._heartbeat_ms = max(100, welcome.heartbeat_ms)
        self._welcomed.set()
        self._distance.on_linked()
        self.grid_name = welcome.grid_name
        self.link_state = "connected"
        log.info("connected to the grid %s (version %s)", welcome.grid_name, welcome.version)
        running, spooled = self.session.held()
        self._cache.changes()
        session = self.session
        return Attach(
            self.identity.device,
            self.identity.session,
            self.identity.name,
            self.capability,
            running=running,
            spooled=spooled,
            held=self._cache.held(),
            state=session.state,
            reason=session.reason,
            unclean=self._unclean,
        )

    def on_messages(self, messages: Sequence[ToWorker]) -> None:
        """Act on a frame."""
        now_ms = self._now_ms()
        for message in messages:
            if isinstance(message, SetPause):
                self._pause.local = False
            self._act(self.session.on_message(message, now_ms))
        if not self._pause.local and holds_no_pause(messages):
            self._act(self.session.on_resume(now_ms))

    def on_unlinked(self, reason: str) -> None:
        """Go on without the coordinator; results gather in the spool."""
        if self.link_state != f"offline: {reason}":
            log.warning("not connected: %s", reason)
        self.link_state = f"offline: {reason}"
        self.session.on_unlinked()
        self._outgoing.drop()

    @property
    def capability(self) -> Capability:
        """What the device offers."""
        return self._distance.capability

    def _on_capability(self, capability: Capability) -> None:
        self._outgoing.say(CapabilityChanged(self.identity.device, capability, self.identity.name))

    # -- the runner's Listener

    def on_finished(self, message: Delivered | Ended) -> None:
        """An attempt has ended."""
        if isinstance(message, Delivered):
            self.done += 1
        else:
            self.failed += 1
        self._inputs.let_go(message.attempt)
        sendable = not blobs_of_result(message)
        self._act(self.session.on_finished(message, self._now_ms(), sendable=sendable))
        if not sendable:
            self._deliver(message)

    def on_recalled(self, lane: int, attempts: list[int]) -> None:
        """Attempts did not begin."""
        self._act(self.session.on_recalled(lane, attempts, self._now_ms()))

    def on_log(self, attempt: int, offset: int, data: bytes, skipped: int, last: bool) -> None:
        """A piece of a followed log."""
        self._outgoing.say(LogChunk(self.identity.device, attempt, offset, data, skipped, last))

    # -- verbs of the owner, also from the local API

    def pause(self, verb: PauseVerb, by: str = "", until_ms: int = 0) -> None:
        """Pause, finish, give back or resume. `until_ms` is wall time, 0 until resumed."""
        self._pause.local = True
        self._act(self.session.on_pause(verb, by, until_ms, self._now_ms()))

    # -- doing

    def _act(self, does: Sequence[Do]) -> None:
        for do in does:
            match do:
                case Say(message=message):
                    if isinstance(message, Ended) and message.unstarted:
                        self._inputs.let_go(message.attempt)
                    if isinstance(message, PolicyChanged):
                        self._pause.keep(message)
                    self._outgoing.say(message)
                case Keep(message=message):
                    self._outgoing.keep(message)
                case Forget(attempts=attempts):
                    self._spool.forget(attempts)
                case Fetch(attempt=number):
                    self._spawn(self._fetch(number))
                case _:
                    self._act_on_runs(do)

    def _act_on_runs(self, do: RunDo) -> None:
        match do:
            case Start(attempt=number, lane=lane):
                self._runner.start(self.session.attempts[number], lane, self._inputs.of(number))
            case OpenLane(lane=lane, job=job, stage=stage):
                self._runner.processes.open_lane(lane, job, stage)
                self._busy.set()
                self._guard.on_begun()
            case CloseLane(lane=lane):
                self._runner.processes.close_lane(lane)
            case Recall(lane=lane):
                self.on_recalled(lane, self._runner.recall(lane))
            case Stop(attempt=number, blame=blame, reason=reason):
                self._runner.stop(number, blame, reason)
            case SuspendAll(on=on):
                self._spawn(self._runner.processes.suspend(on=on))
            case FollowAttempt(attempt=number, on=on, offset=offset):
                self._runner.follow(number, on=on, offset=offset)
            case ReleaseJob(job=job):
                self._runner.processes.release(job)
            case _:
                assert_never(do)

    async def _fetch(self, number: int) -> None:
        attempt = self.session.attempts[number]
        try:
            await self._inputs.fetch(attempt)
        except AttemptFailedError as error:
            ended = Ended(
                self.identity.device,
                attempt.stage.job,
                attempt.stage.stage,
                attempt.run.index,
                number,
                error.blame,
                error.reason,
            )
            self.on_finished(ended)
            return
        self._act(self.session.on_fetched(number, self._now_ms()))
        if number not in self.session.attempts or self.session.attempts[number].message is not None:
            self._inputs.let_go(number)

    def _deliver(self, result: Delivered | Ended) -> None:
        self._spawn(self._upload(result))

    async def _upload(self, result: Delivered | Ended) -> None:
        await self._transfers.deliver(blobs_of_result(result))
        self._act(self.session.on_uploaded(result.attempt))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the agent failed: %r", error, exc_info=error)

    # -- loops

    async def _tick_for_ever(self) -> None:
        while True:
            if self.session.lanes:
                await asyncio.sleep(BUSY_TICK_S)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_TICK_S):
                        await self._busy.wait()
                self._busy.clear()
            now_ms = self._now_ms()
            self._act(self.session.on_tick(now_ms))
            if self.session.until_ms and time.time() * 1000 >= self.session.until_ms:
                self._act(self.session.on_resume(now_ms))
            added, removed = self._cache.changes()
            if added or removed:
                self._outgoing.say(Held(self.identity.device, added, removed))

    async def _beat_for_ever(self) -> None:
        while True:
            jitter = random.uniform(1 - HEARTBEAT_JITTER, 1 + HEARTBEAT_JITTER)
            try:
                async with asyncio.timeout(self._heartbeat_ms / 1000 * jitter):
                    await self._welcomed.wait()
                    self._welcomed.clear()
            except TimeoutError:
                reading = await asyncio.to_thread(self._read)
                reading.blob_cache = self._cache.total
                self._outgoing.say(Heartbeat(self.identity.device, reading, self.running()))

    def _disk_free(self) -> int:
        """Bytes that tasks may still fill; 0 when only the reserve is left."""
        return self._read().disk_free

    def _stop_now(self, number: int, reason: str) -> None:
        """End an attempt that harms the device; it has no grace."""
        if does := self.session.on_stopping(number, Blame.TASK, reason, self._now_ms()):
            log.warning("attempt %d is stopped: %s", number, reason)
            self._act(does)
        self._runner.kill(number)

    def running(self) -> int:
        """How many attempts run now."""
        return sum(bool(lane.attempts) for lane in self.session.lanes.values())

    def state(self) -> DeviceState:
        """What the device does, as screens show it."""
        if self.session.state is DeviceState.READY and self.running():
            return DeviceState.COMPUTING
        return self.session.state

    @staticmethod
    def _now_ms() -> int:
        return int(asyncio.get_running_loop().time() * 1000)
