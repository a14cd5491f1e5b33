"""The log of a whole job as it comes: several tasks at once, each line behind its task's id. Ends no program."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.text import Text

from sparegrid.api import JobView, TaskResult
from sparegrid.cli.following import ENDED, LogPrinter, job_views, write_bytes
from sparegrid.cli.wording import safe
from sparegrid.errors import NotFoundError

if TYPE_CHECKING:
    from sparegrid.cli.invocation import Invocation
    from sparegrid.client import Client
    from sparegrid.ids import JobId

MAX_FOLLOWED = 32
"""Tasks whose output is followed while they run; of others it comes when they have ended."""
LOOK_EVERY_S = 0.5
_CALM = 10.0
"""A look at the results of a large job takes long: then follows a pause of so many times that."""


class LinePrinter:
    """Writes whole lines of one task, each behind its id; a line that is not ended yet waits for its end."""

    def __init__(self, task: str, write: Callable[[bytes], None]) -> None:
        self._head = f"{task}: ".encode()
        self._write = write
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Take a piece of the output."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._write(b"".join(self._head + line + b"\n" for line in lines))

    def end(self) -> None:
        """Nothing follows: a last line without an end gets one."""
        if self._rest:
            self.write(b"\n")


class JobLog:
    """Follows the tasks of one job.

    Args:
        client: whom to ask.
        job: which job.
        invocation: where remarks go.
        stage: only this stage, by name or number; empty for all.
    """

    def __init__(self, client: Client, job: JobId, invocation: Invocation, stage: str) -> None:
        self._client = client
        self._job = job
        self._invocation = invocation
        self._stage = stage
        self._lines: dict[str, LinePrinter] = {}
        self._printers: dict[str, LogPrinter] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._ended: set[str] = set()

    async def follow(self) -> JobView:
        """Print until the job has ended; its last view."""
        looking = asyncio.create_task(self._keep_looking())
        try:
            async with contextlib.aclosing(job_views(self._client, self._job)) as views:
                async for view in views:
                    if looking.done():
                        await looking
                    if view.state in ENDED:
                        break
        finally:
            await _stop(looking)
            for task in self._following.values():
                await _stop(task)
        await self._print_ended()
        return view

    async def _keep_looking(self) -> None:
        while True:
            began = time.monotonic()
            await self._print_ended()
            await self._follow_running()
            await asyncio.sleep(max(LOOK_EVERY_S, _CALM * (time.monotonic() - began)))

    async def _follow_running(self) -> None:
        self._following = {task: one for task, one in self._following.items() if not one.done()}
        view = await self._client.job(self._job)
        for number, stage in enumerate(view.stages):
            if not stage.running or self._stage not in ("", stage.name, str(number)):
                continue
            page = await self._client.tasks(self._job, number, 0, MAX_FOLLOWED, "running")
            for task in page.tasks:
                if task.id not in self._following and len(self._following) < MAX_FOLLOWED:
                    self._following[task.id] = asyncio.create_task(self._follow_task(task.id))

    async def _follow_task(self, task: str) -> None:
        # A task that is gone again, or whose device is, has its kept output printed at its end.
        with contextlib.suppress(NotFoundError):
            async with contextlib.aclosing(self._client.follow_log(task)) as events:
                async for event in events:
                    self._printer(task).take(event)

    def _printer(self, task: str) -> LogPrinter:
        if task not in self._printers:
            self._lines[task] = LinePrinter(task, write_bytes)
            self._printers[task] = LogPrinter(
                self._lines[task].write, lambda text: self._invocation.note(Text(f"{task}: {text}"))
            )
        return self._printers[task]

    async def _print_ended(self) -> None:
        async for result in self._client.results(self._job, self._stage or None):
            if result.id not in self._ended:
                self._ended.add(result.id)
                await self._finish(result)

    async def _finish(self, result: TaskResult) -> None:
        following = self._following.pop(result.id, None)
        if following is not None:
            await _stop(following)
        printer = self._printer(result.id)
        if result.outcome.log is not None:
            printer.complete(await self._client.payload(result.outcome.log))
        self._lines.pop(result.id).end()
        del self._printers[result.id]
        if result.state != "done":
            self._invocation.note(ending_of(result))


def ending_of(result: TaskResult) -> Text:
    """Why a task has not ended well, in one line."""
    silent = "" if result.outcome.log_bytes or result.outcome.log is not None else "; it printed nothing"
    reason = f": {safe(result.reason)}" if result.reason else ""
    return Text(f"Task {result.id} {result.state}{reason}{silent}", style="bold red")


async def _stop(task: asyncio.Task[None]) -> None:
    """Cancel a helper, and raise the error that it ended with before, if any."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
