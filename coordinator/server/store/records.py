"""A journal record: the facts of one batch as MessagePack with a checksum and a version. Pure; knows no SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import msgspec

from coordinator.scheduler.facts import FACTS_VERSION, Fact

Upcaster = Callable[[list[Any]], list[Any]]
"""Turns the facts of one record of version n, as plain lists and dicts, into those of version n + 1."""

FACT_UPCASTERS: Mapping[int, Upcaster] = {}
"""By the version they read. `FACTS_VERSION` may only grow together with an entry here."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Fact]] = msgspec.msgpack.Decoder(list[Fact])


class UnreadableError(Exception):
    """The record is not what was written, or no version of it is known; the text says which."""


def encode_facts(facts: Sequence[Fact]) -> bytes:
    """The bytes of one record."""
    return _encoder.encode(facts)


def checksum(version: int, now_ms: int, data: bytes) -> int:
    """CRC-32 over everything that a record says."""
    return crc32(data, crc32(b"%d %d " % (version, now_ms)))


def decode_facts(
    version: int,
    data: bytes,
    upcasters: Mapping[int, Upcaster] = FACT_UPCASTERS,
    current: int = FACTS_VERSION,
) -> list[Fact]:
    """The facts of one record, brought up to the current version.

    Raises:
        UnreadableError: of a newer version, of one without an upcaster, or not decodable.
    """
    try:
        if version == current:
            return _decoder.decode(data)
        if version > current:
            raise UnreadableError(f"is of version {version}, and this program reads up to version {current}")
        facts = msgspec.msgpack.decode(data)
        for step in range(version, current):
            if step not in upcasters:
                raise UnreadableError(f"is of version {version}, which this program cannot read any more")
            facts = upcasters[step](facts)
        return msgspec.convert(facts, list[Fact])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableError(f"cannot be decoded: {error}") from error
