"""The event stream: one WebSocket that is opened again whenever it breaks, each time with a snapshot
first."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import aiohttp
import msgspec

from sparegrid.api import Event, LogEvent, StreamError, Subscribe
from sparegrid.client.transport import DROPPED, Backoff, Transport
from sparegrid.codec import FrameCodec
from sparegrid.errors import GridError, UnreachableError, error_classes
from sparegrid.messages import SUBPROTOCOL_JSON

WATCH_PATIENCE_S = 120.0
"""How long a stream that worked is opened again and again before it is given up."""


async def watch(
    transport: Transport, subscribe: Callable[[], Subscribe], patience_s: float | None = WATCH_PATIENCE_S
) -> AsyncGenerator[list[Event], None]:
    """Lists of events as they came. A Snapshot comes first, and again after each reconnect: forget what was
    before.

    Args:
        transport: where to.
        subscribe: what to watch; asked anew for every connection.
        patience_s: how long to try after the stream broke; None is for ever.

    Raises:
        UnreachableError: nobody answered, the first time or for `patience_s`.
        GridError: the coordinator refused the subscription.
    """
    backoff = Backoff(patience_s)
    worked = False
    while True:
        failure: BaseException
        try:
            async with aclosing(_one_connection(transport, subscribe())) as connection:
                async for events in connection:
                    worked = True
                    backoff.reset()
                    yield events
            failure = UnreachableError("The event stream ended", f"{transport.url} closed it")
        except UnreachableError as error:
            if not worked:
                raise
            failure = error
        except DROPPED as error:
            failure = error
        if not await backoff.pause():
            raise transport.unreachable(failure) from failure


async def _one_connection(transport: Transport, subscribe: Subscribe) -> AsyncGenerator[list[Event], None]:
    codec: FrameCodec[Event] = FrameCodec(Event, text=True)
    socket = await transport.open_websocket("/events", (SUBPROTOCOL_JSON,))
    async with socket:
        await socket.send_str(codec.encode([subscribe]).decode())
        async for frame in socket:
            if frame.type is aiohttp.WSMsgType.TEXT:
                data = frame.data.encode()
            elif frame.type is aiohttp.WSMsgType.BINARY:
                data = frame.data
            else:
                break
            try:
                events, _ = codec.decode(data)
            except msgspec.DecodeError as error:
                raise GridError("The event stream is not readable", f"{transport.url}: {error}") from error
            for event in events:
                if isinstance(event, StreamError):
                    kind = error_classes().get(event.problem.code, GridError)
                    raise kind(event.problem.title, event.problem.message, event.problem.hint)
            if events:
                yield events


async def follow_log(transport: Transport, task: str, offset: int = 0) -> AsyncGenerator[LogEvent, None]:
    """What a task prints, from byte `offset` on, until its attempt has ended; a reconnect repeats and skips
    nothing.

    Raises:
        UnreachableError, GridError: as `watch`.
    """
    position = offset
    attempt = ""

    def subscribe() -> Subscribe:
        return Subscribe(jobs=False, devices=False, task=task, log_offset=position)

    async with aclosing(watch(transport, subscribe)) as stream:
        async for events in stream:
            for event in events:
                if not isinstance(event, LogEvent):
                    continue
                end = event.offset + len(event.data)
                if event.attempt == attempt and end <= position and not event.last:
                    continue
                attempt, position = event.attempt, end
                yield event
                if event.last:
                    return
