"""What a shell is told while somebody types: candidates, and silence when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sparegrid.cli.completing import device_names, job_files, job_numbers, setting_keys
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.tree import root


def a_context(home: Path) -> click.Context:
    return click.Context(root, obj=Invocation({"SPAREGRID_HOME": str(home)}))


ANY = click.Argument(["any"])


def test_without_a_grid_nothing_is_offered_and_nothing_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = a_context(tmp_path)
    assert device_names(context, ANY, "") == []
    assert job_numbers("active")(context, ANY, "1") == []
    assert capsys.readouterr() == ("", "")


def test_settings_are_offered_by_their_beginning(tmp_path: Path) -> None:
    found = setting_keys(a_context(tmp_path), ANY, "worker.sl")
    assert [item.value for item in found] == ["worker.slots"]


def test_job_files_and_folders_are_offered(tmp_path: Path) -> None:
    for name in ("job.toml", "job.json", "job.txt", ".hidden.toml"):
        (tmp_path / name).touch()
    (tmp_path / "jobs").mkdir()
    found = [item.value for item in job_files(a_context(tmp_path), ANY, f"{tmp_path}/jo")]
    assert found == [f"{tmp_path}/job.json", f"{tmp_path}/job.toml", f"{tmp_path}/jobs/"]
    assert [item.value for item in job_files(a_context(tmp_path), ANY, f"{tmp_path}/none/x")] == []


def test_behind_a_device_its_verbs_are_offered(tmp_path: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SPAREGRID_")}
    environ |= {
        "SPAREGRID_HOME": str(tmp_path),
        "_SPAREGRID_COMPLETE": "bash_complete",
        "COMP_WORDS": "sparegrid device attic re",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        [str(Path(sys.executable).parent / "sparegrid")],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )
    assert done.stderr == ""
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == {"remove", "rename", "resume"}
