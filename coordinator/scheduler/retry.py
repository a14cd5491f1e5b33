"""Trying ended tasks again, and reviving the dependents that were cancelled because of them."""

from __future__ import annotations

from coordinator.scheduler.jobs import recount, settle_job
from coordinator.scheduler.needs import Verdict, classify, grow, needed_range, set_state, verdict_of
from coordinator.scheduler.state import CANCELLED, DONE, FAILED, LOST, WAITING, Job, Stage, World
from coordinator.scheduler.story import tell_task
from coordinator.scheduler.transitions import forget_trouble
from sparegrid.errors import ConflictError, NotFoundError
from sparegrid.ids import StageIndex, TaskIndex

_TO_WAITING = bytes(WAITING if DONE < one <= LOST else one for one in range(256))
Chosen = list[tuple[StageIndex, TaskIndex]] | None


def check_retry(job: Job, tasks: Chosen) -> None:
    """Refuse what cannot be tried again.

    Raises:
        NotFoundError: a task that does not exist.
        ConflictError: a task that is done, or nothing that could be tried again.
    """
    if tasks is None:
        if not any(
            stage.counts[FAILED] + stage.counts[CANCELLED] + stage.counts[LOST] for stage in job.stages
        ) and not (any(stage.excluded_on for stage in job.stages)):
            raise ConflictError(
                "Nothing to retry",
                f"job {job.id} has no failed, lost or cancelled task",
                "Name tasks to retry",
            )
        return
    for number, index in tasks:
        if not 0 <= number < len(job.stages) or not 0 <= index < job.stages[number].total:
            raise NotFoundError("No such task", f"job {job.id} has no task {job.id}.{number}.{index}")
        stage = job.stages[number]
        if stage.states[index] == DONE or (stage.states[index] < DONE and not excluded(stage, index)):
            raise ConflictError("Not a task to retry", tell_task(stage, index))


def retry(world: World, job: Job, tasks: Chosen) -> None:
    """Put them back. None: every failed, lost or cancelled one, and those that were barred from devices."""
    job.cancelled_by = None
    if tasks is None:
        for stage in job.order:
            _restart_ended(world, stage)
    else:
        _restart_chosen(world, job, tasks)
    _mend(world, job)
    for stage in job.order:
        classify(world, stage)
        world.ripples.append((stage, 0, 0))
    if not job.open:
        settle_job(world, job)
    world.marks.jobs[job] = None


def _restart_ended(world: World, stage: Stage) -> None:
    """Every ended task that is not done starts afresh; all that it needs does, too."""
    stage.excluded_on.clear()
    ended = stage.total - stage.unfinished - stage.counts[DONE]
    if not ended:
        return
    for sparse in (stage.tries, stage.failures, stage.checkpoints, stage.crashes):
        for index in [one for one in sparse if stage.states[one] > DONE]:
            del sparse[index]
    stage.states = stage.states.translate(_TO_WAITING)
    recount(stage)
    stage.job.unfinished += ended
    world.marks.task(stage, 0, stage.total)


def _restart_chosen(world: World, job: Job, tasks: list[tuple[StageIndex, TaskIndex]]) -> None:
    revived: dict[Stage, dict[int, None]] = {}
    for stage in job.order:
        chosen: dict[int, None] = dict.fromkeys(index for number, index in tasks if number == stage.index)
        for index in _revivable(stage, revived):
            chosen[index] = None
        revived[stage] = chosen
        for index in chosen:
            forget_trouble(stage, index)
            if stage.states[index] > DONE:
                set_state(world, stage, index, WAITING)


def excluded(stage: Stage, index: int) -> bool:
    """Whether some device is excluded for the task."""
    return any(index in tasks for tasks in stage.excluded_on.values())


def _revivable(stage: Stage, revived: dict[Stage, dict[int, None]]) -> list[int]:
    """Tasks cancelled upstream whose needs have been revived, and whose other needs do not stand against them."""
    candidates: dict[int, None] = {}
    for link in stage.needs:
        back = revived.get(link.up)
        if not back:
            continue
        if link.need.map == "all":
            candidates.update(dict.fromkeys(range(stage.total)))
        elif link.need.map == "same":
            candidates.update(back)
        else:
            candidates.update(dict.fromkeys(index // link.need.size for index in back))
    return [
        index
        for index in candidates
        if index < stage.total and stage.states[index] == CANCELLED and not _doomed(stage, index)
    ]


def _doomed(stage: Stage, index: int) -> bool:
    return any(
        verdict_of(link, index) is Verdict.DOOMED and _really_bad(link.up, needed_range(link, index))
        for link in stage.needs
    )


def _really_bad(up: Stage, tasks: range) -> bool:
    """A broken stage that is about to be mended does not count; tasks that ended badly do."""
    return (
        any(up.states.count(bad, tasks.start, tasks.stop) for bad in (FAILED, CANCELLED, LOST)) or not tasks
    )


def _mend(world: World, job: Job) -> None:
    """Stages that could not get all their items may get them now."""
    for stage in job.order:
        source = stage.source
        if not stage.broken or source is None or source.broken:
            continue
        if source.unfinished or source.complete or not source.final:
            stage.broken = ""
            grow(world, stage)
