"""A small LAN for end-to-end tests: every host has its own network namespace, user id, home and empty folder.

It knows namespaces, processes and files; it knows nothing of jobs. Linux and root only: `why_not()` tells what is
missing. Everything it makes carries a random tag and is removed by `Lan.close()`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FIRST_UID = 64_100
"""Numeric users that no account has: hosts differ by uid without touching the password file."""


def why_not() -> str:
    """Why no LAN can be made here; empty when it can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "setpriv", "mount", "unshare") if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def _sh(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _reach(paths: Sequence[Path]) -> str:
    """Shell lines that make `paths` reachable for every user, inside a private mount namespace.

    An interpreter or a checkout may live below somebody's 0700 home. A tmpfs covers the closed folder and the paths
    are bound back into it; nothing outside the namespace changes.
    """
    lines = ["set -e", "mount --make-rprivate /"]
    closed: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(p.resolve() for p in paths):
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & 0o001:
                closed.setdefault(parent, []).append(path)
                break
    for folder, inside in closed.items():
        for number, path in enumerate(inside):
            lines.append(f"mkdir -p /run/reach{number} && mount --bind '{path}' /run/reach{number}")
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs '{folder}'")
        for number, path in enumerate(inside):
            lines.append(f"mkdir -p '{path}' && mount --move /run/reach{number} '{path}'")
    return "\n".join(lines)


class Process:
    """A program running on a host, with its output in a file."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self.log = log

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, limit_s: float = 30.0) -> str:
        """Wait until it has printed `text`; raises with its output when it ends or does not."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if text in self.text:
                return self.text
            if self.popen.poll() is not None and text not in self.text:
                raise AssertionError(f"ended with {self.popen.returncode} before {text!r}:\n{self.text}")
            time.sleep(0.05)
        raise AssertionError(f"did not print {text!r} within {limit_s} s:\n{self.text}")

    def kill(self) -> None:
        """SIGKILL to the program alone."""
        self.popen.kill()
        self.popen.wait(10)

    def stop(self, limit_s: float = 15.0) -> int:
        """SIGTERM, then SIGKILL; its exit code."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.popen.wait(10)


class Host:
    """One machine of the LAN."""

    def __init__(self, lan: Lan, name: str, number: int) -> None:
        self.lan = lan
        self.name = name
        self.ns = f"{lan.tag}{name}"
        self.uid = FIRST_UID + number
        self.address = f"10.77.{lan.subnet}.{number}"
        self.home = lan.folder / name
        self.home.mkdir()
        os.chown(self.home, self.uid, self.uid)
        self.link = f"{lan.tag}{number}"
        self.processes: list[Process] = []
        _sh("ip", "netns", "add", self.ns)
        _sh(
            "ip",
            "link",
            "add",
            self.link,
            "netns",
            lan.switch,
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            self.ns,
        )
        _sh("ip", "-n", lan.switch, "link", "set", self.link, "master", "br0", "up")
        for argv in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "dev", "eth0"),
        ):
            _sh("ip", "-n", self.ns, *argv)

    def _argv(self, argv: Sequence[str]) -> list[str]:
        reach = _reach([Path(sys.base_prefix), Path(sys.prefix), ROOT])
        user = f"setpriv --reuid {self.uid} --regid {self.uid} --clear-groups --"
        script = f'{reach}\ncd "$HOME"\nexec {user} "$@"'
        return ["ip", "netns", "exec", self.ns, "unshare", "-m", "sh", "-c", script, "sh", *argv]

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a program here: nothing of the machine's own but the PATH."""
        return {
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "SPAREGRID_HOME": str(self.home / "sparegrid"),
            "TMPDIR": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            **(extra or {}),
        }

    def start(self, *argv: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a program as this host's user; it is ended with the LAN."""
        log = self.lan.folder / f"{self.name}-{len(self.processes)}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                self._argv(argv), stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=self.env(env),
                start_new_session=True,
            )  # fmt: skip
        process = Process(popen, log)
        self.processes.append(process)
        return process

    def run(
        self, *argv: str, limit_s: float = 60.0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this host's user to its end."""
        return subprocess.run(
            self._argv(argv), capture_output=True, text=True, timeout=limit_s, check=False, env=self.env(env)
        )

    def ok(self, *argv: str, limit_s: float = 60.0, env: Mapping[str, str] | None = None) -> str:
        """Run a program that must succeed; its standard output."""
        done = self.run(*argv, limit_s=limit_s, env=env)
        assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def pids(self) -> list[int]:
        """Every process of this host."""
        return [int(pid) for pid in _sh("ip", "netns", "pids", self.ns).split()]

    def cut(self) -> None:
        """Pull the network cable."""
        _sh("ip", "-n", self.lan.switch, "link", "set", self.link, "down")

    def heal(self) -> None:
        """Plug it in again."""
        _sh("ip", "-n", self.lan.switch, "link", "set", self.link, "up")

    def close(self) -> None:
        """End every process and remove the namespace."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in self.processes:
            process.stop(10.0)
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        _sh("ip", "netns", "del", self.ns, check=False)


class Lan:
    """A switch and its hosts; a context manager."""

    def __init__(self) -> None:
        self.tag = f"sg{secrets.token_hex(2)}"
        self.subnet = secrets.randbelow(250) + 1
        self.switch = f"{self.tag}sw"
        self.folder = Path(tempfile.mkdtemp(prefix="sparegrid-lan-"))
        self.folder.chmod(0o755)
        self.hosts: list[Host] = []
        _sh("ip", "netns", "add", self.switch)
        _sh("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        _sh("ip", "-n", self.switch, "link", "set", "br0", "up")

    def host(self, name: str) -> Host:
        """A new machine on the LAN; `name` has at most 8 letters."""
        host = Host(self, name, len(self.hosts) + 1)
        self.hosts.append(host)
        return host

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything that was made."""
        for host in self.hosts:
            host.close()
        _sh("ip", "netns", "del", self.switch, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
