"""A coordinator that answers what a test tells it to: real TLS, real sockets, faults on request.

It keeps blobs as the real one does (HEAD, resumable PUT, ranged GET) and can cut connections; every other route
answers from a table. The contract of its blobs is checked against the real coordinator in `tests/contract`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from sparegrid.api import API_PREFIX, Health, Problem
from sparegrid.client import Client
from sparegrid.trust.certificate import Certificate

TOKEN = "sgt_test"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(value: object, status: int = 200) -> web.Response:
    """A Struct as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def refuse(status: int, code: str, title: str, message: str = "", hint: str = "") -> web.Response:
    """A Problem."""
    return answer(Problem(code, title, message, hint), status)


class FakeCoordinator:
    """Blobs in memory, a table of answers, a log of requests."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self.port = 0
        self.blobs: dict[str, bytearray] = {}
        self.whole: set[str] = set()
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.handlers: dict[tuple[str, str], Handler] = {}
        self.cut_uploads_after: list[int] = []
        """The next uploads are cut, each after so many bytes."""
        self.cut_downloads_after: list[int] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client(self, token: str = TOKEN, patience_s: float = 5.0) -> Client:
        return Client.connect(
            url=self.url, fingerprint=self.certificate.fingerprint, token=token, patience_s=patience_s
        )

    def on(self, method: str, path: str, handler: Handler) -> None:
        """Answer `method` of a path below `/v1` with this."""
        self.handlers[method, f"{API_PREFIX}{path}"] = handler

    def on_value(self, method: str, path: str, value: object) -> None:
        """Answer with this Struct, always."""

        async def handle(_request: web.Request) -> web.Response:
            return answer(value)

        self.on(method, path, handle)

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self.port, ssl_context=self.certificate.server_context()
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.rel_url}")
        handler = self.handlers.get((request.method, request.rel_url.raw_path))
        if handler is not None:
            return await handler(request)
        if request.path == f"{API_PREFIX}/health":
            return answer(Health("ok", "0", self.certificate.grid, "lab", 1))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return refuse(401, "unauthenticated", "Not allowed", "No token was shown")
        found = re.fullmatch(rf"{API_PREFIX}/blobs/([0-9a-f]{{64}})", request.path)
        if found is None:
            return refuse(404, "not-found", "No such thing", request.path)
        blobs: dict[str, Callable[[web.Request, str], Awaitable[web.StreamResponse]]] = {
            "HEAD": self._head_blob,
            "PUT": self._put_blob,
            "GET": self._get_blob,
        }
        return await blobs[request.method](request, found[1])

    async def _head_blob(self, _request: web.Request, name: str) -> web.Response:
        held = len(self.blobs.get(name, b""))
        if name in self.whole:
            return web.Response(headers={"Content-Length": str(held)})
        return web.Response(status=404, headers={"Upload-Offset": str(held), "Content-Length": "0"})

    async def _put_blob(self, request: web.Request, name: str) -> web.Response:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", request.headers.get("Content-Range", ""))
        only_end = re.fullmatch(r"bytes \*/(\d+)", request.headers.get("Content-Range", ""))
        start, total = (int(found[1]), int(found[3])) if found else (0, 0)
        if only_end:
            start = total = int(only_end[1])
        held = self.blobs.setdefault(name, bytearray())
        if start != len(held):
            return refuse(409, "conflict", "Wrong offset", f"{start} is not {len(held)}")
        limit = self.cut_uploads_after.pop(0) if self.cut_uploads_after else None
        received = 0
        async for chunk in request.content.iter_any():
            held += chunk
            received += len(chunk)
            if limit is not None and received >= limit:
                _cut(request)
                break
        if len(held) == total and hashlib.sha256(held).hexdigest() == name:
            self.whole.add(name)
            return web.Response(status=201)
        del self.blobs[name]
        return refuse(400, "bad-input", "Wrong hash", name)

    async def _get_blob(self, request: web.Request, name: str) -> web.StreamResponse:
        data = bytes(self.blobs.get(name, b""))
        if name not in self.whole:
            return refuse(404, "not-found", "No such blob", name)
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        self.ranges.append(request.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        response = web.StreamResponse(status=206 if asked else 200)
        response.content_length = len(data) - start
        if asked:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        limit = self.cut_downloads_after.pop(0) if self.cut_downloads_after else None
        await response.prepare(request)
        for position in range(start, len(data), 1 << 16):
            await response.write(data[position : position + (1 << 16)])
            if limit is not None and position + (1 << 16) - start >= limit:
                _cut(request)
                break
        return response


def _cut(request: web.Request) -> None:
    """Break the connection as a pulled cable or a killed program does."""
    assert request.transport is not None
    request.transport.abort()


@asynccontextmanager
async def fake_coordinator(folder: Path) -> AsyncIterator[FakeCoordinator]:
    """One that listens on a free port of loopback."""
    fake = FakeCoordinator(Certificate.load_or_make(folder / "coordinator.pem"))
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()
