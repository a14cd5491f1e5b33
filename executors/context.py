"""What an executor is told of the attempt it makes, and what it may use for it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from executors.nursery.protocol import Done, Place, RunCall, RunCommand
from sparegrid.messages import Template
from sparegrid.template import as_text

_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")


@dataclass(frozen=True, slots=True)
class TaskContext:
    """One attempt of a task."""

    attempt: int
    index: int
    item: Any
    number: int
    """Which try of the task this is, counting from 1."""
    stage: Template
    """What all tasks of the stage share."""
    files: list[Place]
    """What goes into the work folder before it starts."""
    disk_bytes: int
    """What it may fill of this device's disk."""
    in_slot: Callable[[RunCommand | RunCall], Awaitable[Done]]
    """Runs a request in the attempt's slot of the nursery, to its end."""

    def own_environ(self) -> dict[str, str]:
        """The variables that tell a task which one it is: SPAREGRID_JOB, _STAGE, _INDEX, _ATTEMPT, _ITEM.

        Each key of an item that is a table is SPAREGRID_ITEM_<KEY>, in capitals.
        """
        environ = {
            "SPAREGRID_JOB": str(self.stage.job),
            "SPAREGRID_STAGE": self.stage.stage_name or str(self.stage.stage),
            "SPAREGRID_INDEX": str(self.index),
            "SPAREGRID_ATTEMPT": str(self.number),
        }
        item = self.item
        if item is not None:
            environ["SPAREGRID_ITEM"] = as_text(item)
            if isinstance(item, dict):
                for key, value in item.items():
                    environ["SPAREGRID_ITEM_" + _NOT_IN_NAMES.sub("_", str(key).upper())] = as_text(value)
        return environ
