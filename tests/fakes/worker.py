"""A worker that speaks the real wire over real TLS and runs nothing: a function answers each task.

Every message goes through FrameCodec, as a real worker's do.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from sparegrid.codec import FrameCodec
from sparegrid.messages import (
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    SUBPROTOCOL_MSGPACK,
    Ack,
    Assign,
    Attach,
    Attached,
    Cancel,
    Capability,
    Delivered,
    Ended,
    Heartbeat,
    Hello,
    KindInfo,
    Outcome,
    Run,
    Started,
    Template,
    ToWorker,
    Welcome,
)
from sparegrid.trust.keys import DeviceKey
from sparegrid.trust.pinning import Pin

M = TypeVar("M")
Answer = Callable[[Template, Run], Outcome | tuple[str, str] | None]
"""What a task leaves: an outcome, (blame, reason), or None to leave it running."""
LIMIT_S = 20.0


def done(_template: Template, _run: Run) -> Outcome:
    """Every task succeeds at once."""
    return Outcome(exit_code=0)


def busy(_template: Template, _run: Run) -> None:
    """No task ever ends."""


def capability(slots: int = 4, **changes: Any) -> Capability:
    """A Linux machine that runs commands."""
    kinds = {"command": KindInfo(speed=1.0), "python": KindInfo(speed=1.0)}
    return Capability(
        os="linux",
        arch="x86_64",
        cpus=slots,
        slots=slots,
        memory=8 << 30,
        disk_free=64 << 30,
        kinds=kinds,
        **changes,
    )


class FakeWorker:
    """One connection of one device. Use as an async context manager: it is attached inside the block."""

    def __init__(
        self,
        url: str,
        fingerprint: str,
        token: str,
        key: DeviceKey,
        *,
        name: str = "pc",
        session: str = "",
        answer: Answer = done,
        capability: Capability | None = None,
        running: list[int] | None = None,
        spooled: list[int] | None = None,
    ) -> None:
        self.url = url
        self.pin = Pin(fingerprint)
        self.token = token
        self.key = key
        self.name = name
        self.session = session or secrets.token_hex(8)
        self.answer = answer
        self.received: list[Any] = []
        self.templates: dict[tuple[int, int], Template] = {}
        self.runs: list[tuple[int, int, Run]] = []
        self.attempts: dict[int, tuple[int, int, Run]] = {}
        self.welcome: Welcome | None = None
        self.frames = 0
        self._capability = capability or _DEFAULT
        self._running = running or []
        self._spooled = spooled or []
        self._codec: FrameCodec[ToWorker] = FrameCodec(ToWorker)
        self._came = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @property
    def device(self) -> str:
        """The device's id."""
        return self.key.id

    async def __aenter__(self) -> Self:
        await self.connect()
        await self.send(self.attach())
        await self.until(Attached)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self, hello: Hello | None = None) -> None:
        """Open the socket and say Hello; returns when something came back."""
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.pin))
        self.socket = await self._http.ws_connect(
            f"{self.url}/v1/worker", protocols=(SUBPROTOCOL_MSGPACK,), max_msg_size=16 << 20, compress=0
        )
        self._reader = asyncio.create_task(self._read())
        await self.send(
            hello or Hello(PROTOCOL_MAJOR, PROTOCOL_MINOR, "worker", self.token, self.session, version="0")
        )
        await self.until(object)
        if self.received and isinstance(self.received[0], Welcome):
            self.welcome = self.received[0]

    def attach(self) -> Attach:
        """Its own Attach."""
        return Attach(
            self.device,
            self.session,
            self.name,
            self._capability,
            running=self._running,
            spooled=self._spooled,
        )

    async def close(self) -> None:
        """Leave."""
        await self.socket.close()
        if self._reader is not None:
            await self._reader
        await self._http.close()

    def cut(self) -> None:
        """Break the connection without a good-bye, as a pulled cable does."""
        transport = self.socket._writer.transport
        assert isinstance(transport, asyncio.WriteTransport)
        transport.abort()

    async def send(self, *messages: object) -> None:
        """One frame."""
        await self.socket.send_bytes(self._codec.encode(messages))

    async def heartbeat(self) -> None:
        """Say that it lives."""
        await self.send(Heartbeat(self.device))

    async def deliver(self, attempt: int, outcome: Outcome | None = None) -> None:
        """Say that this attempt succeeded."""
        job, stage, run = self.attempts[attempt]
        await self.send(
            Delivered(self.device, job, stage, run.index, attempt, outcome or Outcome(exit_code=0))
        )

    async def until(self, kind: type[M], wanted: Callable[[M], bool] = lambda _: True) -> M:
        """The first message of this kind that came or comes and is wanted."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for message in self.received:
                    if isinstance(message, kind) and wanted(message):
                        return message
                if self._reader is not None and self._reader.done():
                    raise ConnectionError(f"closed before {kind.__name__}; there came {self.received}")
                self._came.clear()
                await self._came.wait()

    async def until_runs(self, count: int) -> list[Run]:
        """The runs that were assigned, at least so many."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.runs) < count:
                self._came.clear()
                await self._came.wait()
        return [run for _, _, run in self.runs]

    async def _read(self) -> None:
        async for frame in self.socket:
            if frame.type is not aiohttp.WSMsgType.BINARY:
                break
            self.frames += 1
            known, unknown = self._codec.decode(frame.data)
            assert not unknown, unknown
            self.received.extend(known)
            answers: list[object] = []
            for message in known:
                answers += self._hear(message)
            self._came.set()
            if answers:
                await self.send(*answers)
        self._came.set()

    def _hear(self, message: ToWorker) -> list[object]:
        if isinstance(message, Template):
            self.templates[message.job, message.stage] = message
        elif isinstance(message, Assign):
            return self._assigned(message)
        elif isinstance(message, Cancel):
            gone = [each for each in message.attempts if each in self.attempts]
            return [self._ended(each, "grid", "cancelled") for each in gone]
        elif isinstance(message, Ack):
            for attempt in message.attempts:
                self.attempts.pop(attempt, None)
        return []

    def _assigned(self, message: Assign) -> list[object]:
        template = self.templates[message.job, message.stage]
        answers: list[object] = [Started(self.device, [run.attempt for run in message.runs])]
        for run in message.runs:
            self.runs.append((message.job, message.stage, run))
            self.attempts[run.attempt] = (message.job, message.stage, run)
            outcome = self.answer(template, run)
            if isinstance(outcome, Outcome):
                answers.append(
                    Delivered(self.device, message.job, message.stage, run.index, run.attempt, outcome)
                )
            elif outcome is not None:
                answers.append(self._ended(run.attempt, *outcome))
        return answers

    def _ended(self, attempt: int, blame: str, reason: str) -> Ended:
        job, stage, run = self.attempts[attempt]
        return Ended(self.device, job, stage, run.index, attempt, blame, reason)


_DEFAULT = capability()
