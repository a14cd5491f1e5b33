"""Routes of jobs: submit, look, change, forget."""

from __future__ import annotations

import asyncio

from aiohttp import web

from coordinator.scheduler.events import (
    ItemsAppended,
    JobCancelled,
    JobClosed,
    JobRemoved,
    JobRetried,
    JobRevived,
    JobSubmitted,
    PriorityChanged,
)
from coordinator.scheduler.explain import ENDED, told
from coordinator.server.checks import check_items, check_submission
from coordinator.server.context import PRINCIPAL, SERVER, Server
from coordinator.server.views import stage_number
from coordinator.server.wire import Handler, answer, nothing, read_body, whole_number
from sparegrid.api import (
    Append,
    JobList,
    JobSpec,
    JobView,
    PriorityChange,
    RetryRequest,
    Submitted,
)
from sparegrid.errors import BadInputError, ConflictError
from sparegrid.ids import JobId, StageIndex, TaskIndex, parse_job_id, parse_task_text
from sparegrid.states import JobState

_ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


async def submit(request: web.Request) -> web.Response:
    """Submit a job: 201 says that it is durable."""
    server = request.app[SERVER]
    server.driver.check_intake()
    spec = await read_body(request, JobSpec)
    checked = await check_submission(spec, server.blobs, server.settings.max_tasks)
    server.driver.check_intake()
    job = server.driver.machine.next_job_id()
    event = JobSubmitted(
        job=job, spec=checked.spec, submitter=request[PRINCIPAL].id, wall_ms=server.driver.clock.wall_ms()
    )
    await server.driver.submit(event)
    return answer(Submitted(str(job), checked.tasks), 201)


async def jobs(request: web.Request) -> web.Response:
    """Jobs, newest first."""
    server = request.app[SERVER]
    states = [each for each in request.query.get("state", "").split(",") if each]
    unknown = [each for each in states if each not in frozenset(JobState)]
    if unknown:
        raise BadInputError("Not a job state", f"{unknown[0]!r} is none of {', '.join(JobState)}")
    limit = max(1, whole_number(request, "limit", 100))
    after = request.query.get("after", "")
    await server.driver.settled()
    found = await server.views.jobs(
        request[PRINCIPAL], states, limit + 1, parse_job_id(after) if after else None
    )
    following = found[limit - 1].id if len(found) > limit else ""
    return answer(JobList(found[:limit], following))


async def job(request: web.Request) -> web.Response:
    """One job."""
    return answer(await _view(request))


async def job_spec(request: web.Request) -> web.Response:
    """The job as it was submitted."""
    server = request.app[SERVER]
    await server.driver.settled()
    return answer(await server.views.spec(_job_id(request), request[PRINCIPAL]))


async def cancel(request: web.Request) -> web.Response:
    """Cancel a job; one that has ended stays as it is."""
    server, view = request.app[SERVER], await _view(request)
    if view.state not in _ENDED:
        wall_ms = server.driver.clock.wall_ms()
        await server.driver.submit(
            JobCancelled(job=_job_id(request), by=request[PRINCIPAL].id, wall_ms=wall_ms)
        )
    return answer(await _view(request))


async def retry(request: web.Request) -> web.Response:
    """Try tasks again; a job that left memory comes back first."""
    server, view = request.app[SERVER], await _view(request)
    body = await read_body(request, RetryRequest)
    server.driver.check_intake()
    wanted = _listed(body.tasks, view)
    if not body.failed and not wanted:
        raise BadInputError("Nothing to retry", "neither `failed` nor any of `tasks` is given")
    if wanted is None and not view.failed + view.lost + view.cancelled:
        raise ConflictError("Nothing to retry", f"No task of job {view.id} failed, was lost or cancelled")
    machine = server.driver.machine
    job = _job_id(request)
    if not machine.has_job(job):
        state = await asyncio.to_thread(server.store.retired_state, job)
        await _revive(server, job, state)
    await server.driver.submit(JobRetried(job=job, tasks=wanted))
    return answer(await _view(request))


async def _revive(server: Server, job: JobId, state: bytes) -> None:
    if server.driver.machine.has_job(job):
        return  # Somebody else brought it back meanwhile.
    try:
        await server.driver.submit(JobRevived(job=job, state=state))
    except ConflictError:
        if not server.driver.machine.has_job(job):
            raise


async def append(request: web.Request) -> web.Response:
    """Append items to an open job."""
    server, view = request.app[SERVER], await _view(request)
    body = await read_body(request, Append)
    server.driver.check_intake()
    stage = stage_number(view, body.stage)
    spec = await server.views.spec(_job_id(request), request[PRINCIPAL])
    await check_items(spec, stage, body.items, server.blobs, view, server.settings.max_tasks)
    await server.driver.submit(ItemsAppended(job=_job_id(request), stage=stage, items=body.items))
    return answer(await _view(request))


async def close(request: web.Request) -> web.Response:
    """No more items."""
    await _view(request)
    await request.app[SERVER].driver.submit(JobClosed(job=_job_id(request)))
    return answer(await _view(request))


async def priority(request: web.Request) -> web.Response:
    """Change the priority."""
    await _view(request)
    body = await read_body(request, PriorityChange)
    await request.app[SERVER].driver.submit(PriorityChanged(job=_job_id(request), priority=body.priority))
    return answer(await _view(request))


async def remove_job(request: web.Request) -> web.Response:
    """Forget an ended job and its results."""
    view = await _view(request)
    if view.state not in _ENDED:
        raise ConflictError("Job has not ended", f"Job {view.id} is {view.state}", "Cancel it first")
    await request.app[SERVER].driver.submit(JobRemoved(job=_job_id(request)))
    return nothing()


async def explain_job(request: web.Request) -> web.Response:
    """Why a job waits."""
    server, view = request.app[SERVER], await _view(request)
    machine, job = server.driver.machine, _job_id(request)
    if machine.has_job(job):
        return answer(machine.explain_job(job, server.driver.clock.now_ms()))
    ended = ENDED[view.state] + (f": {view.reason}" if view.reason else "")
    return answer(told(f"job {view.id}", ended, []))


def _job_id(request: web.Request) -> JobId:
    return parse_job_id(request.match_info["job"])


async def _view(request: web.Request) -> JobView:
    server = request.app[SERVER]
    await server.driver.settled()
    return await server.views.job(_job_id(request), request[PRINCIPAL])


def _listed(texts: list[str], view: JobView) -> list[tuple[StageIndex, TaskIndex]] | None:
    """The listed tasks of this job; None when none is listed. Raises BadInputError, NotFoundError."""
    found: list[tuple[StageIndex, TaskIndex]] = []
    for text in texts:
        job, stage, index = parse_task_text(text)
        if str(job) != view.id or stage is None or index is None:
            raise BadInputError(
                "Not a task of this job", f"{text!r} is no task of job {view.id}, like {view.id}.0.5"
            )
        number = stage_number(view, stage)
        if index >= view.stages[number].total:
            total = view.stages[number].total
            raise BadInputError("No such task", f"{text!r}: the stage has tasks 0 to {total - 1}")
        found.append((number, index))
    return found or None


HANDLERS: dict[str, Handler] = {
    "submit": submit,
    "jobs": jobs,
    "job": job,
    "job_spec": job_spec,
    "cancel": cancel,
    "retry": retry,
    "append": append,
    "close": close,
    "priority": priority,
    "remove_job": remove_job,
    "explain_job": explain_job,
}
