"""What a verb gets from its process: environment, folders, consoles and the client. Knows no verb and no table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sparegrid.cli.exits import CODE_TERMINATED, PipeClosedError, TerminatedError
from sparegrid.errors import GridError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from sparegrid.cli.screens.look import Look
    from sparegrid.client import Client
    from sparegrid.paths import Paths

T = TypeVar("T")

UNCUT_WIDTH = 20_000
"""Columns of output that goes to a file or a pipe: nothing is cut there."""


class Invocation:
    """One run of the program.

    Args:
        environ: the environment variables it was started with.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.debug = environ.get("SPAREGRID_DEBUG", "") not in {"", "0"}
        self.url: str | None = None
        self.asked = False
        """A coordinator was asked for something on behalf of this home."""
        self._out: Console | None = None
        self._err: Console | None = None

    @property
    def out(self) -> Console:
        """Standard output: what was asked for."""
        if self._out is None:
            self._out = self._console(stderr=False)
        return self._out

    @property
    def err(self) -> Console:
        """Standard error: errors, progress and advice."""
        if self._err is None:
            self._err = self._console(stderr=True)
        return self._err

    def _console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        class PipedConsole(Console):
            def on_broken_pipe(self) -> None:
                raise PipeClosedError

        stream = sys.stderr if stderr else sys.stdout
        if hasattr(stream, "reconfigure"):
            # A name with an emoji must never end the program on a terminal that cannot show it.
            stream.reconfigure(errors="replace")
        console = PipedConsole(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not console.is_terminal:
            console.width = UNCUT_WIDTH
        return console

    @contextlib.contextmanager
    def consoles_closed_at_end(self) -> Iterator[None]:
        """Flush both streams inside the block, so that a reader who left is noticed where it is handled."""
        yield
        sys.stdout.flush()
        sys.stderr.flush()

    def look(self, console: Console | None = None) -> Look:
        """How screens are drawn on a console (standard output when none is given), now."""
        from sparegrid.cli.screens.look import Look

        return Look.of(console or self.out, int(time.time() * 1000))

    def show(self, *renderables: RenderableType) -> None:
        """Draw on standard output."""
        for renderable in renderables:
            _print(self.out, renderable)

    def note(self, *renderables: RenderableType) -> None:
        """Advice and progress, on standard error."""
        for renderable in renderables:
            _print(self.err, renderable)

    def show_json(self, value: object) -> None:
        """One JSON document on standard output, of the same Structs as the REST interface."""
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(value), indent=2)
        sys.stdout.write(text.decode() + "\n")

    def report_error(self, error: GridError) -> None:
        """Show an error of the house's tree on standard error."""
        self.report(error.title, error.message, error.hint)

    def report(self, title: str, message: str, hint: str) -> None:
        """Show what went wrong and the next step on standard error."""
        from sparegrid.cli.screens.messages import error_text

        self.err.print(error_text(title, message, hint), soft_wrap=not self.err.is_terminal)

    def paths(self) -> Paths:
        """The folders of this user, or of SPAREGRID_HOME."""
        from sparegrid.paths import Paths

        return Paths.find(self.environ)

    def client(self) -> Client:
        """The client for the grid that this user talks to. Raises UnreachableError when none is known."""
        from sparegrid.cli.membership import full_url
        from sparegrid.client import Client

        self.asked = True
        return Client.find(self.paths(), self.environ, url=full_url(self.url) if self.url else None)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; SIGTERM and SIGHUP cancel it like Ctrl-C does."""
        return asyncio.run(_until_signal(main))

    def serve(self, program: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        """Run a long-lived program until SIGINT or SIGTERM sets its event; a second signal cancels it."""
        asyncio.run(_until_stopped(program))


def _print(console: Console, renderable: RenderableType) -> None:
    if console.is_terminal:
        # What is to be copied is one line to the terminal, however narrow it is: it wraps without a line break.
        console.print(renderable, soft_wrap=getattr(renderable, "no_wrap", None) is True)
        return
    with console.capture() as captured:
        console.print(renderable)
    # Cells are padded to their columns; in a file the last one's spaces are only in the way.
    for line in captured.get().splitlines():
        console.file.write(line.rstrip() + "\n")


async def _until_signal(main: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        task.cancel()

    watched = [
        number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
    ]
    if os.name == "posix":
        for number in watched:
            loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise TerminatedError(128 + received[0]) from None
        raise
    finally:
        if os.name == "posix":
            for number in watched:
                loop.remove_signal_handler(number)


async def _until_stopped(program: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.ensure_future(program(stop))

    def on_signal() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    numbers = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if os.name == "posix":
            loop.add_signal_handler(number, on_signal)
        else:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(on_signal))
    try:
        await task
    except asyncio.CancelledError:
        raise TerminatedError(CODE_TERMINATED) from None
    finally:
        for number in numbers:
            if os.name == "posix":
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])
