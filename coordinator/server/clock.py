"""The coordinator's clock: grid time for decisions, wall time for display. Knows nothing of events.

Grid time counts milliseconds, only forwards, also while the machine sleeps, and goes on where the journal ended: leases
and limits never see a jump of the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_BEAT_GAP_MS = 5_000
"""A longer gap between two beats means that this process did not run: sleep, a stopped process, a frozen machine."""


def elapsed_ms() -> int:
    """Milliseconds since boot, those of sleep included where the system tells (Linux, Android)."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return (time.monotonic_ns() if boottime is None else time.clock_gettime_ns(boottime)) // 1_000_000


def wall_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class GridClock:
    """Grid time, and the gaps in which this process could not hear anybody.

    Args:
        start_ms: grid time at which the journal ended; 0 for a new grid.
        elapsed: counts milliseconds from anywhere; injected by tests.
        wall: Unix time in milliseconds.
    """

    def __init__(
        self, start_ms: int = 0, *, elapsed: Callable[[], int] = elapsed_ms, wall: Callable[[], int] = wall_ms
    ) -> None:
        self._elapsed = elapsed
        self._origin = elapsed() - start_ms
        self._beat = start_ms
        self.wall_ms = wall

    def now_ms(self) -> int:
        """Grid time."""
        return self._elapsed() - self._origin

    def beat(self) -> int:
        """Say that the process runs; the gap in ms since the last beat when it was too long to be work, else 0.

        Called at least once a second, and before anything that looks at deadlines.
        """
        now = self.now_ms()
        gap = now - self._beat
        self._beat = max(self._beat, now)
        return gap if gap > MAX_BEAT_GAP_MS else 0
