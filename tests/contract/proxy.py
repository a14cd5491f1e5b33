"""A TCP proxy that breaks connections: after so many bytes of either way, as a pulled cable does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class CuttingProxy:
    """Forwards to one address. `cuts` holds for the next connections after how many bytes each is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.cuts: list[int] = []
        self.port = 0
        self.cut_count = 0
        self.forwarded = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = [self.cuts.pop(0)] if self.cuts else [1 << 62]
        out_reader, out_writer = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.ensure_future(self._pump(reader, out_writer, left)),
            asyncio.ensure_future(self._pump(out_reader, writer, left)),
        ]
        self._tasks.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for task in ways:
            task.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for one in (writer, out_writer):
            one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]
    ) -> None:
        while data := await reader.read(1 << 16):
            left[0] -= len(data)
            if left[0] < 0:
                self.cut_count += 1
                return
            self.forwarded += len(data)
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def cutting_proxy(host: str, port: int) -> AsyncIterator[CuttingProxy]:
    """One that listens on a free port of loopback."""
    proxy = CuttingProxy(host, port)
    server = await asyncio.start_server(proxy.on_connection, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()
