"""Process trees: who descends from a process, and how all of them are killed, stopped or continued.

On Linux the nursery and its slots are subreapers, so even a process that detached itself twice stays below its slot
and is found by walking down from it. Systems without subreapers only offer what psutil sees of the parent links.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36
_HAS_PROC = sys.platform == "linux"
KILL_DEADLINE_S = 10.0
"""A process that survives SIGKILL this long hangs in the kernel; nobody can help it."""


def become_subreaper() -> bool:
    """Adopt orphaned descendants of this process, from now on. False where the system cannot."""
    if not _HAS_PROC:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0


def children(pid: int) -> list[int]:
    """The direct children of a process, of all its threads; none when it is gone."""
    if not _HAS_PROC:
        return _children_by_psutil(pid)
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
            found += [int(word) for word in file.read().split()]
    return found


def _children_by_psutil(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, parents before children."""
    found: list[int] = []
    pending = [pid]
    while pending:
        below = children(pending.pop())
        found += below
        pending += below
    return found


def signal_tree(pid: int, number: int, *, include_top: bool = False) -> int:
    """Send a signal to everything below `pid` once. Returns how many got it."""
    count = 0
    for target in ([pid] if include_top else []) + descendants(pid):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(target, number)
            count += 1
    return count


def suspend_tree(pid: int) -> int:
    """Stop `pid` and everything below it. Returns how many."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGSTOP)
    return 1 + len(_freeze_below(pid))


def _freeze_below(pid: int, keep: frozenset[int] = frozenset()) -> set[int]:
    """Stop everything below `pid`, but for the children in `keep` and what is below them.

    Each is stopped before its children are looked for: a process that still runs may fork, one that is stopped
    cannot. Walks until a walk finds nobody new, because a signal takes a moment to arrive.
    """
    stopped: set[int] = set()
    deadline = time.monotonic() + KILL_DEADLINE_S
    while time.monotonic() < deadline:
        known = len(stopped)
        pending = [child for child in children(pid) if child not in keep]
        while pending:
            target = pending.pop()
            if target not in stopped:
                stopped.add(target)
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(target, signal.SIGSTOP)
            pending += children(target)
        if len(stopped) == known:
            break
    return stopped


def kill_below(pid: int, keep: frozenset[int] = frozenset()) -> None:
    """Kill everything below `pid`, but for `keep`: stopped first, so that nobody forks faster than it is killed."""
    for target in _freeze_below(pid, keep):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(target, signal.SIGKILL)


def resume_tree(pid: int) -> int:
    """Continue everything below `pid`, then `pid` itself."""
    count = 0
    for target in [*reversed(descendants(pid)), pid]:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(target, signal.SIGCONT)
            count += 1
    return count


def kill_tree(pid: int) -> None:
    """Kill everything below `pid` and `pid` itself, for a process whose orphans come to nobody here.

    `pid` is stopped first, so that it starts nothing while its tree is taken away, and killed last, because it
    adopts the orphans that its descendants leave.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + KILL_DEADLINE_S
    while (
        below := [child for child in descendants(pid) if not _is_dead(child)]
    ) and time.monotonic() < deadline:
        for target in below:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(target, signal.SIGKILL)
        time.sleep(0.001)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _is_dead(pid: int) -> bool:
    """Whether the process has ended, and at most waits to be reaped."""
    if not _HAS_PROC:
        return _is_dead_by_psutil(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def _is_dead_by_psutil(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})
    except psutil.Error:
        return True


class Remains:
    """What was killed of a tree after its first process had ended."""

    __slots__ = ("clean", "count", "cpu_s", "max_rss")

    def __init__(self) -> None:
        self.count = 0
        self.cpu_s = 0.0
        self.max_rss = 0
        self.clean = True


def bury_children(keep: frozenset[int] = frozenset()) -> Remains:
    """Kill and reap every descendant of this process, but for the children in `keep` and what is below them.

    This process is a subreaper: whatever its descendants leave behind comes to it and is killed in the next round.
    Costs one system call when there is nobody.
    """
    remains = Remains()
    deadline = time.monotonic() + KILL_DEADLINE_S
    while True:
        if not keep and _reap_any(remains):
            return remains
        if keep:
            targets = [child for child in children(os.getpid()) if child not in keep]
            if not targets:
                return remains
            kill_below(os.getpid(), keep)
            for child in targets:
                _reap_one(child, remains)
        else:
            kill_below(os.getpid())
        if time.monotonic() > deadline:
            remains.clean = False
            return remains
        time.sleep(0.0005)


def _reap_any(remains: Remains) -> bool:
    """Reap every child that has ended; True when there are no children left at all."""
    while True:
        try:
            pid, _status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return False
        _count(remains, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def _reap_one(child: int, remains: Remains) -> None:
    with suppress(ChildProcessError):
        pid, _status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            _count(remains, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def _count(remains: Remains, cpu_s: float, max_rss: int) -> None:
    remains.count += 1
    remains.cpu_s += cpu_s
    remains.max_rss = max(remains.max_rss, max_rss)


def signal_name(number: int) -> str:
    """SIGSEGV for 11, and so on; `signal 40` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
