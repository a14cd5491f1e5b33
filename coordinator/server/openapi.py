"""The OpenAPI 3.1 document of the interface, generated from the routes and their Structs."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from sparegrid import __version__
from sparegrid.api import API_PREFIX, Event, Problem, Subscribe
from sparegrid.routes import ERROR_STATUSES, ROUTES, Route

_PARAMETER = re.compile(r"\{(\w+)\}")
_PATH_HELP = {
    "job": "A job's id, such as 17",
    "stage": "A stage's name or number",
    "index": "A task's index in its stage",
    "device": "A device's id or name",
    "hash": "SHA-256 of the blob, 64 lower-case hex digits",
}


@cache
def openapi_document() -> dict[str, Any]:
    """The whole document. The same for every coordinator of one version."""
    types = [each for route in ROUTES for each in (route.body, route.answer) if each is not None]
    # Events travel on the WebSocket, which OpenAPI cannot describe; their Structs are listed all the same.
    types += [Problem, Subscribe, Event]
    unique = list({str(each): each for each in types}.values())
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    by_type = {str(kind): schema for kind, schema in zip(unique, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(API_PREFIX + route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sparegrid",
            "version": __version__,
            "description": "One private compute grid. Changes come over the WebSocket `/v1/events` (subprotocol "
            "`v1.json`): send a list with a Subscribe, get lists of events.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route, by_type),
        "security": [] if route.role is None else [{"token": []}],
    }
    if route.role is not None:
        operation["description"] = f"Least role: {route.role}."
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type[str(route.body)]}},
        }
    elif route.method == "PUT":
        operation["requestBody"] = {"required": True, "content": {route.media: {}}}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string"}
    found = [
        {"name": name, "in": "path", "required": True, "description": _PATH_HELP[name], "schema": text}
        for name in _PARAMETER.findall(route.path)
    ]
    return found + [
        {"name": name, "in": "query", "required": False, "description": what, "schema": text}
        for name, what in route.query.items()
    ]


def _responses(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.answer is not None:
        done["content"] = {"application/json": {"schema": by_type[str(route.answer)]}}
    elif route.method == "GET":
        done["content"] = {route.media: {}}
    problem = {"application/json": {"schema": by_type[str(Problem)]}}
    responses = {str(route.status): done}
    for status in ERROR_STATUSES:
        responses[str(status)] = {"description": HTTPStatus(status).phrase}
        if route.method != "HEAD":
            responses[str(status)]["content"] = problem
    return responses
