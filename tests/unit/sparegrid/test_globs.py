"""Globs over output files."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparegrid.globs import matches, matching
from sparegrid.messages import FileEntry, Inline


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("*.png", ["a.png", ".png"], ["a/b.png", "a.pngx", "a.PNG"]),
        ("**", ["a", "a/b/c"], [""]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a"]),
        ("**/b", ["b", "a/b", "a/a/b"], ["ab", "b/a"]),
        ("a/**/b", ["a/b", "a/x/y/b"], ["a/xb", "b"]),
        ("tile-?.png", ["tile-1.png"], ["tile-12.png", "tile-.png"]),
        ("[a-c]x[!0-9]", ["axb", "cx-"], ["dxb", "ax5"]),
        ("[]]", ["]"], ["["]),
        ("[z-a]", [], ["z", "a", "m"]),
        ("[", ["["], ["]"]),
        ("[!-]", ["a"], ["-"]),
        ("", [], ["", "a"]),
    ],
)
def test_a_glob_matches_these_and_not_those(glob: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in yes + no if matches(path, glob)] == yes


@given(st.text("ab[]!-*?", max_size=8), st.text("ab-]", min_size=1, max_size=6))
def test_a_name_without_folders_and_sets_matches_as_in_a_shell(glob: str, name: str) -> None:
    plain = glob.replace("[", "").replace("**", "*")
    assert matches(name, plain) == (fnmatch.fnmatchcase(name, plain) and bool(plain))
    matches(name, glob)  # no glob is an error


def test_no_glob_takes_exponential_time() -> None:
    assert not matches("a" * 2000 + "b", "*a" * 600)
    assert not matches("a/" * 500 + "b", "**/" * 200 + "c")


def test_files_that_match_come_in_order_of_their_path() -> None:
    files = [FileEntry(path, Inline(b"")) for path in ("b.txt", "a.txt", "c.png")]
    assert [entry.path for entry in matching(files, "*.txt")] == ["a.txt", "b.txt"]
    assert matching(files, "") == []
