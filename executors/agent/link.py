"""The worker's one connection: a WebSocket that is made anew whenever it breaks.

It knows frames, the handshake and pauses between tries. What messages mean is its `Peer`'s matter.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Protocol

import aiohttp
import msgspec

from sparegrid.client.transport import DROPPED, Transport
from sparegrid.codec import FrameCodec
from sparegrid.errors import DeniedError, GridError, UnreachableError, VersionError, error_classes
from sparegrid.messages import (
    SUBPROTOCOL_MSGPACK,
    Attach,
    FromWorker,
    Hello,
    Refused,
    ToWorker,
    Welcome,
)

log = logging.getLogger(__name__)

PATH = "/worker"
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 8.0
_ANSWER_TIMEOUT_S = 20.0
_VERSION_PAUSE_S = 60.0


class Peer(Protocol):
    """Who speaks over the link."""

    def hello(self) -> Hello:
        """The first message of a connection."""

    def on_welcome(self, welcome: Welcome) -> Attach:
        """The coordinator knows the token; the answer goes out next."""

    def on_messages(self, messages: Sequence[ToWorker]) -> None:
        """A frame came."""

    def on_unlinked(self, reason: str) -> None:
        """The connection, or the try to make one, is over."""


class Link:
    """Keeps one connection to the coordinator.

    Args:
        transport: how to reach it.
        peer: who speaks.
    """

    def __init__(self, transport: Transport, peer: Peer) -> None:
        self._transport = transport
        self._peer = peer
        self._codec: FrameCodec[ToWorker] = FrameCodec(ToWorker)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._pause_s = FIRST_PAUSE_S

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent: the device is attached to this connection."""
        return self._socket is not None

    async def send(self, messages: Sequence[FromWorker]) -> None:
        """One frame. What is sent into a breaking connection is lost; who must be heard says it again."""
        socket = self._socket
        if socket is None:
            return
        try:
            await socket.send_bytes(self._codec.encode(messages))
        except (*DROPPED, aiohttp.ClientError) as error:
            log.debug("a frame of %d messages was not sent: %s", len(messages), error)

    async def run(self) -> None:
        """Connect, serve, and again, until cancelled.

        Raises:
            DeniedError: the coordinator does not know the token any more: the device was removed.
        """
        while True:
            pause_s = 0.0
            try:
                reason = await self._serve()
            except DeniedError:
                raise
            except VersionError as error:
                reason, pause_s = str(error), _VERSION_PAUSE_S
            except (UnreachableError, *DROPPED, aiohttp.ClientError) as error:
                reason = str(error) or type(error).__name__
            except (GridError, msgspec.DecodeError) as error:
                log.warning("the connection ended: %s", error)
                reason = str(error)
            finally:
                self._socket = None
            self._peer.on_unlinked(reason)
            # Full jitter: the workers of a grid whose coordinator restarted must not all come at once.
            await asyncio.sleep(pause_s or random.uniform(FIRST_PAUSE_S / 2, self._pause_s))
            self._pause_s = min(self._pause_s * 2, MAX_PAUSE_S)

    async def _serve(self) -> str:
        """One connection, from the handshake to its end. Returns why it ended."""
        socket = await self._transport.open_websocket(PATH, [SUBPROTOCOL_MSGPACK])
        async with socket:
            await socket.send_bytes(self._codec.encode([self._peer.hello()]))
            rest = await self._await_welcome(socket)
            self._socket = socket
            self._pause_s = FIRST_PAUSE_S
            if rest:
                self._peer.on_messages(rest)
            async for frame in socket:
                if frame.type is not aiohttp.WSMsgType.BINARY:
                    continue
                self._take(frame.data)
            error = socket.exception()
            return str(error) if error else "the coordinator closed the connection"

    async def _await_welcome(self, socket: aiohttp.ClientWebSocketResponse) -> list[ToWorker]:
        """Read up to Welcome and answer it. Returns what came with it."""
        # WORKAROUND https://github.com/python/cpython/issues/86296: wait_for of Python 3.11 may swallow a cancellation.
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            frame = await socket.receive()
        if frame.type is not aiohttp.WSMsgType.BINARY:
            raise UnreachableError("No welcome", "the coordinator ended the connection without an answer")
        messages, _unknown = self._codec.decode(frame.data)
        match messages:
            case [Refused() as refused, *_]:
                raise _as_error(refused)
            case [Welcome() as welcome, *rest]:
                await socket.send_bytes(self._codec.encode([self._peer.on_welcome(welcome)]))
                return rest
            case _:
                raise VersionError(
                    "No welcome", "the coordinator's first message is none that this version knows"
                )

    def _take(self, data: bytes) -> None:
        messages, unknown = self._codec.decode(data)
        for one in unknown:
            log.warning("a message of the coordinator cannot be read and is left out: %s", one.reason)
        if messages:
            self._peer.on_messages(messages)
        for message in messages:
            if isinstance(message, Refused):
                # In the middle of a connection: the device was removed, or another program took its place.
                raise _as_error(message)


def _as_error(refused: Refused) -> GridError:
    return error_classes().get(refused.code, GridError)(refused.title, refused.message, refused.hint)
