"""What the driver asks of its neighbours: where facts become durable, and where effects go."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from coordinator.scheduler.effects import Effect
from coordinator.scheduler.events import DeviceAttached
from coordinator.server.store import Batch


class Journal(Protocol):
    """Where facts become durable. It holds batches while the disk is full, and ends the process at other errors."""

    def commit(self, batch: Batch) -> Future[int]:
        """The batch's sequence number, once it is on disk."""

    def save_snapshot(self, data: bytes, seq: int) -> Future[None]:
        """Keep the state as of batch `seq`."""


class Outlet(Protocol):
    """Where effects go."""

    def prepare(self, effect: Effect) -> object | None:
        """What to release after the commit; called while the machine is in the very state that caused the effect."""

    def release(self, prepared: Sequence[object]) -> None:
        """Let these out, in order: what caused them is durable."""

    def speaks(self, event: DeviceAttached, link: object) -> None:
        """From now on the machine means `link` when it talks to this device."""
