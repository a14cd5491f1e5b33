"""This machine's addresses on its networks, filtered by interface. Knows no protocol."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

import psutil

from sparegrid.errors import ConfigError


def local_addresses(interfaces: Sequence[str] = ()) -> list[str]:
    """IP addresses at which others may reach this machine, IPv4 first.

    Args:
        interfaces: names (`eth0`) or addresses of the interfaces that count; empty is all that are up,
        loopback and
            IPv6 addresses that are valid on one link only left out.

    Raises:
        ConfigError: an interface is named that is not there.
    """
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found: list[str] = []
    named: set[str] = set()
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            address = entry.address.partition("%")[0]
            wanted = {name, address} & set(interfaces)
            named |= wanted
            if name in up and (wanted if interfaces else _is_reachable(address)):
                found.append(address)
    missing = [one for one in interfaces if one not in named]
    if missing:
        raise ConfigError(
            "No such network interface",
            f"{missing[0]!r} is neither an interface of this machine nor an address of one",
            f"There are {', '.join(sorted(psutil.net_if_addrs()))}",
        )
    return sorted(set(found), key=lambda text: (":" in text, ipaddress.ip_address(text)))


def _is_reachable(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return not (
        ip.is_loopback or ip.is_multicast or ip.is_unspecified or (ip.version == 6 and ip.is_link_local)
    )
