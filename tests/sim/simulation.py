"""A grid in virtual time: many devices that come, go, crash and pause, driving one pure Machine. Random by seed only.

Devices keep what a worker keeps: assigned attempts in order, as many running as they have slots, and finished ones
until they are acknowledged. The simulation counts what the facts accept, and notes each task that was begun on a
device while it was running on another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

import msgspec

from coordinator.scheduler.effects import AckAttempts, AssignTasks, Effect, Record, Retire, Send
from coordinator.scheduler.events import (
    AttemptEnded,
    AttemptsStarted,
    DeviceAttached,
    DeviceDetached,
    DeviceHeard,
    DevicePolicyChanged,
    JobSubmitted,
    ResultDelivered,
    SchedulerEvent,
    Ticked,
)
from coordinator.scheduler.facts import Accepted, Fact
from coordinator.scheduler.limits import Limits
from coordinator.scheduler.machine import Machine
from sparegrid.api import JobSpec, StageSpec
from sparegrid.ids import AttemptId, DeviceId, JobId, PrincipalId, SessionId, StageIndex, TaskIndex
from sparegrid.messages import Attached, Cancel, Capability, KindInfo, Outcome, Reading, TakeBack, Usage

Task = tuple[int, int, int]
_READING = Reading()
_NOTHING = Outcome(exit_code=1)


class FakeDevice:
    """A worker as the coordinator sees it."""

    __slots__ = (
        "capability", "connected", "gone", "held", "name", "order", "paused", "restarts", "running", "slots", "spool",
    )  # fmt: skip

    def __init__(self, name: str, slots: int, speed: float) -> None:
        self.name, self.slots = name, slots
        self.capability = Capability(
            os="linux", arch="x86_64", cpus=slots, slots=slots, kinds={"command": KindInfo(speed=speed)}
        )
        self.connected = self.gone = self.paused = False
        self.restarts = 0
        self.order: list[int] = []
        """Assigned and not started."""
        self.running: dict[int, None] = {}
        self.held: dict[int, Task] = {}
        """Assigned and not finished."""
        self.spool: dict[int, tuple[Task, str]] = {}
        """Finished and not acknowledged, with whom to blame (empty: it succeeded)."""

    @property
    def session(self) -> SessionId:
        return SessionId(f"{self.name}.{self.restarts}")


class Simulation:
    """One run. `window_ms` of virtual time are one burst of events."""

    def __init__(
        self, seed: int, devices: int, *, window_ms: int = 100, limits: Limits | None = None
    ) -> None:
        self.random = Random(seed)
        self.limits = limits or Limits()
        self.machine = Machine(limits=self.limits)
        self.window_ms = window_ms
        self.now_ms = 1_000
        self.todo: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.seq = 0
        self.outbox: list[SchedulerEvent] = []
        self.devices = {
            f"d{n}": FakeDevice(
                f"d{n}", self.random.choice((1, 2, 2, 4, 8)), self.random.choice((0.5, 1.0, 2.0))
            )
            for n in range(devices)
        }
        self.accepted: dict[Task, int] = {}
        self.begun: dict[Task, dict[str, None]] = {}
        """Devices that are running each task now."""
        self.reruns: list[Task] = []
        """Tasks that began on a device while they were running on another one."""
        self.retired: dict[int, str] = {}
        self.facts: list[Fact] | None = None
        """All of them, when they are kept."""
        self.digest = hashlib.sha256()
        self.digesting = False
        self.mean_ms = 20_000
        self.bad_permille = 5
        self.batches = 0

    # ---- the clock ---------------------------------------------------------------------------------------------

    def at(self, delay_ms: int, act: Callable[..., None], *args: Any) -> None:
        """Do this so much later."""
        self.seq += 1
        heappush(self.todo, (self.now_ms + max(1, delay_ms), self.seq, act, args))

    def run(self, until: Callable[[], bool], most_ms: int = 10_000_000) -> None:
        """Let time pass until it is so."""
        end = self.now_ms + most_ms
        while not until():
            assert self.now_ms < end, f"not over after {most_ms} ms of virtual time"
            self.step()

    def step(self) -> None:
        """One window of virtual time, one burst of events."""
        end = self.now_ms + self.window_ms
        if not self.outbox and self.todo and self.todo[0][0] > end:
            # Nothing happens for a while.
            deadline = self.machine.next_deadline()
            end = min(self.todo[0][0], deadline if deadline is not None else end)
        while self.todo and self.todo[0][0] <= end:
            self.now_ms, _, act, args = heappop(self.todo)
            act(*args)
        self.now_ms = max(self.now_ms, end)
        self.flush()

    def flush(self) -> None:
        """Give the machine what has happened."""
        events = self.outbox or [Ticked()]
        self.outbox = []
        effects = self.machine.handle_all(events, self.now_ms)
        self.batches += 1
        if self.digesting:
            self.digest.update(msgspec.msgpack.encode(effects))
        for effect in effects:
            self._take_in(effect)

    def _take_in(self, effect: Effect) -> None:
        if isinstance(effect, AssignTasks):
            device = self.devices[effect.device]
            if device.connected:
                for allot in effect.allots:
                    for k in range(allot.count):
                        device.held[allot.attempt + k] = (effect.job, effect.stage, allot.index + k)
                        device.order.append(allot.attempt + k)
                self.start(device)
        elif isinstance(effect, AckAttempts):
            for one in effect.attempts:
                self.devices[effect.device].spool.pop(one, None)
        elif isinstance(effect, Record):
            if self.facts is not None:
                self.facts.append(effect.fact)
            if isinstance(effect.fact, Accepted):
                for index, *_ in effect.fact.entries:
                    task = (effect.fact.job, effect.fact.stage, index)
                    self.accepted[task] = self.accepted.get(task, 0) + 1
        elif isinstance(effect, Send):
            self._hear(effect.message)
        elif isinstance(effect, Retire):
            self.retired[effect.job] = msgspec.json.decode(effect.view)["state"]

    def _hear(self, message: object) -> None:
        match message:
            case Cancel(device=name, attempts=attempts):
                device = self.devices[name]
                if device.connected:
                    for one in attempts:
                        self.end(device, one, "grid")
            case TakeBack(device=name, attempts=attempts):
                device = self.devices[name]
                for one in [one for one in attempts if device.connected and one in device.order]:
                    self.end(device, one, "grid", unstarted=True)
            case Attached(device=name, revoked=revoked):
                device = self.devices[name]
                for one in revoked:
                    self.end(device, one, "grid")
            case _:
                pass

    # ---- what devices do ---------------------------------------------------------------------------------------

    def submit(self, stages: list[StageSpec], submitter: str = "ann", priority: int = 5) -> JobId:
        """Submit a job."""
        job = self.machine.next_job_id()
        spec = JobSpec(name=f"job {job}", stages=stages, priority=priority)
        self.outbox.append(JobSubmitted(job, spec, PrincipalId(submitter), self.now_ms))
        self.flush()
        return job

    def attach(self, device: FakeDevice, *, unclean: bool = False) -> None:
        """It connects, with what it has."""
        if device.connected:
            return
        device.connected, device.gone = True, False
        self.outbox.append(
            DeviceAttached(
                DeviceId(device.name), device.session, device.name, device.capability,
                [AttemptId(one) for one in device.held], [AttemptId(one) for one in device.spool], [], "ready", "",
                unclean, self.now_ms,
            )
        )  # fmt: skip
        device.paused = False
        for attempt, (task, blame) in device.spool.items():
            self.report(device, attempt, task, blame)
        self.at(self.random.randrange(1, 20_000), self.beat, device, device.restarts)

    def cut(self, device: FakeDevice, *, seen: bool = True) -> None:
        """Its connection breaks; it works on."""
        if device.connected:
            device.connected = False
            if seen:
                self.outbox.append(DeviceDetached(DeviceId(device.name), device.session, False))

    def crash(self, device: FakeDevice) -> None:
        """Its worker dies; only the spool remains."""
        self.cut(device)
        for one in device.running:
            self._stop(device, one)
        device.running.clear()
        device.order.clear()
        device.held.clear()
        device.restarts += 1

    def leave(self, device: FakeDevice) -> None:
        """It says goodbye."""
        if device.connected:
            self.outbox.append(DeviceDetached(DeviceId(device.name), device.session, True))
            device.connected = False
            self.crash(device)

    def pause(self, device: FakeDevice, on: bool) -> None:
        """Its owner comes, or goes: everything is given back, or taken again."""
        if device.connected:
            device.paused = on
            state = "paused" if on else "ready"
            self.outbox.append(DevicePolicyChanged(DeviceId(device.name), state, "in use" if on else "", 0))
            for one in list(device.held) if on else ():
                self.end(device, one, "owner")

    def beat(self, device: FakeDevice, restarts: int) -> None:
        """A heartbeat, as long as this session is connected."""
        if device.connected and device.restarts == restarts:
            self.outbox.append(DeviceHeard(DeviceId(device.name), _READING))
            self.at(self.machine.heartbeat_ms(), self.beat, device, restarts)

    def start(self, device: FakeDevice) -> None:
        """Start what fits."""
        started: list[AttemptId] = []
        while device.order and len(device.running) < device.slots and not device.paused:
            attempt = device.order.pop(0)
            device.running[attempt] = None
            task = device.held[attempt]
            others = self.begun.setdefault(task, {})
            if others:
                self.reruns.append(task)
            others[device.name] = None
            started.append(AttemptId(attempt))
            self.at(int(self.random.expovariate(1 / self.mean_ms)), self.finish, device, attempt)
        if started and device.connected:
            self.outbox.append(AttemptsStarted(DeviceId(device.name), started))

    def finish(self, device: FakeDevice, attempt: int) -> None:
        """It is through, unless it was stopped meanwhile."""
        if attempt in device.running:
            roll = self.random.randrange(1000)
            self.end(device, attempt, "" if roll >= self.bad_permille else ("task", "device")[roll % 2])

    def end(self, device: FakeDevice, attempt: int, blame: str, *, unstarted: bool = False) -> None:
        """An attempt has ended on the device."""
        task = device.held.pop(attempt, None)
        if task is None:
            return
        if attempt in device.running:
            del device.running[attempt]
            self._stop(device, attempt, task)
        else:
            device.order.remove(attempt)
        if unstarted:
            self.report(device, attempt, task, blame, unstarted=True)
        else:
            device.spool[attempt] = (task, blame)
            if device.connected:
                self.report(device, attempt, task, blame)
        self.start(device)

    def report(
        self, device: FakeDevice, attempt: int, task: Task, blame: str, *, unstarted: bool = False
    ) -> None:
        """Tell how it ended."""
        job, stage, index = JobId(task[0]), StageIndex(task[1]), TaskIndex(task[2])
        if blame:
            self.outbox.append(
                AttemptEnded(
                    DeviceId(device.name), job, stage, index, AttemptId(attempt), blame, "no luck", _NOTHING,
                    unstarted=unstarted,
                )
            )  # fmt: skip
        else:
            outcome = Outcome(exit_code=0, usage=Usage(wall_ms=self.mean_ms))
            self.outbox.append(
                ResultDelivered(DeviceId(device.name), job, stage, index, AttemptId(attempt), outcome)
            )

    def _stop(self, device: FakeDevice, attempt: int, task: Task | None = None) -> None:
        task = task or device.held[attempt]
        others = self.begun.get(task, {})
        others.pop(device.name, None)
        if not others:
            self.begun.pop(task, None)

    # ---- churn -------------------------------------------------------------------------------------------------

    def churn(self, share: float, within_ms: int) -> None:
        """So many of the devices have trouble once, some time in the given span; half of them come back."""
        for device in self.devices.values():
            if self.random.random() < share:
                self.at(self.random.randrange(1, within_ms), self.trouble, device)

    def trouble(self, device: FakeDevice) -> None:
        """Something happens to a device."""
        away = self.random.choice((3_000, 15_000, 90_000, 200_000))
        kind = self.random.randrange(6)
        if kind == 0:
            self.cut(device)
            self.at(away, self.attach, device)
        elif kind == 1:
            self.cut(device, seen=False)
            self.at(away, self.attach, device)
        elif kind == 2:
            self.crash(device)
            self.at(away, self._come_back, device, self.random.random() < 0.5)
        elif kind == 3:
            self.leave(device)
            if self.random.random() < 0.5:
                self.at(away, self.attach, device)
        elif kind == 4:
            self.crash(device)
            device.gone = True
        else:
            self.pause(device, True)
            self.at(away, self.pause, device, False)

    def _come_back(self, device: FakeDevice, unclean: bool) -> None:
        self.attach(device, unclean=unclean)

    # ---- the coordinator ---------------------------------------------------------------------------------------

    def restart_coordinator(self, away_ms: int, snapshot: bytes | None = None, kept: int = 0) -> None:
        """It dies with everything in memory, and comes back from its facts after `away_ms`. Devices work on."""
        assert self.facts is not None
        for device in self.devices.values():
            self.cut(device, seen=False)
        self.outbox.clear()
        end = self.now_ms + away_ms
        while self.todo and self.todo[0][0] <= end:
            self.now_ms, _, act, args = heappop(self.todo)
            if act != self.attach:
                act(*args)
        self.now_ms = end
        self.outbox.clear()
        self.machine = Machine(limits=self.limits)
        if snapshot is not None:
            self.machine.load(snapshot)
        for fact in self.facts[kept:]:
            self.machine.apply(fact)
        self.machine.resume(self.now_ms)
        for device in self.devices.values():
            if not device.gone:
                self.at(self.random.randrange(1, 10_000), self.attach, device)
