"""Counts prime numbers block by block. A task calls `count_block` with its item, the last stage calls `total`."""

from __future__ import annotations

from pathlib import Path

BLOCK = 100_000


def count_block(item: dict[str, int]) -> int:
    """How many primes there are from item["start"] up to the next block; also kept in a file for the total."""
    start = item["start"]
    sieve = bytearray([1]) * BLOCK
    for number in range(start, min(start + BLOCK, 2)):
        sieve[number - start] = 0
    for factor in range(2, int((start + BLOCK) ** 0.5) + 1):
        first = max(factor * factor, (start + factor - 1) // factor * factor)
        sieve[first - start :: factor] = bytes(len(range(first - start, BLOCK, factor)))
    count = sum(sieve)
    Path(f"count-{start}.txt").write_text(str(count))
    return count


def total() -> int:
    """The sum of all blocks."""
    return sum(int(path.read_text()) for path in Path().glob("count-*.txt"))
