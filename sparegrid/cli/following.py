"""Waiting for a job: its log as it comes, its progress, its end. Talks to the client; ends no program."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from sparegrid.api import JobChanged, JobView, LogEvent, Snapshot, Subscribe, TaskResult
from sparegrid.cli.exits import CODE_FAILED, CODE_TIMED_OUT
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.screens.progress import progress_lines
from sparegrid.cli.wording import plural, safe
from sparegrid.errors import GridError, NotFoundError
from sparegrid.ids import JobId

if TYPE_CHECKING:
    from sparegrid.client import Client

ENDED = frozenset({"done", "failed", "cancelled"})
PATIENCE_S = 2.0
"""A job that has not started after this long gets its explanation shown."""
CANCELS = "Ctrl-C cancels"
EXPLAIN_EVERY_S = 5.0
CANCEL_WAIT_S = 5.0


class LogPrinter:
    """Prints one task's log without repeats, across tries.

    Args:
        write: takes the bytes.
        remark: takes a line about the log (a new try, a gap).
        gaps: pieces that came too fast to follow are left out, and that is said: right for somebody who watches.
            Otherwise nothing more is printed live, and `complete` prints the rest: right for a file or a pipe.
    """

    def __init__(
        self, write: Callable[[bytes], None], remark: Callable[[str], None], *, gaps: bool = True
    ) -> None:
        self._write = write
        self._remark = remark
        self._gaps = gaps
        self._attempt = ""
        self._written = 0

    def take(self, event: LogEvent) -> None:
        """Print what is new of a piece."""
        if event.attempt != self._attempt:
            if self._attempt and self._written:
                self._remark("The task is tried again; its output starts anew")
            self._attempt, self._written = event.attempt, 0
        fresh = event.data[max(0, self._written - event.offset) :]
        if event.offset > self._written and not self._gaps:
            return
        if event.skipped and event.offset > self._written:
            self._remark(
                f"{plural(event.offset - self._written, 'byte')} left out here: they came too fast to follow"
            )
        if fresh:
            self._write(fresh)
        self._written = max(self._written, event.offset + len(event.data))

    def complete(self, log: bytes) -> None:
        """Print what of the kept log has not been printed."""
        if len(log) > self._written:
            self._write(log[self._written :])
            self._written = len(log)


def write_bytes(data: bytes) -> None:
    """Raw output on standard output, at once."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(data.decode(errors="replace"))
    else:
        sys.stdout.flush()
        buffer.write(data)
    sys.stdout.flush()


async def stream_task(
    client: Client, job: JobId, task: str, invocation: Invocation, ctrl_c: str = CANCELS
) -> JobView:
    """Print a task's output while it runs, tell why it waits, and return the job at its end."""
    watched = sys.stdout.isatty()
    printer = LogPrinter(write_bytes, lambda text: invocation.note(Text(text)), gaps=watched)

    async def follow() -> None:
        async with contextlib.aclosing(client.follow_log(task)) as events:
            async for event in events:
                printer.take(event)

    following = asyncio.create_task(follow())
    waiting = asyncio.create_task(tell_why_it_waits(client, job, invocation, ctrl_c))
    try:
        view = await client.wait(job)
    finally:
        await _end(waiting)
        failed = await _end(following)
    if failed is not None and not isinstance(failed, NotFoundError):
        raise failed
    # Pieces may still be on their way; what was kept is complete, and here already.
    with contextlib.suppress(NotFoundError):
        printer.complete(await client.log(task))
    return view


async def _end(task: asyncio.Task[None]) -> GridError | None:
    """Cancel a helper task and return the error it ended with, if any."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return None
    except GridError as error:
        return error
    return None


async def tell_why_it_waits(
    client: Client, job: JobId, invocation: Invocation, ctrl_c: str = CANCELS
) -> None:
    """Show the explanation of a job that does not start, once for each new reason, and what Ctrl-C does."""
    told = ""
    await asyncio.sleep(PATIENCE_S)
    while True:
        view = await client.job(job)
        if view.running or view.done or view.state in ENDED:
            return
        summary = (await client.explain(str(job))).summary
        if summary and summary != told:
            invocation.note(Text(f"Job {job} waits: {safe(summary).rstrip('.')}. {ctrl_c}"))
            told = summary
        await asyncio.sleep(EXPLAIN_EVERY_S)


async def wait_with_progress(
    client: Client, job: JobId, invocation: Invocation, ctrl_c: str = CANCELS
) -> JobView:
    """Wait for a job's end, telling why it waits; at a terminal its bars are drawn on standard error."""
    waiting = asyncio.create_task(tell_why_it_waits(client, job, invocation, ctrl_c))
    try:
        return await (_draw_until_end if invocation.err.is_terminal else _wait_quietly)(
            client, job, invocation
        )
    finally:
        await _end(waiting)


async def _wait_quietly(client: Client, job: JobId, _: Invocation) -> JobView:
    return await client.wait(job)


async def _draw_until_end(client: Client, job: JobId, invocation: Invocation) -> JobView:
    view = await client.job(job)

    def drawn() -> RenderableType:
        # Drawn anew between events, too: the time goes on.
        return progress_lines(invocation.look(invocation.err), view)

    with Live(console=invocation.err, get_renderable=drawn, refresh_per_second=4):
        async for view in job_views(client, job):
            if view.state in ENDED:
                break
    return view


async def job_views(client: Client, job: JobId) -> AsyncGenerator[JobView, None]:
    """A job's view now and after every change, at most ten a second while events come in bursts."""
    async with contextlib.aclosing(
        client.watch(Subscribe(jobs=True, devices=False, job=str(job)))
    ) as batches:
        async for events in batches:
            newest: JobView | None = None
            for event in events:
                if isinstance(event, Snapshot):
                    newest = next((view for view in event.jobs if view.id == str(job)), newest)
                elif isinstance(event, JobChanged) and event.job.id == str(job):
                    newest = event.job
            if newest is None:
                # It may have ended before the stream began, and ended jobs are not part of every snapshot.
                newest = await client.job(job)
            yield newest


async def cancelled_with_job(
    client: Client, job: JobId, waiting: Awaitable[JobView], invocation: Invocation
) -> JobView:
    """Wait; when this program is interrupted, cancel the job first."""
    try:
        return await waiting
    except asyncio.CancelledError:
        invocation.note(Text(f"Cancelling job {job}"))
        with contextlib.suppress(GridError, TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT_S):
                await client.cancel(job)
        raise


def exit_code_of(result: TaskResult) -> int:
    """The code with which a program that stands for this task should exit."""
    outcome = result.outcome
    if result.state == "done":
        return outcome.exit_code or 0
    if result.reason.startswith("timed out"):
        return CODE_TIMED_OUT
    if outcome.signal:
        number = getattr(signal, outcome.signal, None)
        return 128 + int(number) if number is not None else CODE_FAILED
    return outcome.exit_code or CODE_FAILED
