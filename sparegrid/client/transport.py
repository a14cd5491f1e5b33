"""One pinned HTTPS connection pool: requests, retries, and errors of the house's tree.

It knows methods, statuses and dropped connections; what a route means it does not know.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from yarl import URL

from sparegrid.api import API_PREFIX, Problem
from sparegrid.errors import (
    BadInputError,
    GridError,
    NotFoundError,
    StorageError,
    TooLargeError,
    UnauthenticatedError,
    UnreachableError,
    VersionError,
    error_classes,
)
from sparegrid.trust.pinning import Pin

CONNECT_S = 10.0
CALL_S = 120.0
"""Limit of one JSON call."""
SILENCE_S = 60.0
"""Limit between two pieces of a transfer."""
PATIENCE_S = 20.0
"""How long a call that may be repeated is repeated after its connection dropped: a coordinator's restart."""
MAX_BACKOFF_S = 3.0

DROPPED = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError, TimeoutError)
"""What a connection that breaks raises. Refusals by the coordinator are none of these."""
_BY_STATUS: dict[int, type[GridError]] = {
    401: UnauthenticatedError,
    413: TooLargeError,
    426: VersionError,
    507: StorageError,
}


class Backoff:
    """Growing, jittered pauses until a deadline; `reset` after every success."""

    def __init__(self, patience_s: float | None, *, first_s: float = 0.05) -> None:
        self._patience_s = patience_s
        self._first_s = first_s
        self._next_s = first_s
        self._deadline: float | None = None

    def reset(self) -> None:
        """Something worked: begin anew."""
        self._deadline, self._next_s = None, self._first_s

    async def pause(self) -> bool:
        """Wait a little; False, at once, when patience is over."""
        now = asyncio.get_running_loop().time()
        if self._deadline is None and self._patience_s is not None:
            self._deadline = now + self._patience_s
        wait_s = random.uniform(self._next_s / 2, self._next_s)
        if self._deadline is not None and now + wait_s > self._deadline:
            return False
        self._next_s = min(self._next_s * 2, MAX_BACKOFF_S)
        await asyncio.sleep(wait_s)
        return True


