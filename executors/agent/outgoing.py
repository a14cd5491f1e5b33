"""What goes to the coordinator, in this order: into the spool, then into a frame.

Messages of one turn of the loop leave as one frame; what is worth it is synced to the disk before.
"""

from __future__ import annotations

import asyncio

from executors.agent.link import Link
from executors.agent.spool import Spool
from sparegrid.messages import Delivered, Ended, FromWorker

GATHER_S = 0.001
BURST_GATHER_S = 0.006
"""After a frame has left, the next one waits this long for more to go with it: longer while many come."""
BURST_MESSAGES = 3
MAX_FRAME_MESSAGES = 2000


class Outgoing:
    """The queue of messages.

    Args:
        link: where frames go.
        spool: where results are kept before.
    """

    def __init__(self, link: Link, spool: Spool) -> None:
        self._link = link
        self._spool = spool
        self._messages: list[FromWorker] = []
        self._keeping: list[Delivered | Ended] = []
        self._wake = asyncio.Event()
        self._finished = False

    def say(self, message: FromWorker) -> None:
        """Queue a message for the next frame. Without a connection it is dropped: the session says it again."""
        if self._link.is_open and not self._finished:
            self._messages.append(message)
            self._wake.set()

    def keep(self, result: Delivered | Ended) -> None:
        """Spool a result before the next frame leaves."""
        self._keeping.append(result)
        self._wake.set()

    def drop(self) -> None:
        """The connection is gone, and with it what was to be said on it."""
        self._messages.clear()

    async def run(self) -> None:
        """Spool and send until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._write_spool():
                await asyncio.to_thread(self._spool.sync)
            batch, self._messages = self._messages, []
            for first in range(0, len(batch), MAX_FRAME_MESSAGES):
                await self._link.send(batch[first : first + MAX_FRAME_MESSAGES])
            await asyncio.sleep(BURST_GATHER_S if len(batch) >= BURST_MESSAGES else GATHER_S)

    async def finish(self, last: FromWorker) -> None:
        """Spool and send what is left, and this last: nothing is said after it."""
        self._finished = True
        self._write_spool()
        batch, self._messages = [*self._messages, last], []
        await self._link.send(batch)

    def _write_spool(self) -> bool:
        """Write what is to be kept; True when it deserves a sync."""
        keeping, self._keeping = self._keeping, []
        return bool(keeping) and self._spool.keep(keeping)
