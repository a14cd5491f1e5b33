"""Keeps tasks from taking the disk and the process ids that all others need, the worker among them.

It looks and names the attempt that is to be stopped; how it is stopped is its caller's matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from executors.agent.run import Runner

GUARD_S = 1.0
MAX_PROCESSES = 2000
MIN_STOPPED_BYTES = 64 << 20
"""A task whose work folder is smaller than this did not fill any disk."""


class Guard:
    """Watches what runs.

    Args:
        runner: who runs it.
        is_busy: whether anything runs.
        disk_free: bytes that tasks may still fill; 0 when only the reserve is left. Called in a thread.
        stop: ends an attempt at once, for this reason.
    """

    def __init__(
        self,
        runner: Runner,
        is_busy: Callable[[], bool],
        disk_free: Callable[[], int],
        stop: Callable[[int, str], None],
    ) -> None:
        self._runner = runner
        self._is_busy = is_busy
        self._disk_free = disk_free
        self._stop = stop

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(GUARD_S)
            self._runner.cut_outputs()
            if self._is_busy():
                await self._check_crowd()
                await self._check_disk()

    async def _check_crowd(self) -> None:
        crowd = await asyncio.to_thread(self._runner.crowd)
        if crowd is not None and crowd[1] > MAX_PROCESSES:
            self._stop(crowd[0], f"it has {crowd[1]} processes, over the limit of {MAX_PROCESSES}")

    async def _check_disk(self) -> None:
        if await asyncio.to_thread(self._disk_free) > 0:
            return
        found = await asyncio.to_thread(self._runner.largest)
        if found is not None and found[1] > MIN_STOPPED_BYTES:
            reason = f"the disk is full, and its work folder is the largest with {found[1]} bytes"
            self._stop(found[0], reason)
