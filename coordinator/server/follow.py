"""Follows logs of running tasks: asks a worker for a log only while somebody watches, and hands the kept one over.

A follower sees the log of the task's newest attempt: live pieces while it runs, and what was kept of the rest when it
has ended. `last` comes once, when the task itself has ended. A retried task starts again at byte 0 of its new attempt.
Knows no sockets and no HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from coordinator.server.links import Links
from coordinator.server.views import Views
from sparegrid.api import AttemptView, LogEvent, TaskView
from sparegrid.errors import GridError
from sparegrid.ids import AttemptId, DeviceId, JobId, StageIndex, TaskIndex, TaskRef
from sparegrid.messages import Follow, LogChunk, Payload
from sparegrid.states import AttemptState, TaskState

PIECE_BYTES = 64 << 10
_LIVE = frozenset({AttemptState.ASSIGNED, AttemptState.RUNNING, AttemptState.SUSPENDED})
_OVER = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.LOST})


class KeptLogs(Protocol):
    """Logs of ended attempts."""

    async def log_of(self, ref: TaskRef, attempt: AttemptId) -> Payload | None:
        """The kept log of an attempt; None when there is none."""

    async def read(self, payload: Payload, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; empty at the end."""


class Follower:
    """One watcher of one task's log. `send` takes events in order; `offset` is the next byte that it misses."""

    def __init__(self, ref: TaskRef, offset: int, send: Callable[[LogEvent], None]) -> None:
        self.ref = ref
        self.offset = offset
        self.attempt = AttemptId(0)
        self.send = send
        self.over = False

    def piece(self, attempt: AttemptId, offset: int, data: bytes) -> None:
        """A piece of the log; bytes that were sent already are left out."""
        if attempt != self.attempt or self.over:
            return
        if offset < self.offset:
            data = data[self.offset - offset :]
            offset = self.offset
        if not data:
            return
        missed = offset - self.offset
        self.offset = offset + len(data)
        self.send(LogEvent(str(self.ref), str(attempt), offset, data, skipped=missed))

    def begin(self, attempt: AttemptId) -> None:
        """A newer attempt: its log starts anew."""
        if self.attempt:
            self.offset = 0
        self.attempt = attempt

    def end(self) -> None:
        """The task has ended and nothing of its log is missing."""
        if not self.over:
            self.over = True
            self.send(LogEvent(str(self.ref), str(self.attempt or ""), self.offset, b"", last=True))


class _Source:
    """A task whose log is followed."""

    def __init__(self, ref: TaskRef) -> None:
        self.ref = ref
        self.followers: list[Follower] = []
        self.attempt = AttemptId(0)
        self.device = DeviceId("")
        self.live = False
        """Whether the device was asked to send the log of `attempt`."""
        self.dirty = False
        self.busy = False


