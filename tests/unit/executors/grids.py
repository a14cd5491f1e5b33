"""A fake coordinator that speaks the worker wire, and real agents that work for it.

It answers Hello, sends what a test tells it to, keeps what the worker says, and can cut the connection. Blobs are
those of the client's fake. That it behaves as the real coordinator does is checked by the end-to-end tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import WSMsgType, web

from executors.agent.agent import Agent, Identity
from executors.agent.cache import BlobCache
from executors.base import Executor
from executors.registry import load_executors
from sparegrid.client.transport import Transport
from sparegrid.codec import FrameCodec
from sparegrid.messages import (
    SUBPROTOCOL_MSGPACK,
    Ack,
    Assign,
    Attach,
    Attached,
    Capability,
    Delivered,
    Ended,
    FromWorker,
    Hello,
    LogChunk,
    Outcome,
    Payload,
    Reading,
    Refused,
    Run,
    Template,
    ToWorker,
    Welcome,
)
from sparegrid.trust.pinning import Pin
from tests.unit.executors.nurseries import DEADLINE_S
from tests.unit.sparegrid.fake_coordinator import TOKEN, FakeCoordinator, fake_coordinator

M = TypeVar("M")
DEVICE = "testdevice"
ENVIRON = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


class FakeGrid:
    """The coordinator's side of the worker wire."""

    def __init__(self, fake: FakeCoordinator) -> None:
        self.fake = fake
        self.heard: list[FromWorker] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.refusal: Refused | None = None
        self.revoked: list[int] = []
        self.acks = True
        self.heartbeat_ms = 100
        self._news = asyncio.Event()
        self._codec: FrameCodec[FromWorker] = FrameCodec(FromWorker)
        self._attempts = 0
        fake.on("GET", "/worker", self._serve)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=[SUBPROTOCOL_MSGPACK])
        await socket.prepare(request)
        self.sockets.append(socket)
        async for frame in socket:
            if frame.type is WSMsgType.BINARY:
                messages, unknown = self._codec.decode(frame.data)
                assert not unknown, unknown
                for message in messages:
                    await self._hear(socket, message)
        return socket

    async def _hear(self, socket: web.WebSocketResponse, message: FromWorker) -> None:
        self.heard.append(message)
        self._news.set()
        match message:
            case Hello():
                welcome = self.refusal or Welcome("grid", "lab", "1", self.heartbeat_ms, 30_000)
                await socket.send_bytes(self._codec.encode([welcome]))
            case Attach(device=device):
                await socket.send_bytes(self._codec.encode([Attached(device, self.revoked)]))
            case Delivered(attempt=attempt) | Ended(attempt=attempt) if self.acks:
                await socket.send_bytes(self._codec.encode([Ack(DEVICE, [attempt])]))
            case _:
                pass

    async def send(self, *messages: ToWorker) -> None:
        """One frame to the worker."""
        await self.sockets[-1].send_bytes(self._codec.encode(messages))

    def cut(self) -> None:
        """Break the connection as a pulled cable does."""
        socket = self.sockets[-1]
        assert socket._writer is not None
        transport = socket._writer.transport
        assert transport is not None
        transport.abort()

    async def until(self, kind: type[M], wanted: Callable[[M], object] = lambda _: True) -> M:
        """The first message of this kind that was or will be heard."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for message in self.heard:
                    if isinstance(message, kind) and wanted(message):
                        return message
                self._news.clear()
                await self._news.wait()

    async def run(
        self, params: dict[str, Any], *items: Any, kind: str = "command", job: int = 1, **template: Any
    ) -> list[int]:
        """Assign one attempt per item (or one without an item) of a new stage; their numbers."""
        runs = [
            Run(self._attempts + number, number - 1, item) for number, item in enumerate(items or (None,), 1)
        ]
        return await self.assign(params, runs, kind=kind, job=job, **template)

    async def assign(
        self, params: dict[str, Any], runs: list[Run], *, kind: str = "command", job: int = 1, **template: Any
    ) -> list[int]:
        """Assign these runs of a new stage; their numbers."""
        self._attempts = max([self._attempts, *(run.attempt for run in runs)])
        stage = template.pop("stage", self._attempts)
        raw = msgspec.Raw(msgspec.msgpack.encode(params))
        await self.send(
            Template(DEVICE, job, stage, kind, raw, stage_name="main", submitter="ann", **template),
            Assign(DEVICE, job, stage, runs),
        )
        return [run.attempt for run in runs]

    async def sh(self, line: str, **template: Any) -> int:
        """Assign a shell's line; the attempt's number."""
        return (await self.run({"shell": line}, **template))[0]

    async def end_of(self, attempt: int) -> Delivered | Ended:
        """How an attempt ended."""

        def is_end(message: object) -> bool:
            return isinstance(message, Delivered | Ended) and message.attempt == attempt

        found = await self.until(object, is_end)
        assert isinstance(found, Delivered | Ended)
        return found

    async def outcome_of(self, attempt: int) -> Outcome:
        """What an attempt that succeeded left."""
        end = await self.end_of(attempt)
        assert isinstance(end, Delivered), end
        return end.outcome

    async def ended(self, attempt: int) -> Ended:
        """How an attempt without a result ended."""
        end = await self.end_of(attempt)
        assert isinstance(end, Ended), end
        return end

    def chunks_of(self, attempt: int) -> list[LogChunk]:
        """The pieces of a followed log."""
        return [one for one in self.heard if isinstance(one, LogChunk) and one.attempt == attempt]

    def bytes_of(self, payload: Payload | None) -> bytes:
        """A payload's bytes, from the message or from what was uploaded."""
        match payload:
            case None:
                return b""
            case _ if hasattr(payload, "data"):
                return bytes(payload.data)
            case _:
                assert payload.hash in self.fake.whole
                return bytes(self.fake.blobs[payload.hash])


@asynccontextmanager
async def fake_grid(folder: Path) -> AsyncIterator[FakeGrid]:
    """A grid without devices."""
    async with fake_coordinator(folder) as fake:
        yield FakeGrid(fake)


@asynccontextmanager
async def working(
    grid: FakeGrid,
    folder: Path,
    *,
    slots: int = 2,
    session: str = "s1",
    executors: Mapping[str, Executor] | None = None,
    goodbye: bool = True,
    disk_free: int = 1 << 30,
    **capability: Any,
) -> AsyncIterator[Agent]:
    """A device that works for the grid until the block ends."""
    async with Transport([grid.fake.url], Pin(grid.fake.certificate.fingerprint), TOKEN) as transport:
        agent = Agent(
            Identity(DEVICE, "pc", TOKEN, session),
            Capability(os="linux", slots=slots, **capability),
            transport,
            load_executors() if executors is None else executors,
            folder / "worker",
            BlobCache(folder / "cache", 1 << 30),
            ENVIRON,
            lambda: Reading(disk_free=disk_free),
        )
        task = asyncio.create_task(agent.run())
        known = len(grid.sockets)
        try:
            await grid.until(Attach, lambda _: len(grid.sockets) > known)
            yield agent
            if goodbye:
                await agent.say_goodbye()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await agent.close()
