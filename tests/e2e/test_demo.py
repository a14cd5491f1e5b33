"""`sparegrid demo` from outside: it makes a picture, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.local_grid import clean_environ, processes_with, program

ENDS_WITHIN_S = 25.0


def leftovers(folder: Path) -> list[str]:
    """Programs that still run out of a temporary folder, and what is in it."""
    return processes_with(str(folder)) + [
        path.name for path in folder.iterdir() if path.name.startswith("sparegrid")
    ]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The demo's TMPDIR: whatever it makes is below it, and its programs carry its name in their environment."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield folder
    for path in folder.iterdir():
        raise AssertionError(f"left behind: {path}")
    folder.rmdir()


def test_the_demo_renders_compares_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    environ = clean_environ(tmp_path / "home") | {"TMPDIR": str(temporary)}
    began = time.monotonic()
    done = subprocess.run(
        program("demo", "--size", "small", "-o", str(tmp_path / "result")),
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 90
    assert (tmp_path / "result" / "picture.png").read_bytes().startswith(b"\x89PNG")
    factor = re.search(r"Speed-up +(\d+\.\d+)×", done.stdout)
    assert factor is not None
    assert float(factor[1]) > 0.5
    assert "equal, byte for byte" in done.stdout
    assert leftovers(temporary) == []
    assert not (tmp_path / "home").exists(), "the demo keeps out of the user's own home"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing(
    number: signal.Signals, code: int, tmp_path: Path, temporary: Path
) -> None:
    environ = clean_environ(tmp_path / "home") | {"TMPDIR": str(temporary)}
    process = subprocess.Popen(
        program("demo", "--size", "large", "-o", str(tmp_path / "result")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        cwd=tmp_path,
        start_new_session=True,
    )
    with process:
        deadline = time.monotonic() + 60
        while not any("scene.py" in line for line in processes_with(str(temporary))):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no tile is rendered"
            time.sleep(0.2)
        asked = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - asked < ENDS_WITHIN_S
    assert process.returncode == code
    assert b"Traceback" not in err
    assert leftovers(temporary) == []


def test_a_demo_whose_coordinator_dies_says_so_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    environ = clean_environ(tmp_path / "home") | {"TMPDIR": str(temporary)}
    process = subprocess.Popen(
        program("demo", "--size", "large", "-o", str(tmp_path / "result")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        start_new_session=True,
    )
    with process:
        deadline = time.monotonic() + 60
        while not any("scene.py" in line for line in processes_with(str(temporary))):
            assert time.monotonic() < deadline, "no tile is rendered"
            time.sleep(0.2)
        for line in processes_with(str(temporary)):
            if "sparegrid.cli coordinator" in line:
                os.kill(int(line.partition(":")[0]), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"The demo's coordinator has ended" in err
    assert leftovers(temporary) == []
