"""Nurseries that are ready before a job asks: starting one takes as long as fifty tiny tasks.

One that no job has used yet waits for anybody. One whose job is over waits for the next job of the same submitter:
processes that ran a submitter's code never serve another's.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from executors.agent.nurseries import Nursery
from executors.nursery.protocol import LogPiece

log = logging.getLogger(__name__)

MAX_USED = 2
"""How many used ones wait."""


class NurseryPool:
    """Starts nurseries and keeps some ready.

    Args:
        folder: their own folders go below it.
        outbox: where large outputs go.
        environ: environment of nurseries, and so of tasks.
        on_log: takes pieces of followed logs.
    """

    def __init__(
        self, folder: Path, outbox: Path, environ: Mapping[str, str], on_log: Callable[[LogPiece], None]
    ) -> None:
        self._folder = folder
        self._outbox = outbox
        self._environ = environ
        self._on_log = on_log
        self._numbers = 0
        self._fresh: Nursery | None = None
        self._used: list[tuple[str, Nursery]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    def warm_up(self) -> None:
        """Have a fresh one ready. Raises OSError when the system starts none."""
        if self._closed or (self._fresh is not None and self._fresh.alive):
            return
        if self._fresh is not None:
            self._bury(self._fresh)
        self._fresh = self._start()

    def _warm_up_again(self) -> None:
        try:
            self.warm_up()
        except OSError as error:
            log.warning("no nursery can be started in advance: %s", error)

    def _start(self) -> Nursery:
        self._numbers += 1
        nursery = Nursery(self._folder / str(self._numbers), self._outbox, self._on_log)
        nursery.start(self._environ)
        return nursery

    def take(self, submitter: str) -> Nursery:
        """A nursery for a job of this submitter. Raises OSError when none can be started."""
        for one in reversed(self._used):
            if one[0] == submitter:
                self._used.remove(one)
                if one[1].alive:
                    return one[1]
                self._bury(one[1])
        fresh, self._fresh = self._fresh, None
        # The next one starts when this turn's tasks are on their way.
        asyncio.get_running_loop().call_soon(self._warm_up_again)
        if fresh is not None and fresh.alive:
            return fresh
        if fresh is not None:
            self._bury(fresh)
        return self._start()

    async def put_back(self, nursery: Nursery, submitter: str) -> None:
        """Its job is over: it waits for another one, or ends."""
        if self._closed or not nursery.is_idle:
            await self.end(nursery)
            return
        self._used.append((submitter, nursery))
        if len(self._used) > MAX_USED:
            await self.end(self._used.pop(0)[1])

    def _bury(self, nursery: Nursery) -> None:
        """It has died while it waited: reap it."""
        task = asyncio.create_task(self.end(nursery))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def end(self, nursery: Nursery) -> None:
        """End a nursery, and remove its folder."""
        await nursery.close()
        await asyncio.to_thread(shutil.rmtree, nursery.folder, ignore_errors=True)

    async def close(self) -> None:
        """End all that wait."""
        self._closed = True
        waiting = [nursery for _submitter, nursery in self._used]
        if self._fresh is not None:
            waiting.append(self._fresh)
        self._used, self._fresh = [], None
        await asyncio.gather(*(self.end(nursery) for nursery in waiting), *self._ending)