class LogFollowing:
    """All followed logs.

    Args:
        settled: `Driver.settled`; an attempt's kept log is there once its end is committed.
        spawn: runs a coroutine that somebody owns.
    """

    def __init__(
        self,
        views: Views,
        links: Links,
        kept: KeptLogs,
        settled: Callable[[], Awaitable[None]],
        spawn: Callable[..., object],
    ) -> None:
        self._views = views
        self._links = links
        self._kept = kept
        self._settled = settled
        self._spawn = spawn
        self._sources: dict[tuple[JobId, StageIndex], dict[TaskIndex, _Source]] = {}
        self._attempts: dict[AttemptId, _Source] = {}

    def add(self, follower: Follower) -> None:
        """It hears the log from its offset on."""
        ref = follower.ref
        sources = self._sources.setdefault((ref.job, ref.stage), {})
        source = sources.setdefault(ref.index, _Source(ref))
        source.followers.append(follower)
        if source.live:
            follower.begin(source.attempt)
            # Ask again from where the new one stands; the others leave out what they have.
            self._ask(source, on=True, offset=follower.offset)
        self._look(source)

    def remove(self, follower: Follower) -> None:
        """It hears nothing more; the worker is told to stop when nobody else listens."""
        ref = follower.ref
        sources = self._sources.get((ref.job, ref.stage), {})
        source = sources.get(ref.index)
        if source is None or follower not in source.followers:
            return
        source.followers.remove(follower)
        if source.followers:
            return
        if source.live:
            self._ask(source, on=False)
        self._attempts.pop(source.attempt, None)
        del sources[ref.index]
        if not sources:
            del self._sources[ref.job, ref.stage]

    # ---- what happens -----------------------------------------------------------------------------------------

    def chunk(self, message: LogChunk) -> None:
        """A worker sent a piece."""
        source = self._attempts.get(AttemptId(message.attempt))
        if source is None:
            return
        for follower in list(source.followers):
            follower.piece(source.attempt, message.offset, message.data)

    def tasks_changed(
        self, job: JobId, stage: StageIndex, ranges: Iterable[tuple[TaskIndex, TaskIndex]]
    ) -> None:
        """These tasks have changed: an attempt may have started or ended."""
        sources: Mapping[TaskIndex, _Source] = self._sources.get((job, stage), {})
        if not sources:
            return
        spans = list(ranges)
        for index, source in list(sources.items()):
            if any(first <= index <= last for first, last in spans):
                self._look(source)

    def job_retired(self, job: JobId) -> None:
        """The job has ended, and with it all its tasks."""
        for (other, _), sources in list(self._sources.items()):
            if other == job:
                for source in list(sources.values()):
                    self._look(source)

    def attached(self, device: DeviceId) -> None:
        """A device is back: logs that it was asked for are asked for again."""
        for source in list(self._attempts.values()):
            if source.device == device and source.live:
                self._ask(source, on=True, offset=min(each.offset for each in source.followers))

    def _look(self, source: _Source) -> None:
        """See what the task does now. One look at a time, in order; another that comes meanwhile follows it."""
        source.dirty = True
        if not source.busy:
            source.busy = True
            self._spawn(self._looking(source))

    async def _looking(self, source: _Source) -> None:
        try:
            while source.dirty and source.followers:
                source.dirty = False
                await self._look_once(source)
        except GridError:
            # The job was removed, or its log cannot be read: there is nothing more to tell.
            for follower in list(source.followers):
                follower.end()
        finally:
            source.busy = False

    async def _look_once(self, source: _Source) -> None:
        await self._settled()
        task = await self._views.task(source.ref)
        newest = _shown(task)
        if newest is not None and AttemptId(int(newest.id)) != source.attempt:
            await self._switch(source, newest)
        ended = newest is None or newest.state not in _LIVE
        if newest is not None and ended and source.attempt:
            await self._finish(source)
        if task.state in _OVER and ended:
            if newest is not None:
                await self._finish(source)
            for follower in list(source.followers):
                follower.end()

    async def _switch(self, source: _Source, newest: AttemptView) -> None:
        """A newer attempt than the one that was followed."""
        if source.attempt:
            await self._finish(source)
        self._attempts.pop(source.attempt, None)
        source.attempt = AttemptId(int(newest.id))
        source.device = DeviceId(newest.device)
        for follower in source.followers:
            follower.begin(source.attempt)
        if newest.state in _LIVE:
            self._attempts[source.attempt] = source
            source.live = True
            self._ask(source, on=True, offset=min(each.offset for each in source.followers))

    async def _finish(self, source: _Source) -> None:
        """The attempt has ended: hand over what was kept of its log and not sent yet."""
        source.live = False
        self._attempts.pop(source.attempt, None)
        kept = await self._kept.log_of(source.ref, source.attempt)
        if kept is None:
            return
        for follower in list(source.followers):
            if follower.attempt != source.attempt:
                follower.begin(source.attempt)
            while piece := await self._kept.read(kept, follower.offset, PIECE_BYTES):
                follower.piece(source.attempt, follower.offset, piece)
                if follower.over or follower not in source.followers:
                    break

    def _ask(self, source: _Source, *, on: bool, offset: int = 0) -> None:
        link = self._links.of(source.device)
        if link is not None:
            link.outbox.put(Follow(source.device, source.attempt, on=on, offset=offset))


def _shown(task: TaskView) -> AttemptView | None:
    """The attempt whose log is the task's: the accepted one, else the newest."""
    accepted = [each for each in task.attempts if each.state == AttemptState.DELIVERED]
    known = accepted or task.attempts
    return known[-1] if known else None
