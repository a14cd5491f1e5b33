"""How far away the coordinator is: the time of the smallest request, which is told, not relied on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from executors.agent.transfer import Transfers
from sparegrid.client.transport import DROPPED, Transport
from sparegrid.errors import GridError
from sparegrid.messages import Capability

log = logging.getLogger(__name__)

MEASURE_S = 30.0
ROUNDS = 3


class Distance:
    """Measures latency and bandwidth, and keeps the capability that they are part of.

    Args:
        transport: the way to the coordinator.
        transfers: they know the bandwidth.
        capability: what the device offers, without these figures.
        on_changed: is told the new capability.
    """

    def __init__(
        self,
        transport: Transport,
        transfers: Transfers,
        capability: Capability,
        on_changed: Callable[[Capability], None],
    ) -> None:
        self._transport = transport
        self._transfers = transfers
        self.capability = capability
        self._on_changed = on_changed
        self._linked = asyncio.Event()

    def on_linked(self) -> None:
        """The coordinator was reached anew, perhaps by another way."""
        self._linked.set()

    async def run(self) -> None:
        """Tell the coordinator how far away it is, once connected and when that changes much, until cancelled."""
        while True:
            await self._linked.wait()
            self._linked.clear()
            latency_us = await measure_latency(self._transport)
            while not self._linked.is_set():
                old, bandwidth = self.capability, self._transfers.bandwidth
                if differs(old.latency_us, latency_us) or differs(old.bandwidth, bandwidth):
                    new = msgspec.structs.replace(old, latency_us=latency_us, bandwidth=bandwidth)
                    self.capability = new
                    self._on_changed(new)
                await asyncio.sleep(MEASURE_S)


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
