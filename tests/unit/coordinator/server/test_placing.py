"""Where files of needed tasks go."""

from __future__ import annotations

import random

import pytest

from coordinator.server.expand import spans, split_item
from coordinator.server.placing import Found, check_relative, place
from sparegrid.errors import BadInputError
from sparegrid.messages import FileEntry, Inline


def entry(path: str) -> FileEntry:
    return FileEntry(path, Inline(path.encode()))


def found(task: int, path: str, into: str = "", stage: int = 0) -> Found:
    return Found(stage, task, into, entry(path))


def test_a_file_keeps_its_path_below_the_folder_of_the_need() -> None:
    placed = place([found(3, "a/b.png", "tiles"), found(4, "c.png", "parts/{{index}}")])
    assert [each.path for each in placed] == ["tiles/a/b.png", "parts/4/c.png"]


def test_files_of_one_name_go_into_folders_of_their_tasks() -> None:
    placed = place([found(0, "out.txt"), found(1, "out.txt"), found(2, "other.txt")])
    assert [each.path for each in placed] == ["0/out.txt", "1/out.txt", "other.txt"]
    assert placed[0].content == Inline(b"out.txt")


def test_letter_case_counts_as_the_same_name() -> None:
    placed = place([found(0, "Out.txt"), found(1, "out.TXT")])
    assert [each.path for each in placed] == ["0/Out.txt", "1/out.TXT"]


def test_the_tasks_own_files_stay() -> None:
    assert [each.path for each in place([found(7, "scene.pov")], own=["scene.pov"])] == ["7/scene.pov"]


def test_a_file_gives_way_to_a_folder() -> None:
    assert [each.path for each in place([found(0, "x"), found(1, "x/y")])] == ["0/x", "x/y"]


def test_tasks_of_two_stages_with_one_index_are_told_apart() -> None:
    placed = place([found(0, "o", stage=0), found(0, "o", stage=1)])
    assert [each.path for each in placed] == ["0.0/o", "1.0/o"]


def test_where_a_file_goes_does_not_depend_on_the_order() -> None:
    files = [found(task, name) for task in range(20) for name in ("log", f"t{task}", "LOG2")]
    expected = {(each.task, each.entry.path): at.path for each, at in zip(files, place(files), strict=True)}
    random.Random(3).shuffle(files)
    assert {
        (each.task, each.entry.path): at.path for each, at in zip(files, place(files), strict=True)
    } == expected


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a\\b", "C:/x", "a\0"])
def test_paths_that_lead_out_are_refused(path: str) -> None:
    with pytest.raises(BadInputError, match="here"):
        check_relative(path, "here")


def test_spans_join_what_lies_close() -> None:
    assert spans([5, 3, 4, 100, 104]) == [(3, 5), (100, 104)]
    assert spans([]) == []


def test_an_item_with_a_file_becomes_its_path_and_the_file() -> None:
    item = {"file": {"path": "a.png", "content": {"t": "inline", "data": "aGk="}}, "size": 3}
    assert split_item(item) == ({"file": "a.png", "size": 3}, [FileEntry("a.png", Inline(b"hi"))])


@pytest.mark.parametrize("item", [None, 3, {"x": 1}, {"file": "name.txt"}])
def test_other_items_stay_as_they_are(item: object) -> None:
    assert split_item(item) == (item, None)
