"""The logs that somebody follows: from where on, and the pieces that are told as they grow.

A command's output is sent by its slot; a call's lies in a file, into which is looked while it is followed.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from executors.agent.slot_handle import SlotHandle
from executors.nursery.protocol import LogPiece
from sparegrid.messages import Inline, Outcome

_FOLLOW_EVERY_S = 0.25
_FOLLOW_BYTES = 32 << 10


class LogListener(Protocol):
    """Who is told pieces of logs."""

    def on_log(self, attempt: int, offset: int, data: bytes, skipped: int, last: bool) -> None:
        """A piece of a followed log."""


class FollowedLogs:
    """The followed logs of one worker.

    Args:
        outbox: where large logs lie once their attempt has ended.
        listener: is told the pieces.
    """

    def __init__(self, outbox: Path, listener: LogListener) -> None:
        self._outbox = outbox
        self._listener = listener
        self._next: dict[int, int] = {}
        """By attempt, the first byte that was not told yet."""
        self._polls: dict[int, asyncio.Task[None]] = {}

    def __contains__(self, attempt: int) -> bool:
        return attempt in self._next

    def add(self, attempt: int, offset: int) -> None:
        """Somebody follows the attempt's log from `offset` on. Nothing is told before `begin`."""
        self._next[attempt] = offset

    def drop(self, attempt: int) -> None:
        """Nobody does any more."""
        self._next.pop(attempt, None)
        self._stop_polling(attempt)

    def begin(self, attempt: int, slot: SlotHandle, *, is_call: bool) -> None:
        """The attempt is in this slot: tell what it prints."""
        if is_call:
            self._stop_polling(attempt)
            self._polls[attempt] = asyncio.create_task(self._poll(attempt, slot))
        else:
            slot.follow(attempt, on=True, offset=self._next[attempt])

    async def _poll(self, attempt: int, slot: SlotHandle) -> None:
        while True:
            if slot.head == attempt:
                offset = self._next[attempt]
                data = read_at(slot.output_path, offset, _FOLLOW_BYTES)
                if data:
                    self._next[attempt] = offset + len(data)
                    self._listener.on_log(attempt, offset, data, 0, last=False)
            await asyncio.sleep(_FOLLOW_EVERY_S)

    def _stop_polling(self, attempt: int) -> None:
        task = self._polls.pop(attempt, None)
        if task is not None:
            task.cancel()

    def on_piece(self, piece: LogPiece) -> None:
        """A slot sent a piece."""
        if piece.attempt in self._next:
            self._next[piece.attempt] = piece.offset + len(piece.data)
            self._listener.on_log(piece.attempt, piece.offset, piece.data, piece.skipped, last=False)

    def end(self, attempt: int, outcome: Outcome) -> None:
        """The rest of a followed log, as far as it is small; the whole log is in the outcome."""
        offset = self._next.pop(attempt, None)
        self._stop_polling(attempt)
        if offset is None:
            return
        if isinstance(outcome.log, Inline):
            size, data = len(outcome.log.data), outcome.log.data[offset:]
        elif outcome.log is not None:
            size = outcome.log.size
            start = max(offset, size - _FOLLOW_BYTES)
            data = read_at(self._outbox / outcome.log.hash, start, _FOLLOW_BYTES)
        else:
            size, data = offset, b""
        start = max(offset, size - len(data))
        self._listener.on_log(attempt, start, data, start - offset, last=True)

    async def close(self) -> None:
        """Tell nothing any more."""
        polls = list(self._polls.values())
        for task in polls:
            task.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


def read_at(path: Path, offset: int, limit: int) -> bytes:
    """Bytes of a file that may not be there."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)
    except OSError:
        return b""
