"""A few threads for disk work, so that neither the loop nor the default executor waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """Wait for `work` even when cancelled, once or often; the cancellation goes on when it has ended.

    Disk work cannot be interrupted, and who is cancelled in the middle must find its files quiet.
    """
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # Read, so that asyncio does not report it as never retrieved.
        raise cancelled
    return future.result()


class Threads:
    """Runs blocking functions in threads of its own."""

    def __init__(self, count: int = 8) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="blobs")

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """`function(*args)` in a thread. A cancelled caller goes on when the function has ended."""
        return await to_the_end(
            asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args))
        )

    async def close(self) -> None:
        """Wait for what runs and end the threads."""
        await to_the_end(asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown))
