"""Typed identifiers and their text forms. Knows nothing of what they identify."""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

from sparegrid.errors import BadInputError

JobId = NewType("JobId", int)
"""Counts from 1 within a grid; never reused. Text form: decimal digits."""
StageIndex = NewType("StageIndex", int)
TaskIndex = NewType("TaskIndex", int)
AttemptId = NewType("AttemptId", int)
"""Counts from 1 within a grid; never reused, so a late message can never hit another attempt."""
DeviceId = NewType("DeviceId", str)
"""The first 20 base32 characters (100 bits) of SHA-256 of the device's public key, lower case."""
GridId = NewType("GridId", str)
"""The same form, of the coordinator's certificate's public key."""
SessionId = NewType("SessionId", str)
"""One run of a worker, across reconnects: 16 random hex digits."""
PrincipalId = NewType("PrincipalId", str)
"""Who a token speaks for, as shown in views: `local`, or the name the token was made with."""
BlobHash = NewType("BlobHash", str)
"""SHA-256 of the bytes, 64 lower-case hex digits."""

_BLOB_HASH = re.compile(r"[0-9a-f]{64}\Z")
_TASK_TEXT = re.compile(r"(?P<job>[0-9]{1,18})(?:\.(?P<stage>[^.]+)\.(?P<index>[0-9]{1,10}))?\Z")


class TaskRef(NamedTuple):
    """One unit of work: the `index`-th item of a stage of a job."""

    job: JobId
    stage: StageIndex
    index: TaskIndex  # type: ignore[assignment]  # hides tuple.index, which nobody calls here

    def __str__(self) -> str:
        return f"{self.job}.{self.stage}.{self.index}"


class TaskText(NamedTuple):
    """What a user typed to name a job or a task: `17`, `17.0.5` or `17.render.5`."""

    job: JobId
    stage: str | None
    index: TaskIndex | None  # type: ignore[assignment]  # as above


def parse_task_text(text: str) -> TaskText:
    """Read `JOB` or `JOB.STAGE.INDEX` (STAGE by number or name).

    Raises:
        BadInputError: the text has neither form.
    """
    found = _TASK_TEXT.match(text)
    if found is None:
        raise BadInputError(
            "Not a job or task id", f"{text!r} is neither a job (17) nor a task (17.0.5 or 17.render.5)"
        )
    index = found["index"]
    return TaskText(
        JobId(int(found["job"])), found["stage"], None if index is None else TaskIndex(int(index))
    )


def parse_job_id(text: str) -> JobId:
    """Read a job id. Raises BadInputError when `text` is not 1 to 18 decimal digits."""
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise BadInputError("Not a job id", f"{text!r} is not a job's number, like 17")
    return JobId(int(text))


def parse_blob_hash(text: str) -> BlobHash:
    """Read a blob's name. Raises BadInputError when `text` is not 64 lower-case hex digits."""
    if not _BLOB_HASH.match(text):
        raise BadInputError("Not a blob's name", f"{text[:80]!r} is not 64 lower-case hex digits of SHA-256")
    return BlobHash(text)
