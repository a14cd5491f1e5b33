"""Calls `module:function` in a slot of the nursery, which stays warm: a module is imported once, then called.

The agent itself never imports a user's code; it sends names and plain arguments.
"""

from __future__ import annotations

import platform
from typing import ClassVar

import msgspec

from executors.base import AttemptFailedError
from executors.context import TaskContext
from executors.nursery.protocol import RunCall
from sparegrid.kinds import PythonParams
from sparegrid.messages import Blame, KindInfo, Outcome

MAX_LOG_BYTES = 16 << 20


class PythonExecutor:
    """Calls functions."""

    kind: ClassVar[str] = "python"
    params: ClassVar[type[msgspec.Struct]] = PythonParams

    def probe(self) -> KindInfo:
        """The interpreter that runs the worker is there."""
        return KindInfo(detail=platform.python_version(), schema=msgspec.json.schema(PythonParams))

    async def run(self, params: PythonParams, ctx: TaskContext) -> Outcome:
        """Call the function; its value is the outcome's, as JSON."""
        done = await ctx.in_slot(
            RunCall(
                attempt=ctx.attempt,
                function=params.function,
                args=params.args if ctx.item is None else [ctx.item, *params.args],
                kwargs=params.kwargs,
                env=ctx.own_environ(),
                max_log_bytes=MAX_LOG_BYTES,
                files=ctx.files,
                outputs=ctx.stage.outputs,
            )
        )
        if done.blame:
            raise AttemptFailedError(Blame(done.blame), done.reason, done.outcome, done.checkpoint)
        return done.outcome
