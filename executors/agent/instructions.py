"""What the session wants done, in the imperative. Values only; the agent does them in order."""

from __future__ import annotations

from typing import NamedTuple

from executors.agent.slots import Grant
from sparegrid.messages import Blame, Delivered, Ended, PolicyChanged, Started, Suspended


class Say(NamedTuple):
    """Send this message when there is a connection; what must arrive is said again after a reconnect."""

    message: Delivered | Ended | Started | Suspended | PolicyChanged


class Keep(NamedTuple):
    """Put this message into the spool, before it is sent."""

    message: Delivered | Ended


class Forget(NamedTuple):
    """The coordinator has these: drop them from the spool."""

    attempts: list[int]


class Fetch(NamedTuple):
    """Bring the attempt's files here; `on_fetched` or an end follows."""

    attempt: int


class OpenLane(NamedTuple):
    """These resources are taken: have a slot of the job's nursery for this stage."""

    lane: int
    job: int
    stage: int
    grant: Grant


class CloseLane(NamedTuple):
    """The lane is empty: its slot may idle."""

    lane: int


class Start(NamedTuple):
    """Run the attempt in the lane, after those that are in it."""

    attempt: int
    lane: int


class Recall(NamedTuple):
    """Take back what the lane's slot has not begun; `on_recalled` follows."""

    lane: int


class Stop(NamedTuple):
    """End the running attempt: ask, wait its grace, kill. `on_finished` or `on_recalled` follows."""

    attempt: int
    blame: Blame
    reason: str


class SuspendAll(NamedTuple):
    """Stop every lane's tree where it is, or let it go on."""

    on: bool


class FollowAttempt(NamedTuple):
    """Send the attempt's log as it grows, or stop sending it."""

    attempt: int
    on: bool
    offset: int


class ReleaseJob(NamedTuple):
    """The job is over: end its nursery, let go of its blobs."""

    job: int


RunDo = OpenLane | CloseLane | Start | Recall | Stop | SuspendAll | FollowAttempt | ReleaseJob
"""What the runner carries out."""

Do = Say | Keep | Forget | Fetch | RunDo
