"""A real nursery for tests, requests for it, and looks at what still runs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from executors.agent.nurseries import Nursery, clean_environ
from executors.agent.slot_handle import SlotHandle
from executors.nursery.protocol import Done, LogPiece, Place, RunCall, RunCommand
from sparegrid.messages import Inline

DEADLINE_S = 60.0
_attempts = count(1)


class Bed:
    """A nursery with one slot."""

    def __init__(self, folder: Path) -> None:
        self.outbox = folder / "outbox"
        self.outbox.mkdir()
        self.pieces: list[LogPiece] = []
        self.nursery = Nursery(folder / "nursery", self.outbox, self.pieces.append)
        self.nursery.start(clean_environ(os.environ))
        self.slot: SlotHandle = self.nursery.fork_slot()

    async def sh(self, line: str, **more: Any) -> Done:
        """Run a shell's line to its end."""
        return await self.submit(shell(line, **more))

    async def submit(self, request: RunCommand | RunCall) -> Done:
        """Run a request to its end, in a slot that lives."""
        if not self.slot.alive or self.slot.worn:
            self.slot = self.nursery.fork_slot()
        async with asyncio.timeout(DEADLINE_S):
            return await self.slot.submit(request)

    async def call(self, function: str, *args: Any, **more: Any) -> Done:
        """Call a function to its end."""
        return await self.submit(call(function, *args, **more))

    def bytes_of(self, done: Done) -> bytes:
        """The whole log, from inside the message or from the outbox."""
        log = done.outcome.log
        if log is None:
            return b""
        return log.data if isinstance(log, Inline) else (self.outbox / log.hash).read_bytes()


@asynccontextmanager
async def bed(folder: Path) -> AsyncIterator[Bed]:
    """A nursery with one slot; nothing of it is left afterwards."""
    made = Bed(folder)
    try:
        yield made
    finally:
        await made.nursery.close()


def shell(line: str, **more: Any) -> RunCommand:
    """A request for a shell's line."""
    return RunCommand(
        next(_attempts), ["/bin/sh", "-c", line], {}, more.pop("max_log_bytes", 1 << 20), **more
    )


def call(function: str, *args: Any, **more: Any) -> RunCall:
    """A request for a call."""
    return RunCall(
        next(_attempts), function, list(args), more.pop("kwargs", {}), more.pop("env", {}), 1 << 20, **more
    )


def module(source: str) -> list[Place]:
    """The file `m.py` for a call's work folder."""
    return [Place("m.py", data=source.encode())]


async def expect_soon(true: Callable[[], object], what: str) -> None:
    """Wait until `true()`; fails with `what`."""
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def state_of(pid: int) -> str:
    """The process's state letter: `T` is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def pids_in(path: Path) -> list[int]:
    """Process ids that tasks wrote to a file, one a line."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []
