"""What waits for one commit: the batch itself, and everything that must not leave before it. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordinator.scheduler.effects import Keep, Retire
from coordinator.scheduler.facts import Fact
from coordinator.server.store import Batch, TokenRow
from sparegrid.ids import JobId


class Held:
    """What waits for one commit."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.keeps: list[Keep] = []
        self.retired: list[Retire] = []
        self.forgotten: list[JobId] = []
        self.tokens: list[TokenRow] = []
        self.prepared: list[object] = []
        self.answers: list[asyncio.Future[None]] = []
        self.callbacks: list[Callable[[], None]] = []
        self.now_ms = 0
        self.snapshot: bytes | None = None

    @property
    def durable(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.facts or self.keeps or self.retired or self.forgotten or self.tokens)

    def batch(self) -> Batch:
        """What the store commits."""
        return Batch(
            facts=self.facts,
            keeps=self.keeps,
            retired=self.retired,
            forgotten=self.forgotten,
            now_ms=self.now_ms,
            tokens=self.tokens,
        )
