"""Puts tiles of one picture together: each tile-ROW-COLUMN.ppm is a whole picture that is right within its tile.

    merge.py TILE_WIDTH TILE_HEIGHT     writes picture.ppm and picture.png

Needs nothing but Python.
"""

from __future__ import annotations

import re
import struct
import sys
import zlib
from pathlib import Path

_HEADER = re.compile(rb"P6(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(255)\s")


def read_ppm(path: Path) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of a binary PPM file with 8 bits a channel."""
    data = path.read_bytes()
    found = _HEADER.match(data)
    if found is None:
        raise SystemExit(f"{path} is not a binary PPM file with 8 bits a channel")
    width, height = int(found[1]), int(found[2])
    pixels = data[found.end() :]
    if len(pixels) != width * height * 3:
        raise SystemExit(f"{path} is cut off: {len(pixels)} of {width * height * 3} bytes")
    return width, height, pixels


def png(width: int, height: int, pixels: bytes) -> bytes:
    """The same picture as a PNG file."""
    rows = b"".join(b"\0" + pixels[row * width * 3 : (row + 1) * width * 3] for row in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def main(tile_width: int, tile_height: int) -> None:
    """Merge what is in this folder."""
    tiles = sorted(Path().glob("tile-*.ppm"))
    if not tiles:
        raise SystemExit("there are no tiles here")
    width, height, first = read_ppm(tiles[0])
    picture = bytearray(len(first))
    for tile in tiles:
        top, left = (int(part) for part in tile.stem.split("-")[1:])
        shape = read_ppm(tile)
        if shape[:2] != (width, height):
            raise SystemExit(f"{tile} is {shape[0]} x {shape[1]}, others are {width} x {height}")
        for row in range(top, min(top + tile_height, height)):
            start = (row * width + left) * 3
            end = (row * width + min(left + tile_width, width)) * 3
            picture[start:end] = shape[2][start:end]
    Path("picture.ppm").write_bytes(b"P6\n%d %d\n255\n" % (width, height) + picture)
    Path("picture.png").write_bytes(png(width, height, bytes(picture)))
    print(f"{len(tiles)} tiles, {width} x {height}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
