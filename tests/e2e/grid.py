"""A whole grid on a LAN of namespaces: a coordinator's host, devices' hosts, and readings of what ran where.

Tasks prove that they ran by appending a line to a *trace* file that every host may write. It knows the command line
and `Lan`; it never reaches into a program.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.lan import BIN, Host, Lan, Process

SPAREGRID = str(BIN / "sparegrid")
PORT = 8443


class LanGrid:
    """One coordinator and some devices, each its own machine."""

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        self.head = lan.host("head")
        self.coordinator = self.start_coordinator()
        self.devices: dict[str, Host] = {}
        self.workers: dict[str, Process] = {}

    def start_coordinator(self) -> Process:
        """Start it (again), and wait until it answers."""
        process = self.head.start(SPAREGRID, "coordinator", "--port", str(PORT), "--name", "lab")
        wait_until(
            lambda: self.head.run(SPAREGRID, "devices", "--json").returncode == 0, "the coordinator answers"
        )
        return process

    def join_code(self) -> str:
        """A fresh one-time code, as an administrator gets it."""
        return str(self.json("join-code", "--json")["code"])

    def json(self, *argv: str, limit_s: float = 60.0) -> Any:
        """A reading verb on the coordinator's machine, as JSON."""
        return json.loads(self.head.ok(SPAREGRID, *argv, limit_s=limit_s))

    def device(self, name: str, slots: int = 2) -> Process:
        """A new machine that joins by a code."""
        host = self.devices[name] = self.lan.host(name)
        return self.start_worker(name, "--join", self.join_code(), "--slots", str(slots), host=host)

    def start_worker(
        self, name: str, *argv: str, host: Host | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start the worker of a machine (again), and wait until the coordinator shows it."""
        host = host or self.devices[name]
        own = ["env", *(f"{key}={value}" for key, value in env.items())] if env else []
        process = self.workers[name] = host.start(*own, SPAREGRID, "worker", "--name", name, *argv)
        wait_until(lambda: self.device_state(name) in {"ready", "computing"}, f"{name} is there", process)
        return process

    def device_state(self, name: str) -> str:
        """The state of a device as the coordinator shows it; empty when it does not know it."""
        for device in self.json("devices", "--json")["devices"]:
            if device["name"] == name:
                return str(device["state"])
        return ""

    def trace_file(self, name: str = "trace") -> Path:
        """A file that tasks on every host may append to."""
        path = self.lan.folder / name
        path.touch()
        path.chmod(0o666)
        return path

    def submit(self, text: str, *argv: str) -> str:
        """Write a job file on the coordinator's machine and submit it; the job's id."""
        path = self.head.home / "job.toml"
        path.write_text(text)
        return str(self.json("submit", str(path), "--json", *argv)["id"])

    def job(self, job: str) -> dict[str, Any]:
        """The job's view."""
        view: dict[str, Any] = self.json("job", job, "--json")
        return view

    def wait_job(self, job: str, limit_s: float = 120.0) -> dict[str, Any]:
        """Wait for the job's end; its last view."""
        wait_until(
            lambda: self.job(job)["state"] not in {"active", "open"}, f"job {job} ends", limit_s=limit_s
        )
        return self.job(job)


def wait_until(
    true: Callable[[], bool], what: str, process: Process | None = None, *, limit_s: float = 30.0
) -> None:
    """Poll until `true()`; fails with `what` and the process's output."""
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s} s: {what}\n{process.text if process else ''}")
        time.sleep(0.25)


def runs_per_index(trace: Path) -> Counter[int]:
    """How often each task ran, from lines whose first word is the index."""
    return Counter(int(line.split()[0]) for line in trace.read_text().splitlines() if line.strip())


def traced_job(count: int, trace: Path, seconds: float, more: Sequence[str] = ()) -> str:
    """A job of `count` tasks; each appends its index and device to the trace and then takes `seconds`."""
    line = f'echo "$SPAREGRID_INDEX $SPAREGRID_ATTEMPT" >> {trace}; sleep {seconds}'
    return "\n".join(
        [
            'name = "traced"',
            f"shell = {json.dumps(line)}",
            f"count = {count}",
            "restartable = false",
            *more,
            "",
        ]
    )
