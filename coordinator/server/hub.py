"""Fans changes out to watchers: coalesced, scoped, bounded. Knows subscriptions, not sockets.

A view goes out at once while it changes rarely, and at most ten times a second while it changes often; an ended job's
last view never waits. What goes out is what is committed: views are built here and handed over after the commit of
what they show. A watcher that reads more slowly than changes come is dropped with an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeAlias, Union

from coordinator.server.auth import Principal
from coordinator.server.views import Views
from sparegrid.api import (
    DeviceChanged,
    DeviceView,
    Event,
    JobChanged,
    JobView,
    Problem,
    Revision,
    StageView,
    StreamError,
    TasksChanged,
    dump_json,
)
from sparegrid.errors import NotFoundError
from sparegrid.ids import DeviceId, JobId, StageIndex, TaskIndex, TaskRef
from sparegrid.states import JobState

RATE_PER_S = 10.0
BURST = 4.0
"""Changes of one view that go out at once before the rate holds: a short job is seen without delay."""
MAX_WAITING_BYTES = 8 << 20
"""Bytes that wait for one watcher before it is dropped."""
MAX_WINDOW = 1000
_ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


Key: TypeAlias = Union[tuple[str, JobId], tuple[str, DeviceId], "tuple[str, Watcher]"]
"""What has changed: ("job", id), ("device", id), or ("tasks", the watcher whose window it is)."""


class Watcher:
    """One subscription: what it wants to see, and what waits to be sent to it."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.jobs = False
        self.devices = False
        self.window: tuple[JobId, StageIndex, range] | None = None
        self.dirty: set[int] = set()
        """Indices in the window that have changed and are not sent yet."""
        self.missed: list[Key | bytes] | None = []
        """What changed while its snapshot was being made; None once it has the snapshot."""
        self.closed = False
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._filled = asyncio.Event()

    def push(self, event: bytes) -> None:
        """Send this encoded event after all before it; drops the watcher when too much waits."""
        if self.closed:
            return
        self._waiting.append(event)
        self._bytes += len(event)
        self._filled.set()
        if self._bytes > MAX_WAITING_BYTES:
            self.fail(
                Problem(
                    "slow",
                    "Events came faster than they were read",
                    f"more than {MAX_WAITING_BYTES} bytes waited",
                )
            )

    def fail(self, problem: Problem) -> None:
        """The last thing it hears."""
        self._waiting = [dump_json(StreamError(problem))]
        self.close()

    def close(self) -> None:
        """Nothing more comes; what waits is still sent."""
        self.closed = True
        self._filled.set()

    async def take(self) -> list[bytes]:
        """Everything that waits, at least one; empty when the watcher is closed."""
        while not self._waiting:
            if self.closed:
                return []
            self._filled.clear()
            await self._filled.wait()
        taken, self._waiting, self._bytes = self._waiting, [], 0
        return taken


class _Pace:
    """A token bucket."""

    __slots__ = ("at", "left")

    def __init__(self, now: float) -> None:
        self.at = now
        self.left = BURST

    def delay(self, now: float) -> float:
        """Seconds until the next change may go out; takes the token when that is now."""
        self.left = min(BURST, self.left + (now - self.at) * RATE_PER_S)
        self.at = now
        if self.left >= 1.0:
            self.left -= 1.0
            return 0.0
        return (1.0 - self.left) / RATE_PER_S


