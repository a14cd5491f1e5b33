"""Join codes: everything a newcomer needs in one line that can be read aloud, typed, or shown as a QR code.

A code carries the coordinator's addresses, the first 128 bits of its fingerprint, and a one-time secret of 80
bits, as Crockford base32 (no I, L, O, U) in groups of four. Its last 24 bits are a checksum: a
typing error is told at once and costs none of the five tries. Layout of the bytes: version (4 bits) and
number of addresses (4 bits); for each address a kind byte (0 IPv4, 1 IPv6, 2 name; plus 4 when a port
follows, else 8443), the address, and the port; 16 bytes of fingerprint; 10 bytes of secret; 3 bytes of
SHA-256 of all before.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from sparegrid.api import DEFAULT_PORT
from sparegrid.errors import BadInputError
from sparegrid.trust.pinning import MIN_PIN_BYTES, parse_fingerprint

LINK_SCHEME = "sparegrid"
SECRET_BYTES = 10
MAX_ADDRESSES = 15
_VERSION = 1
_CHECK_BYTES = 3
_GROUP = 4
_PORT_FOLLOWS = 4
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RFC4648 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_CROCKFORD = str.maketrans(_RFC4648, _CROCKFORD)
_FROM_CROCKFORD = str.maketrans(_CROCKFORD, _RFC4648)
_LOOKALIKES = str.maketrans("OIL", "011")
_HINT = "Copy it again from `sparegrid join-code`"


class Address(NamedTuple):
    """Where a coordinator listens: an IP address or a host name, and a port."""

    host: str
    port: int = DEFAULT_PORT

    @property
    def url(self) -> str:
        """The base URL, `https://192.0.2.7:8443`."""
        return (
            f"https://[{self.host}]:{self.port}" if ":" in self.host else f"https://{self.host}:{self.port}"
        )


class Invitation(NamedTuple):
    """What a join code says. `fingerprint` in hex, whole or its first 128 bits; `secret` as `make_secret`
    gave it."""

    addresses: tuple[Address, ...]
    fingerprint: str
    secret: str


def make_secret() -> str:
    """A new one-time secret: 80 random bits as 16 base32 characters."""
    return _to_base32(secrets.token_bytes(SECRET_BYTES))


def encode_code(invitation: Invitation) -> str:
    """The code of an invitation, such as `1234-ABCD-…`.

    Raises:
        BadInputError: no or too many addresses, or a part that is not what it should be.
    """
    count = len(invitation.addresses)
    if not 1 <= count <= MAX_ADDRESSES:
        raise BadInputError(
            "Cannot make a join code", f"It needs 1 to {MAX_ADDRESSES} addresses, not {count}"
        )
    if len(invitation.secret) * 5 != SECRET_BYTES * 8:
        raise BadInputError("Cannot make a join code", "Its secret is none that `make_secret` made")
    secret = _from_base32(invitation.secret)
    body = bytes([_VERSION << 4 | count])
    body += b"".join(_pack_address(address) for address in invitation.addresses)
    body += parse_fingerprint(invitation.fingerprint)[:MIN_PIN_BYTES] + secret
    text = _to_base32(body + _checksum(body))
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def encode_link(code: str) -> str:
    """The same as a link that the operating system hands to the program."""
    return f"{LINK_SCHEME}://join?code={code}"


def decode_code(text: str) -> Invitation:
    """Read a code or a link; case, spaces and dashes do not matter, nor O for 0 and I or L for 1.

    Raises:
        BadInputError: a typing error, a part that is missing, or a code of a newer version.
    """
    data = _from_base32(_code_in(text))
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if not body or _checksum(body) != check:
        raise BadInputError(
            "Not a join code", "The code has a typing error, or a part of it is missing", _HINT
        )
    if body[0] >> 4 != _VERSION:
        raise BadInputError(
            "Join code of another version",
            f"It has version {body[0] >> 4}; this program reads version {_VERSION}",
            "Update the older of the two programs",
        )
    addresses: list[Address] = []
    rest = body[1:]
    for _ in range(body[0] & 15):
        address, rest = _unpack_address(rest)
        addresses.append(address)
    if len(rest) != MIN_PIN_BYTES + SECRET_BYTES or not addresses:
        raise BadInputError("Not a join code", "Its parts do not have the right lengths", _HINT)
    return Invitation(tuple(addresses), rest[:MIN_PIN_BYTES].hex(), _to_base32(rest[MIN_PIN_BYTES:]))


def _code_in(text: str) -> str:
    """The code of a link, or the text itself when it is none."""
    text = text.strip()
    if not text.lower().startswith(f"{LINK_SCHEME}:"):
        return text
    parts = urlsplit(text)
    codes = parse_qs(parts.query).get("code")
    if (parts.netloc or parts.path.strip("/")) != "join" or not codes:
        raise BadInputError("Not a join link", f"{text[:80]!r} is not `{LINK_SCHEME}://join?code=…`", _HINT)
    return codes[0]


def _pack_address(address: Address) -> bytes:
    if not 1 <= address.port <= 65535:
        raise BadInputError("Cannot make a join code", f"Port {address.port} is not between 1 and 65535")
    flag = 0 if address.port == DEFAULT_PORT else _PORT_FOLLOWS
    port = b"" if address.port == DEFAULT_PORT else address.port.to_bytes(2, "big")
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        try:
            name = address.host.encode("idna")
        except UnicodeError:
            name = b""
        if not 1 <= len(name) <= 255:
            raise BadInputError("Cannot make a join code", f"{address.host[:80]!r} is no address") from None
        return bytes([2 | flag, len(name)]) + name + port
    return bytes([(0 if ip.version == 4 else 1) | flag]) + ip.packed + port


def _unpack_address(data: bytes) -> tuple[Address, bytes]:
    """The first address of `data`, and what follows it."""
    if not data:
        raise BadInputError("Not a join code", "An address is missing in it", _HINT)
    kind, rest = data[0] & 3, data[1:]
    if kind == 2:
        length, rest = (rest[0] if rest else 0), rest[1:]
    else:
        length = 16 if kind else 4
    packed, rest = rest[:length], rest[length:]
    port = DEFAULT_PORT
    if data[0] & _PORT_FOLLOWS:
        port, rest = int.from_bytes(rest[:2], "big"), rest[2:]
    if kind == 3 or len(packed) != length or not packed or not port or (kind == 2 and not packed.isascii()):
        raise BadInputError("Not a join code", "It holds an address of an unknown form", _HINT)
    host = packed.decode("ascii") if kind == 2 else str(ipaddress.ip_address(packed))
    return Address(host, port), rest


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(b"sparegrid join code" + body).digest()[:_CHECK_BYTES]


def _to_base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").translate(_TO_CROCKFORD)


def _from_base32(text: str) -> bytes:
    plain = "".join(text.split()).replace("-", "").upper().translate(_LOOKALIKES)
    strange = next((letter for letter in plain if letter not in _CROCKFORD), None)
    if strange is not None:
        raise BadInputError("Not a join code", f"{strange!r} does not occur in join codes", _HINT)
    try:
        data = base64.b32decode(plain.translate(_FROM_CROCKFORD) + "=" * (-len(plain) % 8))
    except ValueError:
        data = b""
    # Spare bits of the last letter must be zero, or two texts would be the same code.
    if not plain or _to_base32(data) != plain:
        raise BadInputError(
            "Not a join code", "The code has a typing error, or a part of it is missing", _HINT
        )
    return data
