"""The scheduler: events in, effects out. Same events, same effects, bit for bit.

`handle` decides, makes facts and applies them; `apply` restores from facts and never decides. Requests that the state
does not allow raise house errors before anything has changed; what devices say never raises. An impossible transition
raises InvariantError with the story, and the machine must not be used any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop
from typing import Any

from coordinator.scheduler import events as e
from coordinator.scheduler import (
    explain,
    invariants,
    membership,
    outcomes,
    requests,
    restore,
    sessions,
    snapshots,
    views,
)
from coordinator.scheduler.batch import Batch
from coordinator.scheduler.effects import Effect, Retire, Send
from coordinator.scheduler.events import SchedulerEvent
from coordinator.scheduler.facts import Fact, Finished
from coordinator.scheduler.jobs import drop_job, job_over, job_state
from coordinator.scheduler.limits import Limits
from coordinator.scheduler.marks import Marks
from coordinator.scheduler.needs import needed_range, source_task
from coordinator.scheduler.placement import place
from coordinator.scheduler.snapshots import full_spec, save_job
from coordinator.scheduler.state import Job, Stage, World
from coordinator.scheduler.tail import balance
from sparegrid.api import (
    DeviceView,
    Explanation,
    JobSpec,
    JobView,
    Need,
    StageSpec,
    StageView,
    TaskView,
    dump_json,
)
from sparegrid.errors import ConflictError, NotFoundError
from sparegrid.expect import nearest
from sparegrid.ids import DeviceId, JobId, StageIndex, TaskIndex, TaskRef
from sparegrid.messages import Release

Handler = Callable[[World, Batch, Any], None]


def _on_ticked(world: World, batch: Batch, event: e.Ticked) -> None:
    """Deadlines are looked at after every batch; this event only brings the time."""


HANDLERS: dict[type[Any], Handler] = {
    e.JobSubmitted: requests.on_job_submitted,
    e.ItemsAppended: requests.on_items_appended,
    e.JobClosed: requests.on_job_closed,
    e.JobCancelled: requests.on_job_cancelled,
    e.JobRetried: requests.on_job_retried,
    e.JobRevived: requests.on_job_revived,
    e.JobRemoved: requests.on_job_removed,
    e.PriorityChanged: requests.on_priority_changed,
    e.WeightChanged: requests.on_weight_changed,
    e.DeviceJoined: membership.on_device_joined,
    e.DeviceAttached: membership.on_device_attached,
    e.DeviceDetached: membership.on_device_detached,
    e.DeviceHeard: membership.on_device_heard,
    e.DevicePolicyChanged: membership.on_device_policy_changed,
    e.DevicePauseAsked: membership.on_device_pause_asked,
    e.DeviceChanged: membership.on_device_changed,
    e.CapabilityReported: membership.on_capability_reported,
    e.DeviceRevoked: membership.on_device_revoked,
    e.BlobsHeld: membership.on_blobs_held,
    e.AttemptsStarted: outcomes.on_attempts_started,
    e.AttemptsSuspended: outcomes.on_attempts_suspended,
    e.AttemptProgressed: outcomes.on_attempt_progressed,
    e.ResultDelivered: outcomes.on_result_delivered,
    e.AttemptEnded: outcomes.on_attempt_ended,
    e.ClockJumped: membership.on_clock_jumped,
    e.Ticked: _on_ticked,
}
"""Every event's handler; a test checks that none is missing."""


