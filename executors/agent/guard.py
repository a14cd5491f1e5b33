"""Keeps tasks from taking the disk and the process ids that all others need, the worker among them.

It looks and names the attempt that is to be stopped; how it is stopped is its caller's matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from executors.agent.run import Runner

GUARD_S = 1.0
GLANCE_S = 0.1
"""How often it is asked, while tasks run, how many processes the whole machine has: one small read."""
GROWTH = 100
"""So many more of them, and it is asked every GROWING_GLANCE_S: a fork bomb needs less than GUARD_S. Once there are
enough of them on the machine for one task to have too many, it is looked at whose they are."""
GROWING_GLANCE_S = 0.02
GROWING = 10
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
        self._begun = asyncio.Event()

    def on_begun(self) -> None:
        """Something runs from now on."""
        self._begun.set()

    async def run(self) -> None:
        """Watch until cancelled. Costs nothing while nothing runs."""
        while True:
            if not self._is_busy():
                self._begun.clear()
                await self._begun.wait()
            await self._glance_until_the_next_look()
            self._runner.cut_outputs()
            if self._is_busy():
                await self._check_crowd()
                await self._check_disk()

    async def _glance_until_the_next_look(self) -> None:
        """Wait, and see meanwhile whether processes become many."""
        before, is_growing = count_threads(), False
        until = time.monotonic() + GUARD_S
        while (left_s := until - time.monotonic()) > 0 and self._is_busy():
            await asyncio.sleep(min(left_s, GROWING_GLANCE_S if is_growing else GLANCE_S))
            count = count_threads()
            is_growing = count - before >= (GROWING if is_growing else GROWTH)
            if is_growing or count < before:
                before = count
            if is_growing and count > MAX_PROCESSES:
                await self._check_crowd()

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


def count_threads(loadavg: Path = Path("/proc/loadavg")) -> int:
    """Threads of all processes of the machine; 0 where the system does not tell in one line."""
    try:
        return int(loadavg.read_text().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return 0
