"""The nursery's own process: forks slots when told, watches them, stops and kills their trees.

One per (grid, job, sandbox profile). It stays small and single-threaded, so that forking a slot costs half a
millisecond. When the agent is gone, it kills everything below itself and ends.
"""

from __future__ import annotations

import array
import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from executors.nursery.folder import WorkFolder
from executors.nursery.protocol import (
    Fork,
    KillSlot,
    Notice,
    Order,
    SlotEnded,
    SlotForked,
    SlotSuspended,
    StreamCodec,
    SuspendSlot,
)
from executors.nursery.slot import slot_main
from executors.nursery.tree import become_subreaper, bury_children, kill_tree, resume_tree, suspend_tree

_POLL_WITHOUT_PIDFD_MS = 50
_OOM_SCORE = b"300"
"""When memory runs out, the kernel shall take a task before the agent or the desktop."""


class Host:
    """The loop of a nursery process.

    Args:
        channel: the nursery's end of its channel to the agent.
        folder: where slots have their work folders.
        outbox: where large outputs go, on the same disk.
    """

    def __init__(self, channel: socket.socket, folder: Path, outbox: Path) -> None:
        self._channel = channel
        self._folder = folder
        self._outbox = outbox
        self._codec = StreamCodec(Order)
        self._pids: dict[int, int] = {}
        self._pidfds: dict[int, int] = {}
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)

    def run(self) -> None:
        """Serve until the agent is gone, then kill whatever is below."""
        try:
            while True:
                ready = self._poll.poll(None if self._has_pidfds() else _POLL_WITHOUT_PIDFD_MS)
                self._reap()
                if (
                    any(descriptor == self._channel.fileno() for descriptor, _event in ready)
                    and not self._listen()
                ):
                    return
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            bury_children()

    def _has_pidfds(self) -> bool:
        return len(self._pidfds) == len(self._pids)

    def _listen(self) -> bool:
        """Do what the agent orders; False when it is gone."""
        data, descriptors = _receive(self._channel)
        if not data:
            return False
        for order in self._codec.feed(data):
            match order:
                case Fork(slot=slot):
                    self._fork(slot, descriptors[:2])
                    del descriptors[:2]
                case KillSlot(slot=slot) if slot in self._pids:
                    kill_tree(self._pids[slot])
                case SuspendSlot(slot=slot, on=on) if slot in self._pids:
                    act = suspend_tree if on else resume_tree
                    self._tell(SlotSuspended(slot, on, act(self._pids[slot])))
                case _:
                    pass  # The slot has ended meanwhile: its SlotEnded is on the way.
        return True

    def _fork(self, slot: int, descriptors: list[int]) -> None:
        requests, control = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        pid = os.fork()
        if pid == 0:
            slot_main(requests, control, self._folder, self._outbox, slot, self._forget)
        requests.close()
        control.close()
        self._pids[slot] = pid
        if hasattr(os, "pidfd_open"):
            self._pidfds[slot] = os.pidfd_open(pid)
            self._poll.register(self._pidfds[slot], select.POLLIN)
        self._tell(SlotForked(slot, pid))

    def _forget(self) -> None:
        """In a forked slot: close what belongs to the nursery."""
        self._channel.close()
        for descriptor in self._pidfds.values():
            os.close(descriptor)

    def _reap(self) -> None:
        for slot, pid in list(self._pids.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if not found:
                continue
            del self._pids[slot]
            if slot in self._pidfds:
                self._poll.unregister(self._pidfds[slot])
                os.close(self._pidfds.pop(slot))
            # What the slot had below it is this process's now; nothing may outlive the attempt.
            bury_children(frozenset(self._pids.values()))
            with suppress(OSError):
                # One that was killed left its folder, which may be what fills the disk.
                WorkFolder(self._folder / f"slot-{slot}", self._outbox).remove()
            code = os.waitstatus_to_exitcode(status)
            self._tell(SlotEnded(slot, max(code, 0), max(-code, 0)))

    def _tell(self, notice: Notice) -> None:
        self._channel.sendall(self._codec.pack([notice]))


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Bytes and the descriptors that came with them, close-on-exec."""
    words = array.array("i")
    data, ancillary, _flags, _address = channel.recvmsg(1 << 16, socket.CMSG_SPACE(16 * words.itemsize))
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            words.frombytes(payload[: len(payload) - len(payload) % words.itemsize])
    for descriptor in words:
        os.set_inheritable(descriptor, False)
    return data, list(words)


def main(arguments: list[str]) -> int:
    """Be a nursery: arguments are the channel's descriptor, the folder of work folders, and the outbox."""
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    become_subreaper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(_OOM_SCORE)
    gc.freeze()
    Host(channel, Path(arguments[1]), Path(arguments[2])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
