"""Where the coordinator listens, and the addresses it tells others. Knows sockets and addresses, no routes."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from sparegrid.addresses import local_addresses
from sparegrid.errors import ConfigError
from sparegrid.trust.codes import Address

BACKLOG = 1024
MAX_INVITED = 3
"""Addresses in a join code: each makes it longer."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; `::` takes IPv4, too.

    Raises:
        ConfigError: the address is not this machine's, or the port is in use.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(
            "Cannot listen",
            f"{Address(host, port).url}: {error.strerror or error}",
            "Choose another with --host and --port, or stop the program that uses it",
        ) from error


def own_address(host: str, port: int) -> Address:
    """Where programs of this machine find it."""
    if host in ("0.0.0.0", ""):
        return Address("127.0.0.1", port)
    return Address("::1" if host == "::" else host, port)


def invited_addresses(host: str, port: int, interfaces: Sequence[str], asked_at: str = "") -> list[Address]:
    """Where newcomers may find it, the likeliest first. `asked_at` is the host that a request was sent to."""
    if host not in ("0.0.0.0", "::", ""):
        return [Address(host, port)]
    found = local_addresses(interfaces)
    # An IPv6 address makes a code that nobody wants to type; it is there for networks that have nothing else.
    found = [each for each in found if ":" not in each] or found
    if asked_at and not _is_loopback(asked_at):
        found = [asked_at, *(each for each in found if each != asked_at)]
    return [Address(each, port) for each in found[:MAX_INVITED]] or [own_address(host, port)]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