class EventHub:
    """All watchers.

    Args:
        views: builds what is shown.
        after_commit: `Driver.after_commit`.
        spawn: runs a coroutine that somebody owns.
    """

    def __init__(
        self,
        views: Views,
        after_commit: Callable[[Callable[[], None]], None],
        spawn: Callable[..., object],
    ) -> None:
        self._views = views
        self._after_commit = after_commit
        self._spawn = spawn
        self.watchers: set[Watcher] = set()
        self._due: dict[Key, None] = {}
        self._paces: dict[Key, _Pace] = {}
        self._flush_due: asyncio.Handle | None = None
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    # ---- watchers ---------------------------------------------------------------------------------------------

    def add(self, watcher: Watcher) -> None:
        """It hears changes from now on, once it has its snapshot."""
        watcher.missed = []
        self.watchers.add(watcher)

    def hand_over(self, watcher: Watcher, snapshot: bytes) -> None:
        """Its snapshot, then what has changed since it was begun."""
        watcher.push(snapshot)
        missed, watcher.missed = watcher.missed or [], None
        for each in missed:
            if isinstance(each, bytes):
                watcher.push(each)
            else:
                self._mark(each)

    def remove(self, watcher: Watcher) -> None:
        """It hears nothing more."""
        self.watchers.discard(watcher)
        key = ("tasks", watcher)
        self._due.pop(key, None)
        self._paces.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """The coordinator ends: every watcher's stream ends."""
        for watcher in list(self.watchers):
            self.remove(watcher)
            watcher.close()
        for timer in self._timers.values():
            timer.cancel()
        if self._flush_due is not None:
            self._flush_due.cancel()

    # ---- changes ----------------------------------------------------------------------------------------------

    def job_changed(self, job: JobId) -> None:
        """The job's view has changed."""
        self._views.job_changed(job)
        if self.watchers:
            self._mark(("job", job))

    def job_retired(self, job: JobId) -> None:
        """The job has ended: its last view waits for nothing."""
        self._views.job_changed(job)
        self._paces.pop(("job", job), None)
        if self.watchers:
            self._mark(("job", job))
        for watcher in self.watchers:
            if watcher.window is not None and watcher.window[0] == job:
                # Which of its tasks changed last is not told any more: show the window once again.
                watcher.dirty.update(watcher.window[2])
                self._mark(("tasks", watcher))

    def job_forgotten(self, job: JobId) -> None:
        """The job was removed."""
        submitter = self._views.forget(job)
        self._paces.pop(("job", job), None)
        gone = JobChanged(_gone_job(job, submitter, self._views.revision), gone=True)
        self._send(gone, None, lambda watcher: watcher.jobs and watcher.principal.sees(submitter))

    def device_changed(self, device: DeviceId) -> None:
        """The device's view has changed, or it is no member any more."""
        self._views.device_changed(device)
        if self.watchers:
            self._mark(("device", device))

    def tasks_changed(
        self, job: JobId, stage: StageIndex, ranges: Iterable[tuple[TaskIndex, TaskIndex]]
    ) -> None:
        """These tasks' views have changed; ranges are inclusive."""
        for watcher in self.watchers:
            if watcher.window is None or watcher.window[:2] != (job, stage):
                continue
            shown = watcher.window[2]
            for first, last in ranges:
                watcher.dirty.update(range(max(first, shown.start), min(last + 1, shown.stop)))
            if watcher.dirty:
                self._mark(("tasks", watcher))

    # ---- pace -------------------------------------------------------------------------------------------------

    def _mark(self, key: Key) -> None:
        if key in self._due or key in self._timers:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = _Pace(now)
        delay = pace.delay(now)
        if delay and not self._is_last(key):
            self._timers[key] = loop.call_later(delay, self._later, key)
            return
        self._due[key] = None
        if self._flush_due is None:
            self._flush_due = loop.call_soon(self._flush)

    def _is_last(self, key: Key) -> bool:
        """An ended job's view does not change again soon."""
        if key[0] != "job":
            return False
        view = self._views.job_now(key[1])  # type: ignore[arg-type]  # the tag says that it is a JobId
        return view is not None and view.state in _ENDED

    def _later(self, key: Key) -> None:
        del self._timers[key]
        self._mark(key)

    def _flush(self) -> None:
        self._flush_due = None
        due, self._due = self._due, {}
        for tag, subject in due:
            if tag == "job":
                self._send_job(subject)  # type: ignore[arg-type]  # the tag says which it is
            elif tag == "device":
                self._send_device(subject)  # type: ignore[arg-type]  # the tag says which it is
            else:
                self._spawn(self._send_tasks(subject))  # type: ignore[arg-type]  # the tag says which it is
        if len(self._paces) > 10_000:
            now = asyncio.get_running_loop().time()
            self._paces = {key: pace for key, pace in self._paces.items() if now - pace.at < 1.0}

    def _send_job(self, job: JobId) -> None:
        view = self._views.job_now(job)
        if view is not None:
            submitter = view.submitter
            self._send(
                JobChanged(view),
                ("job", job),
                lambda watcher: watcher.jobs and watcher.principal.sees(submitter),
            )

    def _send_device(self, device: DeviceId) -> None:
        try:
            event = DeviceChanged(self._views.device(device))
        except NotFoundError:
            gone = DeviceView(device, device, "offline", revision=self._views.revision)
            event = DeviceChanged(gone, gone=True)
        self._send(event, ("device", device), lambda watcher: watcher.devices)

    async def _send_tasks(self, watcher: Watcher) -> None:
        if watcher.window is None or watcher not in self.watchers:
            return
        job, stage, _ = window = watcher.window
        indices, watcher.dirty = sorted(watcher.dirty), set()
        try:
            total = len(await self._views.states(job, stage))
            indices = [index for index in indices if index < total]
            tasks = await self._views.tasks_of([TaskRef(job, stage, TaskIndex(index)) for index in indices])
        except NotFoundError:
            return
        if tasks and watcher.window is window:
            self._send(TasksChanged(str(job), tasks), ("tasks", watcher), lambda each: each is watcher)

    def _send(self, event: Event, key: Key | None, wants: Callable[[Watcher], bool]) -> None:
        chosen: list[Watcher] = []
        encoded = b""
        for watcher in self.watchers:
            if wants(watcher):
                encoded = encoded or dump_json(event)
                if watcher.missed is None:
                    chosen.append(watcher)
                else:
                    watcher.missed.append(encoded if key is None else key)
        if not chosen:
            return

        def deliver() -> None:
            for watcher in chosen:
                watcher.push(encoded)

        self._after_commit(deliver)


def _gone_job(job: JobId, submitter: str, revision: Revision) -> JobView:
    stages: list[StageView] = []
    return JobView(str(job), "", JobState.CANCELLED, 1, submitter, 0, stages, revision=revision)
