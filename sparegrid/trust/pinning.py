"""The client's side of TLS: a connection is good when the certificate's fingerprint is the pinned one.

Works for HTTP and WebSockets alike: `aiohttp.TCPConnector(ssl=Pin(...))`. Names, dates and issuers are
ignored.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re

import aiohttp

from sparegrid.errors import BadInputError

FULL_PIN_BYTES = 32
MIN_PIN_BYTES = 16
"""A join code carries 128 bits of the fingerprint: finding another key for it takes 2^128 tries."""

_HEX = re.compile(r"[0-9a-f]*\Z")


def parse_fingerprint(text: str) -> bytes:
    """Read a fingerprint: 32 to 64 hex digits, colons and case ignored.

    Raises:
        BadInputError: it is not one.
    """
    plain = text.strip().replace(":", "").lower()
    if not _HEX.match(plain) or len(plain) % 2 or not MIN_PIN_BYTES <= len(plain) // 2 <= FULL_PIN_BYTES:
        raise BadInputError(
            "Not a fingerprint",
            f"{text[:80]!r} is not {2 * FULL_PIN_BYTES} hex digits",
            "`sparegrid join-code` on the coordinator's machine gives a code that carries it",
        )
    return bytes.fromhex(plain)


class Pin(aiohttp.Fingerprint):
    """Accepts the certificate whose SHA-256 begins with these bytes (16 to 32), over TLS 1.3 only.

    `seen` is the whole fingerprint of the certificate that was last accepted: who came with a join code's 128
    bits pins all 256 from then on.
    """

    def __init__(self, fingerprint: bytes | str) -> None:
        wanted = parse_fingerprint(fingerprint) if isinstance(fingerprint, str) else fingerprint
        if not MIN_PIN_BYTES <= len(wanted) <= FULL_PIN_BYTES:
            raise BadInputError("Not a fingerprint", f"A pin has 16 to 32 bytes, not {len(wanted)}")
        super().__init__(wanted.ljust(FULL_PIN_BYTES, b"\0"))
        self.wanted = wanted
        self.seen: str = ""

    def check(self, transport: asyncio.BaseTransport) -> None:
        """Raise aiohttp.ServerFingerprintMismatch unless the other side of `transport` is the pinned one."""
        connection = transport.get_extra_info("ssl_object")
        certificate = None if connection is None else connection.getpeercert(binary_form=True)
        got = hashlib.sha256(certificate or b"").digest()
        fits = hmac.compare_digest(got[: len(self.wanted)], self.wanted)
        if not certificate or connection.version() != "TLSv1.3" or not fits:
            host, port, *_ = transport.get_extra_info("peername") or ("", 0)
            raise aiohttp.ServerFingerprintMismatch(self.wanted, got, host, port)
        self.seen = got.hex()
