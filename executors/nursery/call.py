"""Calls a user's function in the slot's own process: import once, call, give the value or the story of the failure.

Whatever the function prints, by Python or by C, lands in the slot's output file, which the agent can read too: the
last words of a process that crashed are not lost. The agent also cuts that file when it grows beyond the cap.
"""

from __future__ import annotations

import importlib
import io
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec

from executors.nursery.folder import FolderError, WorkFolder
from executors.nursery.log import TaskLog
from executors.nursery.protocol import Done, RunCall
from executors.nursery.tree import bury_children
from sparegrid.messages import Outcome, Payload, Usage

_READ_BYTES = 1 << 20
_encode_json = msgspec.json.Encoder().encode


class CallFailedError(Exception):
    """The function could not be called, raised, or returned what cannot travel; `text` goes to the log."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.text = text


class CallRunner:
    """Runs calls in this process, one after the other.

    Args:
        folder: the slot's work folder.
        output: file that takes standard output and error of this process from the first call on.
    """

    def __init__(self, folder: WorkFolder, output: Path) -> None:
        self._folder = folder
        self._output_path = str(output)
        self._output = -1
        self._functions: dict[str, Callable[..., Any]] = {}
        self._environ: set[str] = set()

    def run(self, request: RunCall) -> Done:
        """Make one call, to its end and that of the processes it started."""
        if self._output < 0:
            self._redirect()
        begun = time.monotonic()
        cpu_before = time.process_time()
        outcome = Outcome()
        blame, reason, said = "", "", ""
        try:
            self._folder.enter(request.files)
            self._set_environ(request.env)
            outcome.value = self._call(request)
        except CallFailedError as failure:
            blame, reason, said = "task", failure.reason, failure.text
        except FolderError as error:
            blame, reason = error.blame, error.reason
        remains = bury_children()
        try:
            outcome.log = self._take_log(request, outcome, said)
            if not blame and request.outputs:
                outcome.files = self._folder.collect(request.outputs)
        except FolderError as error:
            blame, reason = blame or error.blame, reason or error.reason
        outcome.usage = Usage(
            wall_ms=round((time.monotonic() - begun) * 1000),
            cpu_ms=round((time.process_time() - cpu_before + remains.cpu_s) * 1000),
            max_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024),
        )
        worn = _has_busy_threads() or not remains.clean
        return Done(request.attempt, outcome, blame, reason, worn=worn)

    # -- the call

    def _call(self, request: RunCall) -> Payload:
        try:
            function = self._functions.get(request.function) or self._find(request.function)
            value = function(*request.args, **request.kwargs)
        except SystemExit as stop:
            raise CallFailedError(f"the function called sys.exit({stop.code!r})") from stop
        except CallFailedError:
            raise
        except BaseException as error:
            text = "".join(
                traceback.format_exception(type(error), error, _without_this_file(error.__traceback__))
            )
            summary = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
            raise CallFailedError(summary[:500], text) from error
        try:
            return self._folder.keep_bytes(_encode_json(value))
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise CallFailedError(
                f"the function returned {type(value).__name__}, which JSON cannot carry: {error}"
            ) from error

    def _find(self, name: str) -> Callable[..., Any]:
        """The function `module:name`, imported with the work folder first in the search path."""
        module_name, _, path = name.partition(":")
        if self._folder.path not in sys.path:
            sys.path.insert(0, self._folder.path)
        importlib.invalidate_caches()
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            if not hasattr(found, part):
                raise CallFailedError(f"the module {module_name!r} has no {path!r}")
            found = getattr(found, part)
        if not callable(found):
            raise CallFailedError(f"{name!r} is {type(found).__name__}, which cannot be called")
        self._functions[name] = found
        return found  # type: ignore[no-any-return]  # callable() does not narrow Any

    def _set_environ(self, env: dict[str, str]) -> None:
        for name in self._environ - env.keys():
            os.environ.pop(name, None)
        os.environ.update(env)
        self._environ = set(env)

    # -- what it prints

    def _redirect(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._output = os.open(self._output_path, flags, 0o600)
        os.dup2(self._output, 1)
        os.dup2(self._output, 2)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
        sys.stdout = _writer(1)
        sys.stderr = _writer(2)
        # Compiled files of the task's own modules would lie among its outputs.
        sys.dont_write_bytecode = True

    def _take_log(self, request: RunCall, outcome: Outcome, said: str) -> Payload | None:
        """Everything printed since the last call, and `said`; the file is emptied for the next."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                # The function closed or replaced it: make it whole again for the next call.
                sys.stdout, sys.stderr = _writer(1), _writer(2)
        size = os.fstat(self._output).st_size
        if not size and not said:
            return None
        log = TaskLog(request.max_log_bytes, f"{self._output_path}.kept")
        at = 0
        while data := os.pread(self._output, _READ_BYTES, at):
            log.feed(data)
            at += len(data)
        os.ftruncate(self._output, 0)
        log.feed(said.encode(errors="replace"))
        outcome.log_bytes, outcome.log_cut = log.total, log.is_cut
        return log.finish(self._folder)


def _writer(descriptor: int) -> TextIO:
    return io.TextIOWrapper(
        open(descriptor, "wb", closefd=False),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=False,
    )


def _without_this_file(trace: Any) -> Any:
    """A traceback that begins at the user's code."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _has_busy_threads() -> bool:
    """Whether the function left threads that would work on during the next call; daemon threads are let be."""
    threading = sys.modules.get("threading")
    if threading is None:
        return False
    main = threading.main_thread()
    return any(thread is not main and not thread.daemon for thread in threading.enumerate())
