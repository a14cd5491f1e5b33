"""Small parts by themselves: the queue of ranges, lists of items, globs, merged marks, the table of handlers."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.scheduler import events
from coordinator.scheduler.items import ItemList, large_hashes
from coordinator.scheduler.machine import HANDLERS
from coordinator.scheduler.marks import merged
from coordinator.scheduler.ranges import TaskQueue
from sparegrid.api import Items, RangeAxis
from sparegrid.globs import matches, matching
from sparegrid.messages import FileEntry, Inline

Operation = tuple[str, int, int]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "discard", "take", "except", "these", "peek"]),
        st.integers(0, 99),
        st.integers(1, 99),
    )
)


@given(OPERATIONS)
def test_the_queue_is_a_set_that_gives_its_smallest_first(operations: list[Operation]) -> None:
    queue = TaskQueue(200)
    known: dict[int, None] = {}
    for name, low, size in operations:
        members = sorted(known)
        match name:
            case "add":
                queue.add(low, low + size)
                known.update(dict.fromkeys(range(low, low + size)))
            case "discard":
                assert queue.discard(low, low + size) == sum(1 for one in members if low <= one < low + size)
                known = {one: None for one in members if not low <= one < low + size}
            case "take":
                assert flat(queue.take(size)) == members[:size]
                known = dict.fromkeys(members[size:])
            case "except":
                barred = frozenset(range(low, low + 20))
                expected = [one for one in members if one not in barred][:size]
                assert flat(queue.take_except(size, barred)) == expected
                known = {one: None for one in members if one not in expected}
            case "these":
                assert flat(queue.take_these([low])) == [low] * (low in known)
                known.pop(low, None)
            case _:
                assert queue.peek() == min(known, default=-1)
        assert queue.count == len(known)
        assert [one for one in range(200) if one in queue] == sorted(known)


def flat(runs: list[tuple[int, int]]) -> list[int]:
    return [index for low, high in runs for index in range(low, high)]


def test_a_queue_of_ten_million_is_taken_in_runs() -> None:
    queue = TaskQueue(10_000_000)
    queue.add(0, 10_000_000)
    assert queue.take(1000) == [(0, 1000)]
    queue.add(17, 18)
    assert queue.take(3) == [(17, 18), (1000, 1002)]
    assert queue.count == 10_000_000 - 1002


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (Items(), [None]),
        (Items(count=2), [None, None]),
        (Items(values=["a", {"b": 1}, None]), ["a", {"b": 1}, None]),
        (Items(axes={"x": [1, 2], "y": ["a"]}), [{"x": 1, "y": "a"}, {"x": 2, "y": "a"}]),
        (Items(axes={"n": RangeAxis(0, 0.3, 0.1)}), [{"n": 0}, {"n": 0.1}, {"n": 0.2}, {"n": 0.3}]),
        (Items(axes={"n": RangeAxis(3, 1, -1)}), [{"n": 3}, {"n": 2}, {"n": 1}]),
        (Items(axes={"n": RangeAxis(1, 0)}), []),
        (Items(axes={"n": RangeAxis(5, 5)}), [{"n": 5}]),
    ],
)
def test_items_are_listed_or_computed(items: Items, expected: list[Any]) -> None:
    made = ItemList.of(items)
    assert [made.item(index) for index in range(len(made))] == expected


def test_fractions_stay_fractions_along_an_axis() -> None:
    made = ItemList.of(Items(axes={"n": RangeAxis(0.5, 1.5, 0.5)}))
    assert [type(made.item(index)["n"]) for index in range(3)] == [float, float, float]


def test_the_last_axis_varies_fastest() -> None:
    made = ItemList.of(Items(axes={"x": [1, 2], "y": [1, 2, 3]}))
    assert [tuple(made.item(index).values()) for index in range(4)] == [(1, 1), (1, 2), (1, 3), (2, 1)]


def test_items_survive_a_snapshot() -> None:
    made = ItemList(2)
    made.extend(["a", 7])
    again = ItemList()
    again.load(made.dump())
    assert [again.item(index) for index in range(4)] == [None, None, "a", 7]


@pytest.mark.parametrize("item", [None, 3, {"file": "x"}, {"file": {"content": {"t": "inline"}}}])
def test_items_without_a_large_file_bring_no_blob(item: Any) -> None:
    assert large_hashes(item, 10) == []


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("*.png", "a.png", True), ("*.png", "d/a.png", False), ("**", "d/e/a.png", True), ("**/*.png", "a.png", True),
        ("**/*.png", "d/e/a.png", True), ("d/**", "d/a", True), ("d/**", "e/a", False), ("d/**", "d/", False),
        ("a?.txt", "ab.txt", True), ("a?.txt", "a/.txt", False), ("a[0-9]", "a7", True), ("a[!0-9]", "a7", False),
        ("a[!0-9]", "a/", False), ("[", "[", True), ("[]]", "]", True), ("a.b", "axb", False), ("", "a", False),
        ("Ä*", "Äpfel", True), ("*", "a\nb", True),
    ],
)  # fmt: skip
def test_globs_match_as_in_a_shell(glob: str, path: str, expected: bool) -> None:
    assert matches(path, glob) is expected


@given(st.text("ab/*?[]!^-\\&|~.", max_size=8), st.text("ab/-]", max_size=6))
def test_no_glob_makes_the_matcher_fail(glob: str, path: str) -> None:
    assert matches(path, glob) in {True, False}


def test_matching_files_come_in_order_of_path() -> None:
    files = [FileEntry(path, Inline(b"")) for path in ("b", "a/x", "a")]
    assert [one.path for one in matching(files, "**")] == ["a", "a/x", "b"]
    assert matching(files, "") == []


def test_marks_merge_into_disjoint_ranges() -> None:
    assert merged([(5, 6), (0, 2), (2, 3), (1, 2), (9, 12)]) == [(0, 2), (5, 5), (9, 11)]


def test_every_event_has_a_handler() -> None:
    assert set(HANDLERS) == set(typing.get_args(events.SchedulerEvent))
