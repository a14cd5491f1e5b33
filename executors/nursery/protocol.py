"""What the agent, the nursery and its slots say to each other, and how bytes carry it.

Three channels, all local sockets made by the agent:

- the *nursery channel* (stream): fork a slot, kill, suspend or resume one; what became of them.
- a slot's *request channel* (one message a datagram): the queue of what the slot runs next. The agent keeps a copy of
  the slot's end, so it can take back exactly those requests that the slot has not read, without asking anybody.
- a slot's *control channel* (stream): stop, kill, follow; results and pieces of logs.

It knows nothing of grids, coordinators or event loops: nursery and slots import this and little else, because every
job on a device pays for their start.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from sparegrid.messages import Outcome, Payload

REQUEST_SOCKET = socket.SOCK_DGRAM if sys.platform == "darwin" else socket.SOCK_SEQPACKET
"""macOS has no SEQPACKET for Unix sockets; there the slot learns of the agent's death by its control channel alone."""
SPILL_BYTES = 32 << 10 if sys.platform != "darwin" else 1536
"""A larger request travels as a file, so that a full queue of requests fits the socket's buffer. macOS takes
datagrams of 2 KiB."""
_LENGTH_BYTES = 4

M = TypeVar("M")


# ---- requests: agent to slot --------------------------------------------------------------------------------------


class Place(Struct, array_like=True, omit_defaults=True):
    """A file to put into the work folder: the bytes themselves, or a file of the blob cache by absolute path."""

    path: str
    data: bytes = b""
    source: str = ""
    executable: bool = False
    archive: bool = False
    """A tar archive that is unpacked into the work folder (a checkpoint)."""


class RunCommand(Struct, array_like=True, omit_defaults=True, tag=1):
    """Run a program in a fresh work folder."""

    attempt: int
    argv: list[str]
    env: dict[str, str]
    max_log_bytes: int
    stdin: str = ""
    ok_codes: tuple[int, ...] = (0,)
    files: list[Place] = []
    outputs: list[str] = []
    checkpoint_glob: str = ""
    disk_bytes: int = 0
    """What it may fill of the disk; 0 when nothing was said."""


class RunCall(Struct, array_like=True, omit_defaults=True, tag=2):
    """Call `module:function` in this process."""

    attempt: int
    function: str
    args: list[Any]
    kwargs: dict[str, Any]
    env: dict[str, str]
    max_log_bytes: int
    files: list[Place] = []
    outputs: list[str] = []


class Spilled(Struct, array_like=True, tag=3):
    """A request that is in this file, because it is large; the slot removes the file."""

    attempt: int
    path: str


Request = RunCommand | RunCall | Spilled


# ---- control: agent to slot, slot to agent ------------------------------------------------------------------------


class Signal(Struct, array_like=True, tag=1):
    """Send a signal to the attempt's first process, or to its whole tree."""

    attempt: int
    number: int
    tree: bool


class Kill(Struct, array_like=True, tag=2):
    """Kill the attempt's whole tree; the answer is its Done."""

    attempt: int


class FollowLog(Struct, array_like=True, tag=3):
    """Send LogPieces of the attempt from `offset` on, or stop sending them."""

    attempt: int
    on: bool
    offset: int


Control = Signal | Kill | FollowLog


class Done(Struct, array_like=True, omit_defaults=True, tag=1):
    """What became of an attempt. An empty `blame` means that it succeeded. Blobs named in it are in the outbox."""

    attempt: int
    outcome: Outcome
    blame: str = ""
    reason: str = ""
    checkpoint: Payload | None = None
    worn: bool = False
    """The slot must not be used again: something of the attempt may still be in its process."""


class LogPiece(Struct, array_like=True, omit_defaults=True, tag=2):
    """Bytes of a followed log, from `offset` on; `skipped` bytes before it were left out."""

    attempt: int
    offset: int
    data: bytes
    skipped: int = 0


Report = Done | LogPiece


# ---- nursery channel ----------------------------------------------------------------------------------------------


class Fork(Struct, array_like=True, tag=1):
    """Fork a slot. Its ends of the request and control channels come as ancillary data."""

    slot: int


class KillSlot(Struct, array_like=True, tag=2):
    """Kill a slot and everything below it; the answer is its SlotEnded."""

    slot: int


class SuspendSlot(Struct, array_like=True, tag=3):
    """Stop (`on`) or continue a slot and everything below it; the answer is SlotSuspended."""

    slot: int
    on: bool


Order = Fork | KillSlot | SuspendSlot


class SlotForked(Struct, array_like=True, tag=1):
    """The slot lives as this process."""

    slot: int
    pid: int


class SlotEnded(Struct, array_like=True, tag=2):
    """The slot's process ended, and nothing is left of what it ran. `signal` 0: it exited with `exit_code`."""

    slot: int
    exit_code: int
    signal: int


class SlotSuspended(Struct, array_like=True, tag=3):
    """The slot's tree is stopped (`on`) or continued: so many processes."""

    slot: int
    on: bool
    processes: int


Notice = SlotForked | SlotEnded | SlotSuspended


# ---- bytes --------------------------------------------------------------------------------------------------------


class StreamCodec:
    """Messages on a stream socket, each after its length in four bytes.

    Args:
        union: the union type of the messages that may arrive here.
    """

    def __init__(self, union: Any) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[union]).decode
        self._buffer = bytearray()

    def pack(self, messages: list[Any]) -> bytes:
        """The bytes of one frame of messages."""
        body = self._encode(messages)
        return len(body).to_bytes(_LENGTH_BYTES, "little") + body

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are complete with these bytes, in order.

        Raises:
            msgspec.DecodeError: the other side is not of this version, or out of its mind.
        """
        self._buffer += data
        found: list[Any] = []
        while len(self._buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._buffer[:_LENGTH_BYTES], "little")
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[_LENGTH_BYTES:end])
            del self._buffer[:end]
            found += self._decode(body)
        return found


encode_request = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
