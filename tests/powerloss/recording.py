"""Runs a program under the recorder, and is the recorder's other end inside that program."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("recorder.c")
PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Recording:
    """What a recorded run left: the folder it worked in, the log, and what it printed."""

    root: Path
    log: Path
    printed: str


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for many small images: in memory where the system has such a place, since nothing here must last."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="sparegrid-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield folder.resolve()
    finally:
        shutil.rmtree(folder)


def build_recorder(folder: Path) -> Path:
    """Compile recorder.c; needs `cc`."""
    library = folder / "recorder.so"
    flags = ["-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", library, SOURCE, "-ldl", "-lpthread"], check=True, timeout=60)
    return library


def record(library: Path, folder: Path, module: str, *args: str) -> Recording:
    """Run `python -m module ROOT ARGS` with everything below ROOT recorded."""
    root = folder / "disk"
    root.mkdir()
    log = folder / "log"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", module, str(root), *args],
        env={**os.environ, "LD_PRELOAD": str(library), "POWERLOSS_DIR": str(root), "POWERLOSS_LOG": str(log)},
        cwd=PROJECT, check=False, timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return Recording(root, log, run.stdout)


def mark(text: str) -> None:
    """Inside a recorded program: write this into the history, after everything that was done before."""
    ctypes.CDLL(None).recorder_mark(text.encode())


def fail(call: str, error: int, suffix: str = "") -> None:
    """Inside a recorded program: let `write` or `sync` of files named `…suffix` fail with this errno; 0 ends it."""
    ctypes.CDLL(None).recorder_fail(call.encode(), error, suffix.encode())
