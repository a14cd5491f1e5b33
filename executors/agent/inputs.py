"""The files of the attempts that are here: fetched into the cache, pinned there until the attempt has ended."""

from __future__ import annotations

from executors.agent.attempts import Attempt
from executors.agent.cache import BlobCache
from executors.agent.transfer import Transfers, refs_of
from executors.nursery.protocol import Place


class Inputs:
    """What was fetched, by attempt.

    Args:
        cache: where blobs are pinned.
        transfers: bring them there.
    """

    def __init__(self, cache: BlobCache, transfers: Transfers) -> None:
        self._cache = cache
        self._transfers = transfers
        self._files: dict[int, list[Place]] = {}
        self._pinned: dict[int, list[str]] = {}

    async def fetch(self, attempt: Attempt) -> None:
        """Have the attempt's files here until `let_go`.

        Raises:
            AttemptFailedError: a blob cannot be had, by whose fault.
        """
        self._pinned[attempt.id] = [ref.hash for ref in refs_of(attempt.stage, attempt.run)]
        self._cache.pin(self._pinned[attempt.id])
        self._files[attempt.id] = await self._transfers.fetch(attempt.stage, attempt.run)

    def of(self, number: int) -> list[Place]:
        """The files of an attempt, as they go into its work folder."""
        return self._files.get(number, [])

    def let_go(self, number: int) -> None:
        """The attempt has ended."""
        self._files.pop(number, None)
        pinned = self._pinned.pop(number, None)
        if pinned is not None:
            self._cache.unpin(pinned)
