"""The watchers' WebSocket: Subscribe, then a Snapshot, then changes as they come.

A later Subscribe replaces the one before and brings a new Snapshot. Knows sockets; what goes out when, `hub` and
`follow` decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import aiohttp
import msgspec
from aiohttp import web

from coordinator.server.context import PRINCIPAL, SERVER, Server
from coordinator.server.follow import Follower
from coordinator.server.hub import MAX_WINDOW, Watcher
from coordinator.server.views import stage_number
from coordinator.server.wire import encode_all
from sparegrid.api import LogEvent, Problem, Snapshot, StreamError, Subscribe, dump_json
from sparegrid.codec import FrameCodec
from sparegrid.errors import BadInputError, GridError
from sparegrid.ids import JobId, StageIndex, parse_job_id, parse_task_text
from sparegrid.messages import SUBPROTOCOL_JSON

log = logging.getLogger("sparegrid.coordinator.events")

SNAPSHOT_JOBS = 200
"""Jobs in a snapshot: those in memory, and the newest that have ended."""
MAX_SUBSCRIBE_BYTES = 64 << 10
FRAME_BYTES = 1 << 20
CLOSE_S = 3.0
PING_S = 20.0
_codec: FrameCodec[Subscribe] = FrameCodec(Subscribe, text=True)


async def handle(request: web.Request) -> web.StreamResponse:
    """One watcher, from upgrade to end."""
    server = request.app[SERVER]
    socket = web.WebSocketResponse(
        protocols=(SUBPROTOCOL_JSON,),
        compress=False,
        max_msg_size=MAX_SUBSCRIBE_BYTES,
        timeout=CLOSE_S,
        heartbeat=PING_S,
    )
    await socket.prepare(request)
    server.sockets.add(socket)
    stream = _Stream(server, socket, Watcher(request[PRINCIPAL]))
    try:
        await stream.run()
    finally:
        server.sockets.discard(socket)
    return socket


class _Stream:
    """One open event stream."""

    def __init__(self, server: Server, socket: web.WebSocketResponse, watcher: Watcher) -> None:
        self._server = server
        self._socket = socket
        self._watcher = watcher
        self._follower: Follower | None = None

    async def run(self) -> None:
        """Read subscriptions until the watcher leaves."""
        sender = asyncio.create_task(self._send(), name="events out")
        try:
            async for frame in self._socket:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    await self._heard(frame.data.encode())
                elif frame.type is aiohttp.WSMsgType.BINARY:
                    await self._heard(frame.data)
        finally:
            self._unsubscribe()
            self._watcher.close()
            sender.cancel()
            await asyncio.wait([sender])

    async def _heard(self, frame: bytes) -> None:
        try:
            known, unknown = _codec.decode(frame)
            if unknown:
                raise BadInputError("Not a subscription", unknown[0].reason)
            for subscribe in known:
                await self._subscribe(subscribe)
        except (msgspec.DecodeError, GridError) as error:
            shown = error if isinstance(error, GridError) else BadInputError("Not a frame", str(error))
            self._watcher.push(
                dump_json(StreamError(Problem(shown.code, shown.title, shown.message, shown.hint)))
            )

    # ---- subscribing ------------------------------------------------------------------------------------------

    async def _subscribe(self, wanted: Subscribe) -> None:
        self._unsubscribe()
        server, watcher = self._server, self._watcher
        await server.driver.settled()
        window = await self._window(wanted)
        follower = await self._follower_of(wanted)
        watcher.jobs, watcher.devices, watcher.window = wanted.jobs, wanted.devices, window
        server.hub.add(watcher)
        snapshot = await self._snapshot(wanted, window)
        encoded = dump_json(snapshot)
        handed = asyncio.get_running_loop().create_future()

        def hand_over() -> None:
            server.hub.hand_over(watcher, encoded)
            if not handed.done():
                handed.set_result(None)

        server.driver.after_commit(hand_over)
        await handed
        if follower is not None:
            self._follower = follower
            server.following.add(follower)

    async def _window(self, wanted: Subscribe) -> tuple[JobId, StageIndex, range] | None:
        if not wanted.job:
            return None
        job = parse_job_id(wanted.job)
        view = await self._server.views.job(job, self._watcher.principal)
        if not wanted.limit:
            return None
        if wanted.limit > MAX_WINDOW or wanted.limit < 0 or wanted.first < 0:
            raise BadInputError(
                "Not a window", f"first={wanted.first}, limit={wanted.limit}; {MAX_WINDOW} tasks is the most"
            )
        return job, stage_number(view, wanted.stage), range(wanted.first, wanted.first + wanted.limit)

    async def _follower_of(self, wanted: Subscribe) -> Follower | None:
        if not wanted.task:
            return None
        job, stage, index = parse_task_text(wanted.task)
        if stage is None or index is None:
            raise BadInputError("Not a task", f"{wanted.task!r} names no task, such as 17.0.5")
        ref = await self._server.views.ref(job, stage, str(index), self._watcher.principal)
        name = str(ref)

        def send(event: LogEvent) -> None:
            event.task = name
            self._watcher.push(dump_json(event))

        return Follower(ref, max(0, wanted.log_offset), send)

    async def _snapshot(self, wanted: Subscribe, window: tuple[JobId, StageIndex, range] | None) -> Snapshot:
        views, principal = self._server.views, self._watcher.principal
        snapshot = Snapshot(views.revision)
        if wanted.jobs:
            snapshot.jobs = await views.jobs(principal, limit=SNAPSHOT_JOBS)
        if wanted.devices:
            snapshot.devices = views.devices()
        if wanted.job and not wanted.jobs:
            snapshot.jobs = [await views.job(parse_job_id(wanted.job), principal)]
        if window is not None:
            view = await views.job(window[0], principal)
            page = await views.tasks(view, window[1], window[2].start, len(window[2]))
            snapshot.tasks = page.tasks
        return snapshot

    def _unsubscribe(self) -> None:
        if self._follower is not None:
            self._server.following.remove(self._follower)
            self._follower = None
        self._server.hub.remove(self._watcher)

    # ---- out --------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionError):
            while events := await self._watcher.take():
                part: list[bytes] = []
                size = 0
                for event in events:
                    part.append(event)
                    size += len(event)
                    if size >= FRAME_BYTES:
                        await self._socket.send_str(encode_all(part).decode())
                        part, size = [], 0
                if part:
                    await self._socket.send_str(encode_all(part).decode())
            await self._socket.close(
                code=aiohttp.WSCloseCode.TRY_AGAIN_LATER, message=b"the stream has ended"
            )
