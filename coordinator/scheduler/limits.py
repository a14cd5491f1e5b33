"""The scheduler's numbers, in one place: what it refuses, how far it assigns ahead, how long it waits."""

from __future__ import annotations

from msgspec import Struct

from sparegrid.api import MAX_TASKS_PER_JOB


class Limits(Struct, frozen=True, kw_only=True):
    """Settable limits of one grid. Times in milliseconds, sizes in bytes."""

    max_tasks_per_job: int = MAX_TASKS_PER_JOB
    counts: dict[str, int] = {}
    """Named integer resources of the whole grid, such as floating licences."""

    lost_after_devices: int = 5
    """A task is lost after it crashed the agents of so many distinct devices."""
    min_lease_ms: int = 30_000
    lease_heartbeats: int = 4
    max_heartbeats_per_s: int = 500
    """The heartbeat interval grows with the number of devices so that no more arrive."""

    ahead_target_ms: int = 400
    """How much work a slot gets ahead: it hides the way to the coordinator and its commit."""
    max_ahead_per_slot: int = 256
    max_ahead: int = 1024
    """Per device."""
    long_task_ms: int = 2000
    """From this mean duration on, a device gets 1 or 2 tasks ahead in all."""

    tail_interval_ms: int = 1000
    """How often idle devices are compared with busy ones: take-back, second copies."""
    straggler_factor: int = 2
    """A task that runs longer than so many means, while others idle, gets a second copy."""
    straggler_min_ms: int = 3000
    bench_after: int = 3
    """A device that ends so many tasks of a stage in a row through its own or the grid's fault sits out for a while."""
    bench_ms: int = 30_000
    max_bench_ms: int = 1_800_000
    revived_hold_ms: int = 60_000
    """A job brought back into memory leaves it again when nothing is retried for so long."""
    large_bytes: int = 1 << 20
    """Files from this size on draw tasks to the devices that hold them."""
    max_story: int = 12
    """Ended attempts remembered per task."""
    max_stories: int = 10_000
    """Ended tasks per stage whose story stays in memory."""
