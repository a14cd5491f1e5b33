"""How fast this device is: one fixed small calculation, measured once and remembered.

A speed of 1.0 is REFERENCE_S for it. The figure orders devices; it promises nothing about any task.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

REFERENCE_S = 0.05
ROUNDS = 3
_FORM = 1
"""Raise it when the calculation changes: old figures are measured anew."""


class Measured(msgspec.Struct):
    """A figure and the machine it is of."""

    form: int
    machine: str
    speed: float


def measure_speed(cache: Path) -> float:
    """Speed of one CPU of this device, from the cache file when it is this machine's."""
    machine = f"{platform.node()} {platform.machine()} {platform.python_version()}"
    try:
        known = msgspec.json.decode(cache.read_bytes(), type=Measured)
        if known.form == _FORM and known.machine == machine:
            return known.speed
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        pass  # Never measured, or unreadable: either way it is measured now.
    best = min(_calculate() for _ in range(ROUNDS))
    speed = round(REFERENCE_S / best, 3)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache.write_bytes(msgspec.json.encode(Measured(_FORM, machine, speed)))
    except OSError as error:
        log.warning("the measured speed cannot be kept: %s", error)
    return speed


def _calculate() -> float:
    """Seconds of CPU that the calculation takes: half interpreter, half hashing."""
    begun = time.thread_time()
    value = 1
    for _ in range(200_000):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    digest = hashlib.sha256()
    block = value.to_bytes(4, "little") * (1 << 18)
    for _ in range(16):
        digest.update(block)
    digest.digest()
    return max(time.thread_time() - begun, 1e-6)
