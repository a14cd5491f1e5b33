"""The queue of a stage: which task indexes wait for a device. One byte an index; taken and searched at C speed."""

from __future__ import annotations

from collections.abc import Container
from heapq import heappop, heappush

_SMALL_RETURN = 64
"""Up to so many indexes that come back are noted one by one, so that the cursor need not go back for them."""


class TaskQueue:
    """A set of indexes that gives its smallest first, in runs."""

    __slots__ = ("_cursor", "_flags", "_returned", "count")

    def __init__(self, total: int = 0) -> None:
        self._flags = bytearray(total)
        self._cursor = 0
        """No member lies below it, except those in `_returned`."""
        self._returned: list[int] = []
        self.count = 0

    def __contains__(self, index: int) -> bool:
        return 0 <= index < len(self._flags) and self._flags[index] == 1

    def grow(self, total: int) -> None:
        """Make room for indexes below `total`."""
        self._flags.extend(bytes(total - len(self._flags)))

    def add(self, low: int, high: int) -> None:
        """Put in `low` to `high - 1`; those that are in already stay."""
        flags = self._flags
        self.count += (high - low) - flags.count(1, low, high)
        flags[low:high] = b"\x01" * (high - low)
        if low < self._cursor:
            if high - low <= _SMALL_RETURN:
                for index in range(low, high):
                    heappush(self._returned, index)
            else:
                self._cursor = low

    def discard(self, low: int, high: int) -> int:
        """Take out those of `low` to `high - 1` that are in; tells how many were."""
        held = self._flags.count(1, low, high)
        if held:
            self._flags[low:high] = bytes(high - low)
            self.count -= held
        return held

    def clear(self) -> None:
        """Take out everything."""
        self._flags = bytearray(len(self._flags))
        self._returned.clear()
        self._cursor = 0
        self.count = 0

    def peek(self) -> int:
        """The smallest index; -1 when empty."""
        while self._returned:
            index = self._returned[0]
            # One that the cursor will come to, or that went out again, is noted here in vain.
            if index < self._cursor and self._flags[index]:
                return index
            heappop(self._returned)
        found = self._flags.find(1, self._cursor)
        self._cursor = len(self._flags) if found < 0 else found
        return found

    def take(self, most: int) -> list[tuple[int, int]]:
        """Take out up to `most` of the smallest, as runs (low, high)."""
        runs: list[tuple[int, int]] = []
        flags = self._flags
        while most > 0 and (low := self.peek()) >= 0:
            if low < self._cursor:
                high = low + 1
            else:
                high = flags.find(0, low, low + most)
                if high < 0:
                    high = min(low + most, len(flags))
                self._cursor = high
            flags[low:high] = bytes(high - low)
            self.count -= high - low
            most -= high - low
            if runs and runs[-1][1] == low:
                runs[-1] = (runs[-1][0], high)
            else:
                runs.append((low, high))
        return runs

    def take_except(self, most: int, barred: Container[int]) -> list[tuple[int, int]]:
        """Like `take`, leaving out barred indexes; for the few tasks that a device must not get."""
        picked: list[int] = []
        index = self._flags.find(1)
        while index >= 0 and len(picked) < most:
            if index not in barred:
                picked.append(index)
            index = self._flags.find(1, index + 1)
        return self.take_these(picked)

    def take_these(self, indexes: list[int]) -> list[tuple[int, int]]:
        """Take out these members, as runs in the order given."""
        runs: list[tuple[int, int]] = []
        for index in indexes:
            if self.discard(index, index + 1):
                if runs and runs[-1][1] == index:
                    runs[-1] = (runs[-1][0], index + 1)
                else:
                    runs.append((index, index + 1))
        return runs
