"""Lanes and the queues before them: what runs where, and how much is queued ahead. Pure, as the session that owns it.

A *lane* is a grant of resources with a slot in which attempts of one stage run one after the other; tiny tasks are
queued several to a lane, so that the slot never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from executors.agent.attempts import Attempt, Phase
from executors.agent.instructions import CloseLane, Do, OpenLane, Start
from executors.agent.slots import Grant, Ledger

LANE_AHEAD_MS = 16.0
"""Tasks whose mean is shorter are queued to a lane up to this much work."""
MAX_DEPTH = 64
PATIENCE_MS = 10_000
"""So long may smaller attempts overtake the first one that does not fit; then what gets free is kept for it."""
_MEAN_WEIGHT = 0.2


@dataclass(slots=True)
class Lane:
    """A grant with a slot, and the attempts in it, the running one first."""

    id: int
    key: tuple[int, int]
    grant: Grant
    attempts: list[int] = field(default_factory=list)
    head_since_ms: int = 0


class Lanes:
    """The lanes that are open, and the queues of attempts that wait for one.

    Args:
        ledger: what the device lends.
        attempts: all that the worker holds, by number; the session's own, which it changes.
        is_warm: whether a kind's tasks may be queued to a slot ahead of their time.
    """

    def __init__(
        self, ledger: Ledger, attempts: Mapping[int, Attempt], is_warm: Callable[[str], bool]
    ) -> None:
        self.open: dict[int, Lane] = {}
        self.mean_ms: dict[tuple[int, int], float] = {}
        """What a task of a stage takes, of the newest ones mostly."""
        self._ledger = ledger
        self._attempts = attempts
        self._is_warm = is_warm
        self._queues: dict[tuple[int, int], dict[int, None]] = {}
        self._numbers = 0
        self._blocked_since_ms: int | None = None

    def place(self, now_ms: int) -> list[Do]:
        """Start what may start: stages in the order of their arrival, a new lane rather than a deeper one."""
        does: list[Do] = []
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
            if not any(lane.key == key for lane in self.open.values()):
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
        lane = next((one for one in self.open.values() if one.key == key and not one.attempts), None)
        if lane is None:
            grant = self._ledger.take(self._attempts[first].stage.needed)
            if grant is None:
                return False
            self._numbers += 1
            lane = self.open[self._numbers] = Lane(self._numbers, key, grant)
            does.append(OpenLane(lane.id, key[0], key[1], grant))
        self._enter(lane, first, now_ms, does)
        return True

    def _deepen(self, key: tuple[int, int], now_ms: int, does: list[Do]) -> None:
        """Queue more to the lanes of a stage, evenly, when its tasks are short."""
        lanes = [lane for lane in self.open.values() if lane.key == key]
        mean_ms = self.mean_ms.get(key)
        queue = self._queues[key]
        if not lanes or mean_ms is None or not self._is_warm(self._attempts[next(iter(queue))].stage.kind):
            return
        depth = max(1, min(MAX_DEPTH, int(LANE_AHEAD_MS / max(mean_ms, 0.25))))
        room = [(len(lane.attempts), lane.id) for lane in lanes if len(lane.attempts) < depth]
        while queue and room:
            count, number = min(room)
            room.remove((count, number))
            self._enter(self.open[number], next(iter(queue)), now_ms, does)
            if count + 1 < depth:
                room.append((count + 1, number))

    def _enter(self, lane: Lane, number: int, now_ms: int, does: list[Do]) -> None:
        del self._queues[lane.key][number]
        attempt = self._attempts[number]
        attempt.phase, attempt.lane = Phase.RUNNING, lane.id
        if not lane.attempts:
            lane.head_since_ms = now_ms
        lane.attempts.append(number)
        does.append(Start(number, lane.id))

    def leave(self, attempt: Attempt, now_ms: int) -> None:
        """The attempt is in no lane any more; the next of its lane is the head."""
        lane = self.open[attempt.lane]
        lane.attempts.remove(attempt.id)
        lane.head_since_ms = now_ms
        attempt.lane = 0
        attempt.told = False

    def close_if_empty(self, number: int) -> list[Do]:
        """Give back what a lane without attempts has. Unknown numbers are of lanes that are closed."""
        lane = self.open.get(number)
        if lane is None or lane.attempts:
            return []
        del self.open[number]
        self._ledger.give_back(lane.grant)
        return [CloseLane(number)]

    def queue(self, attempt: Attempt, *, front: bool = False) -> None:
        """The attempt waits for a lane."""
        key = (attempt.stage.job, attempt.stage.stage)
        queue = self._queues.setdefault(key, {})
        if front:
            self._queues[key] = {attempt.id: None, **queue}
        else:
            queue[attempt.id] = None

    def unqueue(self, attempt: Attempt) -> None:
        """The attempt waits no more."""
        key = (attempt.stage.job, attempt.stage.stage)
        queue = self._queues.get(key)
        if queue is not None:
            queue.pop(attempt.id, None)
            if not queue:
                del self._queues[key]

    # ---- how long tasks take ---------------------------------------------------------------------------------

    def note_time(self, key: tuple[int, int], wall_ms: float) -> None:
        """A task of this stage took so long."""
        # Whole milliseconds are too coarse for a call of 50 µs: tasks below 1 ms count as a quarter.
        wall_ms = wall_ms or 0.25
        old = self.mean_ms.get(key, wall_ms)
        self.mean_ms[key] = old + _MEAN_WEIGHT * (wall_ms - old)

    def note_long(self, key: tuple[int, int]) -> None:
        """A task of this stage has run too long for others to wait behind it."""
        self.mean_ms[key] = max(self.mean_ms.get(key, 0.0), LANE_AHEAD_MS)
