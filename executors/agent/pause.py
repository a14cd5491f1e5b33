"""The pause as it lies on the disk, so that a restart of the worker or the machine does not end it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from executors.agent.session import Session
from sparegrid.messages import Attached, DeviceState, PolicyChanged, SetPause, ToWorker

log = logging.getLogger(__name__)


class Pause(msgspec.Struct, frozen=True):
    """A pause that holds."""

    state: DeviceState
    reason: str
    until_ms: int = 0
    """Wall clock, Unix milliseconds; 0 is until resumed."""
    local: bool = True
    """Given on this device. One that the coordinator gave is its own to repeat when this device attaches."""
    version: int = 1


class PauseFile:
    """Keeps the pause of one grid.

    Args:
        path: of the file; it is there while a pause holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.local = True
        """Where the newest verb came from."""

    def restore(self, session: Session) -> None:
        """What held when the worker ended holds on."""
        pause = self.load()
        if pause is not None:
            self.local = pause.local
            session.restore_pause(pause.state, pause.reason, pause.until_ms)

    def load(self) -> Pause | None:
        """The pause that held when the worker ended. One that cannot be read holds until resumed: the safe side."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Pause)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error(
                "the pause in %s cannot be read, so it holds until it is resumed: %s", self._path, error
            )
            return Pause(DeviceState.PAUSED, "paused before a restart")

    def keep(self, policy: PolicyChanged) -> None:
        """From now on this pause holds, or none when its state is ready.

        A disk that fails does not keep the owner from pausing; that a restart would end it is logged. It is written
        before the next message is handled: it is small, rare, and must not be overtaken by a later one.
        """
        try:
            if policy.state == DeviceState.READY:
                self._path.unlink(missing_ok=True)
                return
            pause = Pause(DeviceState(policy.state), policy.reason, policy.until_ms, self.local)
            new = self._path.with_suffix(".new")
            with new.open("wb") as file:
                file.write(msgspec.json.encode(pause))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            log.error("the pause is not kept over a restart: %s: %s", self._path, error)


def holds_no_pause(messages: Sequence[ToWorker]) -> bool:
    """Whether this is the answer to Attach of a coordinator that does not want this device paused.

    It repeats a pause of its own with that answer. A resume that was given while this device was away is heard so.
    """
    kinds = {type(message) for message in messages}
    return Attached in kinds and SetPause not in kinds
