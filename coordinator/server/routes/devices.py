"""Routes of devices: look, pause, rename, label, remove."""

from __future__ import annotations

import asyncio

from aiohttp import web

from coordinator.scheduler.events import DeviceChanged, DevicePauseAsked, DeviceRevoked
from coordinator.server.context import PRINCIPAL, SERVER
from coordinator.server.wire import Handler, answer, nothing, read_body
from sparegrid.api import DeviceChange, DeviceList, PauseRequest
from sparegrid.errors import BadInputError, ConflictError
from sparegrid.ids import DeviceId
from sparegrid.messages import DeviceState, PauseVerb, Refused

GOODBYE_S = 1.0
"""How long a removed device has to hear why; then its connection is cut."""


async def devices(request: web.Request) -> web.Response:
    """All devices."""
    server = request.app[SERVER]
    await server.driver.settled()
    return answer(DeviceList(server.views.devices()))


async def device(request: web.Request) -> web.Response:
    """One device, by id or name."""
    server, found = request.app[SERVER], await _device(request)
    return answer(server.views.device(found))


async def explain_device(request: web.Request) -> web.Response:
    """Why a device idles."""
    server, found = request.app[SERVER], await _device(request)
    return answer(server.driver.machine.explain_device(found, server.driver.clock.now_ms()))


async def pause(request: web.Request) -> web.Response:
    """Pause or resume; kept with the device until resumed."""
    server, found = request.app[SERVER], await _device(request)
    body = await read_body(request, PauseRequest)
    wall_ms = server.driver.clock.wall_ms()
    until_ms = wall_ms + round(body.for_s * 1000) if body.for_s else 0
    by = request[PRINCIPAL]
    await server.driver.submit(
        DevicePauseAsked(device=found, verb=body.verb, until_wall_ms=until_ms, by=by.id, wall_ms=wall_ms)
    )
    view = server.views.device(found)
    if body.verb == PauseVerb.RESUME and view.state in (DeviceState.PAUSED, DeviceState.DRAINING):
        # What is known is its last word; it resumes when it hears of this, unless its owner holds it back.
        view.reason, view.until_ms = f"asked to resume by {by.id}", 0
    return answer(view)


async def change_device(request: web.Request) -> web.Response:
    """Rename, label."""
    server, found = request.app[SERVER], await _device(request)
    body = await read_body(request, DeviceChange)
    if not body.name and not body.labels:
        raise BadInputError("Nothing to change", "neither `name` nor `labels` is given")
    for other in server.views.devices():
        if body.name and other.name == body.name and other.id != found:
            raise ConflictError("Name is taken", f"device {other.id} is called {body.name!r} already")
    await server.driver.submit(DeviceChanged(device=found, name=body.name, labels=body.labels))
    return answer(server.views.device(found))


async def remove_device(request: web.Request) -> web.Response:
    """Revoke and forget a device: its tokens open nothing any more, its tasks go back."""
    server, found = request.app[SERVER], await _device(request)
    await server.driver.submit(DeviceRevoked(device=found))
    server.auth.revoke_device(found)
    link = server.links.owner(found)
    if link is not None:
        server.links.disown(found, link)
    if link is not None and link.device == found:
        # Its boards go with it; a board that is removed leaves the others their connection.
        link.outbox.put(Refused("denied", "Removed from the grid", f"device {found} is no member any more"))
        asyncio.get_running_loop().call_later(GOODBYE_S, link.drop, "its device was removed from the grid")
    await server.auth.audit(request[PRINCIPAL], "device removed", found)
    return nothing()


async def _device(request: web.Request) -> DeviceId:
    server = request.app[SERVER]
    await server.driver.settled()
    return server.driver.machine.find_device(request.match_info["device"])


HANDLERS: dict[str, Handler] = {
    "devices": devices,
    "device": device,
    "explain_device": explain_device,
    "pause": pause,
    "change_device": change_device,
    "remove_device": remove_device,
}