class Machine:
    """One grid's scheduler.

    Args:
        heartbeat_ms: the least interval between heartbeats; it grows with the number of devices.
        limits: what is refused, how far is assigned ahead, how long is waited.
    """

    def __init__(self, *, heartbeat_ms: int = 10_000, limits: Limits | None = None) -> None:
        self._world = World(limits or Limits(), heartbeat_ms, Marks())
        self._reserved = 0
        self._batch: Batch | None = None

    # ---- events ------------------------------------------------------------------------------------------------

    def handle(self, event: SchedulerEvent, now_ms: int) -> list[Effect]:
        """What follows from one event. Requests may raise house errors; then nothing has changed."""
        return self.handle_all((event,), now_ms)

    def handle_all(self, events: Sequence[SchedulerEvent], now_ms: int) -> list[Effect]:
        """What follows from a burst of events, placed once. Give requests, which may be refused, one at a time.

        When an event is refused, what the events before it caused comes with the next call's effects.
        """
        world = self._world
        world.now_ms = max(world.now_ms, now_ms)
        batch = self._batch = self._batch or Batch(world)
        for event in events:
            wall_ms = getattr(event, "wall_ms", 0)
            if wall_ms:
                world.wall_offset_ms = wall_ms - world.now_ms
            HANDLERS[type(event)](world, batch, event)
        membership.end_leases(world, batch)
        self._wake(batch)
        self._retire(batch)
        place(world, batch)
        balance(world, batch)
        self._batch = None
        return batch.close(batch.open_assignments())

    def next_deadline(self) -> int | None:
        """When to send `Ticked` at the latest; None when nothing is due."""
        due = [
            heap[0] if isinstance(heap[0], int) else heap[0][0]
            for heap in (self._world.leases, self._world.wakes)
            if heap
        ]
        return min(due, default=None)

    # ---- restore -----------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        """Restore one fact of the journal."""
        restore.apply(self._world, fact)
        self._world.marks.clear()

    def resume(self, now_ms: int) -> None:
        """After a restore: every device that has a session gets a new lease to come back in."""
        world = self._world
        world.now_ms = max(world.now_ms, now_ms)
        for device in world.devices.values():
            if device.session:
                sessions.renew_lease(world, device)
        for job in world.jobs.values():
            if job_over(job):
                requests.hold(world, job)

    def snapshot(self) -> bytes:
        """Everything durable, for `load`."""
        return snapshots.snapshot(self._world)

    def load(self, data: bytes) -> None:
        """Take over a snapshot. The machine must be new. Raises StorageError when it cannot be read."""
        snapshots.load(self._world, data)
        self._world.marks.clear()

    # ---- jobs --------------------------------------------------------------------------------------------------

    def next_job_id(self) -> JobId:
        """A new job's id; each call gives another one."""
        self._reserved = max(self._reserved, self._world.next_job - 1) + 1
        return JobId(self._reserved)

    def jobs(self) -> Iterable[JobId]:
        """Jobs in memory, oldest first."""
        return list(self._world.jobs)

    def has_job(self, job: JobId) -> bool:
        """Whether the job is in memory."""
        return job in self._world.jobs

    def spec(self, job: JobId) -> JobSpec:
        """The job as it was submitted, with the items that were appended since."""
        return full_spec(self._job(job))

    def stage_spec(self, job: JobId, stage: StageIndex) -> StageSpec:
        """One stage as the scheduler holds it: all but its listed values, which `item` tells. Cheap."""
        return self._stage(job, stage).spec

    def job_view(self, job: JobId) -> JobView:
        """The job as every screen shows it."""
        return views.job_view(self._world, self._job(job))

    def stage_views(self, job: JobId) -> list[StageView]:
        """Its stages."""
        return [views.stage_view(stage) for stage in self._job(job).stages]

    def task_view(self, ref: TaskRef) -> TaskView:
        """A task with the attempts that are remembered; those of done tasks are in the store."""
        return views.task_view(self._world, self._task(ref), ref.index)

    def task_states(self, job: JobId, stage: StageIndex) -> bytes:
        """The ordinal of TaskState of each task."""
        return bytes(self._stage(job, stage).states)

    def item(self, job: JobId, stage: StageIndex, index: TaskIndex) -> Any:
        """The task's item; None when it has none, or is made of a file (see `source_of`)."""
        return self._task(TaskRef(job, stage, index)).items.item(index)

    def needed_tasks(
        self, job: JobId, stage: StageIndex, index: TaskIndex
    ) -> list[tuple[Need, StageIndex, range]]:
        """Which tasks of which stages this task needs, need by need."""
        found = self._task(TaskRef(job, stage, index))
        return [(link.need, link.up.index, needed_range(link, index)) for link in found.needs]

    def source_of(
        self, job: JobId, stage: StageIndex, index: TaskIndex
    ) -> tuple[StageIndex, TaskIndex, int] | None:
        """Whose file made this item: stage, task, ordinal among its files that match, by path (`globs.matching`)."""
        return source_task(self._task(TaskRef(job, stage, index)), index)

    # ---- devices -----------------------------------------------------------------------------------------------

    def devices(self) -> Iterable[DeviceId]:
        """All members, oldest first."""
        return list(self._world.devices)

    def device_view(self, device: DeviceId) -> DeviceView:
        """The device as every screen shows it."""
        return views.device_view(self._world, membership.device_of(self._world, device))

    def find_device(self, text: str) -> DeviceId:
        """The member of this id or name. Raises NotFoundError, or ConflictError when several begin so."""
        world = self._world
        if text in world.devices:
            return DeviceId(text)
        if text in world.names:
            return world.names[text]
        begin = [one for one in world.devices.values() if len(text) >= 4 and one.id.startswith(text)]
        if len(begin) == 1:
            return begin[0].id
        if begin:
            raise ConflictError(
                "Several devices", f"{text!r} begins the ids of {len(begin)} devices", "Type more of it"
            )
        hint = f"{nearest(text[:100], world.names)} `sparegrid devices` lists them".lstrip()
        raise NotFoundError("No such device", f"No device has the id or name {text[:100]!r}", hint)

    def grid_counts(self) -> views.GridCounts:
        """The grid at a glance."""
        return views.grid_counts(self._world)

    def heartbeat_ms(self) -> int:
        """The interval to tell in Welcome."""
        return sessions.heartbeat_ms(self._world)

    def lease_ms(self) -> int:
        """How long a silent device keeps its attempts."""
        return sessions.lease_ms(self._world)

    # ---- words and checks --------------------------------------------------------------------------------------

    def explain_task(self, ref: TaskRef, now_ms: int) -> Explanation:
        """Why a task waits, in words."""
        self._world.now_ms = max(self._world.now_ms, now_ms)
        return explain.explain_task(self._world, self._task(ref), ref.index)

    def explain_job(self, job: JobId, now_ms: int) -> Explanation:
        """Why a job waits."""
        self._world.now_ms = max(self._world.now_ms, now_ms)
        return explain.explain_job(self._world, self._job(job))

    def explain_device(self, device: DeviceId, now_ms: int) -> Explanation:
        """Why a device idles."""
        self._world.now_ms = max(self._world.now_ms, now_ms)
        return explain.explain_device(self._world, membership.device_of(self._world, device))

    def check(self) -> None:
        """Raise InvariantError when the state contradicts itself; slow, for tests and simulations."""
        invariants.check(self._world)

    # ---- inside ------------------------------------------------------------------------------------------------

    def _job(self, job: JobId) -> Job:
        found = self._world.jobs.get(job)
        if found is None:
            raise NotFoundError("No such job", f"job {job} is not in the scheduler's memory")
        return found

    def _stage(self, job: JobId, stage: StageIndex) -> Stage:
        stages = self._job(job).stages
        if not 0 <= stage < len(stages):
            raise NotFoundError("No such stage", f"job {job} has no stage {stage}; it has {len(stages)}")
        return stages[stage]

    def _task(self, ref: TaskRef) -> Stage:
        stage = self._stage(ref.job, ref.stage)
        if not 0 <= ref.index < stage.total:
            raise NotFoundError(
                "No such task",
                f"stage {stage.spec.name} of job {ref.job} has {stage.total} tasks, none is {ref.index}",
            )
        return stage

    def _wake(self, batch: Batch) -> None:
        """What was to be looked at again by now."""
        world = self._world
        if not world.wakes or world.wakes[0] > world.now_ms:
            return
        while world.wakes and world.wakes[0] <= world.now_ms:
            heappop(world.wakes)
        for device in world.devices.values():
            if device.asked_until_ms and device.asked_until_ms <= world.now_ms:
                membership.end_asked(world, batch, device)
            if device.benches:
                world.marks.hungry[device] = None
        for job in world.held:
            world.marks.jobs[job] = None

    def _retire(self, batch: Batch) -> None:
        """Jobs that are over leave memory."""
        world = self._world
        for job in [one for one in world.marks.jobs if job_over(one) and one.hold_until_ms <= world.now_ms]:
            view, state = views.job_view(world, job), save_job(job)
            batch.record(Finished(job.id, job_state(job), view.finished_ms))
            for name in job.devices:
                device = world.devices.get(name)
                if device is not None and device.attached:
                    batch.sends.append(Send(Release(name, job.id)))
            states = [bytes(stage.states) for stage in job.stages]
            batch.retired.append(Retire(job.id, dump_json(view), state, states))
            drop_job(world, job)
