"""The processes of jobs: which nursery a job has, which slot a lane, and what idles for the next attempt.

It decides who may have whose process, and never what runs in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from executors.agent.nurseries import Nursery
from executors.agent.nursery_pool import NurseryPool
from executors.agent.slot_handle import SlotHandle

IDLE_SLOTS_PER_JOB = 8


@dataclass(slots=True)
class LaneRun:
    """A lane's slot; which one changes when it dies."""

    job: int
    stage: int
    slot: SlotHandle | None = None


@dataclass(slots=True)
class JobRun:
    """A job's nursery and its idle slots."""

    nursery: Nursery
    submitter: str
    idle: list[SlotHandle] = field(default_factory=list)
    released: bool = False


class JobProcesses:
    """The slots of the lanes that are open, and the jobs' nurseries.

    Args:
        nurseries: where nurseries come from and go to.
        on_over: is told the number of a job of which nothing is kept here any more.
    """

    def __init__(self, nurseries: NurseryPool, on_over: Callable[[int], None]) -> None:
        self._nurseries = nurseries
        self._on_over = on_over
        self._lanes: dict[int, LaneRun] = {}
        self._jobs: dict[int, JobRun] = {}
        self._background: set[asyncio.Task[None]] = set()

    def open_lane(self, lane: int, job: int, stage: int) -> None:
        """A lane for a stage of a job; its slot comes with its first attempt."""
        self._lanes[lane] = LaneRun(job, stage)

    def close_lane(self, lane: int) -> None:
        """The lane is empty: its slot idles, or ends when it cannot be used for others."""
        run = self._lanes.pop(lane)
        slot, run.slot = run.slot, None
        if slot is not None:
            self._put_back(run.job, slot)

    def _put_back(self, number: int, slot: SlotHandle) -> None:
        job = self._jobs.get(number)
        if job is None or not slot.alive:
            return
        if slot.worn:
            pass  # It ends by itself.
        elif job.released or len(job.idle) >= IDLE_SLOTS_PER_JOB:
            slot.close()
        else:
            job.idle.append(slot)
        if job.released:
            self._end_job_if_idle(number)

    def slot_of(self, number: int, submitter: str, *, is_call: bool) -> SlotHandle:
        """The lane's slot, or a new one when it has none that can be used. Raises OSError when none starts."""
        lane = self._lanes[number]
        slot = lane.slot
        tag = lane.stage if is_call else None
        if slot is not None and slot.alive and not slot.worn and slot.tag in (tag, None):
            slot.tag = tag if is_call else slot.tag
            return slot
        job = self._job(lane.job, submitter)
        # Modules that one stage imported are not for another: its files may have the same names.
        fitting = [
            one for one in job.idle if one.alive and (one.tag == tag or (one.tag is None and not is_call))
        ]
        if fitting:
            slot = fitting[-1]
            job.idle.remove(slot)
        else:
            slot = job.nursery.fork_slot()
        slot.tag = tag
        lane.slot = slot
        return slot

    def _job(self, number: int, submitter: str) -> JobRun:
        job = self._jobs.get(number)
        if job is not None and job.nursery.alive:
            job.released = False
            return job
        if job is not None:
            self._spawn(self._nurseries.end(job.nursery))
        nursery = self._nurseries.take(submitter)
        self._jobs[number] = JobRun(nursery, submitter, [one for one in nursery.slots.values() if one.alive])
        return self._jobs[number]

    def release(self, number: int) -> None:
        """The job is over: its nursery ends when its last lane does."""
        job = self._jobs.get(number)
        if job is not None:
            job.released = True
            self._end_job_if_idle(number)

    def _end_job_if_idle(self, number: int) -> None:
        if any(lane.job == number for lane in self._lanes.values()):
            return
        job = self._jobs.pop(number)
        self._on_over(number)
        for slot in job.idle:
            if slot.tag is not None:
                slot.close()
        self._spawn(self._nurseries.put_back(job.nursery, job.submitter))

    def recall(self, number: int) -> list[int]:
        """Take back the attempts that the lane's slot has not begun."""
        lane = self._lanes.get(number)
        return lane.slot.recall() if lane is not None and lane.slot is not None else []

    def kill(self, job: int, slot: SlotHandle) -> None:
        """Kill a slot of the job, whatever it does."""
        run = self._jobs.get(job)
        if run is not None and slot.alive:
            run.nursery.kill_slot(slot)

    async def suspend(self, *, on: bool) -> None:
        """Stop every lane's tree where it is, or let it go on."""
        waiting = []
        for lane in self._lanes.values():
            job = self._jobs.get(lane.job)
            if lane.slot is not None and lane.slot.alive and job is not None:
                waiting.append(job.nursery.suspend(lane.slot, on=on))
        await asyncio.gather(*waiting)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """End all nurseries with all that runs in them, and wait until it is gone."""
        await asyncio.gather(*(job.nursery.close() for job in self._jobs.values()), *self._background)
        await self._nurseries.close()
        self._jobs.clear()
        self._lanes.clear()
