"""The workers' WebSocket: Hello and Welcome, then frames of messages both ways until one side leaves.

Turns messages into scheduler events and outboxes into frames; decides nothing about tasks. One frame a loop turn and
connection, without compression. A connection on which nothing is heard for three heartbeats is dropped: a dead TCP
peer says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import aiohttp
import msgspec
from aiohttp import web

from coordinator.scheduler.events import (
    DeviceDetached,
    DeviceJoined,
)
from coordinator.server.auth import Principal
from coordinator.server.bounding import MAX_BOARDS, bounded
from coordinator.server.context import SERVER, Server
from coordinator.server.hearing import EVENTS, attached
from coordinator.server.links import Link
from coordinator.server.refs import refs_of_outcome
from sparegrid import __version__
from sparegrid.api import MAX_NAME_CHARS
from sparegrid.codec import MAX_FRAME_BYTES, FrameCodec
from sparegrid.errors import DeniedError, GridError, NotFoundError, TooLargeError, VersionError
from sparegrid.ids import DeviceId, SessionId
from sparegrid.messages import (
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    SUBPROTOCOL_MSGPACK,
    Assign,
    Attach,
    Blame,
    Delivered,
    Detach,
    Ended,
    FromWorker,
    Hello,
    LogChunk,
    Refused,
    Welcome,
)
from sparegrid.states import Role

log = logging.getLogger("sparegrid.coordinator.workers")

HELLO_S = 10.0
CLOSE_S = 3.0
SILENT_HEARTBEATS = 3
FRAME_BYTES = 4 << 20
"""Larger frames are split between messages, so that a reader with the wire's limit always takes them."""
_codec: FrameCodec[FromWorker] = FrameCodec(FromWorker)


async def handle(request: web.Request) -> web.StreamResponse:
    """One connection of a worker, from upgrade to end."""
    server = request.app[SERVER]
    socket = web.WebSocketResponse(
        protocols=(SUBPROTOCOL_MSGPACK,),
        compress=False,
        max_msg_size=MAX_FRAME_BYTES,
        timeout=CLOSE_S,
        autoping=True,
    )
    await socket.prepare(request)
    connection = _Connection(server, socket, request)
    server.sockets.add(socket)
    try:
        await connection.run()
    finally:
        server.sockets.discard(socket)
    return socket


