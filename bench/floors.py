"""Floors: what this machine can do without a grid. Each is measured beside the figure it bounds, in the same run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def fdatasync_ms(folder: Path, count: int = 50) -> list[float]:
    """Milliseconds of each of `count` appends of 4 KiB with fdatasync to a file in `folder`."""
    path = folder / "fdatasync.probe"
    times = []
    with path.open("wb", buffering=0) as out:
        for _ in range(count):
            start = time.perf_counter()
            out.write(b"x" * 4096)
            os.fdatasync(out.fileno())
            times.append((time.perf_counter() - start) * 1000)
    path.unlink()
    return times


def xargs_per_s(count: int, parallel: int = 2) -> float:
    """`/bin/true` per second through `xargs -P`."""
    numbers = "\n".join(str(n) for n in range(count))
    start = time.perf_counter()
    subprocess.run(
        ["xargs", f"-P{parallel}", "-n1", "/bin/true"], input=numbers, text=True, check=True, timeout=300
    )
    return count / (time.perf_counter() - start)


def pool_calls_per_s(count: int, workers: int = 2) -> float:
    """No-op calls per second through `ProcessPoolExecutor.map`, one call an item: in memory, nothing durable."""
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(int, range(100)))
        start = time.perf_counter()
        for _ in pool.map(int, range(count), chunksize=1):
            pass
        return count / (time.perf_counter() - start)


def sha256_mb_per_s(size: int = 256 << 20) -> float:
    """SHA-256 of memory, one core, in MB/s."""
    chunk = os.urandom(1 << 20)
    start = time.perf_counter()
    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(chunk)
    digest.hexdigest()
    return size / 1e6 / (time.perf_counter() - start)


def copy_mb_per_s(source: Path) -> float:
    """Copy of a file with fsync at the end, in MB/s."""
    target = source.with_suffix(".copy")
    start = time.perf_counter()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(1 << 20):
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    took = time.perf_counter() - start
    target.unlink()
    return source.stat().st_size / 1e6 / took
