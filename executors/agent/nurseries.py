"""The agent's side of a nursery: starts the process, forks slots, hands them requests, hears what became of them.

It knows processes and channels, nothing of jobs, policies or the coordinator. Requests of a slot run in the order of
their submission; `recall` takes back exactly those that the slot has not begun.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from executors.nursery.protocol import (
    REQUEST_SOCKET,
    SPILL_BYTES,
    Control,
    Done,
    FollowLog,
    Fork,
    Kill,
    KillSlot,
    LogPiece,
    Notice,
    Order,
    Report,
    RunCall,
    RunCommand,
    Signal,
    SlotEnded,
    SlotForked,
    SlotSuspended,
    Spilled,
    StreamCodec,
    SuspendSlot,
    encode_request,
)
from executors.nursery.tree import kill_tree

log = logging.getLogger(__name__)

PROGRAM: Final[tuple[str, ...]] = (sys.executable, "-P", "-m", "executors.nursery.host")
_READ_BYTES = 1 << 18
_GATHER_S = 0.002
_SLOW_GATHER_S = 0.005
"""While a slot has more to do, its results are read in batches this far apart: a turn of the loop costs more than
a result. A slot with four tasks of a millisecond and more ahead does not run dry in the longer one."""
_SLOW_DEPTH = 6
_END_TIMEOUT_S = 15.0


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
        nursery: whose it is.
        on_log: takes the pieces of followed logs.
    """

    def __init__(self, number: int, nursery: Nursery, on_log: Callable[[LogPiece], None]) -> None:
        self.number = number
        self.pid = 0
        self.tag: object = None
        """What its user remembers of it: modules of one stage are not for another."""
        self.alive = True
        self.worn = False
        self._nursery = nursery
        self._on_log = on_log
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
        return self._nursery.folder / f"slot-{self.number}"

    @property
    def output_path(self) -> Path:
        """What a call prints, while it runs: the slot's output file."""
        return self._nursery.folder / f"slot-{self.number}.out"

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
        path = self._nursery.folder / f"request-{request.attempt}"
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
            self._nursery.kill_slot(self)
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


class Nursery:
    """A nursery process and its slots.

    Args:
        folder: for work folders; made here.
        outbox: where large outputs go, by SHA-256, on the same disk.
        on_log: takes pieces of followed logs.
        program: how to start a nursery.
    """

    def __init__(
        self,
        folder: Path,
        outbox: Path,
        on_log: Callable[[LogPiece], None],
        *,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.folder = folder
        self._outbox = outbox
        self.slots: dict[int, SlotHandle] = {}
        self._on_log = on_log
        self._program = program
        self._codec = StreamCodec(Notice)
        self._numbers = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._suspensions: dict[tuple[int, bool], asyncio.Future[int]] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def alive(self) -> bool:
        """Whether its process answers."""
        return self._channel is not None

    def start(self, environ: Mapping[str, str]) -> None:
        """Start the process. Raises OSError when the system cannot."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        near, far = socket.socketpair()
        with far:
            try:
                self._process = subprocess.Popen(
                    [*self._program, str(far.fileno()), str(self.folder), str(self._outbox)],
                    pass_fds=(far.fileno(),),
                    stdin=subprocess.DEVNULL,
                    env=dict(environ),
                    cwd="/",
                    start_new_session=True,
                )
            except OSError:
                near.close()
                raise
        near.setblocking(False)
        self._channel = near
        self._loop.add_reader(near.fileno(), self._on_readable)

    @property
    def is_idle(self) -> bool:
        """Whether it answers and none of its slots has anything to do."""
        return self.alive and all(slot.depth == 0 for slot in self.slots.values())

    def fork_slot(self) -> SlotHandle:
        """A new slot; requests may be submitted to it at once."""
        self._numbers += 1
        slot = SlotHandle(self._numbers, self, self._on_log)
        self.slots[slot.number] = slot
        ends = array.array("i", [end.fileno() for end in slot.far_ends()])
        self._order(Fork(slot.number), [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends)])
        slot.on_sent()
        return slot

    def kill_slot(self, slot: SlotHandle) -> None:
        """Kill the slot and everything below it; its head raises SlotDiedError."""
        self._order(KillSlot(slot.number))

    async def suspend(self, slot: SlotHandle, *, on: bool) -> int:
        """Stop or continue a slot's tree. Returns the number of processes; 0 when it is gone."""
        key = (slot.number, on)
        future = self._suspensions.get(key)
        if future is None:
            future = self._suspensions[key] = self._loop.create_future()
            self._order(SuspendSlot(slot.number, on))
        return await asyncio.shield(future)

    def _order(self, order: Order, ancillary: Sequence[tuple[int, int, array.array[int]]] = ()) -> None:
        if self._channel is None:
            return
        try:
            self._channel.sendmsg([self._codec.pack([order])], ancillary)
        except OSError as error:
            log.warning("a nursery does not listen and is given up: %s", error)
            self._loop.call_soon(self._on_gone)

    def _on_readable(self) -> None:
        if self._channel is None:
            return
        try:
            data = self._channel.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._on_gone()
            return
        for notice in self._codec.feed(data):
            self._on_notice(notice)

    def _on_notice(self, notice: Notice) -> None:
        match notice:
            case SlotForked(slot=number, pid=pid) if number in self.slots:
                self.slots[number].pid = pid
            case SlotSuspended(slot=number, on=on, processes=count):
                self._answer(number, on, count)
            case SlotEnded(slot=number, exit_code=code, signal=signal) if number in self.slots:
                self.slots.pop(number).on_ended(code, signal)
                for on in (True, False):
                    self._answer(number, on, 0)
            case _:
                pass  # Of a slot that was given up before it was forked.

    def _answer(self, number: int, on: bool, count: int) -> None:
        future = self._suspensions.pop((number, on), None)
        if future is not None and not future.done():
            future.set_result(count)

    def _on_gone(self) -> None:
        """The nursery's process has ended, or was given up: its slots go too, with all they run."""
        if self._channel is None:
            return
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._channel = None
        slots = list(self.slots.values())
        self.slots.clear()
        for slot in slots:
            if slot.pid:
                kill_tree(slot.pid)
            slot.on_ended(0, 9)
        for number, on in list(self._suspensions):
            self._answer(number, on, 0)

    async def close(self) -> None:
        """End the process and everything below it, and wait until it is gone."""
        if self._channel is not None:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None
        for slot in self.slots.values():
            slot.recall()
            slot.on_ended(0, 9)
        self.slots.clear()
        for number, on in list(self._suspensions):
            self._answer(number, on, 0)
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(_await_end, process)


def _await_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        process.wait()


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the worker's environment tasks may see: everything but Sparegrid's own settings, tokens among them."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(("SPAREGRID_", "GOGRID_", "PYTHON"))
        and os.sep + "dev" + os.sep + "fd" not in value
    }
