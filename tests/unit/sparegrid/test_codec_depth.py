"""Frames whose nesting has no end: told as frames that cannot be read, whoever reads them."""

from __future__ import annotations

import msgspec
import pytest

from sparegrid.codec import FrameCodec
from sparegrid.messages import FromWorker, Heartbeat, ToWorker


@pytest.mark.parametrize("union", [FromWorker, ToWorker])
@pytest.mark.parametrize("frame", [b"\x91" * 5000, b"\x91" * 5_000_000, b"\x91\x81\xa1t" * 5000])
def test_a_frame_that_is_nested_too_deeply_cannot_be_read(union: object, frame: bytes) -> None:
    codec: FrameCodec[object] = FrameCodec(union)
    with pytest.raises(msgspec.DecodeError):
        codec.decode(frame)


def test_a_text_frame_that_is_nested_too_deeply_cannot_be_read() -> None:
    codec: FrameCodec[object] = FrameCodec(FromWorker, text=True)
    with pytest.raises(msgspec.DecodeError):
        codec.decode(b"[" * 100_000)


def test_frames_of_ordinary_depth_are_read_as_before() -> None:
    codec: FrameCodec[object] = FrameCodec(FromWorker)
    known, unknown = codec.decode(codec.encode([Heartbeat("pc")]))
    assert (known, unknown) == ([Heartbeat("pc")], [])
