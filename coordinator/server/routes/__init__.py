"""Handlers of the REST routes, by the name of the route in `sparegrid.routes.ROUTES`."""

from coordinator.server.routes import blobs, devices, grid, jobs, tasks
from coordinator.server.wire import Handler

HANDLERS: dict[str, Handler] = {
    **grid.HANDLERS,
    **jobs.HANDLERS,
    **tasks.HANDLERS,
    **devices.HANDLERS,
    **blobs.HANDLERS,
}

__all__ = ["HANDLERS", "Handler"]
