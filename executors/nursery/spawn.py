"""Runs one command in a slot: spawn, read what it prints, obey the agent meanwhile, leave nothing behind.

The program is started by posix_spawn in a session of its own: no fork of this interpreter, no hook between fork and
exec. All file descriptors here are close-on-exec, so it gets nothing but standard input, output and error.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from executors.nursery.folder import FolderError, WorkFolder
from executors.nursery.log import FOLLOW_PIECE_BYTES, TaskLog
from executors.nursery.protocol import Control, Done, FollowLog, Kill, LogPiece, RunCommand, Signal
from executors.nursery.tree import Remains, bury_children, kill_below, signal_name, signal_tree
from sparegrid.messages import Outcome, Usage

_READ_BYTES = 1 << 16
_FOLLOW_EVERY_S = 0.2
_NO_PIDFD_POLL_S = 0.02
_HEAD_START_MS = 3
_RESET_SIGNALS = [signal.SIGPIPE, *([signal.SIGXFSZ] if hasattr(signal, "SIGXFSZ") else [])]
"""Python ignores these, and an ignored signal stays ignored over exec."""
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Agent(NamedTuple):
    """The way to the agent while a command runs."""

    fd: int
    """Readable when it says something."""
    listen: Callable[[], list[Control]]
    """What it says; raises when it is gone."""
    tell: Callable[[LogPiece], None]


_NOTHING_USED = resource.struct_rusage((0.0,) * 16)


class CommandRun:
    """One attempt of a command.

    Args:
        request: what to run.
        folder: the slot's work folder.
        spill_path: where a long log goes while it grows.
        agent: whom to obey meanwhile.
        follow_from: byte of the log from which on it is followed from the start; -1 when it is not.
    """

    def __init__(
        self,
        request: RunCommand,
        folder: WorkFolder,
        spill_path: str,
        agent: Agent,
        follow_from: int = -1,
    ) -> None:
        self._request = request
        self._folder = folder
        self._log = TaskLog(request.max_log_bytes, spill_path)
        self._agent = agent
        self._pid = 0
        self._asked = 0
        self._killed = False
        self._followed_to = follow_from
        self._next_piece_s = 0.0

    def run(self) -> Done:
        """Run it to its end, the end of its tree included."""
        begun = time.monotonic()
        request = self._request
        try:
            self._folder.enter(request.files)
            output = self._spawn()
        except FolderError as error:
            return Done(request.attempt, Outcome(), error.blame, error.reason)
        try:
            status, cpu_s, max_rss, remains = self._attend(output)
        finally:
            os.close(output)
        usage = Usage(
            wall_ms=round((time.monotonic() - begun) * 1000),
            cpu_ms=round((cpu_s + remains.cpu_s) * 1000),
            max_rss=max(max_rss, remains.max_rss) * _RSS_UNIT,
        )
        return self._conclude(status, usage, remains)

    # -- start

    def _spawn(self) -> int:
        """Start the program. Returns the reading end of its output."""
        request = self._request
        program = find_program(request.argv[0], request.env.get("PATH", os.defpath))
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        stdin = -1
        try:
            actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
                (os.POSIX_SPAWN_DUP2, writing, 1),
                (os.POSIX_SPAWN_DUP2, writing, 2),
            ]
            if request.stdin:
                stdin = self._stdin_file(request.stdin)
                actions.append((os.POSIX_SPAWN_DUP2, stdin, 0))
            else:
                actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
            self._pid = os.posix_spawn(
                program,
                request.argv,
                request.env,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=_RESET_SIGNALS,
            )
        except (OSError, ValueError) as error:
            os.close(reading)
            raise _start_error(program, error) from error
        finally:
            os.close(writing)
            if stdin >= 0:
                os.close(stdin)
        return reading

    def _stdin_file(self, text: str) -> int:
        path = f"{self._folder.path}.stdin"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        data = memoryview(text.encode())
        while data:
            data = data[os.write(descriptor, data) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    # -- middle

    def _attend(self, output: int) -> tuple[int, float, int, Remains]:
        """Read, obey and wait until the first process has ended; then end what it left."""
        pidfd = os.pidfd_open(self._pid) if hasattr(os, "pidfd_open") else -1
        poll = select.poll()
        poll.register(self._agent.fd, select.POLLIN)
        if pidfd >= 0:
            poll.register(pidfd, select.POLLIN)
        # Tiny tasks end before anybody needs to read: what they print fits the pipe.
        ready = poll.poll(_HEAD_START_MS if pidfd >= 0 and self._followed_to < 0 else 0)
        if not ready:
            poll.register(output, select.POLLIN)
        pid, status, usage = 0, 0, _NOTHING_USED
        try:
            while True:
                for descriptor, _event in ready:
                    if descriptor == output and not self._read(output):
                        poll.unregister(output)
                    elif descriptor == self._agent.fd:
                        poll.register(output, select.POLLIN)
                        self._obey()
                if self._followed_to >= 0:
                    self._follow()
                if pidfd < 0 or (pidfd, select.POLLIN) in ready:
                    pid, status, usage = os.wait4(self._pid, os.WNOHANG)
                    if pid:
                        break
                ready = poll.poll(self._poll_timeout_ms(pidfd))
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        remains = bury_children()
        while self._read(output):
            pass
        return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, remains

    def _poll_timeout_ms(self, pidfd: int) -> int | None:
        if pidfd < 0:
            return int(_NO_PIDFD_POLL_S * 1000)
        return int(_FOLLOW_EVERY_S * 1000) if self._followed_to >= 0 else None

    def _read(self, output: int) -> bool:
        """Take what is there; False when nothing is or will be."""
        try:
            data = os.read(output, _READ_BYTES)
        except BlockingIOError:
            return False
        self._log.feed(data)
        return bool(data)

    def _obey(self) -> None:
        for message in self._agent.listen():
            match message:
                case Signal(attempt=attempt, number=number, tree=tree) if attempt == self._request.attempt:
                    self._asked = self._asked or number
                    if tree:
                        signal_tree(os.getpid(), number)
                    else:
                        with suppress(ProcessLookupError):
                            os.kill(self._pid, number)
                case Kill(attempt=attempt) if attempt == self._request.attempt:
                    self._killed = True
                    kill_below(os.getpid())
                case FollowLog(attempt=attempt, on=on, offset=offset) if attempt == self._request.attempt:
                    self._followed_to = offset if on else -1
                    self._next_piece_s = 0.0
                case _:
                    pass  # For an attempt that has ended here already.

    def _follow(self) -> None:
        """Send the newest piece of the log, at most one each fifth of a second."""
        now = time.monotonic()
        if now < self._next_piece_s or self._followed_to >= self._log.kept:
            return
        self._next_piece_s = now + _FOLLOW_EVERY_S
        start = max(self._followed_to, self._log.kept - FOLLOW_PIECE_BYTES)
        data = self._log.read(start, FOLLOW_PIECE_BYTES)
        self._agent.tell(LogPiece(self._request.attempt, start, data, start - self._followed_to))
        self._followed_to = start + len(data)

    # -- end

    def _conclude(self, status: int, usage: Usage, remains: Remains) -> Done:
        request = self._request
        exit_code = os.waitstatus_to_exitcode(status)
        outcome = Outcome(usage=usage, log_bytes=self._log.total, log_cut=self._log.is_cut)
        if exit_code < 0:
            outcome.signal = signal_name(-exit_code)
        else:
            outcome.exit_code = exit_code
        blame, reason, checkpoint = "", "", None
        if exit_code < 0:
            blame, reason = "task", f"ended by {outcome.signal}"
        elif exit_code not in request.ok_codes:
            blame, reason = "task", f"exit code {exit_code}"
        if blame and not self._asked and not self._killed:
            full = self._folder.full_disk(request.disk_bytes)
            if full is not None:
                blame, reason = full.blame, f"{reason}: {full.reason}"
        try:
            outcome.log = self._log.finish(self._folder)
            if self._asked and request.checkpoint_glob:
                checkpoint = self._folder.pack_checkpoint(request.checkpoint_glob)
            if not blame and not self._killed and request.outputs:
                outcome.files = self._folder.collect(request.outputs)
        except FolderError as error:
            blame, reason = error.blame, error.reason
        if not remains.clean:
            blame, reason = blame or "task", reason or "a process that it left behind cannot be killed"
        return Done(request.attempt, outcome, blame, reason, checkpoint, worn=not remains.clean)


def find_program(name: str, path: str) -> str:
    """The file that a program's name stands for: in PATH, or from the work folder when it has a slash.

    Raises:
        FolderError: there is none. A missing program is the device's fault, a missing file the task's.
    """
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder or ".", name)
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    raise FolderError("device", f"the program {name!r} is not found on this device")


def _start_error(program: str, error: OSError | ValueError) -> FolderError:
    if isinstance(error, ValueError):
        return FolderError("task", f"{program!r} could not be started: {error}")
    why = error.strerror or str(error)
    own = error.errno in {errno.E2BIG, errno.EACCES, errno.ENOEXEC, errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
    blame = "task" if error.errno == errno.E2BIG or (own and not os.path.isabs(program)) else "device"
    return FolderError(blame, f"{program!r} could not be started: {why}")
