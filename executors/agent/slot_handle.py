"""The agent's side of a slot: hands it requests, hears what became of them.

Requests of a slot run in the order of their submission; `recall` takes back exactly those that the slot has not begun.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from executors.nursery.protocol import (
    REQUEST_SOCKET,
    SPILL_BYTES,
    Control,
    Done,
    FollowLog,
    Kill,
    LogPiece,
    Report,
    RunCall,
    RunCommand,
    Signal,
    Spilled,
    StreamCodec,
    encode_request,
)

log = logging.getLogger(__name__)

_READ_BYTES = 1 << 18
_GATHER_S = 0.002
_SLOW_GATHER_S = 0.005
"""While a slot has more to do, its results are read in batches this far apart: a turn of the loop costs more than
a result. A slot with four tasks of a millisecond and more ahead does not run dry in the longer one."""
_SLOW_DEPTH = 6


class SlotDiedError(Exception):
    """The slot's process ended while it ran this attempt."""

    def __init__(self, exit_code: int, signal: int) -> None:
        super().__init__(exit_code, signal)
        self.exit_code = exit_code
        self.signal = signal


class RecalledError(Exception):
    """The request was taken back before the slot began it."""


class SlotHandle:
    """One slot process, as the agent sees it.

    Args:
        number: names it within its nursery.
        nursery: folder of its nursery.
        on_log: takes the pieces of followed logs.
        on_nonsense: the slot is out of its mind and is to be killed.
    """

    def __init__(
        self,
        number: int,
        nursery: Path,
        on_log: Callable[[LogPiece], None],
        on_nonsense: Callable[[SlotHandle], None],
    ) -> None:
        self.number = number
        self.pid = 0
        self.tag: object = None
        """What its user remembers of it: modules of one stage are not for another."""
        self.alive = True
        self.worn = False
        self._nursery = nursery
        self._on_log = on_log
        self._on_nonsense = on_nonsense
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[Done]] = {}
        self._codec = StreamCodec(Report)
        self._unsent: deque[bytes] = deque()
        self._requests, self._requests_far = socket.socketpair(socket.AF_UNIX, REQUEST_SOCKET)
        self._control, self._control_far = socket.socketpair()
        for end in (self._requests, self._requests_far, self._control):
            end.setblocking(False)
        self._loop.add_reader(self._control.fileno(), self._on_readable)
        self._resume: asyncio.TimerHandle | None = None
        self._gather_s = _GATHER_S

    def far_ends(self) -> tuple[socket.socket, socket.socket]:
        """The ends that go to the slot's process."""
        return self._requests_far, self._control_far

    @property
    def folder(self) -> Path:
        """The work folder of what it runs."""
        return self._nursery / f"slot-{self.number}"

    @property
    def output_path(self) -> Path:
        """What a call prints, while it runs: the slot's output file."""
        return self._nursery / f"slot-{self.number}.out"

    def on_sent(self) -> None:
        """The slot's ends are on their way. The agent keeps that of the requests, to recall them."""
        self._control_far.close()

    # -- requests

    @property
    def head(self) -> int | None:
        """The attempt that runs now, or is the next to run."""
        return next(iter(self._pending), None)

    @property
    def depth(self) -> int:
        """How many attempts it has that are not done."""
        return len(self._pending)

    def submit(self, request: RunCommand | RunCall) -> asyncio.Future[Done]:
        """Queue a request. The future gives its Done, or raises SlotDiedError or RecalledError."""
        future: asyncio.Future[Done] = self._loop.create_future()
        self._pending[request.attempt] = future
        self._unsent.append(self._encoded(request))
        self._send_requests()
        return future

    def _send_requests(self) -> None:
        try:
            while self._unsent:
                self._requests.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            pass  # The socket's buffer is full: more after the next Done.
        except OSError as error:
            # The slot has just died; what it did not read is recalled when the nursery says so.
            log.debug("slot %d takes no request: %s", self.number, error)

    def _encoded(self, request: RunCommand | RunCall) -> bytes:
        data = encode_request(request)
        if len(data) <= SPILL_BYTES:
            return data
        path = self._nursery / f"request-{request.attempt}"
        path.write_bytes(data)
        return encode_request(Spilled(request.attempt, str(path)))

    def recall(self) -> list[int]:
        """Take back the requests that the slot has not read; their futures raise RecalledError."""
        unread = len(self._unsent)
        self._unsent.clear()
        while self.alive:
            try:
                if not self._requests_far.recv(SPILL_BYTES * 2):
                    break
            except OSError:
                break
            unread += 1
        taken = list(self._pending)[len(self._pending) - unread :] if unread else []
        for attempt in taken:
            self._settle(attempt, RecalledError())
        return taken

    # -- control

    def signal(self, attempt: int, number: int, *, tree: bool) -> None:
        """Signal the running attempt's first process, or its tree."""
        self._say(Signal(attempt, number, tree))

    def kill(self, attempt: int) -> None:
        """Kill the running attempt's tree; its Done follows."""
        self._say(Kill(attempt))

    def follow(self, attempt: int, *, on: bool, offset: int) -> None:
        """Have pieces of the attempt's log sent, or not."""
        self._say(FollowLog(attempt, on, offset))

    def _say(self, message: Control) -> None:
        try:
            self._control.send(self._codec.pack([message]))
        except OSError as error:
            # Dead, or it has not listened for hundreds of messages: whoever waits for an answer kills it in time.
            log.debug("slot %d does not listen: %s", self.number, error)

    def _on_readable(self) -> None:
        self._read()
        if len(self._pending) > 1 and self.alive:
            self._loop.remove_reader(self._control.fileno())
            self._resume = self._loop.call_later(self._gather_s, self._resume_reading)

    def _resume_reading(self) -> None:
        self._resume = None
        if self.alive:
            self._loop.add_reader(self._control.fileno(), self._on_readable)

    def _read(self) -> bool:
        """Take what the slot says; False when there is no more, now or for good."""
        try:
            data = self._control.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control.fileno())
            return False
        try:
            reports = self._codec.feed(data)
        except msgspec.DecodeError as error:
            log.warning("slot %d talks nonsense and is killed: %s", self.number, error)
            self._on_nonsense(self)
            return False
        for report in reports:
            if isinstance(report, LogPiece):
                self._on_log(report)
                continue
            self.worn = self.worn or report.worn
            slow = report.outcome.usage.wall_ms > 0 and len(self._pending) >= _SLOW_DEPTH
            self._gather_s = _SLOW_GATHER_S if slow else _GATHER_S
            self._settle(report.attempt, report)
        if self._unsent:
            self._send_requests()
        return True

    def _settle(self, attempt: int, result: Done | Exception) -> None:
        future = self._pending.pop(attempt, None)
        if future is None or future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def on_ended(self, exit_code: int, signal: int) -> None:
        """The process is gone. What it had told is heard first; then its head ends, and the rest is recalled."""
        while self.alive and self._read():
            pass
        self.recall()
        self.close()
        for attempt in list(self._pending):
            self._settle(attempt, SlotDiedError(exit_code, signal))

    def close(self) -> None:
        """Let go of the channels: the slot ends what it runs, and itself."""
        if not self.alive:
            return
        self.alive = False
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._control.fileno())
        for end in (self._requests, self._requests_far, self._control, self._control_far):
            end.close()
