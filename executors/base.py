"""What an executor is: the plug-in of a worker that runs one kind of task.

Executors are found by entry points (group `sparegrid.executors`). They turn parameters into work and its end into an
Outcome; they know nothing of sockets to the coordinator, of policies, or of other attempts.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import msgspec

from executors.context import TaskContext
from sparegrid.messages import Blame, KindInfo, Outcome, Payload


class Executor(Protocol):
    """Runs one kind of task."""

    kind: ClassVar[str]
    """The kind's name, as in a job's stage."""
    params: ClassVar[type[msgspec.Struct]]
    """Its parameters: the schema draws forms, checks jobs and documents the command line."""

    def probe(self) -> KindInfo | None:
        """What this device offers for the kind; None when it is not usable here, with the reason logged."""
        ...

    async def run(self, params: Any, ctx: TaskContext) -> Outcome:
        """Make one attempt.

        Args:
            params: an instance of `params`.
            ctx: the attempt, and what it may use.

        Raises:
            AttemptFailedError: it ended without a result.
            asyncio.CancelledError: it was told to stop, and has stopped.
        """
        ...


class AttemptFailedError(Exception):
    """An attempt ended without a result.

    Args:
        blame: whose fault it is.
        reason: in words.
        outcome: what is left of it, its log above all.
        checkpoint: where the next attempt may go on.
    """

    def __init__(
        self, blame: Blame, reason: str, outcome: Outcome | None = None, checkpoint: Payload | None = None
    ) -> None:
        super().__init__(blame, reason)
        self.blame = blame
        self.reason = reason
        self.outcome = outcome or Outcome()
        self.checkpoint = checkpoint
