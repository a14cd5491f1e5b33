"""A grid on loopback for measuring: real processes with the product's defaults, in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Self

from sparegrid.client import Client
from sparegrid.errors import GridError
from sparegrid.paths import Paths

SPAREGRID = str(Path(sys.executable).parent / "sparegrid")


class LocalGrid:
    """A coordinator and some workers; an async context manager that leaves nothing running.

    Args:
        folder: an existing empty folder; every program's home is below it.
        workers: how many workers, each with a home of its own.
        slots: tasks that run at once, per worker.
    """

    def __init__(self, folder: Path, *, workers: int, slots: int) -> None:
        self._folder = folder
        self._workers = workers
        self._slots = slots
        self._processes: list[asyncio.subprocess.Process] = []
        self._environ = {**os.environ, "SPAREGRID_HOME": str(folder / "head")}

    async def _start(self, environ: dict[str, str], *argv: str) -> None:
        log = (self._folder / f"{len(self._processes)}.log").open("wb")
        with log:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    SPAREGRID, *argv, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
                )
            )

    async def _join_code(self) -> str:
        from sparegrid.api import JoinCodeRequest

        async with self.client() as client:
            return (await client.join_code(JoinCodeRequest())).code

    async def _until_devices(self, count: int) -> None:
        for _ in range(300):
            try:
                async with self.client() as client:
                    if (await client.grid()).devices_online >= count:
                        return
            except GridError:
                pass  # the coordinator has not written its access file yet
            await asyncio.sleep(0.1)
        logs = "\n".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("*.log")))
        raise SystemExit(f"The grid did not come up within 30 s:\n{logs}")

    def client(self) -> Client:
        """A client with the coordinator's own access file."""
        return Client.find(Paths.find(self._environ), self._environ)

    async def __aenter__(self) -> Self:
        try:
            await self._start(
                self._environ, "coordinator", "--host", "127.0.0.1", "--port", "0", "--no-announce"
            )
            await self._until_devices(0)
            for number in range(self._workers):
                environ = {**os.environ, "SPAREGRID_HOME": str(self._folder / f"worker{number}")}
                code = await self._join_code()
                await self._start(
                    environ, "worker", "--join", code, "--slots", str(self._slots), "--name", f"w{number}"
                )
            await self._until_devices(self._workers)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every process, the workers first."""
        for process in reversed(self._processes):
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 15)
                except TimeoutError:
                    process.kill()
                    await process.wait()