class Transport:
    """Talks to one coordinator, at the first of its addresses that answers with the pinned key.

    Args:
        urls: base URLs, `https://host:port`, the likeliest first.
        pin: the certificate that must answer.
        token: shown with every request; empty for none.
        patience_s: see PATIENCE_S.
    """

    def __init__(self, urls: Sequence[str], pin: Pin, token: str, *, patience_s: float = PATIENCE_S) -> None:
        self._urls = [_base_url(url) for url in urls]
        self._pin = pin
        self._token = token
        self._patience_s = patience_s
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """The address in use."""
        return str(self._urls[0]).rstrip("/")

    @property
    def fingerprint(self) -> str:
        """The whole fingerprint that answered; empty before the first connection."""
        return self._pin.seen

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._pin, limit=32),
            timeout=aiohttp.ClientTimeout(total=CALL_S, sock_connect=CONNECT_S),
            headers=headers,
            auto_decompress=False,
            trace_configs=[_counting()],
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        repeatable: bool,
    ) -> bytes:
        """The body of the answer to one small request.

        Args:
            method: HTTP method.
            path: below `/v1`, quoted.
            body, query: JSON to send, parameters of the URL.
            repeatable: doing it twice is as good as once: it is repeated when the connection drops.

        Raises:
            GridError: what the coordinator answered, or UnreachableError.
        """
        backoff = Backoff(self._patience_s)
        headers = {} if body is None else {"Content-Type": "application/json"}
        tries = _Tries()
        while True:
            try:
                async with self.request(
                    method,
                    path,
                    data=body and io.BytesIO(body),
                    params=query,
                    headers=headers,
                    trace_request_ctx=tries,
                ) as answer:
                    return await answer.read()
            except DROPPED as error:
                if not repeatable or isinstance(error, TimeoutError) or not await backoff.pause():
                    raise self.unreachable(error) from error
            except UnreachableError:
                # The first refusal is the answer; after a drop it may be a coordinator that starts again.
                if not tries.sent or not repeatable or not await backoff.pause():
                    raise
            except NotFoundError:
                if method == "DELETE" and tries.sent > 1:
                    return b""  # The request before the drop has done it.
                raise

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, wanted: tuple[int, ...] = (), **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, never repeated except at another address that did not take the connection.

        Raises:
            UnreachableError: nobody answers, or another key does.
            GridError: an answer of 400 or more that is not among `wanted`.
            aiohttp.ClientError, ConnectionError, TimeoutError: the connection broke on the way (DROPPED).
        """
        answer = await self._begin(method, path, options)
        async with answer:
            if answer.status >= 400 and answer.status not in wanted:
                raise await problem_of(answer)
            yield answer

    async def _begin(self, method: str, path: str, options: dict[str, Any]) -> aiohttp.ClientResponse:
        """Send it to the first address that takes the connection, which is tried first from then on."""
        session = self.session
        failure: UnreachableError | None = None
        for url in list(self._urls):
            try:
                answer = await session.request(method, _join(url, path), allow_redirects=False, **options)
            except NOT_CONNECTED as error:
                failure = failure or self.unreachable(error, url)
                continue
            except aiohttp.InvalidURL as error:
                raise BadInputError("Not an address", f"{url} is no URL of a coordinator") from error
            self._prefer(url)
            return answer
        raise failure or UnreachableError("No coordinator known", "There is no address to try")

    async def open_websocket(self, path: str, protocols: Sequence[str]) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to a route below `/v1`.

        Raises:
            UnreachableError: nobody answers, or another key does.
            GridError: the coordinator refused.
            aiohttp.ClientError, ConnectionError, TimeoutError: the connection broke on the way (DROPPED).
        """
        failure: UnreachableError | None = None
        for url in list(self._urls):
            try:
                socket = await self.session.ws_connect(
                    _join(url, path),
                    protocols=protocols,
                    heartbeat=20.0,
                    max_msg_size=0,
                    compress=0,
                    timeout=aiohttp.ClientWSTimeout(ws_close=5.0),
                )
            except NOT_CONNECTED as error:
                failure = failure or self.unreachable(error, url)
                continue
            except aiohttp.WSServerHandshakeError as error:
                raise _by_status(error.status, f"{url}: the event stream was refused") from error
            self._prefer(url)
            return socket
        raise failure or UnreachableError("No coordinator known", "There is no address to try")

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open session. Raises RuntimeError outside of `async with`."""
        if self._session is None:
            raise RuntimeError("The client is used inside `async with` only")
        return self._session

    def unreachable(self, error: BaseException, url: URL | None = None) -> UnreachableError:
        """What a failed connection means, in words."""
        where = str(url or self._urls[0]).rstrip("/")
        if isinstance(error, UnreachableError):
            return error
        if isinstance(error, aiohttp.ServerFingerprintMismatch):
            return UnreachableError(
                "Another key answered",
                f"{where} has the key {error.got.hex()[:16]}…, but {error.expected.hex()[:16]}… was pinned",
                "Join again if the grid was set up anew; otherwise somebody may be listening in",
            )
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            return UnreachableError(
                "No coordinator answers", f"{where} does not speak TLS 1.3 as a coordinator does"
            )
        if isinstance(error, aiohttp.ClientConnectorError | TimeoutError | OSError):
            reason = "no answer in time" if isinstance(error, TimeoutError) else _reason(error)
        else:
            reason = "the connection broke"
        hint = "Is it running? `sparegrid coordinator` starts one, `sparegrid discover` looks for others"
        return UnreachableError("No coordinator answers", f"{where}: {reason}", hint)

    def _prefer(self, url: URL) -> None:
        if self._urls[0] != url:
            self._urls.remove(url)
            self._urls.insert(0, url)


NOT_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientSSLError,
    aiohttp.ConnectionTimeoutError,
)
"""The request was not sent: another address may be tried whatever the request does."""


class _Tries:
    """How often a request left: aiohttp repeats what HTTP calls idempotent once by itself."""

    def __init__(self) -> None:
        self.sent = 0


def _counting() -> aiohttp.TraceConfig:
    """Counts each sending of a request that carries a `_Tries`."""

    async def on_sent(_session: aiohttp.ClientSession, context: Any, _params: object) -> None:
        if isinstance(context.trace_request_ctx, _Tries):
            context.trace_request_ctx.sent += 1

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(on_sent)
    return trace


async def problem_of(answer: aiohttp.ClientResponse) -> GridError:
    """The error that a refusing answer tells of."""
    try:
        problem = msgspec.json.decode(await answer.read(), type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _by_status(
            answer.status, f"{answer.url.origin()} answered {answer.status} {answer.reason or ''}".strip()
        )
    kind = error_classes().get(problem.code) or type(_by_status(answer.status, ""))
    return kind(problem.title, problem.message, problem.hint)


def _by_status(status: int, message: str) -> GridError:
    """The error of a status whose body says nothing."""
    classes = {kind.http_status: kind for kind in error_classes().values() if kind is not GridError}
    kind = _BY_STATUS.get(status) or (classes.get(status) if status not in (409, 500) else None) or GridError
    return kind("The coordinator refused", message)


def _reason(error: BaseException) -> str:
    """Why a connection was not taken, in the system's words."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = getattr(cause, "errno", None)
    if number is not None and number > 0:
        return os.strerror(number).lower()
    return str(getattr(cause, "strerror", None) or cause) or "the connection broke"


def _base_url(text: str) -> URL:
    text = text.strip()
    try:
        url = URL(text if "://" in text else f"https://{text}")
        known = (
            url.scheme == "https" and bool(url.host) and url.port is not None and not re.search(r"\s", text)
        )
    except ValueError:
        known = False
        url = URL()
    if not known:
        raise BadInputError(
            "Not an address", f"{text[:100]!r} is no URL of a coordinator", "https://HOST:PORT"
        )
    return url.origin()


def _join(url: URL, path: str) -> URL:
    return URL(
        f"{url}{API_PREFIX.removeprefix('/') if str(url).endswith('/') else API_PREFIX}{path}", encoded=True
    )
