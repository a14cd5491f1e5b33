"""Joining a grid with a one-time code. What comes of it is for `trust.access.save_credentials` to keep."""

from __future__ import annotations

import msgspec

from sparegrid.api import Joined, JoinRequest
from sparegrid.client.transport import Transport
from sparegrid.errors import GridError
from sparegrid.trust.access import Credentials
from sparegrid.trust.codes import decode_code
from sparegrid.trust.pinning import Pin


async def join(code: str, name: str, public_key: bytes = b"", *, url: str | None = None) -> Credentials:
    """Spend a code's secret at the first of its addresses that answers with its key.

    Args:
        code: the code, or its link.
        name: of the device or person, as the grid shows it.
        public_key: of the device, raw; empty for a person.
        url: where to, instead of the code's addresses: on the coordinator's own machine they may not be
        reachable.

    Returns:
        Everything to come back with: addresses, the whole fingerprint, token, role.

    Raises:
        BadInputError: the code has a typing error, or is for a person and not for a device, or the other way round.
        UnreachableError: nobody answers at its addresses, or another key does.
        DeniedError: the code is wrong, spent or too old.
    """
    invitation = decode_code(code)
    urls = (url,) if url else tuple(address.url for address in invitation.addresses)
    role = "worker" if public_key else "person"
    request = JoinRequest(secret=invitation.secret, name=name, public_key=public_key, role=role)
    async with Transport(urls, Pin(invitation.fingerprint), token="") as transport:
        # Never repeated: a secret is spent by its first use, and a second would count as a wrong try.
        data = await transport.call("POST", "/join", body=msgspec.json.encode(request), repeatable=False)
        try:
            joined = msgspec.json.decode(data, type=Joined)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise GridError("The answer is not readable", f"{transport.url}: {error}") from error
        return Credentials(
            grid=joined.grid,
            name=joined.name,
            urls=(transport.url, *(one for one in urls if one != transport.url)),
            fingerprint=transport.fingerprint,
            token=joined.token,
            role=joined.role,
            device=joined.device,
        )
