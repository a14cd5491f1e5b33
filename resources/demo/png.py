"""Writes PNG files from arrays with nothing but zlib. Knows no scene and no grid."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def write_png(path: Path, pixels: Pixels) -> None:
    """Write an array of shape (height, width, 3) as an 8-bit RGB file (PNG specification, sections 5 and 11)."""
    height, width, channels = pixels.shape
    if channels != 3:
        raise ValueError(f"an RGB picture has 3 channels, not {channels}")
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    rows = _filtered(pixels.reshape(height, width * 3))
    data = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"sRGB", b"\0")
        + _chunk(b"IDAT", zlib.compress(rows, 9))
        + _chunk(b"IEND", b"")
    )
    path.write_bytes(data)


def _filtered(rows: npt.NDArray[np.uint8]) -> bytes:
    """Each row as its difference to the row above (filter type 2): smooth pictures shrink by half again."""
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    out = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    out[:, 0] = 2
    out[:, 1:] = rows - above
    return out.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
