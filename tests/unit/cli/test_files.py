"""Files on their way into jobs and out of results."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparegrid.api import TaskResult
from sparegrid.cli.files import Fetch, LocalFile, local_files, plan_fetches, safe_file_name
from sparegrid.errors import BadInputError
from sparegrid.messages import FileEntry, Inline, Outcome

CONTENT = Inline(b"x")


def result(stage: str, index: int, *paths: str, value: bytes | None = None) -> TaskResult:
    files = [FileEntry(path, CONTENT) for path in paths]
    outcome = Outcome(files=files, value=None if value is None else Inline(value))
    return TaskResult(f"1.0.{index}", stage, index, "done", outcome=outcome)


def targets(folder: Path, plans: list[Fetch]) -> list[str]:
    return sorted(plan.target.relative_to(folder).as_posix() for plan in plans)


def test_a_relative_file_keeps_its_path_and_another_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/deep").mkdir(parents=True)
    for name in ("data/a.csv", "data/deep/b.csv", "script.sh"):
        Path(name).write_text("x")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.txt"
    outside.write_text("x")
    found = local_files(["data", "script.sh", str(outside), "script.sh=bin/run"])
    assert [file.path for file in found] == [
        "data/a.csv",
        "data/deep/b.csv",
        "script.sh",
        outside.name,
        "bin/run",
    ]


def test_a_missing_file_and_two_files_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("x")
    Path("b").write_text("x")
    with pytest.raises(BadInputError, match="'c' is not a file"):
        local_files(["a", "c"])
    with pytest.raises(BadInputError, match="Two files want one name"):
        local_files(["a=x", "b=x"])
    assert local_files(["a", "a"]) == [LocalFile(Path("a"), "a")]


def test_distinct_files_lie_directly_in_the_folder(tmp_path: Path) -> None:
    plans = plan_fetches(
        tmp_path, [result("main", 0, "a.png"), result("main", 1, "sub/b.png")], by_stage=False
    )
    assert targets(tmp_path, plans) == ["a.png", "sub/b.png"]


def test_colliding_files_get_a_folder_a_task_with_sortable_names(tmp_path: Path) -> None:
    plans = plan_fetches(tmp_path, [result("main", index, "out.txt") for index in (0, 9, 10)], by_stage=False)
    assert targets(tmp_path, plans) == ["00/out.txt", "09/out.txt", "10/out.txt"]


def test_stages_get_folders_and_only_those_that_collide_split(tmp_path: Path) -> None:
    results = [
        result("tiles", 0, "t.npy"),
        result("tiles", 1, "t.npy"),
        result("merge", 0, "p.png", value=b"7"),
    ]
    assert targets(tmp_path, plan_fetches(tmp_path, results, by_stage=True)) == [
        "merge/p.png",
        "merge/value.json",
        "tiles/0/t.npy",
        "tiles/1/t.npy",
    ]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "c:evil", "a\\..\\x", ""])
def test_a_path_that_leads_out_of_the_folder_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="leads out"):
        plan_fetches(tmp_path, [result("main", 0, path)], by_stage=False)


def test_a_link_in_the_folder_leads_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(BadInputError, match="leads out"):
        plan_fetches(folder, [result("main", 0, "link/x")], by_stage=False)


@pytest.mark.parametrize(
    ("stage", "name"), [("../../x", "______x"), ("a/b", "a_b"), ("...", "___"), ("été 1", "été 1")]
)
def test_a_stage_name_is_a_harmless_folder_name(stage: str, name: str) -> None:
    assert safe_file_name(stage) == name


def test_stages_whose_names_look_alike_on_a_disk_get_folders_of_their_own(tmp_path: Path) -> None:
    results = [result("x/1", 0, "f.txt"), result("x:1", 0, "f.txt"), result("X_1", 0, "f.txt")]
    plans = plan_fetches(tmp_path, results, by_stage=True)
    assert [plan.target.parent.name for plan in plans] == ["x_1", "x_1-2", "X_1-3"]


def test_files_that_differ_only_in_case_are_refused_rather_than_overwritten(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="Two files for one place"):
        plan_fetches(tmp_path, [result("main", 0, "a.txt", "A.txt")], by_stage=False)
