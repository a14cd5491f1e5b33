"""Routes of blobs: is it there, ranged reads, resumable uploads. Bytes flow in chunks; memory stays flat.

Answers go out by our own loop: the library's file response crawls under TLS.
"""

from __future__ import annotations

import re

from aiohttp import web

from coordinator.server.context import SERVER
from coordinator.server.wire import Handler, answer, problem
from sparegrid.errors import BadInputError, ConflictError, GridError, StorageError
from sparegrid.ids import BlobHash, parse_blob_hash
from sparegrid.messages import BlobRef, Inline, Payload

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})\Z", re.ASCII)
OFFSET = "Upload-Offset"
BYTES = "application/octet-stream"


async def blob_head(request: web.Request) -> web.Response:
    """200 with the size, or 404 with how far an upload got."""
    server, name = request.app[SERVER], _hash(request)
    size = await server.blobs.size(name)
    if size is None:
        # Without a length aiohttp's client closes the connection, and the upload pays a new handshake.
        offset = str(await server.blobs.offset(name))
        return web.Response(status=404, headers={OFFSET: offset, "Content-Length": "0"})
    headers = {"Content-Length": str(size), OFFSET: str(size), "Accept-Ranges": "bytes", "ETag": f'"{name}"'}
    return web.Response(headers=headers, content_type=BYTES)


async def blob(request: web.Request) -> web.StreamResponse:
    """A blob's bytes, or one range of them."""
    return await _send_blob(request, _hash(request), {})


async def put_blob(request: web.Request) -> web.Response:
    """Take a blob, or the rest of one; 201 says that it is durable, 200 that it was there."""
    server, name = request.app[SERVER], _hash(request)
    first, total = _wanted(request)
    try:
        async with server.blobs.upload(name, total, first) as upload:
            if not upload.stored:
                async for chunk in request.content.iter_any():
                    await upload.write(chunk)
                await upload.finish()
    except ConflictError as error:
        refused = problem(error)
        refused.headers[OFFSET] = str(await server.blobs.offset(name))
        return refused
    except GridError:
        raise
    except (ConnectionError, web.HTTPException) as error:
        # The sender went away: what came is kept, and nobody reads this answer.
        raise BadInputError("Upload was cut", "the connection ended before the blob was whole") from error
    return answer(BlobRef(name, total), 201 if upload.fresh else 200)


async def send_payload(
    request: web.Request, payload: Payload | None, headers: dict[str, str]
) -> web.StreamResponse:
    """The bytes of a payload, from the message or from the blob store."""
    if isinstance(payload, BlobRef):
        return await _send_blob(request, parse_blob_hash(payload.hash), headers)
    data = payload.data if isinstance(payload, Inline) else b""
    return web.Response(body=data, headers=headers, content_type=BYTES)


async def _send_blob(request: web.Request, name: BlobHash, headers: dict[str, str]) -> web.StreamResponse:
    async with await request.app[SERVER].blobs.reader(name) as reader:
        asked = _range(request, reader.size)
        first, count = asked or (0, reader.size)
        response = web.StreamResponse(
            status=200 if asked is None else 206,
            headers={**headers, "Accept-Ranges": "bytes", "ETag": f'"{name}"', "Content-Type": BYTES},
        )
        if response.status == 206:
            response.headers["Content-Range"] = f"bytes {first}-{first + count - 1}/{reader.size}"
        response.content_length = count
        await response.prepare(request)
        try:
            async for chunk in reader.chunks(first, count):
                await response.write(chunk)
        except StorageError:
            # The length was promised: cutting the connection is the only way left to say that it failed.
            if request.transport is not None:
                request.transport.abort()
            raise
        await response.write_eof()
        return response


def _hash(request: web.Request) -> BlobHash:
    return parse_blob_hash(request.match_info["hash"])


def _range(request: web.Request, size: int) -> tuple[int, int] | None:
    """(first byte, how many); None is the whole, also for several ranges at once, as RFC 9110 allows."""
    text = request.headers.get("Range", "")
    found = _RANGE.match(text)
    if found is None or found.group(0) == "bytes=-":
        if text and "," not in text:
            raise BadInputError("Not a range", f"Range: {text[:80]!r} is not `bytes=FIRST-LAST`")
        return None
    first_text, last_text = found.groups()
    if not first_text:
        count = min(int(last_text), size)
        first, last = size - count, size - 1
    else:
        first = int(first_text)
        last = min(int(last_text), size - 1) if last_text else size - 1
    if first >= size or last < first:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return first, last - first + 1


def _wanted(request: web.Request) -> tuple[int, int]:
    """(first byte that comes, bytes of the whole blob)."""
    length = request.content_length
    text = request.headers.get("Content-Range", "")
    if not text:
        if length is None:
            raise BadInputError("Length is missing", "an upload needs Content-Length or Content-Range")
        return 0, length
    found = _CONTENT_RANGE.match(text)
    if found is None:
        raise BadInputError("Not a range", f"Content-Range: {text[:80]!r} is not `bytes FIRST-LAST/TOTAL`")
    total = int(found[3])
    if found[1] is None:
        return total, total
    first, last = int(found[1]), int(found[2])
    if length == 0 and last + 1 == total:
        # Everything came before the cut, and only the end is missing.
        return total, total
    if last < first or last + 1 != total or (length is not None and length != last - first + 1):
        raise BadInputError(
            "Not a range", f"Content-Range: {text[:80]!r} must go to the blob's end and match Content-Length"
        )
    return first, total


HANDLERS: dict[str, Handler] = {"blob_head": blob_head, "blob": blob, "put_blob": put_blob}
