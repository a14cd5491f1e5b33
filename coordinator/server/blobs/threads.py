"""A few threads for disk work, so that neither the loop nor the default executor waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """Runs blocking functions; a cancelled caller waits until the function has ended, so that files are quiet then."""

    def __init__(self, count: int = 8) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="blobs")

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """`function(*args)` in a thread."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # Read, so that asyncio does not report it as never retrieved.
            raise

    async def close(self) -> None:
        """Wait for what runs and end the threads."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
