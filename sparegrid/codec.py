"""Frames of the worker wire: lists of messages in MessagePack or JSON, decoded tolerantly.

A frame is decoded in one step; only when that fails is each message decoded by itself, so that one message of a
newer version never costs its neighbours. Unknown fields are ignored by msgspec itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

M = TypeVar("M")
MAX_FRAME_BYTES = 16 << 20
"""A larger frame closes the connection: larger bytes travel as blobs."""


class Undecodable(msgspec.Struct, frozen=True):
    """A message that this version does not know or cannot read: its reason and its first bytes."""

    reason: str
    head: bytes


class FrameCodec(Generic[M]):
    """Encodes and decodes frames of one direction of one connection.

    Args:
        union: the union type of the messages that may arrive.
        text: JSON for browsers instead of MessagePack.
    """

    def __init__(self, union: Any, *, text: bool = False) -> None:
        module: Any = msgspec.json if text else msgspec.msgpack
        self._encode = module.Encoder().encode
        self._whole = module.Decoder(list[union]).decode
        self._raw = module.Decoder(list[msgspec.Raw]).decode
        self._one = module.Decoder(union).decode

    def encode(self, messages: Sequence[object]) -> bytes:
        """One frame of these messages, in order."""
        encoded: bytes = self._encode(messages)
        return encoded

    def decode(self, frame: bytes) -> tuple[list[M], list[Undecodable]]:
        """The messages of a frame in order, and those that could not be read.

        Raises:
            msgspec.DecodeError: the frame itself is not a list, or is nested too deeply to be looked at.
        """
        try:
            return self._whole(frame), []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # msgspec 0.22 lets UnicodeDecodeError through for a text that is not UTF-8.
            pass
        known: list[M] = []
        unknown: list[Undecodable] = []
        try:
            raws = self._raw(frame)
        except RecursionError as error:
            raise msgspec.DecodeError("it is nested too deeply") from error
        for raw in raws:
            try:
                known.append(self._one(raw))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                unknown.append(Undecodable(str(error), bytes(raw)[:80]))
        return known, unknown