class _Connection:
    """One worker's connection."""

    def __init__(self, server: Server, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._server = server
        self._socket = socket
        self._transport = request.transport
        self._address = request.remote or ""
        self._dropped = ""

    async def run(self) -> None:
        """Greet, then read until the end."""
        try:
            hello = await self._hello()
            principal = self._admit(hello)
        except GridError as error:
            await self._refuse(error)
            return
        except (TimeoutError, ConnectionError):
            await self._socket.close(code=aiohttp.WSCloseCode.POLICY_VIOLATION, message=b"no Hello")
            return
        link = Link(self._address, principal.device, self._drop)
        link.heard_at = asyncio.get_running_loop().time()
        link.outbox.put(self._welcome())
        self._server.links.open.add(link)
        sender = asyncio.create_task(self._send(link), name=f"worker {principal.device} out")
        log.info("worker connected", extra={"device": principal.device, "address": self._address})
        try:
            await self._read(link)
        finally:
            link.outbox.close()
            self._server.links.open.discard(link)
            self._leave(link)
            sender.cancel()
            await asyncio.wait([sender])
            with contextlib.suppress(ConnectionError):
                await self._socket.close()
            log.info(
                "worker disconnected", extra={"device": principal.device, "reason": self._dropped or "closed"}
            )

    # ---- greeting ---------------------------------------------------------------------------------------------

    async def _hello(self) -> Hello:
        frame = await self._socket.receive(timeout=HELLO_S)
        if frame.type is not aiohttp.WSMsgType.BINARY:
            raise ConnectionError("closed before Hello")
        try:
            known, unknown = _codec.decode(frame.data)
        except msgspec.DecodeError as error:
            raise VersionError("Not a frame", f"the first frame cannot be read: {error}") from error
        if not known or not isinstance(known[0], Hello):
            what = type(known[0]).__name__ if known else (unknown[0].reason if unknown else "an empty frame")
            raise VersionError("No Hello", f"the first message must be Hello, not {what}")
        return known[0]

    def _admit(self, hello: Hello) -> Principal:
        if hello.major != PROTOCOL_MAJOR:
            older = "worker" if hello.major < PROTOCOL_MAJOR else "coordinator"
            raise VersionError(
                "Another protocol",
                f"this worker speaks protocol {hello.major}.{hello.minor}, "
                f"this coordinator {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
                f"Update the {older}",
            )
        principal = self._server.auth.principal(hello.token, self._address)
        if principal.role != Role.WORKER:
            raise DeniedError(
                "Not a worker's token",
                f"the token is one of a {principal.role}",
                "Join with a code for a worker",
            )
        return principal

    def _welcome(self) -> Welcome:
        server = self._server
        machine = server.driver.machine
        return Welcome(
            grid=server.grid,
            grid_name=server.name,
            version=__version__,
            heartbeat_ms=machine.heartbeat_ms(),
            lease_ms=machine.lease_ms(),
            epoch=server.epoch,
            wall_ms=server.driver.clock.wall_ms(),
        )

    async def _refuse(self, error: GridError) -> None:
        log.info("worker refused", extra={"address": self._address, "reason": str(error)})
        refused = Refused(error.code, error.title, error.message, error.hint)
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(_codec.encode([refused]))
            await self._socket.close(
                code=aiohttp.WSCloseCode.POLICY_VIOLATION, message=error.title.encode()[:100]
            )

    # ---- out --------------------------------------------------------------------------------------------------

    async def _send(self, link: Link) -> None:
        try:
            while messages := await link.outbox.take():
                for frame in frames(messages):
                    await self._socket.send_bytes(frame)
                if any(isinstance(message, Refused) for message in messages):
                    self._dropped = "refused"
                    await self._socket.close(code=aiohttp.WSCloseCode.POLICY_VIOLATION)
                    return
        except ConnectionError:
            self._drop("the connection broke")
        except Exception as error:  # the boundary of one connection: a silent sender would starve the device
            log.exception("messages cannot be sent", extra={"device": link.device})
            self._drop(f"messages cannot be sent: {error}")

    def _drop(self, reason: str) -> None:
        """End the connection now: the reader wakes up and leaves."""
        self._dropped = self._dropped or reason
        if self._transport is not None:
            self._transport.abort()

    # ---- in ---------------------------------------------------------------------------------------------------

    async def _read(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frame = await self._socket.receive()
            if frame.type is not aiohttp.WSMsgType.BINARY:
                return
            link.heard_at = loop.time()
            try:
                known, unknown = _codec.decode(frame.data)
            except msgspec.DecodeError as error:
                log.warning("a frame cannot be read", extra={"device": link.device, "reason": str(error)})
                self._drop(f"a frame cannot be read: {error}")
                return
            for each in unknown:
                log.warning("message not understood", extra={"device": link.device, "reason": each.reason})
            if not await self._hear_all(known, link):
                return

    async def _hear_all(self, messages: Sequence[FromWorker], link: Link) -> bool:
        """False when the connection must end."""
        try:
            for message in messages:
                heard = bounded(message)
                if isinstance(heard, Delivered):
                    heard = await self._checked(heard)
                self._hear(heard, link)
        except GridError as error:
            await self._refuse(error)
            return False
        except Exception as error:  # the boundary of one connection: its worker's mistakes are its own
            log.exception("a message cannot be taken", extra={"device": link.device})
            self._drop(f"a message cannot be taken: {error}")
            return False
        return True

    def _hear(self, message: FromWorker, link: Link) -> None:
        if isinstance(message, Attach):
            self._attach(message, link)
        elif isinstance(message, Hello):
            return
        elif message.device not in link.sessions:
            log.warning("message of a device that is not attached", extra={"device": message.device})
        elif isinstance(message, LogChunk):
            self._server.following.chunk(message)
        elif isinstance(message, Detach):
            self._detach(DeviceId(message.device), link, for_good=message.for_good)
        else:
            self._server.driver.post(EVENTS[type(message)](message))

    async def _checked(self, message: Delivered) -> Delivered | Ended:
        """A result whose blobs never arrived is none: the device did not finish its part."""
        for ref in refs_of_outcome(message.outcome):
            if await self._server.blobs.size(ref.hash) is None:
                reason = f"its result names blob {ref.hash[:80]}, which was never uploaded"
                return Ended(
                    message.device,
                    message.job,
                    message.stage,
                    message.index,
                    message.attempt,
                    Blame.DEVICE,
                    reason,
                )
        return message

    # ---- devices ----------------------------------------------------------------------------------------------

    def _attach(self, message: Attach, link: Link) -> None:
        server = self._server
        device, session = DeviceId(message.device), SessionId(message.session)
        if device not in link.sessions and len(link.sessions) > MAX_BOARDS:
            raise TooLargeError(
                "Too many devices",
                f"{len(link.sessions)} are on this connection; {MAX_BOARDS} boards is the limit",
            )
        known = device in server.devices()
        if device != link.device:
            if server.auth.owns_token(device):
                raise DeniedError("Not this device's connection", f"device {device} has a token of its own")
            if not known:
                name = message.name[:MAX_NAME_CHARS] or device
                server.driver.post(
                    DeviceJoined(device=device, name=name, wall_ms=server.driver.clock.wall_ms())
                )
        elif not known:
            raise NotFoundError("Not a member", f"device {device} was removed from the grid", "Join again")
        before = server.links.own(device, session, link)
        if before is not None and device == before.device:
            before.drop("the device has connected again")
        server.driver.post(attached(message, server.driver.clock.wall_ms()), link)

    def _detach(self, device: DeviceId, link: Link, *, for_good: bool) -> None:
        session = self._server.links.disown(device, link)
        if session is not None:
            self._server.driver.post(DeviceDetached(device=device, session=session, for_good=for_good))

    def _leave(self, link: Link) -> None:
        for device in list(link.sessions):
            self._detach(device, link, for_good=False)


def frames(messages: Sequence[object]) -> list[bytes]:
    """These messages in as few frames as the limit allows.

    Raises:
        TooLargeError: a single run is over it; submissions that would do this are refused.
    """
    frame = _codec.encode(messages)
    if len(frame) <= FRAME_BYTES:
        return [frame]
    if len(messages) > 1:
        half = len(messages) // 2
        return frames(messages[:half]) + frames(messages[half:])
    only = messages[0]
    if isinstance(only, Assign) and len(only.runs) > 1:
        half = len(only.runs) // 2
        parts = [msgspec.structs.replace(only, runs=runs) for runs in (only.runs[:half], only.runs[half:])]
        return frames([parts[0]]) + frames([parts[1]])
    if len(frame) > MAX_FRAME_BYTES:
        raise TooLargeError(
            "Message too large",
            f"{type(only).__name__} of {len(frame)} bytes; {MAX_FRAME_BYTES} is the limit",
        )
    return [frame]


async def watch_silence(server: Server) -> None:
    """Drop connections on which nothing has been heard for too long. Runs until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        patience = max(1.0, server.driver.machine.heartbeat_ms() * SILENT_HEARTBEATS / 1000)
        await asyncio.sleep(patience / 3)
        for link in server.links.silent_since(loop.time() - patience):
            link.drop(f"nothing was heard for {patience:.0f} s")
