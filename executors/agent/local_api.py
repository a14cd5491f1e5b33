"""The worker's own small API on a Unix socket, for programs of the same user: status, pause, logs.

It works when the coordinator is away. Access is the file's mode (0600); there are no tokens here.
"""

from __future__ import annotations

import collections
import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web

from executors.agent.agent import Agent
from sparegrid.api import DeviceView, PauseRequest, Problem
from sparegrid.errors import BadInputError, StorageError
from sparegrid.messages import PauseVerb

LOG_LINES = 2000
_GRACE_S = 1.0


class RecentLines(logging.Handler):
    """Keeps the newest lines that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(self.format(record))


class LocalApi:
    """Serves the socket while it is open.

    Args:
        path: of the socket.
        agent: whom it is about.
    """

    def __init__(self, path: Path, agent: Agent) -> None:
        self._path = path
        self._agent = agent
        self._recent = RecentLines()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.post("/v1/pause", self._pause),
                web.get("/v1/log", self._log),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE_S)
        await self._runner.setup()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The lock says that nobody listens here: what is there is of a worker that died.
            self._path.unlink(missing_ok=True)
            # The folder is this user's alone, so nobody else comes before the socket's own mode is set.
            await web.UnixSite(self._runner, self._path).start()
            self._path.chmod(0o600)
        except OSError as error:
            await self._runner.cleanup()
            raise StorageError("Cannot open the local socket", f"{self._path}: {error}") from error
        logging.getLogger("executors").addHandler(self._recent)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("executors").removeHandler(self._recent)
        self._recent.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._path.unlink(missing_ok=True)

    async def _status(self, _request: web.Request) -> web.Response:
        """The device as the coordinator's screens show it; its address is the state of the connection."""
        return _json(view_of(self._agent))

    async def _pause(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=PauseRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problem = BadInputError(
                "Not a pause", str(error), "Send verb: pause, finish, give_back or resume"
            )
            return _json(
                Problem(problem.code, problem.title, problem.message, problem.hint), problem.http_status
            )
        until_ms = int((time.time() + asked.for_s) * 1000) if asked.for_s else 0
        self._agent.pause(PauseVerb(asked.verb), "the owner", until_ms)
        return _json(view_of(self._agent))

    async def _log(self, _request: web.Request) -> web.Response:
        return web.Response(text="".join(f"{line}\n" for line in self._recent.lines))


def view_of(agent: Agent) -> DeviceView:
    """The device as its own worker sees it."""
    session = agent.session
    return DeviceView(
        id=agent.identity.device,
        name=agent.identity.name,
        state=agent.state(),
        reason=session.reason,
        until_ms=session.until_ms,
        capability=agent.capability,
        running=agent.running(),
        assigned=sum(attempt.message is None for attempt in session.attempts.values()),
        done=agent.done,
        failed=agent.failed,
        address=agent.link_state,
    )


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
