"""The states and roles of the design, as they stand in views. `sparegrid.api` shows them beside its Structs."""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    """State of a task. The order is that of the compact per-index state byte: never reorder, only append."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDED = "suspended"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


class JobState(StrEnum):
    """State of a job; follows from its tasks."""

    OPEN = "open"
    """Takes more items; nothing waits or runs."""
    ACTIVE = "active"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """State of an attempt."""

    ASSIGNED = "assigned"
    RUNNING = "running"
    SUSPENDED = "suspended"
    DELIVERED = "delivered"
    ENDED = "ended"


class Role(StrEnum):
    """What a token may do."""

    WORKER = "worker"
    SUBMITTER = "submitter"
    VIEWER = "viewer"
    ADMIN = "admin"
