"""`sparegrid config`: what is set, where it came from, and changing it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.running import run


def shown(home: Path, capsys: pytest.CaptureFixture[str], key: str, **environ: str) -> dict[str, object]:
    assert run(home, "config", "show", key, "--json", environ=environ) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert isinstance(row, dict)
    return row


def test_a_setting_names_its_source_as_it_changes_hands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(tmp_path, capsys, "worker.slots")["source"] == "default"
    assert run(tmp_path, "config", "set", "worker.slots", "3") == 0
    assert capsys.readouterr().out == "worker.slots = 3\n"
    row = shown(tmp_path, capsys, "worker.slots")
    assert row["value"] == 3
    assert "config.toml" in str(row["source"])
    row = shown(tmp_path, capsys, "worker.slots", SPAREGRID_WORKER_SLOTS="5")
    assert (row["value"], row["source"]) == (5, "SPAREGRID_WORKER_SLOTS")
    assert run(tmp_path, "config", "unset", "worker.slots") == 0
    assert shown(tmp_path, capsys, "worker.slots")["source"] == "default"


def test_a_variable_that_beats_the_file_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"SPAREGRID_WORKER_SLOTS": "5"}
    assert run(tmp_path, "config", "set", "worker.slots", "3", environ=environ) == 0
    assert "SPAREGRID_WORKER_SLOTS is set and beats the file" in capsys.readouterr().err


def test_a_secret_is_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"SPAREGRID_TOKEN": "hunter2"}
    for more in ([], ["--json"]):
        assert run(tmp_path, "config", "show", *more, environ=environ) == 0
        assert "hunter2" not in capsys.readouterr().out


def test_an_unknown_key_or_a_wrong_value_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "config", "set", "worker.slot", "3") == 2
    assert "worker.slot" in capsys.readouterr().err
    assert run(tmp_path, "config", "set", "worker.slots", "many") == 2
    assert "many" in capsys.readouterr().err
    assert run(tmp_path, "config", "show", "nothing") == 5


def test_one_setting_is_a_card_with_sizes_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "config", "set", "worker.cache", "3GiB") == 0
    assert "next start of `sparegrid worker`" in capsys.readouterr().err
    assert run(tmp_path, "config", "show", "worker.cache") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Setting   worker.cache", "Value     3 GiB"]
    assert any(line.startswith("Meaning ") for line in lines)


def test_a_pipe_gets_whole_lines_however_narrow_the_terminal_beside_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run(tmp_path, "config", "show") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all("SPAREGRID_" in line for line in lines[1:])


def test_the_path_is_below_the_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "config", "path") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "config" / "config.toml")
