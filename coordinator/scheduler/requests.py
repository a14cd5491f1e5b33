"""What people ask for, about jobs and shares: each request is refused before anything changes, or becomes a fact."""

from __future__ import annotations

from coordinator.scheduler.batch import Batch
from coordinator.scheduler.effects import Forget
from coordinator.scheduler.events import (
    ItemsAppended,
    JobCancelled,
    JobClosed,
    JobRemoved,
    JobRetried,
    JobRevived,
    JobSubmitted,
    PriorityChanged,
    WeightChanged,
)
from coordinator.scheduler.facts import (
    Appended,
    Cancelled,
    Closed,
    Prioritised,
    Removed,
    Retried,
    Revived,
    Submitted,
    Weighted,
)
from coordinator.scheduler.fairness import reprioritise, share_of
from coordinator.scheduler.items import ItemList
from coordinator.scheduler.jobs import (
    add_job,
    append_items,
    cancel_job,
    check_spec,
    check_total,
    close_job,
    drop_job,
    job_over,
    job_state,
)
from coordinator.scheduler.needs import drain
from coordinator.scheduler.retry import check_retry, retry
from coordinator.scheduler.snapshots import load_job
from coordinator.scheduler.state import Job, World
from sparegrid.errors import BadInputError, ConflictError, NotFoundError
from sparegrid.ids import JobId


def on_job_submitted(world: World, batch: Batch, event: JobSubmitted) -> None:
    """Take a job in."""
    if event.job in world.jobs:
        raise ConflictError("The job's number is taken", f"job {event.job} exists already")
    check_spec(world, event.spec)
    batch.record(Submitted(event.job, event.spec, event.submitter, event.wall_ms, world.now_ms))
    add_job(world, event.job, event.spec, event.submitter, event.wall_ms, world.now_ms)
    drain(world)


def on_items_appended(world: World, batch: Batch, event: ItemsAppended) -> None:
    """More items for an open job."""
    job = job_of(world, event.job)
    if not 0 <= event.stage < len(job.stages):
        raise NotFoundError("No such stage", f"job {job.id} has no stage {event.stage}")
    stage = job.stages[event.stage]
    if not job.open:
        raise ConflictError("The job is closed", f"job {job.id} takes no more items")
    if stage.source is not None:
        raise ConflictError(
            "Items come from another stage",
            f"the items of stage {stage.spec.name} are made of the files of stage {stage.source.spec.name}",
        )
    check_total(world, job.spec.name, sum(one.total for one in job.stages) + len(event.items))
    ItemList().extend(event.items)
    batch.record(Appended(job.id, event.stage, event.items))
    append_items(world, stage, event.items)
    drain(world)


def on_job_closed(world: World, batch: Batch, event: JobClosed) -> None:
    """No more items. Closing twice changes nothing."""
    job = job_of(world, event.job)
    if job.open:
        batch.record(Closed(job.id))
        close_job(world, job)
        drain(world)


def on_job_cancelled(world: World, batch: Batch, event: JobCancelled) -> None:
    """Cancelled at once; what runs is told to stop. Cancelling twice changes nothing."""
    job = job_of(world, event.job)
    if job.cancelled_by is not None:
        return
    if job_over(job):
        raise ConflictError("The job has ended", f"job {job.id} is {job_state(job)}")
    batch.record(Cancelled(job.id, event.by, event.wall_ms, world.now_ms))
    cancel_job(world, job, event.by)
    drain(world)


def on_job_retried(world: World, batch: Batch, event: JobRetried) -> None:
    """Try tasks again."""
    job = job_of(world, event.job)
    check_retry(job, event.tasks)
    batch.record(Retried(job.id, event.tasks))
    retry(world, job, event.tasks)
    drain(world)
    job.hold_until_ms = 0
    world.held.pop(job, None)


def on_job_revived(world: World, batch: Batch, event: JobRevived) -> None:
    """A retired job is back in memory, to be retried. It leaves again when it is not."""
    if event.job in world.jobs:
        return
    batch.record(Revived(event.job, event.state))
    hold(world, load_job(world, event.state))


def hold(world: World, job: Job) -> None:
    """Keep an ended job in memory for a while, for its retry."""
    job.hold_until_ms = world.now_ms + world.limits.revived_hold_ms
    world.held[job] = None
    world.wake_at(job.hold_until_ms)


def on_job_removed(world: World, batch: Batch, event: JobRemoved) -> None:
    """Forget an ended job, whether it is in memory or not."""
    job = world.jobs.get(event.job)
    if job is None and not 0 < event.job < world.next_job:
        raise NotFoundError("No such job", f"there is no job {event.job}")
    if job is not None and not job_over(job):
        raise ConflictError(
            "The job has not ended",
            f"job {job.id} is {job_state(job)}",
            "Cancel it, and wait until its tasks stopped",
        )
    batch.record(Removed(event.job))
    if job is not None:
        drop_job(world, job)
    batch.retired.append(Forget(event.job))


def on_priority_changed(world: World, batch: Batch, event: PriorityChanged) -> None:
    """A new priority, within the submitter's share."""
    job = job_of(world, event.job)
    if not 1 <= event.priority <= 10:
        raise BadInputError("Not a priority", f"{event.priority} is not between 1 and 10, the most urgent")
    if event.priority != job.priority:
        batch.record(Prioritised(job.id, event.priority))
        reprioritise(world, job, event.priority)
        world.marks.jobs[job] = None


def on_weight_changed(world: World, batch: Batch, event: WeightChanged) -> None:
    """A new weight in the fair share."""
    if not 1 <= event.weight <= 1_000_000:
        raise BadInputError("Not a weight", f"{event.weight} is not between 1 and 1000000 thousandths")
    batch.record(Weighted(event.submitter, event.weight))
    share_of(world, event.submitter).weight = event.weight


def job_of(world: World, job_id: JobId) -> Job:
    """The job in memory.

    Raises:
        ConflictError: it has ended and left memory.
        NotFoundError: there never was such a job.
    """
    job = world.jobs.get(job_id)
    if job is None:
        if 0 < job_id < world.next_job:
            raise ConflictError("The job has ended", f"job {job_id} has ended")
        raise NotFoundError("No such job", f"there is no job {job_id}")
    return job
