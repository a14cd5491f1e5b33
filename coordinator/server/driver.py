"""Drives the scheduler: owns its Machine on the event loop, makes its facts durable, then lets its effects out.

Events wait in a queue and are handled in bursts. What they record is gathered into one batch while the batch before
it is being committed; nothing that a batch caused (a message, a view, an answer) leaves before its commit, and all of
it leaves in order. While the disk is full the store holds the batch; the machine goes on hearing its devices, so that
no lease ends meanwhile. A machine that raises may be half-changed and its batch half-gathered: the process ends, and
the next start restores from the facts, which are whole. That is the last resort only: requests that cannot be kept are
refused before they are handled, and what workers say is brought within bounds before it is
posted. It knows neither sockets nor HTTP: `Outlet` is where effects go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import msgspec

from coordinator.scheduler.effects import Effect, Forget, Keep, Record, Retire
from coordinator.scheduler.events import ClockJumped, DeviceAttached, SchedulerEvent, Ticked
from coordinator.scheduler.machine import Machine
from coordinator.server.clock import GridClock
from coordinator.server.held import Held
from coordinator.server.ports import Journal, Outlet
from coordinator.server.store import Batch, TokenRow
from sparegrid.errors import BadInputError, GridError, StorageError

log = logging.getLogger("sparegrid.coordinator.driver")

BURST_WHILE_COMMITTING = 128
"""Fewer events wait for the running commit before they are handled: larger bursts place better."""
BEAT_S = 1.0
SNAPSHOT_FACTS = 50_000
CLOSE_S = 10.0
SETTLE_S = 1.0
"""How long a reader waits for the commit of what it reads; longer only happens when the disk is full."""


class _Entry(NamedTuple):
    event: SchedulerEvent
    answer: asyncio.Future[None] | None = None
    link: object | None = None
    tokens: Sequence[TokenRow] = ()


class Driver:
    """Owns the machine. Every method is called on the loop that `start` was called on.

    Args:
        machine: restored, with `resume` called.
        journal: the store.
        clock: grid time, continuing the journal's.
        on_fatal: called once when the process must end; the error says why.
    """

    def __init__(
        self,
        machine: Machine,
        journal: Journal,
        clock: GridClock,
        *,
        on_fatal: Callable[[BaseException], None],
        snapshot_facts: int = SNAPSHOT_FACTS,
    ) -> None:
        self.machine = machine
        self.clock = clock
        self._journal = journal
        self._on_fatal = on_fatal
        self._snapshot_facts = snapshot_facts
        self._queue: list[_Entry] = []
        self._gathered = Held()
        self._committing: Held | None = None
        self._stuck: StorageError | None = None
        self._turn_due: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._facts_since_snapshot = 0
        self._dead = False
        self._idle: list[asyncio.Future[None]] = []
        self.bursts = 0
        self.commits = 0
        self.facts = 0

    # ---- for everybody ----------------------------------------------------------------------------------------

    def start(self, outlet: Outlet) -> None:
        """Begin: handle what the restored machine has to do already. Effects go to `outlet`."""
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self.post(Ticked())
        self._arm()

    def post(self, event: SchedulerEvent, link: object | None = None) -> None:
        """Queue an event that nobody waits for. `link` is who speaks, with DeviceAttached."""
        self._queue.append(_Entry(event, None, link))
        self._wake()

    def submit(self, event: SchedulerEvent, tokens: Sequence[TokenRow] = ()) -> asyncio.Future[None]:
        """Queue a request; done when it is committed, together with `tokens`.

        The future raises what the machine refuses with (ConflictError, NotFoundError). Requests made one after the
        other without an await between them are handled in that order, with nothing between them.
        """
        answer: asyncio.Future[None] = self._loop.create_future()
        if self._dead:
            answer.set_exception(_ended())
            return answer
        self._queue.append(_Entry(event, answer, None, tokens))
        self._wake()
        return answer

    def check_intake(self) -> None:
        """Raise StorageError while the disk is full: no new job is taken in."""
        if self._stuck is not None:
            raise StorageError(
                "Intake is paused",
                self._stuck.message or self._stuck.title,
                "Free space on the coordinator's disk; it goes on by itself",
            )

    @property
    def notice(self) -> str:
        """What an administrator should know; empty when all is well."""
        return "" if self._stuck is None else f"intake is paused: {self._stuck.message or self._stuck.title}"

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back when everything that the machine knows now is durable; at once when it is already."""
        if self._gathered.durable:
            self._gathered.callbacks.append(callback)
        elif self._committing is not None:
            self._committing.callbacks.append(callback)
        else:
            callback()

    async def settled(self) -> None:
        """Wait until what the machine knows now is durable, so that a reader never sees what a crash could undo."""
        if self._committing is None and not self._gathered.durable:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self.after_commit(lambda: None if done.done() else done.set_result(None))
        await asyncio.wait([done], timeout=SETTLE_S)

    async def close(self) -> None:
        """Handle and commit what is queued, and take a last snapshot. Effects are still let out.

        A disk that is full or hangs is not waited for: the journal is whole without the snapshot.
        """
        self._turn()
        if self._committing is not None and self._stuck is None and not self._dead:
            done: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(done)
            await asyncio.wait([done], timeout=CLOSE_S)
        for handle in (self._turn_due, self._timer):
            if handle is not None:
                handle.cancel()
        if self._committing is None and not self._dead and self._facts_since_snapshot:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._last_snapshot()
        self._dead = True
        for entry in self._queue:
            if entry.answer is not None and not entry.answer.done():
                entry.answer.set_exception(_ended())
        self._queue.clear()

    async def _last_snapshot(self) -> None:
        try:
            # Shielded: who is no longer waited for must still find its future as it left it.
            committed = self._journal.commit(Batch(now_ms=self.clock.now_ms()))
            seq = await asyncio.shield(asyncio.wrap_future(committed))
            saved = self._journal.save_snapshot(self.machine.snapshot(), seq)
            await asyncio.shield(asyncio.wrap_future(saved))
        except StorageError as error:
            log.warning("no snapshot was taken at the end: %s", error)

    # ---- one turn ---------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._turn_due is None and not self._dead:
            self._turn_due = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = None
        busy = self._committing is not None and self._stuck is None
        if self._dead or (busy and len(self._queue) < BURST_WHILE_COMMITTING):
            return
        try:
            self._handle()
            self._push()
            self._arm()
        except Exception as error:  # the loop's boundary: a machine that raised cannot be trusted any more
            log.exception("the scheduler failed")
            self.die(error)

    def _handle(self) -> None:
        """Handle all that is queued."""
        queue, self._queue = self._queue, []
        gap = self.clock.beat()
        if gap:
            log.warning("the coordinator slept", extra={"gap_ms": gap})
            queue.insert(0, _Entry(ClockJumped(gap_ms=gap)))
        now_ms = self.clock.now_ms()
        deadline = self.machine.next_deadline()
        if deadline is not None and deadline <= now_ms:
            queue.append(_Entry(Ticked()))
        burst: list[SchedulerEvent] = []
        for entry in queue:
            if entry.answer is not None:
                self._do(burst, now_ms)
                burst = []
                self._request(entry, entry.answer, now_ms)
                continue
            burst.append(entry.event)
            if entry.link is not None and isinstance(entry.event, DeviceAttached):
                # Before this event the machine means the old link, from it on the new one.
                self._do(burst, now_ms, (entry.event, entry.link))
                burst = []
        self._do(burst, now_ms)

    def _do(
        self, burst: list[SchedulerEvent], now_ms: int, speaker: tuple[DeviceAttached, object] | None = None
    ) -> None:
        if not burst:
            return
        effects = self.machine.handle_all(burst, now_ms)
        self.bursts += 1
        if speaker is not None:
            self._outlet.speaks(*speaker)
        self._gather(effects, now_ms)

    def _request(self, entry: _Entry, answer: asyncio.Future[None], now_ms: int) -> None:
        """Handle a request: the machine refuses before it changes anything."""
        try:
            _check_storable(entry.event)
            effects = self.machine.handle(entry.event, now_ms)
        except GridError as error:
            if not answer.done():
                answer.set_exception(error)
            return
        self.bursts += 1
        self._gather(effects, now_ms)
        self._gathered.tokens.extend(entry.tokens)
        self._gathered.answers.append(answer)

    def _gather(self, effects: Sequence[Effect], now_ms: int) -> None:
        held = self._gathered
        held.now_ms = now_ms
        prepare = self._outlet.prepare
        for effect in effects:
            if isinstance(effect, Record):
                held.facts.append(effect.fact)
                continue
            if isinstance(effect, Keep):
                held.keeps.append(effect)
                continue
            if isinstance(effect, Retire):
                held.retired.append(effect)
            elif isinstance(effect, Forget):
                held.forgotten.append(effect.job)
            prepared = prepare(effect)
            if prepared is not None:
                held.prepared.append(prepared)

    # ---- commits ----------------------------------------------------------------------------------------------

    def _push(self) -> None:
        """Commit what is gathered, unless a commit is under way; let out what needs none."""
        if self._committing is not None:
            return
        held, self._gathered = self._gathered, Held()
        if not held.durable:
            self._let_out(held)
            return
        self._committing = held
        self.facts += len(held.facts)
        self._facts_since_snapshot += len(held.facts)
        if self._facts_since_snapshot >= self._snapshot_facts:
            held.snapshot = self.machine.snapshot()
            self._facts_since_snapshot = 0
        future = self._journal.commit(held.batch())
        future.add_done_callback(self._from_committer)

    def _from_committer(self, done: Future[int]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._committed, done)
        except RuntimeError:
            log.debug("the loop ended before a commit was heard of")

    def _committed(self, done: Future[int]) -> None:
        held = self._committing
        if self._dead or held is None:
            return
        error = done.exception()
        if error is not None:
            self.die(error)
            return
        self._committing = None
        self.commits += 1
        if held.snapshot is not None:
            self._journal.save_snapshot(held.snapshot, done.result()).add_done_callback(_note_snapshot)
        self._let_out(held)
        self._turn()
        if self._committing is None:
            self._wake_idle()

    def _let_out(self, held: Held) -> None:
        """The batch is durable (or needs no commit): release its effects, answers and callbacks, in order."""
        try:
            if held.prepared:
                self._outlet.release(held.prepared)
            for answer in held.answers:
                if not answer.done():
                    answer.set_result(None)
            for callback in held.callbacks:
                callback()
        except Exception as error:  # the loop's boundary: effects lost here would be lost for good
            log.exception("releasing effects failed")
            self.die(error)

    def held(self, error: StorageError) -> None:
        """The disk is full: the store holds the batch and tries again by itself; intake pauses."""
        if self._stuck is None:
            log.error("intake is paused: %s", error)
        self._stuck = error
        self._wake_idle()
        self._wake()

    def resumed(self) -> None:
        """The disk has space again."""
        log.info("the disk has space again: intake goes on")
        self._stuck = None
        self._wake()

    def die(self, error: BaseException) -> None:
        """End: nothing is let out any more, everybody who waits hears so, and the process is told to stop."""
        if self._dead:
            return
        self._dead = True
        waiting = [entry.answer for entry in self._queue if entry.answer is not None]
        for held in (self._committing, self._gathered):
            waiting.extend(held.answers if held is not None else [])
        for answer in waiting:
            if not answer.done():
                answer.set_exception(_ended())
        self._wake_idle()
        self._on_fatal(error)

    def _wake_idle(self) -> None:
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()

    # ---- time -------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Come back at the machine's next deadline, and at least once a second to notice a sleep."""
        if self._timer is not None:
            self._timer.cancel()
        delay = BEAT_S
        deadline = self.machine.next_deadline()
        if deadline is not None:
            delay = min(delay, max(0.0, (deadline - self.clock.now_ms()) / 1000 + 0.001))
        self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        """A deadline may have come, or the process may have slept: a turn looks at both."""
        if self._dead:
            return
        if self._committing is None or self._stuck is not None:
            self._turn()
            return
        # The turn after the commit looks at the deadlines; the beat cannot wait.
        gap = self.clock.beat()
        if gap:
            self.post(ClockJumped(gap_ms=gap))
        self._timer = self._loop.call_later(BEAT_S, self._tick)


def _note_snapshot(saved: Future[None]) -> None:
    error = saved.exception()
    if error is not None:
        # The journal still holds every fact: a missing snapshot costs time at the next start, nothing else.
        log.warning("a snapshot was not saved: %s", error)


def _check_storable(event: SchedulerEvent) -> None:
    """Raise BadInputError for a request that the journal could not keep: too late to refuse once it is handled."""
    try:
        msgspec.msgpack.encode(event)
    except (OverflowError, RecursionError, ValueError, TypeError) as error:
        raise BadInputError(
            "Cannot be kept",
            f"it holds something that cannot be stored: {error}",
            "Numbers have at most 64 bits; lists and objects are nested at most a few hundred levels deep",
        ) from error


def _ended() -> StorageError:
    return StorageError(
        "The coordinator is ending", "Its store failed; nothing was taken in", "Start it again"
    )
