"""Bytes and short ways to store them, for the tests of the blob store."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from coordinator.server.blobs import BlobStore

MIB = 1 << 20


def data_of(size: int, seed: int = 1) -> bytes:
    """So many bytes that repeat nowhere."""
    return random.Random(seed).randbytes(size)


def name_of(data: bytes) -> str:
    """The blob's name."""
    return hashlib.sha256(data).hexdigest()


async def pieces(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    """The bytes as a socket gives them."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


@asynccontextmanager
async def opened(root: Path, **options: Any) -> AsyncIterator[BlobStore]:
    """A blob store for a `with`."""
    store = await BlobStore.open(root, **{"reserve_bytes": 0, **options})
    try:
        yield store
    finally:
        await store.close()


async def put_part(store: BlobStore, data: bytes, size: int, offset: int = 0) -> None:
    """Upload from `offset` up to byte `size`, then lose the connection."""
    async with store.upload(name_of(data), len(data), offset) as upload:
        await upload.write(data[offset:size])


def files_below(root: Path) -> list[str]:
    """Names of all files."""
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def open_files(root: Path) -> list[str]:
    """Files below `root` that this process has open."""
    return [file.path for file in psutil.Process().open_files() if file.path.startswith(str(root))]
