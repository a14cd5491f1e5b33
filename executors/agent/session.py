"""What the worker does with its attempts, as a pure machine: events in, instructions out.

It owns the life of every attempt (fetching, ready, running, spooled), the queue, the lanes and the device's pause. It
knows no socket, process, file or clock: times are passed in. A *lane* is a grant of resources with a slot in which
attempts of one stage run one after the other; tiny tasks are queued several to a lane, so that the slot never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

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
    Say,
    Start,
    Stop,
    SuspendAll,
)
from executors.agent.slots import Grant, Ledger
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
    Run,
    SetPause,
    Started,
    Suspended,
    TakeBack,
    Template,
    ToWorker,
    Welcome,
)

LANE_AHEAD_MS = 16.0
"""Tasks whose mean is shorter are queued to a lane up to this much work."""
MAX_DEPTH = 64
PATIENCE_MS = 10_000
"""So long may smaller attempts overtake the first one that does not fit; then what gets free is kept for it."""
STUCK_MS = 100
"""A lane whose head runs longer than this gives back what waits behind it."""
TELL_FROM_MS = 25
"""The coordinator is told of starts from this running time on: the result of a shorter task says it all."""
_MEAN_WEIGHT = 0.2


class Phase(Enum):
    """Where an attempt is. Not on the wire."""

    FETCHING = 0
    READY = 1
    RUNNING = 2
    SPOOLED = 3


@dataclass(slots=True)
class Attempt:
    """One attempt that this worker holds."""

    id: int
    stage: Template
    run: Run
    phase: Phase
    since_ms: int
    lane: int = 0
    started: bool = False
    told: bool = False
    """The coordinator knows that it runs."""
    stop: tuple[Blame, str] | None = None
    taken_back: bool = False
    suspended_ms: int = 0
    message: Delivered | Ended | None = None
    sendable: bool = False


@dataclass(slots=True)
class Lane:
    """A grant with a slot, and the attempts in it, the running one first."""

    id: int
    key: tuple[int, int]
    grant: Grant
    attempts: list[int] = field(default_factory=list)
    head_since_ms: int = 0


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
        self.lanes: dict[int, Lane] = {}
        self.state = DeviceState.READY
        self.reason = ""
        self.until_ms = 0
        self.suspended = False
        self.linked = False
        self._is_warm = is_warm
        self._templates: dict[tuple[int, int], Template] = {}
        self._queues: dict[tuple[int, int], dict[int, None]] = {}
        self._mean_ms: dict[tuple[int, int], float] = {}
        self._lane_numbers = 0
        self._blocked_since_ms: int | None = None
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
                ended = Ended(
                    self.device,
                    message.job,
                    message.stage,
                    run.index,
                    run.attempt,
                    Blame.GRID,
                    reason,
                    unstarted=True,
                )
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
                self._queue(attempt)
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
            self._mean_ms.pop(key, None)
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
        self._queue(attempt)
        return self.place(now_ms)

    def on_recalled(self, lane: int, numbers: Iterable[int], now_ms: int) -> list[Do]:
        """The lane's slot had not begun these: they go back to the front of their queue, or end."""
        does: list[Do] = []
        for number in reversed(list(numbers)):
            attempt = self.attempts.get(number)
            if attempt is None or attempt.lane != lane:
                continue
            self._leave_lane(attempt, now_ms)
            attempt.phase = Phase.READY
            attempt.started = False
            if attempt.taken_back:
                does += self._end_unstarted(attempt, Blame.GRID, "taken back")
            elif attempt.stop is not None:
                does += self._end_unstarted(attempt, *attempt.stop)
            elif self.state is not DeviceState.READY:
                does += self._end_unstarted(attempt, Blame.OWNER, self.reason)
            else:
                self._queue(attempt, front=True)
        for number in self.lanes[lane].attempts if lane in self.lanes else ():
            self.attempts[number].taken_back = False
        return does + self._close_if_empty(lane) + self.place(now_ms)

    def on_finished(self, message: Delivered | Ended, now_ms: int, *, sendable: bool) -> list[Do]:
        """An attempt has ended, and its slot is done with it. Not `sendable`: its files are uploaded first."""
        attempt = self.attempts.get(message.attempt)
        if attempt is None or attempt.phase is Phase.SPOOLED:
            return []
        lane = attempt.lane
        key = (attempt.stage.job, attempt.stage.stage)
        usage = message.outcome.usage
        usage.wall_ms = max(0, usage.wall_ms - attempt.suspended_ms)
        if attempt.phase is Phase.RUNNING and isinstance(message, Delivered):
            # Whole milliseconds are too coarse for a call of 50 µs: tasks below 1 ms count as a quarter.
            wall_ms = usage.wall_ms or 0.25
            old = self._mean_ms.get(key, wall_ms)
            self._mean_ms[key] = old + _MEAN_WEIGHT * (wall_ms - old)
        if lane:
            self._leave_lane(attempt, now_ms)
        self._unqueue(attempt)
        attempt.phase, attempt.message, attempt.sendable = Phase.SPOOLED, message, sendable
        does: list[Do] = [Keep(message)]
        if sendable:
            does.append(Say(message))
        does += self.place(now_ms)
        closed = self._close_if_empty(lane)
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
        self._unqueue(attempt)
        stage = attempt.stage
        message = Ended(
            self.device, stage.job, stage.stage, attempt.run.index, attempt.id, blame, reason, unstarted=True
        )
        attempt.phase, attempt.message, attempt.sendable = Phase.SPOOLED, message, True
        return [Say(message)]

    # ---- queue and lanes -------------------------------------------------------------------------------------

    def on_tick(self, now_ms: int) -> list[Do]:
        """Time went on: recall what waits behind a head that turned out long; tell what runs."""
        does: list[Do] = []
        if self.suspended:
            return does
        for lane in list(self.lanes.values()):
            does += self._check_limit(lane, now_ms)
            if len(lane.attempts) > 1 and now_ms - lane.head_since_ms > STUCK_MS:
                key_mean = self._mean_ms.get(lane.key, 0.0)
                self._mean_ms[lane.key] = max(key_mean, LANE_AHEAD_MS)
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
        """Start what may start: stages in the order of their arrival, a new lane rather than a deeper one."""
        does: list[Do] = []
        if self.state is not DeviceState.READY:
            return does
        blocked = False
        for key in list(self._queues):
            queue = self._queues[key]
            while queue and self._open_lane(key, now_ms, does):
                pass
            if queue:
                self._deepen(key, now_ms, does)
            if not queue:
                del self._queues[key]
                continue
            if not any(lane.key == key for lane in self.lanes.values()):
                # The first stage that cannot run at all: others overtake it, but not for ever.
                if self._blocked_since_ms is None:
                    self._blocked_since_ms = now_ms
                blocked = True
                if now_ms - self._blocked_since_ms > PATIENCE_MS:
                    break
        if not blocked:
            self._blocked_since_ms = None
        return does

    def _open_lane(self, key: tuple[int, int], now_ms: int, does: list[Do]) -> bool:
        """Start the first of a queue in a new lane; False when resources are short."""
        queue = self._queues[key]
        first = next(iter(queue))
        # A lane of this stage that has just run dry goes on before a new one is opened.
        lane = next((one for one in self.lanes.values() if one.key == key and not one.attempts), None)
        if lane is None:
            grant = self.ledger.take(self.attempts[first].stage.needed)
            if grant is None:
                return False
            self._lane_numbers += 1
            lane = self.lanes[self._lane_numbers] = Lane(self._lane_numbers, key, grant)
            does.append(OpenLane(lane.id, key[0], key[1], grant))
        self._enter(lane, first, now_ms, does)
        return True

    def _deepen(self, key: tuple[int, int], now_ms: int, does: list[Do]) -> None:
        """Queue more to the lanes of a stage, evenly, when its tasks are short."""
        lanes = [lane for lane in self.lanes.values() if lane.key == key]
        mean_ms = self._mean_ms.get(key)
        queue = self._queues[key]
        if not lanes or mean_ms is None or not self._is_warm(self.attempts[next(iter(queue))].stage.kind):
            return
        depth = max(1, min(MAX_DEPTH, int(LANE_AHEAD_MS / max(mean_ms, 0.25))))
        room = [(len(lane.attempts), lane.id) for lane in lanes if len(lane.attempts) < depth]
        while queue and room:
            count, number = min(room)
            room.remove((count, number))
            self._enter(self.lanes[number], next(iter(queue)), now_ms, does)
            if count + 1 < depth:
                room.append((count + 1, number))

    def _enter(self, lane: Lane, number: int, now_ms: int, does: list[Do]) -> None:
        del self._queues[lane.key][number]
        attempt = self.attempts[number]
        attempt.phase, attempt.lane = Phase.RUNNING, lane.id
        if not lane.attempts:
            lane.head_since_ms = now_ms
        lane.attempts.append(number)
        does.append(Start(number, lane.id))

    def _leave_lane(self, attempt: Attempt, now_ms: int) -> None:
        lane = self.lanes[attempt.lane]
        lane.attempts.remove(attempt.id)
        lane.head_since_ms = now_ms
        attempt.lane = 0
        attempt.told = False

    def _close_if_empty(self, number: int) -> list[Do]:
        lane = self.lanes.get(number)
        if lane is None or lane.attempts:
            return []
        del self.lanes[number]
        self.ledger.give_back(lane.grant)
        return [CloseLane(number)]

    def _queue(self, attempt: Attempt, *, front: bool = False) -> None:
        key = (attempt.stage.job, attempt.stage.stage)
        queue = self._queues.setdefault(key, {})
        if front:
            self._queues[key] = {attempt.id: None, **queue}
        else:
            queue[attempt.id] = None

    def _unqueue(self, attempt: Attempt) -> None:
        key = (attempt.stage.job, attempt.stage.stage)
        queue = self._queues.get(key)
        if queue is not None:
            queue.pop(attempt.id, None)
            if not queue:
                del self._queues[key]


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
