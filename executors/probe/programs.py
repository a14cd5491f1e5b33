"""Programs that jobs like to ask for, with the versions they print. Asked in a child, with a limit, and remembered.

What a program printed is kept by its path, size and time, so that starting a worker does not start Blender each time.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
PROGRAMS: dict[str, tuple[str, ...]] = {
    "bash": ("--version",),
    "blender": ("--version",),
    "cargo": ("--version",),
    "clang": ("--version",),
    "convert": ("--version",),
    "docker": ("--version",),
    "ffmpeg": ("-version",),
    "gcc": ("--version",),
    "git": ("--version",),
    "go": ("version",),
    "gs": ("--version",),
    "java": ("-version",),
    "julia": ("--version",),
    "make": ("--version",),
    "node": ("--version",),
    "octave": ("--version",),
    "perl": ("-e", "print $^V"),
    "podman": ("--version",),
    "povray": ("--version",),
    "python3": ("--version",),
    "R": ("--version",),
    "tesseract": ("--version",),
    "vina": ("--version",),
    "xz": ("--version",),
    "zstd": ("--version",),
}
_AT_ONCE = 4


class Known(msgspec.Struct):
    """A program's version, and what the program looked like when it told it."""

    path: str
    size: int
    mtime_ns: int
    version: str


def find_programs(cache: Path, programs: dict[str, tuple[str, ...]] | None = None) -> dict[str, str]:
    """Versions by name of the programs that are installed; empty for one that prints none.

    Args:
        cache: file that remembers versions; may be missing or damaged.
        programs: arguments by name, instead of PROGRAMS.
    """
    wanted = PROGRAMS if programs is None else programs
    known = _load(cache)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        entries = list(pool.map(lambda name: _examine(name, wanted[name], known), wanted))
    found = {name: entry for name, entry in zip(wanted, entries, strict=True) if entry is not None}
    if found != known:
        _save(cache, found)
    return {name: entry.version for name, entry in found.items()}


def _examine(name: str, arguments: tuple[str, ...], known: dict[str, Known]) -> Known | None:
    path = shutil.which(name)
    if path is None:
        return None
    info = Path(path).stat()
    old = known.get(name)
    if old is not None and (old.path, old.size, old.mtime_ns) == (path, info.st_size, info.st_mtime_ns):
        return old
    return Known(path, info.st_size, info.st_mtime_ns, _ask(path, arguments))


def _ask(path: str, arguments: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [path, *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.info("%s does not tell its version: %s", path, error)
        return ""
    return version_in(done.stdout)


def version_in(text: str) -> str:
    """The first thing in the first lines that looks like a version: digits with dots, else digits."""
    head = "\n".join(text.splitlines()[:3])
    found = re.search(r"\d+(?:\.\d+)+[\w.+-]*", head) or re.search(r"\b\d+\b", head)
    return found[0] if found else ""


def _load(cache: Path) -> dict[str, Known]:
    try:
        return msgspec.json.decode(cache.read_bytes(), type=dict[str, Known])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("what is known of programs is asked anew: %s: %s", cache, error)
        return {}


def _save(cache: Path, found: dict[str, Known]) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    except OSError as error:
        log.warning("what is known of programs cannot be kept: %s", error)
