"""Routes of tasks: windows, single tasks, results, logs, why they wait."""

from __future__ import annotations

import asyncio

from aiohttp import web

from coordinator.scheduler.explain import ENDED, told
from coordinator.server.context import PRINCIPAL, SERVER
from coordinator.server.routes.blobs import send_payload
from coordinator.server.store import Kept
from coordinator.server.views import STATES, stage_number
from coordinator.server.wire import Handler, answer, whole_number
from sparegrid.api import JobView, ResultPage, TaskResult
from sparegrid.errors import BadInputError, NotFoundError
from sparegrid.ids import AttemptId, JobId, StageIndex, TaskRef, parse_job_id


async def tasks(request: web.Request) -> web.Response:
    """A window of a stage's tasks."""
    server, view = request.app[SERVER], await _job(request)
    stage = stage_number(view, request.query.get("stage", ""))
    first = whole_number(request, "first", 0, 1 << 62)
    limit = max(1, whole_number(request, "limit", 100))
    return answer(await server.views.tasks(view, stage, first, limit, request.query.get("state", "")))


async def task(request: web.Request) -> web.Response:
    """One task and its attempts."""
    ref = await _ref(request)
    return answer(await request.app[SERVER].views.task(ref))


async def explain_task(request: web.Request) -> web.Response:
    """Why a task waits."""
    server, ref = request.app[SERVER], await _ref(request)
    machine = server.driver.machine
    if machine.has_job(ref.job):
        return answer(machine.explain_task(ref, server.driver.clock.now_ms()))
    view = await server.views.task(ref)
    tried = [
        f"attempt {each.number} on {each.device_name}: {each.reason or each.state}" for each in view.attempts
    ]
    return answer(told(f"task {ref}", ENDED[view.state] + (f": {view.reason}" if view.reason else ""), tried))


async def results(request: web.Request) -> web.Response:
    """What the tasks left behind, in order of (stage, index). The cursor is `stage.index` of the next one."""
    server, view = request.app[SERVER], await _job(request)
    stage_text = request.query.get("stage", "")
    only = stage_number(view, stage_text) if stage_text else None
    limit = max(1, whole_number(request, "limit", 100))
    stage, first = _cursor(request.query.get("after", ""), only or StageIndex(0))
    last = len(view.stages) - 1 if only is None else only
    found: list[TaskResult] = []
    following = ""
    while stage <= last:
        rows = await asyncio.to_thread(
            server.store.outcomes, JobId(int(view.id)), stage, first, limit - len(found) + 1
        )
        states = await server.views.states(JobId(int(view.id)), stage)
        for row in rows:
            if len(found) == limit:
                following = f"{row.stage}.{row.index}"
                break
            found.append(_result(row, view, states, server.views.device_name(row.device)))
        if following:
            break
        stage, first = StageIndex(stage + 1), 0
    return answer(ResultPage(found, following))


async def task_log(request: web.Request) -> web.StreamResponse:
    """What the task printed, as kept from its newest ended attempt, or from the one that is named."""
    server, ref = request.app[SERVER], await _ref(request)
    named = request.query.get("attempt", "")
    if named and not (named.isascii() and named.isdigit() and len(named) <= 18):
        raise BadInputError("Not an attempt's id", f"attempt={named[:80]!r} must be a number")
    kept = await asyncio.to_thread(server.store.attempts, ref.job, ref.stage, ref.index)
    if named:
        kept = [each for each in kept if each.attempt == AttemptId(int(named))]
    if not kept:
        what = f"attempt {named} of task {ref}" if named else f"task {ref}"
        raise NotFoundError("No log", f"Nothing is kept of {what}", "Logs are kept when an attempt has ended")
    outcome = kept[-1].outcome
    headers = {"Log-Bytes": str(outcome.log_bytes), "Log-Cut": "1" if outcome.log_cut else "0"}
    return await send_payload(request, outcome.log, headers)


def _result(row: Kept, view: JobView, states: bytes, device: str) -> TaskResult:
    state = STATES[states[row.index]] if row.index < len(states) else STATES[4 if row.accepted else 5]
    return TaskResult(
        id=f"{row.job}.{row.stage}.{row.index}",
        stage=view.stages[row.stage].name,
        index=row.index,
        state=state,
        device=device,
        outcome=row.outcome,
        reason=row.reason,
    )


def _cursor(text: str, first_stage: StageIndex) -> tuple[StageIndex, int]:
    if not text:
        return first_stage, 0
    stage, _, index = text.partition(".")
    if not (text.isascii() and stage.isdigit() and index.isdigit() and len(text) <= 24):
        raise BadInputError("Not a cursor", f"after={text[:80]!r} is none of ours")
    return StageIndex(int(stage)), int(index)


async def _job(request: web.Request) -> JobView:
    server = request.app[SERVER]
    await server.driver.settled()
    return await server.views.job(parse_job_id(request.match_info["job"]), request[PRINCIPAL])


async def _ref(request: web.Request) -> TaskRef:
    server, info = request.app[SERVER], request.match_info
    await server.driver.settled()
    return await server.views.ref(parse_job_id(info["job"]), info["stage"], info["index"], request[PRINCIPAL])


HANDLERS: dict[str, Handler] = {
    "tasks": tasks,
    "task": task,
    "explain_task": explain_task,
    "results": results,
    "task_log": task_log,
}
