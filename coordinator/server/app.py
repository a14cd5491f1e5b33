"""The HTTP application: every route of the contract with its handler, who may use it, and errors as Problems.

Refuses to be made when a route has no handler. Everything but health, joining and the job schema wants a token; the
workers' WebSocket checks its token in Hello.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from aiohttp import web

from coordinator.server import events_ws, metrics, workers_ws
from coordinator.server.auth import LOCAL, Principal
from coordinator.server.context import PRINCIPAL, SERVER, Server
from coordinator.server.routes import HANDLERS
from coordinator.server.wire import Handler, problem, refuse_large
from sparegrid.api import API_PREFIX, MAX_BODY_BYTES
from sparegrid.errors import (
    BadInputError,
    DeniedError,
    GridError,
    MethodNotAllowedError,
    NotFoundError,
    TooLargeError,
    UnauthenticatedError,
)
from sparegrid.routes import ROUTES, Route
from sparegrid.states import Role

log = logging.getLogger("sparegrid.coordinator.http")

_OPEN_TO_WORKERS = frozenset({"blob", "blob_head", "put_blob"})


def make_app(server: Server) -> web.Application:
    """The application of one coordinator.

    Raises:
        LookupError: a route of the contract has no handler, or a handler no route.
    """
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors])
    app[SERVER] = server
    missing = {route.name for route in ROUTES} ^ HANDLERS.keys()
    if missing:
        raise LookupError(f"routes and handlers differ: {', '.join(sorted(missing))}")
    for route in ROUTES:
        app.router.add_route(route.method, API_PREFIX + route.path, _guarded(route, HANDLERS[route.name]))
    app.router.add_get(API_PREFIX + "/worker", workers_ws.handle)
    app.router.add_get(API_PREFIX + "/events", _for_role(Role.VIEWER, events_ws.handle))
    app.router.add_get("/metrics", _for_role(Role.VIEWER, metrics.handle))
    return app


def principal_of(request: web.Request) -> Principal:
    """Who is asking.

    Raises:
        UnauthenticatedError: no token, or an unknown one.
        TooManyTriesError: too many unknown ones came from this address.
    """
    transport = request.transport
    if transport is not None and transport.get_extra_info("socket").family == getattr(
        socket, "AF_UNIX", None
    ):
        # Only this user can open the local socket.
        return Principal(LOCAL, Role.ADMIN)
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if token and scheme.lower() != "bearer":
        raise UnauthenticatedError(
            "Not a bearer token", f"Authorization must be `Bearer TOKEN`, not {scheme[:20]!r}"
        )
    return request.app[SERVER].auth.principal(token.strip(), request.remote or "")


def _guarded(route: Route, handler: Handler) -> Handler:
    """The handler behind the route's role."""
    if route.role is None:
        return handler
    return _for_role(route.role, handler, workers=route.name in _OPEN_TO_WORKERS, media=route.media)


def _for_role(role: Role, handler: Handler, *, workers: bool = False, media: str = "") -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        principal = principal_of(request)
        if not (principal.may(role) or (workers and principal.role == Role.WORKER)):
            raise DeniedError(
                "Not allowed",
                f"{request.method} {request.path[:200]} is for {_a(role)}; this token is one of {_a(principal.role)}",
                "Ask an administrator of the grid",
            )
        request[PRINCIPAL] = principal
        if media != "application/octet-stream":
            refuse_large(request.content_length)
        return await handler(request)

    return guarded


def _a(role: Role) -> str:
    return f"an {role}" if role == Role.ADMIN else f"a {role}"


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong as a Problem."""
    try:
        return await handler(request)
    except GridError as error:
        answered = problem(error)
        if error.http_status == 401:
            answered.headers["WWW-Authenticate"] = "Bearer"
        return answered
    except web.HTTPException as error:
        return _translated(request, error)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:  # the loop's boundary: one request fails, the coordinator goes on
        log.exception("a request failed", extra={"method": request.method, "path": request.path})
        return problem(
            GridError("Internal error", f"{request.method} {request.path} failed", "See the log"), 500
        )


def _translated(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """The library's own refusals in the house's form."""
    made: GridError
    if error.status == 404:
        made = NotFoundError(
            "No such route", f"There is nothing at {request.path[:200]}", "See /v1/openapi.json"
        )
    elif error.status == 413:
        made = TooLargeError(
            "Too large",
            f"The body is over the limit of {MAX_BODY_BYTES} bytes ({MAX_BODY_BYTES >> 20} MiB)",
            "Upload larger bytes as blobs and refer to them",
        )
    elif isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        made = MethodNotAllowedError(
            "No such method", f"{request.path[:200]} answers {allowed}, not {request.method[:20]}"
        )
    else:
        made = BadInputError(error.reason, f"{request.method} {request.path[:200]}: {error.reason}")
    answered = problem(made, error.status)
    for name in ("Allow", "Content-Range"):
        if name in error.headers:
            answered.headers[name] = error.headers[name]
    return answered
