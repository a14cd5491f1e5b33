"""Chores of a running coordinator: jobs whose time is over are forgotten, blobs that nobody holds are swept."""

from __future__ import annotations

import asyncio
import logging

from coordinator.scheduler.events import JobRemoved
from coordinator.server.context import Server
from sparegrid.errors import GridError

log = logging.getLogger("sparegrid.coordinator.house")

EVERY_S = 60.0
BLOB_GRACE_S = 3600.0
"""A blob that no job holds is kept so long after it was last asked for: the job that needs it may be on its way."""


async def keep_house(server: Server) -> None:
    """Do the chores every minute. Runs until cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            await forget_expired(server)
            swept = await server.blobs.sweep(
                server.driver.clock.wall_ms() / 1000, BLOB_GRACE_S, server.store.pinned
            )
            if swept.blobs or swept.partials:
                log.info(
                    "blobs swept",
                    extra={"blobs": swept.blobs, "bytes": swept.bytes, "partials": swept.partials},
                )
        except GridError as error:
            log.warning("a chore failed, and is tried again: %s", error)


async def forget_expired(server: Server) -> int:
    """Forget ended jobs that were kept as long as they asked for; how many."""
    wall_ms = server.driver.clock.wall_ms()
    expired = await asyncio.to_thread(
        server.store.expired_jobs, wall_ms, default_keep_s=server.settings.keep_results
    )
    for job in expired:
        await server.driver.submit(JobRemoved(job=job))
        log.info("job forgotten", extra={"job": job})
    return len(expired)
