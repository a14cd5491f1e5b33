"""The agent's side of a nursery: starts the process, forks slots, hears what became of them.

It knows processes and channels, nothing of jobs, policies or the coordinator.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from executors.agent.slot_handle import SlotHandle
from executors.nursery.protocol import (
    Fork,
    KillSlot,
    LogPiece,
    Notice,
    Order,
    SlotEnded,
    SlotForked,
    SlotSuspended,
    StreamCodec,
    SuspendSlot,
)
from executors.nursery.tree import kill_tree

log = logging.getLogger(__name__)

PROGRAM: Final[tuple[str, ...]] = (sys.executable, "-P", "-m", "executors.nursery.host")
_READ_BYTES = 1 << 18
_END_TIMEOUT_S = 15.0


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
        slot = SlotHandle(self._numbers, self.folder, self._on_log, self.kill_slot)
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
