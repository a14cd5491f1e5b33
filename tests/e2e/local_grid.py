"""A grid of real programs in one home on this machine, used through the command line like a person would.

It knows programs and folders; it never reaches into one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
END_S = 20.0


def program(*arguments: str) -> list[str]:
    """The program's command line."""
    return [sys.executable, "-m", "sparegrid.cli", *arguments]


def clean_environ(home: Path) -> dict[str, str]:
    """This process's environment with another home and without settings of ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SPAREGRID_", "GOGRID_"))}
    return kept | {"SPAREGRID_HOME": str(home), "PYTHONPATH": str(ROOT)}


class LocalGrid:
    """A coordinator and one worker of one home, for use in `with`.

    Args:
        slots: of the worker.
    """

    def __init__(self, slots: int = 2) -> None:
        self._slots = slots
        self._folder = tempfile.TemporaryDirectory(prefix="sparegrid-test-")
        self._programs: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.home = Path(self._folder.name) / "home"
        self.work = Path(self._folder.name) / "work"
        self.work.mkdir()

    def __enter__(self) -> Self:
        try:
            self.start("coordinator", "--host", "127.0.0.1", "--port", "0", "--no-announce", "--name", "home")
            self._until(lambda: self.run("devices").returncode == 0, "the coordinator answers")
            self.start("worker", "--slots", str(self._slots), "--name", "attic", "--label", "room=attic")
            self._until(lambda: self._states() == ["ready"], "the worker is ready")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a long-lived program of this home; its output goes to a file."""
        log = Path(self._folder.name) / f"{len(self._programs)}-{arguments[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                program(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=clean_environ(self.home),
                start_new_session=True,
            )
        self._programs.append((process, log))
        return process

    def output_of(self, number: int) -> str:
        """What the n-th started program has printed."""
        return self._programs[number][1].read_text()

    def run(
        self,
        *arguments: str,
        stdin: str = "",
        limit_s: float = 90.0,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """One verb, to its end."""
        return subprocess.run(
            program(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
            env=clean_environ(self.home) | dict(environ or {}),
            cwd=cwd or self.work,
        )

    def ok(self, *arguments: str, stdin: str = "", limit_s: float = 90.0, cwd: Path | None = None) -> str:
        """Standard output of a verb that must succeed."""
        done = self.run(*arguments, stdin=stdin, limit_s=limit_s, cwd=cwd)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """A reading verb's document."""
        return json.loads(self.ok(*arguments, "--json"))

    def _states(self) -> list[str]:
        return [str(device["state"]) for device in self.json("devices")["devices"]]

    def _until(self, true: Any, what: str) -> None:
        deadline = time.monotonic() + START_S
        while not true():
            for process, log in self._programs:
                assert process.poll() is None, f"{log.name}: {log.read_text()}"
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {START_S} s: {what}\n{self._logs()}")
            time.sleep(0.1)

    def _logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()}" for _, log in self._programs)

    def stop(self, number: int) -> int:
        """End the n-th program as a person would, and return its exit code."""
        process = self._programs[number][0]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait(timeout=END_S)

    def close(self) -> None:
        """End everything, the worker first."""
        try:
            for number in reversed(range(len(self._programs))):
                self.stop(number)
        finally:
            for process, _ in self._programs:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            self._folder.cleanup()


def processes_with(marker: str) -> list[str]:
    """Command lines of all processes whose arguments or environment hold a text."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            texts: Sequence[bytes] = [(folder / name).read_bytes() for name in ("cmdline", "environ")]
        except OSError:
            continue
        if any(marker.encode() in text for text in texts):
            found.append(f"{folder.name}: {texts[0].replace(bytes(1), b' ').decode(errors='replace')}")
    return found
