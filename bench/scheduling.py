"""How fast the pure machine is, measured in its own CPU time."""

from __future__ import annotations

import time
from collections import deque

from coordinator.scheduler.effects import AssignTasks, Effect
from coordinator.scheduler.events import DeviceAttached, JobSubmitted, ResultDelivered
from coordinator.scheduler.machine import Machine
from sparegrid.api import Items, JobSpec, StageSpec
from sparegrid.ids import AttemptId, DeviceId, JobId, PrincipalId, SessionId, StageIndex, TaskIndex
from sparegrid.messages import Capability, KindInfo, Outcome, Usage

FRAME = 64
TASKS = 60_000


def cycles_per_s() -> float:
    """Assign and accept no-op tasks of one job on two devices, a frame of results at a time."""
    machine = Machine()
    held: dict[str, deque[tuple[int, int]]] = {"a": deque(), "b": deque()}
    for name in held:
        what = Capability(os="linux", cpus=2, slots=2, kinds={"command": KindInfo(1.0)})
        machine.handle(
            DeviceAttached(DeviceId(name), SessionId("1"), name, what, [], [], [], "ready", "", False), 0
        )

    def take(effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, AssignTasks):
                for allot in effect.allots:
                    held[effect.device].extend(
                        (allot.attempt + k, allot.index + k) for k in range(allot.count)
                    )

    outcome = Outcome(exit_code=0, usage=Usage(wall_ms=0))
    begin = time.process_time()
    job = JobId(1)
    spec = JobSpec(name="no-ops", stages=[StageSpec(items=Items(count=TASKS))])
    take(machine.handle(JobSubmitted(job, spec, PrincipalId("ann"), 1), 0))
    while machine.has_job(job):
        for name, queue in held.items():
            frame = [queue.popleft() for _ in range(min(FRAME, len(queue)))]
            take(
                machine.handle_all(
                    [
                        ResultDelivered(
                            DeviceId(name), job, StageIndex(0), TaskIndex(index), AttemptId(one), outcome
                        )
                        for one, index in frame
                    ],
                    0,
                )
            )
    return TASKS / (time.process_time() - begin)
