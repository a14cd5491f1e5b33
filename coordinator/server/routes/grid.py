"""Routes of the grid as a whole: health, joining, the view at a glance, documents."""

from __future__ import annotations

import asyncio

from aiohttp import web

from coordinator.scheduler.events import DeviceJoined
from coordinator.server.context import PRINCIPAL, SERVER, Server
from coordinator.server.openapi import openapi_document
from coordinator.server.wire import Handler, answer, read_body, read_small
from sparegrid import __version__
from sparegrid.api import GridView, Health, JoinCode, JoinCodeRequest, Joined, JoinRequest
from sparegrid.jobfile import job_schema as schema_of_jobs
from sparegrid.messages import PROTOCOL_MAJOR
from sparegrid.states import Role
from sparegrid.trust.codes import Invitation, encode_code, encode_link

MAX_JOIN_BYTES = 4096


async def health(request: web.Request) -> web.Response:
    """Is the coordinator there, and which."""
    server = request.app[SERVER]
    status = "paused" if server.driver.notice else "ok"
    return answer(Health(status, __version__, server.grid, server.name, PROTOCOL_MAJOR))


async def grid(request: web.Request) -> web.Response:
    """The grid at a glance, and who is asking."""
    server = request.app[SERVER]
    principal = request[PRINCIPAL]
    await server.driver.settled()
    view = grid_view(server)
    view.principal, view.role = principal.id, principal.role
    return answer(view)


def grid_view(server: Server) -> GridView:
    """The grid at a glance."""
    counts = server.driver.machine.grid_counts()
    notice = server.driver.notice
    return GridView(
        id=server.grid,
        name=server.name,
        version=__version__,
        fingerprint=server.fingerprint,
        devices=counts.devices,
        devices_online=counts.devices_online,
        slots=counts.slots,
        running=counts.running,
        queued=counts.queued,
        jobs_active=counts.jobs_active,
        tasks_done=counts.tasks_done,
        uptime_s=asyncio.get_running_loop().time() - server.started_at,
        wall_ms=server.driver.clock.wall_ms(),
        notices=[*server.notices, *([notice] if notice else [])],
    )


async def join_code(request: web.Request) -> web.Response:
    """Make a one-time code."""
    server = request.app[SERVER]
    body = await read_body(request, JoinCodeRequest)
    secret, expires_ms = await server.auth.invite(Role(body.role), body.valid_s, request[PRINCIPAL])
    code = encode_code(
        Invitation(tuple(server.invite_at(request.url.host or "")), server.fingerprint, secret)
    )
    return answer(JoinCode(code, encode_link(code), expires_ms, body.role), 201)


async def join(request: web.Request) -> web.Response:
    """Join with a one-time code: the token and the device become durable together."""
    server = request.app[SERVER]
    # Nobody knows the sender yet: it waits its turn before its body is looked at.
    server.auth.tries.check(request.remote or "")
    body = await read_small(request, JoinRequest, MAX_JOIN_BYTES)
    server.driver.check_intake()
    invited = await server.auth.admit(
        body.secret, body.name, body.public_key, request.remote or "", body.role
    )
    if invited.role == Role.WORKER:
        wall_ms = server.driver.clock.wall_ms()
        event = DeviceJoined(device=invited.device, name=body.name, wall_ms=wall_ms)
        await server.driver.submit(event, tokens=[invited.row])
    else:
        await server.auth.keep(invited.row)
    server.auth.welcome(invited.row)
    joined = Joined(server.grid, server.name, invited.token, invited.device, invited.role)
    return answer(joined, 201)


async def openapi(_request: web.Request) -> web.Response:
    """This interface, as OpenAPI 3.1."""
    return answer(openapi_document())


async def job_schema(_request: web.Request) -> web.Response:
    """JSON Schema of a job, for editors."""
    return answer(schema_of_jobs())


HANDLERS: dict[str, Handler] = {
    "health": health,
    "grid": grid,
    "join_code": join_code,
    "join": join,
    "openapi": openapi,
    "job_schema": job_schema,
}
