"""Collects the effects of one batch of events, coalesced: facts in ranges, one message and one view per device.

Accepted results of one (device, stage) share a fact, and so do assignments, as long as no other fact comes between:
results commute with each other, but not with a cancel or a retry.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.scheduler.effects import (
    AckAttempts,
    Allot,
    AssignTasks,
    Effect,
    PublishDevice,
    PublishJob,
    PublishTasks,
    Record,
    Send,
)
from coordinator.scheduler.facts import Accepted, Assigned, Fact, Requeued
from coordinator.scheduler.marks import Marks, merged
from coordinator.scheduler.state import Attempt, Device, Stage, World
from sparegrid.ids import AttemptId, DeviceId, TaskIndex
from sparegrid.messages import Cancel


@dataclass(slots=True, eq=False)
class Batch:
    """Effects so far. Records and Keeps are one transaction; what is sent and published follows them."""

    world: World
    records: list[Effect] = field(default_factory=list)
    sends: list[Effect] = field(default_factory=list)
    retired: list[Effect] = field(default_factory=list)
    _accepted: dict[tuple[Device, Stage], Accepted] = field(default_factory=dict)
    _assigned: dict[tuple[Device, Stage], Assigned] = field(default_factory=dict)
    _requeued: Requeued | None = None
    _acks: dict[DeviceId, list[AttemptId]] = field(default_factory=dict)

    def record(self, fact: Fact) -> None:
        """Append a fact; what comes later is not merged into what came before it."""
        self._accepted.clear()
        self._assigned.clear()
        self._requeued = None
        self.records.append(Record(fact))

    def accepted(
        self, stage: Stage, device: Device, entry: tuple[TaskIndex, AttemptId, int, int], large: list[str]
    ) -> None:
        """One more accepted result."""
        fact = self._accepted.get((device, stage))
        if fact is None:
            fact = Accepted(stage.job.id, stage.index, device.id, [], [], self.world.now_ms)
            # Results of different tasks commute; what was assigned or requeued before them does not.
            self._assigned.clear()
            self._requeued = None
            self._accepted[device, stage] = fact
            self.records.append(Record(fact))
        fact.entries.append(entry)
        if large:
            fact.large.extend((entry[0], one) for one in large)

    def assigned(
        self, stage: Stage, device: Device, attempt: AttemptId, index: TaskIndex, count: int, number: int
    ) -> None:
        """One more run of attempts."""
        fact = self._assigned.get((device, stage))
        if fact is None:
            fact = Assigned(device.id, stage.job.id, stage.index, [], self.world.now_ms)
            self._accepted.clear()
            self._requeued = None
            self._assigned[device, stage] = fact
            self.records.append(Record(fact))
        ranges = fact.ranges
        if ranges:
            last = ranges[-1]
            if last[0] + last[2] == attempt and last[1] + last[2] == index and last[3] == number:
                ranges[-1] = (last[0], last[1], last[2] + count, number)
                return
        ranges.append((attempt, index, count, number))

    def requeued(self, device: Device, attempts: list[AttemptId], reason: str, crash: bool = False) -> None:
        """Attempts ended at once, uncounted."""
        last = self._requeued
        if last is not None and last.device == device.id and last.reason == reason and last.crash == crash:
            last.attempts.extend(attempts)
            return
        fact = Requeued(device.id, list(attempts), reason, self.world.now_ms, crash)
        self.record(fact)
        self._requeued = fact

    def ack(self, device: DeviceId, attempt: AttemptId) -> None:
        """The device may forget this attempt."""
        known = self._acks.get(device)
        if known is None:
            self._acks[device] = [attempt]
        else:
            known.append(attempt)

    def close(self, allots: list[tuple[Stage, Assigned]]) -> list[Effect]:
        """All effects in order; `allots` are the assignments to send. Empties the marks."""
        marks = self.world.marks
        out = self.records
        out += [AckAttempts(device, attempts) for device, attempts in self._acks.items()]
        out += _cancels(marks.revoked)
        out += self.sends
        out += [_assign_tasks(stage, fact) for stage, fact in allots]
        out += _views(marks)
        out += self.retired
        marks.clear()
        return out

    def open_assignments(self) -> list[tuple[Stage, Assigned]]:
        """The assignments that were recorded last, to be sent."""
        return [(stage, fact) for (_, stage), fact in self._assigned.items()]


def _cancels(revoked: list[tuple[Attempt, str]]) -> list[Effect]:
    """One Cancel per device and reason, for the attempts that have not ended meanwhile."""
    by_device: dict[tuple[DeviceId, str], list[int]] = {}
    for attempt, reason in revoked:
        if attempt.id in attempt.device.live and attempt.device.attached:
            by_device.setdefault((attempt.device.id, reason), []).append(attempt.id)
    return [Send(Cancel(device, attempts, reason)) for (device, reason), attempts in by_device.items()]


def _assign_tasks(stage: Stage, fact: Assigned) -> Effect:
    allots: list[Allot] = []
    for attempt, index, count, number in fact.ranges:
        low = 0
        if stage.checkpoints:
            # Only single tries have one: they never were part of a fresh run of more.
            for k in range(count):
                checkpoint = stage.checkpoints.get(index + k)
                if checkpoint is not None:
                    if k > low:
                        allots.append(_allot(attempt, index, low, k, number))
                    allots.append(Allot(AttemptId(attempt + k), TaskIndex(index + k), 1, number, checkpoint))
                    low = k + 1
        if count > low:
            allots.append(_allot(attempt, index, low, count, number))
    return AssignTasks(fact.device, fact.job, fact.stage, allots)


def _allot(attempt: AttemptId, index: TaskIndex, low: int, high: int, number: int) -> Allot:
    return Allot(AttemptId(attempt + low), TaskIndex(index + low), high - low, number)


def _views(marks: Marks) -> list[Effect]:
    out: list[Effect] = [
        PublishTasks(
            stage.job.id, stage.index, [(TaskIndex(low), TaskIndex(high)) for low, high in merged(runs)]
        )
        for stage, runs in marks.tasks.items()
    ]
    out += [PublishJob(job.id) for job in marks.jobs]
    out += [PublishDevice(device.id) for device in marks.devices]
    return out
