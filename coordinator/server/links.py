"""Connections of workers: their outgoing messages in order, and which device speaks through which connection.

A device's *owner* is the link on which it attached last; it *speaks* through a link from the moment the scheduler has
handled that attachment. Between the two, messages that the scheduler meant for the old connection never leak into the
new one. Knows no sockets: `workers_ws` drains outboxes, `dispatch` fills them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from sparegrid.ids import DeviceId, SessionId

MAX_WAITING = 50_000
"""Messages that wait for one connection; one that lets more pile up is dropped, its device's lease decides the rest."""


class Parcel:
    """Messages that are still being made (inputs are looked up in the store); what comes behind waits for them."""

    def __init__(self) -> None:
        self.messages: list[Any] | None = None
        self.on_ready: Callable[[], None] | None = None

    def fill(self, messages: list[Any]) -> None:
        """The messages are there."""
        self.messages = messages
        if self.on_ready is not None:
            self.on_ready()


class Outbox:
    """Messages of one connection, in order."""

    def __init__(self, on_overflow: Callable[[], None]) -> None:
        self._waiting: deque[Any] = deque()
        self._filled = asyncio.Event()
        self._on_overflow = on_overflow
        self.closed = False

    def put(self, message: object) -> None:
        """Send this message, or the messages of this parcel, after all before it."""
        if self.closed:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.close()
            self._on_overflow()
            return
        self._waiting.append(message)
        if isinstance(message, Parcel) and message.messages is None:
            message.on_ready = self._filled.set
        else:
            self._filled.set()

    def close(self) -> None:
        """Nothing more leaves; who waits in `take` gets an empty list."""
        self.closed = True
        self._waiting.clear()
        self._filled.set()

    async def take(self) -> list[Any]:
        """All messages that can leave now, at least one; empty when the outbox is closed."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            if self.closed:
                return []
            taken: list[Any] = []
            while self._waiting:
                first = self._waiting[0]
                if isinstance(first, Parcel):
                    if first.messages is None:
                        break
                    taken.extend(first.messages)
                else:
                    taken.append(first)
                self._waiting.popleft()
            if taken:
                return taken


class Link:
    """One connection of a worker and the devices attached to it."""

    def __init__(self, address: str, device: DeviceId, on_drop: Callable[[str], None]) -> None:
        self.address = address
        self.device = device
        """The device whose token opened the connection; others on it are boards."""
        self.sessions: dict[DeviceId, SessionId] = {}
        self.templates: set[tuple[DeviceId, int, int]] = set()
        """What was sent already: (device, job, stage)."""
        self.drop = on_drop
        self.outbox = Outbox(lambda: on_drop("it takes messages more slowly than they come"))
        self.heard_at = 0.0

    def forget_templates(self, device: DeviceId, job: int) -> None:
        """The device drops the job's templates with the job."""
        self.templates = {key for key in self.templates if key[:2] != (device, job)}


class Links:
    """All connections, by device."""

    def __init__(self) -> None:
        self._owner: dict[DeviceId, Link] = {}
        self._speaking: dict[DeviceId, Link] = {}
        self.open: set[Link] = set()

    def own(self, device: DeviceId, session: SessionId, link: Link) -> Link | None:
        """`device` attaches on `link`; the link that it leaves, if it was attached to another."""
        before = self._owner.get(device)
        if before is not None and before is not link:
            before.sessions.pop(device, None)
        self._owner[device] = link
        link.sessions[device] = session
        return before if before is not link else None

    def disown(self, device: DeviceId, link: Link) -> SessionId | None:
        """`device` leaves `link`; its session, or None when it has moved to another link already."""
        session = link.sessions.pop(device, None)
        if self._owner.get(device) is link:
            del self._owner[device]
        if self._speaking.get(device) is link:
            del self._speaking[device]
        return session

    def speak(self, device: DeviceId, link: Link) -> None:
        """The scheduler has handled the attachment."""
        if self._owner.get(device) is link:
            link.templates = {key for key in link.templates if key[0] != device}
            self._speaking[device] = link

    def of(self, device: DeviceId) -> Link | None:
        """Where the scheduler's messages for this device go now."""
        return self._speaking.get(device)

    def owner(self, device: DeviceId) -> Link | None:
        """The link on which the device attached last, handled or not."""
        return self._owner.get(device)

    def silent_since(self, moment: float) -> Iterable[Link]:
        """Links on which nothing was heard since this loop time."""
        return [link for link in self.open if link.heard_at < moment]
