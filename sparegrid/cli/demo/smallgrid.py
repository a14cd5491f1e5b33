"""A grid of real processes on loopback in a temporary home, and its end without leftovers. Knows no picture."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sparegrid.errors import GridError, UnreachableError

if TYPE_CHECKING:
    from sparegrid.client import Client

START_S = 30.0
END_S = 8.0
_POLL_S = 0.05
_LOG_TAIL_BYTES = 1500
_FOREIGN = ("SPAREGRID_", "GOGRID_")
"""Variables that would lead the demo's programs to another grid."""


class Child:
    """One program of the grid, its log in a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    def check(self) -> None:
        """Raises GridError with the end of its log when it has ended by itself."""
        if self.process.returncode is None:
            return
        tail = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        raise GridError(f"The demo's {self.name} has ended", f"exit code {self.process.returncode}\n{tail}")

    def send(self, number: int) -> None:
        """Signal it; one that has ended is left alone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class SmallGrid:
    """A coordinator and workers, each with a home of its own, for use in `async with`.

    Args:
        environ: the environment of this program; settings of Sparegrid in it are not handed on.
        workers: how many devices, each of one slot.
    """

    def __init__(self, environ: Mapping[str, str], workers: int) -> None:
        self._environ = {key: value for key, value in environ.items() if not key.startswith(_FOREIGN)}
        self._workers = workers
        self._children: list[Child] = []
        self.folder = Path()
        self.client: Client

    @property
    def devices(self) -> list[str]:
        """Names of the devices."""
        return [f"device-{number}" for number in range(1, self._workers + 1)]

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="sparegrid-demo-"))
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, error, trace)
        await self._end()

    async def _start(self) -> None:
        from sparegrid.api import JoinCodeRequest
        from sparegrid.client import Client
        from sparegrid.paths import Paths

        home = self.folder / "coordinator"
        options = ("--host", "127.0.0.1", "--port", "0", "--no-announce", "--quiet", "--name", "demo")
        await self._spawn("coordinator", home, "coordinator", *options)
        paths = Paths.below(home)
        await self._until(paths.access_file.exists, "coordinator")
        self.client = await Client.find(paths, self._environ).__aenter__()
        try:
            for name in self.devices:
                code = (await self.client.join_code(JoinCodeRequest())).code
                await self._spawn(
                    name, self.folder / name, "worker", "--join", code, "--slots", "1", "--name", name
                )
            await self._until_online()
        except BaseException:
            await self.client.__aexit__(None, None, None)
            raise

    async def _spawn(self, name: str, home: Path, *arguments: str) -> None:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "sparegrid.cli",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environ | {"SPAREGRID_HOME": str(home)},
                # Ctrl-C is for the demo, which then ends them in order.
                start_new_session=True,
            )
        self._children.append(Child(name, process, log))

    async def _until(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_S
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise UnreachableError(f"The demo's {what} did not start", f"not ready after {START_S:.0f} s")
            await asyncio.sleep(_POLL_S)

    async def _until_online(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            online = [view for view in (await self.client.devices()).devices if view.state != "offline"]
            if len(online) == self._workers:
                return
            self.check()
            if time.monotonic() > deadline:
                raise UnreachableError(
                    "The demo's devices did not join",
                    f"{len(online)} of {self._workers} after {START_S:.0f} s",
                )
            await asyncio.sleep(_POLL_S)

    def check(self) -> None:
        """Raises GridError when a program of the grid has ended by itself."""
        for child in self._children:
            child.check()

    async def _end(self) -> None:
        """End the devices first, so that nobody computes for a coordinator that is gone."""
        for group in (self._children[1:], self._children[:1]):
            for child in group:
                child.send(signal.SIGTERM)
            waiting = [asyncio.ensure_future(child.process.wait()) for child in group]
            if waiting:
                await asyncio.wait(waiting, timeout=END_S)
        self.end_now()
        for child in self._children:
            await child.process.wait()

    def end_now(self) -> None:
        """Kill what is left and remove the folder, without waiting: the last resort, safe to repeat."""
        for child in self._children:
            if child.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    if os.name == "posix":
                        os.killpg(child.process.pid, signal.SIGKILL)
                    else:
                        child.process.kill()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)
