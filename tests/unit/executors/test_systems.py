"""Systems other than Linux: what stands in for its calls, and what is refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from executors.main import check_system
from executors.nursery import folder, tree
from sparegrid.errors import VersionError


def test_windows_is_refused_before_anything_is_made() -> None:
    with pytest.raises(VersionError, match="not supported on Windows yet") as caught:
        check_system("win32")
    assert "WSL" in caught.value.hint
    assert check_system("darwin") is None  # type: ignore[func-returns-value]  # it does not raise


def test_the_agents_side_needs_no_module_of_unix_to_say_so() -> None:
    """Windows has none of these: their import must not come before the refusal."""
    code = (
        "import sys, psutil, sparegrid.client\n"
        "for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'): sys.modules[name] = None\n"
        "from executors.main import check_system\n"
        "try: check_system('win32')\nexcept Exception as error: print(error.title)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("No worker on Windows yet\n", "")


def test_files_are_copied_without_sendfile(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 << 20))
    with source.open("rb", buffering=0) as read:
        folder._copy(read, str(tmp_path / "copy"), in_kernel=False)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_without_proc_a_tree_is_found_and_killed_by_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_HAS_PROC", False)
    line = "sleep 1000 & sleep 1000 & echo; wait"
    with subprocess.Popen(["/bin/sh", "-c", line], stdout=subprocess.PIPE) as top:
        assert top.stdout is not None
        top.stdout.readline()
        below = tree.descendants(top.pid)
        assert len(below) == 2
        tree.kill_tree(top.pid)
    assert all(tree._is_dead(pid) for pid in [*below, top.pid])
    assert not tree.become_subreaper()
