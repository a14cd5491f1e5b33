"""Folders of one home."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sparegrid.errors import ConfigError
from sparegrid.paths import MAX_SOCKET_PATH_BYTES, Paths


def test_everything_is_below_the_home_that_is_named(tmp_path: Path) -> None:
    paths = Paths.find({"SPAREGRID_HOME": str(tmp_path / "home")})
    assert [
        one.relative_to(tmp_path / "home").as_posix()
        for one in (paths.config, paths.data, paths.cache, paths.run)
    ] == [
        "config",
        "data",
        "cache",
        "run",
    ]
    for one in (
        paths.config_file,
        paths.access_file,
        paths.coordinator,
        paths.worker,
        paths.grid("g"),
        paths.grid_cache("g"),
    ):
        assert one.is_relative_to(tmp_path / "home")


def test_without_a_home_the_platform_names_the_folders() -> None:
    paths = Paths.find({})
    assert all("sparegrid" in str(one) for one in (paths.config, paths.data, paths.cache, paths.run))
    assert Paths.find({"SPAREGRID_HOME": ""}) == paths
    assert paths.run == paths.data / "run"
    assert Paths.find({"XDG_RUNTIME_DIR": "/run/user/7"}).run == Path("/run/user/7/sparegrid")


def test_a_relative_home_is_below_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Paths.find({"SPAREGRID_HOME": "grid"}).data == tmp_path / "grid" / "data"


def test_folders_are_made_for_this_user_only(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path / "home").make().make()
    assert stat.S_IMODE(paths.data.stat().st_mode) == 0o700


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(ConfigError, match="is a file"):
        Paths.find({"SPAREGRID_HOME": str(tmp_path / "home")})


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/home/config"):
        Paths.below(tmp_path / "file" / "home").make()


def test_a_socket_lies_in_the_home_unless_its_path_is_too_long_for_the_kernel(tmp_path: Path) -> None:
    assert Paths.below(Path("/h")).socket("worker") == Path("/h/run/worker.sock")
    deep = Paths.below(tmp_path / ("deep" * 30))
    socket = deep.socket("worker")
    assert len(str(socket)) <= MAX_SOCKET_PATH_BYTES
    assert socket == deep.socket("worker")
    assert socket != Paths.below(tmp_path / ("peed" * 30)).socket("worker")
