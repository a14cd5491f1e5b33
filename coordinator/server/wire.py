"""Bodies in and out: JSON of Structs, with errors that name the place. Knows no route."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from sparegrid.api import MAX_BODY_BYTES, Problem, dump_json
from sparegrid.errors import BadInputError, GridError, TooLargeError

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LARGE_BODY_BYTES = 256 << 10
"""Larger bodies are decoded in a thread: the loop serves others meanwhile."""
MAX_PAGE = 1000
_AT = re.compile(r"(?P<what>.*?)(?: - at `(?P<key>key in )?\$(?P<path>[^`]*)`)?\Z", re.DOTALL)
_BYTE = re.compile(r"\(byte (\d+)\)")


def answer(value: object, status: int = 200) -> web.Response:
    """A Struct as JSON."""
    return web.Response(body=dump_json(value), status=status, content_type="application/json")


def nothing() -> web.Response:
    """Done, and there is nothing to say."""
    return web.Response(status=204)


def problem(error: GridError, status: int = 0) -> web.Response:
    """An error of the tree as its Problem."""
    return answer(Problem(error.code, error.title, error.message, error.hint), status or error.http_status)


def refuse_large(size: int | None, what: str = "The body") -> None:
    """Raise TooLargeError for a body over the limit."""
    if size is not None and size > MAX_BODY_BYTES:
        raise TooLargeError(
            "Too large",
            f"{what} has {size} bytes; {MAX_BODY_BYTES} ({MAX_BODY_BYTES >> 20} MiB) is the limit",
            "Upload larger bytes as blobs and refer to them",
        )


def refuse_encoded(request: web.Request) -> None:
    """Raise BadInputError for a compressed body: a few bytes could grow to gigabytes here."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise BadInputError(
            "Compressed body", f"Content-Encoding {encoding[:40]!r} is not taken", "Send the body as it is"
        )


async def read_small(request: web.Request, kind: type[T], limit: int) -> T:
    """The body of somebody unknown, of which no more than `limit` bytes are ever held. Raises as `read_body`."""
    refuse_encoded(request)
    data = bytearray()
    async for chunk in request.content.iter_chunked(limit):
        data += chunk
        if len(data) > limit:
            raise TooLargeError("Too large", f"The body has more than {limit} bytes, which is the limit here")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise undecodable(bytes(data), error) from error


async def read_body(request: web.Request, kind: type[T]) -> T:
    """The body as a Struct; an empty body is an empty object.

    Raises:
        TooLargeError: over MAX_BODY_BYTES.
        BadInputError: malformed JSON (names line and column), or a wrong value (names its path).
    """
    refuse_encoded(request)
    refuse_large(request.content_length)
    data = await request.read() or b"{}"
    try:
        if len(data) > LARGE_BODY_BYTES:
            return await asyncio.to_thread(msgspec.json.decode, data, type=kind)
        return msgspec.json.decode(data, type=kind)
    except RecursionError as error:
        raise BadInputError(
            "Not accepted", "The body has too many lists and objects inside each other"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise undecodable(data, error) from error


def undecodable(data: bytes, error: Exception) -> BadInputError:
    """What is wrong with a body, and where."""
    if isinstance(error, msgspec.ValidationError):
        return BadInputError("Not accepted", in_words(error))
    found = _BYTE.search(str(error))
    if found is None:
        return BadInputError("Malformed JSON", str(error))
    offset = int(found[1])
    line = data.count(b"\n", 0, offset) + 1
    column = offset - data.rfind(b"\n", 0, offset)
    return BadInputError("Malformed JSON", f"{error} at line {line}, column {column}")


def in_words(error: msgspec.ValidationError, before: str = "") -> str:
    """`stages[0].priority: expected int, got str` from msgspec's words. `before` is the path of the whole value."""
    found = _AT.match(str(error))
    assert found is not None
    path = (before + (found["path"] or "")).removeprefix(".")
    what = found["what"].replace("`", "")
    what = what[:1].lower() + what[1:]
    key = "a key of " if found["key"] else ""
    return f"{key}{path}: {what}" if path else what


def whole_number(request: web.Request, name: str, default: int, most: int = MAX_PAGE) -> int:
    """A number of the query, at most `most`. Raises BadInputError."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadInputError(
            "Not a number", f"{name}={text[:80]!r} in the address must be a whole number, 0 or more"
        )
    return min(int(text), most)


def encode_all(values: list[Any]) -> bytes:
    """A frame of encoded events."""
    return b"[" + b",".join(values) + b"]"
