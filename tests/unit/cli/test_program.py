"""From arguments to exit codes: help, errors, interruptions, and what must not be loaded."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from rich.console import Console

from sparegrid.cli import exits
from sparegrid.cli.exits import exit_code_table
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.screens.messages import commands
from sparegrid.cli.tree import SECTIONS, root
from sparegrid.errors import GridError, error_classes
from tests.unit.cli.running import run

ROOMS = ("coordinator", "executors", "trayapp")


def test_bare_sparegrid_prints_its_help_and_succeeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 0
    printed = capsys.readouterr().out
    for section, verbs in SECTIONS.items():
        assert f"{section}:" in printed
        assert all(name in printed for name in verbs)


@pytest.mark.parametrize("name", [name for verbs in SECTIONS.values() for name in verbs])
def test_every_verb_has_help_of_its_own(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, name, "--help") == 0
    assert f"Usage: sparegrid {name}" in capsys.readouterr().out


def test_the_lines_of_the_help_are_about_the_verbs_they_name() -> None:
    context = click.Context(root)
    for verbs in SECTIONS.values():
        for name in verbs:
            command = root.get_command(context, name)
            assert command is not None
            assert command.name == name


def test_a_mistyped_verb_is_answered_with_the_nearest_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "devises") == 2
    assert "Did you mean 'devices'?" in capsys.readouterr().err


def test_a_wrong_option_is_told_on_standard_error_with_the_way_to_the_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "jobs", "--limit", "many") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "many" in printed.err
    assert "sparegrid jobs --help" in printed.err


def test_without_a_grid_every_reading_verb_says_how_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in (["jobs"], ["devices", "--json"], ["job", "1"], ["explain", "1"], ["top", "--once"]):
        assert run(tmp_path, *verb) == 3
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "sparegrid coordinator" in printed.err
        assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    "verb", [["job", "x"], ["cancel", "1.5"], ["retry", "17", "18.0.1"], ["logs", "a.b"]]
)
def test_what_is_no_job_is_refused_before_anybody_is_asked(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *verb) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("debug", [True, False])
def test_a_fault_of_the_program_is_told_without_a_traceback_unless_asked(
    debug: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Invocation) -> object:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Invocation, "client", broken)
    assert run(tmp_path, *(["--debug"] if debug else []), "jobs") == exits.CODE_INTERNAL
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: a bug" in shown
    assert ("Traceback" in shown) is debug


@pytest.mark.parametrize("cls", error_classes().values(), ids=lambda cls: cls.__name__)
def test_every_error_ends_with_its_own_exit_code_and_its_hint(
    cls: type[GridError], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Invocation) -> object:
        raise cls("A title", "the message", "the next step")

    monkeypatch.setattr(Invocation, "client", refused)
    assert run(tmp_path, "jobs") == cls.exit_code
    assert [line.strip() for line in capsys.readouterr().err.splitlines()] == [
        "A title",
        "the message",
        "the next step",
    ]


def test_all_exit_codes_are_documented() -> None:
    known = {code for code, _ in exit_code_table()}
    used = {str(value) for name, value in vars(exits).items() if name.startswith("CODE_")}
    assert used | {str(cls.exit_code) for cls in error_classes().values()} <= known


def _child(*arguments: str) -> list[str]:
    return [sys.executable, "-X", "importtime", "-m", "sparegrid.cli", *arguments]


def test_help_loads_no_room_no_network_and_no_tables(tmp_path: Path) -> None:
    done = subprocess.run(
        _child("--help"), capture_output=True, text=True, check=True, timeout=30, env=_environ(tmp_path)
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"aiohttp", "rich", "zeroconf", "cryptography", "numpy", "sqlite3", *ROOMS}
    assert not {name for name in loaded if name.split(".")[0] in heavy}


def test_only_the_programs_load_the_rooms(tmp_path: Path) -> None:
    done = subprocess.run(
        _child("devices"), capture_output=True, text=True, check=False, timeout=30, env=_environ(tmp_path)
    )
    assert done.returncode == 3
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not loaded & set(ROOMS)


def test_help_appears_within_a_quarter_of_a_second_of_processor_time(tmp_path: Path) -> None:
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "sparegrid.cli", "--help"],
        capture_output=True,
        check=True,
        env=_environ(tmp_path),
    )
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    assert used < 0.25


@pytest.mark.parametrize("verb", ["job-schema", "config show", "version"])
def test_a_reader_that_leaves_ends_the_program_quietly(verb: str, tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m sparegrid.cli {verb}; echo $? >&2",
        shell=True,
        executable="/bin/sh",
        stdout=_closed_pipe(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=_environ(tmp_path),
    )
    assert done.stderr.split() == ["141"]


def _closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_waiting_verb_with_its_own_code(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sparegrid.cli", "discover", "--for", "60s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environ(tmp_path),
    )
    with process:
        deadline = time.monotonic() + 30
        while not _waits(process.pid):
            assert time.monotonic() < deadline, "the verb does not begin to wait"
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (code, b"", b"")


def _waits(pid: int) -> bool:
    """It has opened its sockets, so its event loop and signal handlers are up."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(fd.readlink()))
    return sum(link.startswith("socket:") for link in links) >= 3


def _environ(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SPAREGRID_")}
    return kept | {"SPAREGRID_HOME": str(home)}


def test_version_is_told_in_words_and_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "version", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert run(tmp_path, "version") == 0
    words = capsys.readouterr().out
    assert about["version"] in words
    assert about["protocol"] in words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_calls_back(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "completion", shell) == 0
    assert "_SPAREGRID_COMPLETE" in capsys.readouterr().out


def test_the_completion_script_completes_verbs(tmp_path: Path) -> None:
    environ = _environ(tmp_path) | {
        "_SPAREGRID_COMPLETE": "bash_complete",
        "COMP_WORDS": "sparegrid dev",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [str(Path(sys.executable).parent / "sparegrid")],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == ["devices", "device"]


def test_documents_are_printed_without_a_coordinator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "job-schema") == 0
    assert "properties" in capsys.readouterr().out
    assert run(tmp_path, "openapi") == 0
    assert json.loads(capsys.readouterr().out)["openapi"].startswith("3.1")


def test_a_command_to_copy_is_one_line_on_the_narrowest_terminal() -> None:
    screen = io.StringIO()
    invocation = Invocation({})
    invocation._out = Console(file=screen, force_terminal=True, width=20, color_system=None)
    command = "sparegrid worker --join " + "-".join(["ABCD"] * 16)
    invocation.show(commands((command, "")))
    assert screen.getvalue() == f"  {command}\n"
