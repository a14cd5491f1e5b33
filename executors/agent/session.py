"""What the worker does with its attempts, as a pure machine: events in, instructions out.

It owns the life of every attempt (fetching, ready, running, spooled) and the device's pause; which attempt runs when
and where is its `Lanes`' matter. It knows no socket, process, file or clock: times are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import assert_never

from executors.agent.attempts import Attempt, Phase, unstarted_end
from executors.agent.instructions import (
    Do,
    Fetch,
    FollowAttempt,
    Forget,
    Keep,
    Recall,
    ReleaseJob,
    Say,
    Stop,
    SuspendAll,
)
from executors.agent.lanes import Lane, Lanes
from executors.agent.slots import Ledger
from sparegrid.messages import (
    Ack,
    Assign,
    Attached,
    Blame,
    Cancel,
    Delivered,
    DeviceState,
    Ended,
    Follow,
    PauseVerb,
    PolicyChanged,
    Refused,
    Release,
    SetPause,
    Started,
    Suspended,
    TakeBack,
    Template,
    ToWorker,
    Welcome,
)

STUCK_MS = 100
"""A lane whose head runs longer than this gives back what waits behind it."""
TELL_FROM_MS = 25
"""The coordinator is told of starts from this running time on: the result of a shorter task says it all."""


class Session:
    """The attempts of one run of the worker.

    Args:
        device: its id, which every message carries.
        ledger: what it lends.
        spooled: results that an earlier run of the worker left, by attempt.
        is_warm: whether a kind's tasks may be queued to a slot ahead of their time.
    """

    def __init__(
        self,
        device: str,
        ledger: Ledger,
        spooled: Mapping[int, Delivered | Ended] | None = None,
        *,
        is_warm: Callable[[str], bool] = lambda kind: True,
    ) -> None:
        self.device = device
        self.ledger = ledger
        self.attempts: dict[int, Attempt] = {}
        self._lanes = Lanes(ledger, self.attempts, is_warm)
        self.lanes = self._lanes.open
        self.state = DeviceState.READY
        self.reason = ""
        self.until_ms = 0
        self.suspended = False
        self.linked = False
        self._templates: dict[tuple[int, int], Template] = {}
        self._suspended_since_ms = 0
        self._old: dict[int, Delivered | Ended] = dict(spooled or {})
        self._old_sendable: set[int] = set()

    # ---- what the coordinator says ---------------------------------------------------------------------------

    def on_message(self, message: ToWorker, now_ms: int) -> list[Do]:
        """A message came. What is to be done about it, in order."""
        match message:
            case Template():
                self._templates[message.job, message.stage] = message
                return []
            case Assign():
                return self._on_assign(message, now_ms)
            case Cancel(attempts=attempts, reason=reason):
                # A restarted or revoked attempt may be asked for that this worker never heard of: it is gone.
                return self._stop(attempts, Blame.GRID, reason or "cancelled", now_ms)
            case TakeBack(attempts=attempts):
                return self._on_take_back(attempts, now_ms)
            case Ack(attempts=attempts):
                return self._on_ack(attempts)
            case Release(job=job):
                return self._on_release(job)
            case Follow(attempt=attempt, on=on, offset=offset):
                return [FollowAttempt(attempt, on, offset)] if attempt in self.attempts else []
            case SetPause(verb=verb, until_ms=until_ms, by=by):
                return self.on_pause(verb, by, until_ms, now_ms)
            case Attached(revoked=revoked):
                return self._on_attached(revoked, now_ms)
            case Welcome() | Refused():
                return []
            case _:
                assert_never(message)

    def held(self) -> tuple[list[int], list[int]]:
        """For Attach: the attempts that are held unfinished, and those whose Delivered or Ended follow."""
        running = [one.id for one in self.attempts.values() if one.phase is not Phase.SPOOLED]
        spooled = [one.id for one in self.attempts.values() if one.phase is Phase.SPOOLED]
        return running, [*self._old, *spooled]

    def on_unlinked(self) -> None:
        """The connection is gone: stages are introduced anew on the next one, what runs is told anew."""
        self.linked = False
        for attempt in self.attempts.values():
            attempt.told = False

    def _on_attached(self, revoked: Iterable[int], now_ms: int) -> list[Do]:
        self.linked = True
        gone = set(revoked)
        forget = [number for number in gone if self._forget(number)]
        does: list[Do] = [Forget(forget)] if forget else []
        does += self._stop(
            [number for number in gone if number in self.attempts], Blame.GRID, "not wanted any more", now_ms
        )
        for number, message in self._old.items():
            if number in self._old_sendable:
                does.append(Say(message))
        for attempt in self.attempts.values():
            if attempt.message is not None and attempt.sendable:
                does.append(Say(attempt.message))
        if self.state is not DeviceState.READY:
            does.append(self._policy())
        if self.suspended:
            running = [one.id for one in self.attempts.values() if one.phase is Phase.RUNNING]
            does.append(Say(Suspended(self.device, running)))
        return does

    def _forget(self, number: int) -> bool:
        """Drop a spooled attempt; whether it was one."""
        if self._old.pop(number, None) is not None:
            self._old_sendable.discard(number)
            return True
        attempt = self.attempts.get(number)
        if attempt is None or attempt.phase is not Phase.SPOOLED:
            return False
        del self.attempts[number]
        return True

    def _on_assign(self, message: Assign, now_ms: int) -> list[Do]:
        stage = self._templates.get((message.job, message.stage))
        does: list[Do] = []
        for run in message.runs:
            if run.attempt in self.attempts:
                continue  # The same Assign again, after a reconnect.
            if stage is None:
                reason = "the stage was not introduced on this connection"
                ended = unstarted_end(self.device, message.job, message.stage, run, Blame.GRID, reason)
                does.append(Say(ended))
                continue
            attempt = Attempt(run.attempt, stage, run, Phase.READY, now_ms)
            self.attempts[run.attempt] = attempt
            if self.state is not DeviceState.READY:
                does += self._end_unstarted(attempt, Blame.OWNER, self.reason or "paused")
            elif stage.inputs or run.files or run.checkpoint is not None:
                attempt.phase = Phase.FETCHING
                does.append(Fetch(attempt.id))
            else:
                self._lanes.queue(attempt)
        return does + self.place(now_ms)

    def _on_take_back(self, numbers: Iterable[int], now_ms: int) -> list[Do]:
        does: list[Do] = []
        for number in numbers:
            attempt = self.attempts.get(number)
            if attempt is None or attempt.started or attempt.phase is Phase.SPOOLED:
                continue
            if attempt.lane:
                attempt.taken_back = True
                does.append(Recall(attempt.lane))
            else:
                does += self._end_unstarted(attempt, Blame.GRID, "taken back")
        return _without_repeats(does) + self.place(now_ms)

    def _on_ack(self, numbers: Iterable[int]) -> list[Do]:
        forget = [number for number in numbers if self._forget(number)]
        return [Forget(forget)] if forget else []

    def _on_release(self, job: int) -> list[Do]:
        for key in [key for key in self._templates if key[0] == job]:
            self._lanes.mean_ms.pop(key, None)
        return [ReleaseJob(job)]

    # ---- the owner's and administrators' verbs ---------------------------------------------------------------

    def on_pause(self, verb: str, by: str, until_ms: int, now_ms: int) -> list[Do]:
        """A verb was given. `until_ms` is wall time; 0 is until resumed. Unknown verbs pause: the safe side."""
        if verb == PauseVerb.RESUME:
            return self.on_resume(now_ms)
        self.state = DeviceState.DRAINING if verb == PauseVerb.FINISH else DeviceState.PAUSED
        self.reason = f"{'draining' if verb == PauseVerb.FINISH else 'paused'}{f' by {by}' if by else ''}"
        self.until_ms = until_ms
        does: list[Do] = [self._policy()]
        for attempt in [one for one in self.attempts.values() if one.phase in {Phase.FETCHING, Phase.READY}]:
            does += self._end_unstarted(attempt, Blame.OWNER, self.reason)
        does += [Recall(lane.id) for lane in self.lanes.values() if len(lane.attempts) > 1]
        if verb == PauseVerb.GIVE_BACK:
            running = [one.id for one in self.attempts.values() if one.phase is Phase.RUNNING]
            does += self._unsuspend(now_ms)
            does += self._stop(running, Blame.OWNER, "given back by the owner", now_ms)
        elif verb == PauseVerb.FINISH:
            does += self._unsuspend(now_ms)
        elif not self.suspended:
            self.suspended, self._suspended_since_ms = True, now_ms
            does.append(SuspendAll(True))
            does += self._tell_suspended()
        return does

    def on_resume(self, now_ms: int) -> list[Do]:
        """The pause is over."""
        if self.state is DeviceState.READY:
            return []
        self.state, self.reason, self.until_ms = DeviceState.READY, "", 0
        return [self._policy(), *self._unsuspend(now_ms), *self.place(now_ms)]

    def restore_pause(self, state: DeviceState, reason: str, until_ms: int) -> None:
        """A pause of an earlier run of the worker still holds. Nothing runs yet, so nothing is suspended."""
        self.state, self.reason, self.until_ms = state, reason, until_ms

    def _policy(self) -> Say:
        return Say(PolicyChanged(self.device, self.state, self.reason, self.until_ms))

    def _unsuspend(self, now_ms: int) -> list[Do]:
        """Let it go on. The time that was taken away counts for no limit and no usage."""
        if not self.suspended:
            return []
        self.suspended = False
        gap_ms = now_ms - self._suspended_since_ms
        for lane in self.lanes.values():
            lane.head_since_ms += gap_ms
            for number in lane.attempts[:1]:
                self.attempts[number].suspended_ms += gap_ms
        return [SuspendAll(False), *self._tell_suspended()]

    def _tell_suspended(self) -> list[Do]:
        running = [one.id for one in self.attempts.values() if one.phase is Phase.RUNNING]
        return [Say(Suspended(self.device, running, self.suspended))] if running else []

    # ---- what becomes of attempts ----------------------------------------------------------------------------

    def on_fetched(self, number: int, now_ms: int) -> list[Do]:
        """Its files are here."""
        attempt = self.attempts.get(number)
        if attempt is None or attempt.phase is not Phase.FETCHING:
            return []
        attempt.phase = Phase.READY
        self._lanes.queue(attempt)
        return self.place(now_ms)

    def on_recalled(self, lane: int, numbers: Iterable[int], now_ms: int) -> list[Do]:
        """The lane's slot had not begun these: they go back to the front of their queue, or end."""
        does: list[Do] = []
        for number in reversed(list(numbers)):
            attempt = self.attempts.get(number)
            if attempt is None or attempt.lane != lane:
                continue
            self._lanes.leave(attempt, now_ms)
            attempt.phase = Phase.READY
            attempt.started = False
            if attempt.taken_back:
                does += self._end_unstarted(attempt, Blame.GRID, "taken back")
            elif attempt.stop is not None:
                does += self._end_unstarted(attempt, *attempt.stop)
            elif self.state is not DeviceState.READY:
                does += self._end_unstarted(attempt, Blame.OWNER, self.reason)
            else:
                self._lanes.queue(attempt, front=True)
        for number in self.lanes[lane].attempts if lane in self.lanes else ():
            self.attempts[number].taken_back = False
        return does + self._lanes.close_if_empty(lane) + self.place(now_ms)

    def on_finished(self, message: Delivered | Ended, now_ms: int, *, sendable: bool) -> list[Do]:
        """An attempt has ended, and its slot is done with it. Not `sendable`: its files are uploaded first."""
        attempt = self.attempts.get(message.attempt)
        if attempt is None or attempt.phase is Phase.SPOOLED:
            return []
        lane = attempt.lane
        usage = message.outcome.usage
        usage.wall_ms = max(0, usage.wall_ms - attempt.suspended_ms)
        if attempt.phase is Phase.RUNNING and isinstance(message, Delivered):
            self._lanes.note_time((attempt.stage.job, attempt.stage.stage), usage.wall_ms)
        if lane:
            self._lanes.leave(attempt, now_ms)
        self._lanes.unqueue(attempt)
        attempt.phase, attempt.message, attempt.sendable = Phase.SPOOLED, message, sendable
        does: list[Do] = [Keep(message)]
        if sendable:
            does.append(Say(message))
        does += self.place(now_ms)
        closed = self._lanes.close_if_empty(lane)
        return [*does, *closed, *self.place(now_ms)] if closed else does

    def on_uploaded(self, number: int) -> list[Do]:
        """The files of a spooled attempt are with the coordinator: its message may go."""
        if number in self._old:
            self._old_sendable.add(number)
            return [Say(self._old[number])] if self.linked else []
        attempt = self.attempts.get(number)
        if attempt is None or attempt.message is None:
            return []
        attempt.sendable = True
        return [Say(attempt.message)] if self.linked else []

    def on_stopping(self, number: int, blame: Blame, reason: str, now_ms: int) -> list[Do]:
        """This device stops an attempt for its own reasons, such as its time limit."""
        return self._stop([number], blame, reason, now_ms)

    def _stop(self, numbers: Iterable[int], blame: Blame, reason: str, now_ms: int) -> list[Do]:
        does: list[Do] = []
        for number in numbers:
            attempt = self.attempts.get(number)
            if attempt is None or attempt.phase is Phase.SPOOLED or attempt.stop is not None:
                continue
            if attempt.phase is Phase.RUNNING:
                attempt.stop = (blame, reason)
                does.append(Stop(number, blame, reason))
            else:
                does += self._end_unstarted(attempt, blame, reason)
        return does + self.place(now_ms)

    def _end_unstarted(self, attempt: Attempt, blame: Blame, reason: str) -> list[Do]:
        """End an attempt that never ran. It is said until acknowledged, but not spooled: a restart forgets it."""
        self._lanes.unqueue(attempt)
        stage = attempt.stage
        message = unstarted_end(self.device, stage.job, stage.stage, attempt.run, blame, reason)
        attempt.phase, attempt.message, attempt.sendable = Phase.SPOOLED, message, True
        return [Say(message)]

    # ---- time ------------------------------------------------------------------------------------------------

    def on_tick(self, now_ms: int) -> list[Do]:
        """Time went on: recall what waits behind a head that turned out long; tell what runs."""
        does: list[Do] = []
        if self.suspended:
            return does
        for lane in list(self.lanes.values()):
            does += self._check_limit(lane, now_ms)
            if len(lane.attempts) > 1 and now_ms - lane.head_since_ms > STUCK_MS:
                self._lanes.note_long(lane.key)
                does.append(Recall(lane.id))
        started = [
            lane.attempts[0]
            for lane in self.lanes.values()
            if lane.attempts
            and not self.attempts[lane.attempts[0]].told
            and now_ms - lane.head_since_ms >= TELL_FROM_MS
        ]
        if started and self.linked:
            for number in started:
                self.attempts[number].told = True
            does.append(Say(Started(self.device, started)))
        return does

    def _check_limit(self, lane: Lane, now_ms: int) -> list[Do]:
        """Stop a lane's head that is over its time limit."""
        if not lane.attempts:
            return []
        limit_ms = self.attempts[lane.attempts[0]].stage.timeout_ms
        if not limit_ms or now_ms - lane.head_since_ms < limit_ms:
            return []
        return self._stop([lane.attempts[0]], Blame.TASK, f"timed out after {limit_ms / 1000:g} s", now_ms)

    def place(self, now_ms: int) -> list[Do]:
        """Start what may start."""
        return self._lanes.place(now_ms) if self.state is DeviceState.READY else []


def _without_repeats(does: list[Do]) -> list[Do]:
    """Recall each lane once."""
    seen: set[int] = set()
    kept: list[Do] = []
    for one in does:
        if isinstance(one, Recall):
            if one.lane in seen:
                continue
            seen.add(one.lane)
        kept.append(one)
    return kept
