"""How far away the coordinator is: the time of the smallest request, which is told, not relied on."""

from __future__ import annotations

import logging
import time

from sparegrid.client.transport import DROPPED, Transport
from sparegrid.errors import GridError

log = logging.getLogger(__name__)

ROUNDS = 3


async def measure_latency(transport: Transport) -> int:
    """Microseconds from asking to hearing, the best of some rounds; 0 when nobody answers."""
    best = 0.0
    for _ in range(ROUNDS):
        begun = time.monotonic()
        try:
            await transport.call("GET", "/health", repeatable=False)
        except (GridError, *DROPPED) as error:
            log.debug("the latency cannot be measured: %s", error)
            break
        taken = time.monotonic() - begun
        best = min(best, taken) if best else taken
    return round(best * 1_000_000)


def differs(old: int, new: int) -> bool:
    """Whether a measured figure has changed enough to be told: by more than half, or from nothing."""
    return new > 0 and (old == 0 or new > old * 1.5 or new * 1.5 < old)
